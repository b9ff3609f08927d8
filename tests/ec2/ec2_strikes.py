"""Calls of AWS that change something: which there are in the product, and what a test does to each of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import botocore.session
from botocore import xform_name
from ec2lab import Cloud, Fault
from ec2lab.wire import Request

from cloudsend_cli.providers.aws.clients import ATTEMPTS, LAUNCH_ATTEMPTS

KINDS = ("reply lost", "request lost", "error before", "error after")
READS = ("Describe", "Get", "List")
PRODUCT = Path(__file__).parents[2] / "cloudsend_cli" / "providers" / "aws"


def is_change(action: str) -> bool:
    return not action.startswith(READS)


def has_effect(request: Request) -> bool:
    return request.params.get("DryRun") != "true"


def strike(ec2: Cloud, action: str, kind: str, region: str, attempts: int = ATTEMPTS) -> Fault:
    """The next call, with so many attempts of the SDK, comes to nothing, as far as its caller can see."""
    times = min(attempts, LAUNCH_ATTEMPTS) if action == "RunInstances" else attempts
    if kind == "reply lost":
        return ec2.lose_reply(action, times=times, region=region, when=has_effect)
    if kind == "request lost":
        return ec2.lose_request(action, times=times, region=region, when=has_effect)
    after = kind == "error after"
    return ec2.inject(action, "InternalError", status=500, times=times, region=region, after=after, when=has_effect)


# ---- what the product calls ----------------------------------------------------------------------------------------


def list_changes() -> set[str]:
    """Every call of the product that is no look, by the names of boto3's methods in its text."""
    trees = [ast.parse(path.read_text("utf-8")) for path in PRODUCT.glob("*.py")]
    words = {word for tree in trees for word in _words(tree)}
    session = botocore.session.get_session()
    found = set()
    for service in words & set(session.get_available_services()):
        actions = session.get_service_model(service).operation_names
        found |= {action for action in actions if xform_name(action) in words and is_change(action)}
    return found


def list_unreadable_verbs() -> list[str]:
    """Places where a method of boto3 is put together from parts, which `list_changes` cannot read."""
    found = []
    for path in PRODUCT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(node.args) > 2:
                verb = node.args[2]
                if node.func.attr in {"call", "pages"} and not isinstance(
                    verb, (ast.Constant, ast.Name, ast.Attribute)
                ):
                    found.append(f"{path.name}:{verb.lineno}")
    return found


def _words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Attribute):
            yield node.attr

"""The permissions that cloudsend needs and no more, as an IAM policy: what carries no owner tag is out of reach."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from cloudsend_cli.errors import UsageError

_ANY_OWNER = '"?*"'
_PARTITION = "arn:aws:"
FIND_ANY = (
    "what one that is gone has left, such as a security group, carries its tag cloudsend:owner, and is listed for "
    "each region by `aws ec2 describe-tags --filters Name=key,Values=cloudsend:owner`"
)
PARTITIONS = ("aws", "aws-cn", "aws-us-gov")


def render_policy(owner: str = "", partition: str = "aws") -> str:
    """JSON for `aws iam create-policy`.

    With an owner, the identity of one state directory, only its machines are within reach; without one, those of every
    cloudsend of the account.
    """
    if partition not in PARTITIONS:
        raise UsageError(f"there is no partition {partition!r} of AWS", hint=f"there are {', '.join(PARTITIONS)}")
    text = _read()
    if owner:
        text = text.replace(_ANY_OWNER, json.dumps(owner))
    return text.replace(_PARTITION, f"arn:{partition}:")


def load_policy() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(_read())
    return loaded


@cache
def list_statements() -> dict[str, tuple[str, ...]]:
    """The names of the statements that allow each action, such as `ec2:StopInstances`."""
    found: dict[str, tuple[str, ...]] = {}
    for statement in load_policy()["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            found[action] = (*found.get(action, ()), statement["Sid"])
    return found


@cache
def _read() -> str:
    return files(__package__).joinpath("policy.json").read_text("utf-8")

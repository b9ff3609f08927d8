"""User data as cloud-init reads it: what it says to do, before anything is done."""

from __future__ import annotations

import email
import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

import yaml

KINDS = {
    b"#cloud-boothook": "text/cloud-boothook",
    b"#cloud-config": "text/cloud-config",
    b"#!": "text/x-shellscript",
    b"## template: jinja": "text/jinja2",
    b"#include": "text/x-include-url",
}
UNTYPED = {"text/plain", "text/x-not-multipart", "application/octet-stream"}


@dataclass
class BootPlan:
    boothooks: list[bytes] = field(default_factory=list)
    """Run at each boot before anything else."""
    config: dict[str, Any] = field(default_factory=dict)
    """All #cloud-config parts: lists are joined, of other values the first stays."""
    scripts: list[bytes] = field(default_factory=list)
    """Run once, after sshd."""
    problems: list[str] = field(default_factory=list)


def parse_user_data(data: bytes) -> BootPlan:
    plan = BootPlan()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    if not data.strip():
        return plan
    for said, content in _parts(data):
        starts = (name for start, name in KINDS.items() if content.lstrip().startswith(start))
        kind = next(starts, said) if said in UNTYPED else said
        if kind == "text/cloud-boothook":
            plan.boothooks.append(content)
        elif kind == "text/x-shellscript":
            plan.scripts.append(content)
        elif kind == "text/cloud-config":
            _merge(plan, content)
        else:
            plan.problems.append(f"Unhandled non-multipart ({kind}) userdata: '{content[:24]!r}...'")
    return plan


def _parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    if not _is_mime(data):
        yield "text/plain", data
        return
    message = email.message_from_bytes(data)
    parts: list[Message] = [part for part in message.walk() if not part.is_multipart()]
    for part in parts:
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        yield part.get_content_type(), gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def _is_mime(data: bytes) -> bool:
    head = data[:2048].lower()
    return b"mime-version:" in head or head.startswith(b"content-type:")


def _merge(plan: BootPlan, content: bytes) -> None:
    try:
        found = yaml.safe_load(content)
    except yaml.YAMLError as error:
        plan.problems.append(f"Failed loading yaml blob: {error}")
        return
    if not isinstance(found, dict):
        plan.problems.append(f"Failed loading yaml blob: it is a {type(found).__name__}, not a mapping")
        return
    for key, value in found.items():
        old = plan.config.get(key)
        if isinstance(old, list) and isinstance(value, list):
            plan.config[key] = old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            plan.config[key] = {**value, **old}
        else:
            plan.config.setdefault(key, value)

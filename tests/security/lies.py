"""A machine that answers a fetch as a test likes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.engine.asking import Ahead
from cloudsend_cli.engine.results import Home
from cloudsend_cli.engine.transfer import fetch_files


def entry(path: object, data: bytes = b"x", **more: object) -> dict[str, object]:
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "mode": 0o644, **more}


def link(path: object, target: object) -> dict[str, object]:
    return {"path": path, "link": target}


@dataclass
class Lie:
    """One machine's answers. `words` stand in the error; "" where what is good of it comes home."""

    files: object
    words: str = ""
    home: dict[str, bytes] | None = None  # what comes home
    links: dict[str, str] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)  # else each file is b"x"
    reply: Callable[[dict[str, Any]], Frame] | None = None  # to a read

    def answer(self, op: str, fields: dict[str, Any]) -> Frame:
        if op == "manifest":
            return self.files if isinstance(self.files, Frame) else Frame(ok=True, files=self.files)
        if self.reply is not None:
            return self.reply(fields)
        data = self.sent.get(fields["path"], b"x")
        return with_payload(data[fields["offset"] : fields["offset"] + fields["length"]])


def with_payload(data: bytes, **fields: object) -> Frame:
    reply = Frame(ok=True, **fields)
    reply.payload = data
    return reply


def fetch(lie: Lie, home: Home, attempt: str = "r.1.1") -> str:
    conversation = fetch_files(attempt, ["**"], home)
    asked: list[list[Any]] = []
    replies: list[Frame] | None = None
    try:
        while True:
            wish = next(conversation) if replies is None else conversation.send(replies)
            ahead = isinstance(wish, Ahead)
            asks = wish.asks if isinstance(wish, Ahead) else wish
            if asks:
                asked.append(list(asks))
            replies = [] if ahead or not asked else [lie.answer(a.op, a.fields) for a in asked.pop(0)]
    except StopIteration as end:
        return str(end.value)

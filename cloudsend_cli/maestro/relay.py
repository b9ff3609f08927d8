"""Logs of attempts on other machines, read through the maestro's connection to them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudsend_cli.errors import UnreachableError

from .client import find_maestro
from .sockets import Message


@dataclass(frozen=True, slots=True)
class RelaySource:
    """A log source (see engine.logs) for one stream of one attempt."""

    state_dir: Path
    run: str
    node: str
    attempt: str
    stream: str

    def read(self, offset: int, length: int) -> bytes:
        return base64.b64decode(str(self._ask(offset, length).get("data", "")))

    def size(self) -> int:
        total = self._ask(0, 0).get("total")
        return total if isinstance(total, int) else 0

    def _ask(self, offset: int, length: int) -> Message:
        maestro = find_maestro(self.state_dir)
        if maestro is None:
            raise UnreachableError("no maestro runs, and the log is on another machine", hint="`cloudsend tail -f`")
        place: dict[str, Any] = {"run": self.run, "node": self.node, "attempt": self.attempt, "stream": self.stream}
        try:
            answer = maestro.ask("read_log", **place, offset=offset, length=length)
        finally:
            maestro.close()
        error = answer.get("error")
        if isinstance(error, dict):
            raise UnreachableError(str(error.get("message")))
        return answer

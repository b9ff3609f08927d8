"""The process of a running attempt, asked from the machine that executes it: nothing of it is stored."""

from __future__ import annotations

from collections.abc import Callable

from cloudsend_cli.engine.asking import Ask, Conversation
from cloudsend_cli.engine.hostlink import HostLink

PID_MOST = 1 << 32


def ask_pid(link: HostLink, attempt: str, answer: Callable[[int | None], None]) -> None:
    """None: it does not run there, or the machine does not answer now. `answer` is called by the link's thread."""

    def conversation() -> Conversation:
        (frame,) = yield [Ask("report", {"attempts": [attempt]})]
        answer(parse_pid(frame.get("attempts"), attempt) if frame.ok else None)

    link.converse(conversation, lambda: answer(None))


def parse_pid(statuses: object, attempt: str) -> int | None:
    """What a machine says may be anything."""
    status = statuses.get(attempt) if isinstance(statuses, dict) else None
    if not isinstance(status, dict) or status.get("state") != "running":
        return None
    pid = status.get("pid")
    return pid if type(pid) is int and 0 < pid < PID_MOST else None

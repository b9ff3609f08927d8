"""Jobs as commands get them, for the tests of this folder."""

from __future__ import annotations

from typing import Any

from cloudsend_cli.core.views import JobView

MIDNIGHT = 1_700_006_400.0


def make_job(number: int = 1, **values: Any) -> JobView:
    fields: dict[str, Any] = {
        "id": f"ab12cd.{number}",
        "name": f"train-{number}",
        "run": "ab12cd",
        "number": number,
        "state": "succeeded",
        "phase": "DONE",
        "reason": "",
        "exit_code": 0,
        "attempt": 1,
        "uid": f"ab12cd.{number}.1",
        "instance": "local-0",
        "provider": "local",
        "hash": "0123456789abcdef",
        "command": "python train.py",
        "created_at": MIDNIGHT,
        "started_at": MIDNIGHT + 1,
        "ended_at": MIDNIGHT + 63,
        "params": {},
    }
    return JobView(**{**fields, **values})


FAILED = make_job(2, state="failed", phase="ABORTED", reason="exit 3", exit_code=3)
HOSTILE = make_job(3, name="\x1b]0;x\x07\nID\u202e", command="echo '\udc80'", params={"a": "\x1b[2J"})

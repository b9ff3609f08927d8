"""Carries out commands, a line each, in one process; a line of the mark and the exit status follows each answer.

The SDK makes fewer attempts than usual, as it waits seconds between them.
"""

from __future__ import annotations

import sys

import pytest

from cloudsend_cli.cli.session import Session
from cloudsend_cli.cli.settings import Settings
from cloudsend_cli.cli.shell import run_line

MARK = "exit status"
ATTEMPTS = 2


def main() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloudsend_cli.providers.aws.clients.ATTEMPTS", ATTEMPTS)
        session = Session(Settings())
        for line in sys.stdin:
            status = run_line(line, session)
            sys.stderr.flush()
            print(f"{MARK} {status}", flush=True)
        session.close()


if __name__ == "__main__":
    main()

"""Which runs' tables are still to be written: an empty file for each in the state directory.

It is there from before a run's first job ends until its tables are, so that the maestro after one that died between
the two writes them. What is asked often is kept in memory, and the files are looked at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

FOLDER = "tables"  # in the state directory


def list_owed(state_dir: Path) -> list[str]:
    """Runs that a maestro has to look at, if none does: they are being executed, or end without their tables."""
    try:
        return sorted(os.listdir(state_dir / FOLDER))
    except OSError:
        return []


class OwedTables:
    """Of one maestro. Used by its thread, and by those that write tables."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER
        self._lock = threading.Lock()
        self._times = dict.fromkeys(list_owed(state_dir), 1)  # run -> how often they came to be owed

    def __contains__(self, run: str) -> bool:
        return run in self._times

    def runs(self) -> list[str]:
        return sorted(self._times)

    def owe(self, run: str) -> None:
        """Also while they are being written: these will not be the last ones."""
        with self._lock:
            self._times[run] = self._times.get(run, 0) + 1
            if self._times[run] == 1:
                with contextlib.suppress(OSError):  # a full disk: this maestro knows it all the same
                    self._folder.mkdir(mode=0o700, exist_ok=True)
                    os.close(os.open(self._folder / run, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def ticket(self, run: str) -> int:
        """For `settle`, from before the tables are read from the store."""
        return self._times.get(run, 0)

    def settle(self, run: str, ticket: int) -> None:
        """They are written, or will never be. Nothing changes if they came to be owed anew since."""
        with self._lock:
            if self._times.get(run) == ticket:
                del self._times[run]
                with contextlib.suppress(OSError):
                    (self._folder / run).unlink()

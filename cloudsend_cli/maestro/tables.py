"""The tables of a run that has settled, written by a thread of their own: ticks go on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from cloudsend_cli.core.state import RunState
from cloudsend_cli.engine.result_tables import write_tables
from cloudsend_cli.errors import CloudsendError
from cloudsend_cli.store.sqlite import SqliteStore

from .owed import OwedTables

HELD_MOST = 10.0  # seconds for which it is not told that a run has settled, as its tables are being written


class RunTables:
    """Owned by the maestro's thread. A failure to write them is a note, and fails nothing."""

    def __init__(
        self, state_dir: Path, run: str, owed: OwedTables, log: Callable[[str], None], wake: Callable[[], None]
    ) -> None:
        self.problem = ""
        self.until = 0.0  # monotonic: how long the end of the run is held back at most
        self._state_dir = state_dir
        self._run = run
        self._owed = owed
        self._log = log
        self._wake = wake
        self._writing = threading.Event()
        self._batch = 0  # the submission that was seen last
        self._open = False
        self._held = False

    def expect(self) -> None:
        """The run has been submitted: before the first tick that may settle it."""
        self._owed.owe(self._run)

    def forget(self) -> None:
        """There is no such run any more, or it cannot be read."""
        self._owed.settle(self._run, self._owed.ticket(self._run))

    def look(self, state: RunState) -> None:
        """After each tick: once the run has settled, and again when it was continued, they are written."""
        if (not state.settled and not self._open) or (self._batch and self._batch != state.run.batch):
            self._owed.owe(self._run)
        self._batch, self._open = state.run.batch, not state.settled
        if state.settled and self._run in self._owed and not self._writing.is_set():
            folder = Path(state.run.results_dir, state.run.id)
            if state.run.results_dir and tells_anything(state, folder):
                self._begin(folder)
            else:
                self.forget()

    def _begin(self, folder: Path) -> None:
        self.problem = ""
        self.until = time.monotonic() + HELD_MOST
        self._held = True
        self._writing.set()
        work = (folder, self._owed.ticket(self._run))
        threading.Thread(target=self._write, args=work, name=f"tables {self._run}", daemon=True).start()

    @property
    def holds(self) -> bool:
        """Whether those who follow the run are not to be told yet that it has settled."""
        return self._held and self._writing.is_set() and time.monotonic() < self.until

    def turned(self) -> bool:
        """True once after each time that it held."""
        turned = self._held and not self.holds
        self._held = self._held and not turned
        return turned

    def _write(self, folder: Path, ticket: int) -> None:
        try:
            with SqliteStore.open(self._state_dir, readonly=True) as store:
                write_tables(store, self._run, folder)
        except (CloudsendError, OSError) as problem:
            self._fail(str(problem))
        except Exception as problem:  # noqa: BLE001 - a bug here must not keep the run open
            self._fail(repr(problem))
        finally:
            # ORDER: what is settled twice is written twice; what is settled before it is written may never be.
            self._owed.settle(self._run, ticket)
            self._writing.clear()
            self._wake()

    def _fail(self, why: str) -> None:
        self.problem = f"the table of results was not written: {why}"
        self._log(f"run {self._run}: {self.problem}")


def tells_anything(state: RunState, folder: Path) -> bool:
    """A run without parameters, metrics and results gets no directory for the sake of its tables."""
    return folder.is_dir() or any(job.spec.params or job.metrics for job in state.jobs.values())

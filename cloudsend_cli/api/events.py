"""What happens in a run, for programs: from the audit trail, and starts from the jobs themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cloudsend_cli.core.model import PENDING, RUNNING
from cloudsend_cli.core.naming import job_id
from cloudsend_cli.core.views import Progress
from cloudsend_cli.engine import lookup
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import EventRow, JobRow

from .directory import Directory
from .watching import follow_with_pauses

PAUSE = 0.5  # seconds after which starts are looked for, of which no maestro tells
AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class JobStarted:
    """An attempt executes."""

    at: float
    run: str
    job: str  # its id
    name: str
    attempt: int
    instance: str


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has come to a final state."""

    at: float
    run: str
    job: str
    name: str
    attempt: int
    state: str
    reason: str
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class JobReopened:
    """Another attempt is to be made: of what failed and is tried again, or was lost. `reason` says why."""

    at: float
    run: str
    job: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class MachineChanged:
    """A machine of the run is wanted, being created, running, given back, or failed."""

    at: float
    run: str
    machine: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunSettled:
    """The last event: every job has ended, and all results are at home or given up."""

    run: str
    state: str
    counts: Mapping[str, int]


RunEvent = JobStarted | JobEnded | JobReopened | MachineChanged | RunSettled


def list_events(home: Directory, ref: str, since: int | None, timeout: float | None) -> Iterator[RunEvent]:
    """From the line `since` of the audit trail on, until the run is settled, or `timeout` seconds are over."""
    run = lookup.find_run(home.reader(), ref)
    teller = _Teller(home, run, since or 0)
    last: Progress | None = None
    for progress in follow_with_pauses(home, run, timeout, PAUSE):
        last = progress or last
        yield from teller.news()
    if last is not None and last.settled:
        yield RunSettled(run, last.state, dict(last.counts))


class _Teller:
    """Asks again and again. Each start is told once, at the latest before its end."""

    def __init__(self, home: Directory, run: str, since: int) -> None:
        self._home = home
        self._run = run
        self._seen = since
        self._started: dict[int, int] = {}  # job number -> the newest attempt whose start is told
        self._since: float | None = None  # when the first line was written
        self._look_at = 0.0  # for starts: that takes longer the more jobs there are

    def news(self) -> Iterator[RunEvent]:
        store = self._home.reader()
        while lines := store.events_after(self._run, self._seen, AT_ONCE):
            for line in lines:
                self._seen = line.seq
                self._since = line.at if self._since is None else self._since
                yield from self._tell(store, line)
        if time.monotonic() >= self._look_at:
            for row in store.list_jobs(self._run, [RUNNING]):
                yield from self._tell_start(row)
            self._look_at = time.monotonic() + PAUSE

    def _tell(self, store: SqliteStore, line: EventRow) -> Iterator[RunEvent]:
        state, _, reason = line.text.partition(" ")
        if line.kind == "node":
            yield MachineChanged(line.at, self._run, line.subject.rpartition("/")[2], state, reason)
        if line.kind not in {"job-ended", "job-reopened"}:
            return
        number = int(line.subject.rpartition(".")[2])
        for row in store.find_jobs(run=self._run, number=number):
            name = job_id(self._run, number)
            yield from self._tell_earlier(store, row)
            yield from self._tell_start(row)
            if line.kind == "job-reopened":
                yield JobReopened(line.at, self._run, name, row.name, line.text)
                continue
            newest = (row.state, row.reason) == (state, reason)
            code = row.exit_code if newest else None
            yield JobEnded(line.at, self._run, name, row.name, row.attempt, state, reason, code)

    def _tell_earlier(self, store: SqliteStore, row: JobRow) -> Iterator[RunEvent]:
        """Attempts that were over before anybody looked."""
        if row.attempt - (row.state != PENDING) > self._started.get(row.number, 0):
            for past in store.history(row.run, row.number):
                # The times of handing out are this machine's, as those of the audit trail.
                if past.handed_at is not None and self._since is not None and past.handed_at >= self._since:
                    yield from self._tell_attempt(row, past.attempt, past.started_at, past.node)

    def _tell_start(self, row: JobRow) -> Iterator[RunEvent]:
        if row.state != PENDING:
            yield from self._tell_attempt(row, row.attempt, row.started_at, row.node)

    def _tell_attempt(self, row: JobRow, attempt: int, at: float | None, node: str) -> Iterator[RunEvent]:
        if at is not None and attempt > self._started.get(row.number, 0):
            self._started[row.number] = attempt
            yield JobStarted(at, self._run, job_id(self._run, row.number), row.name, attempt, node)

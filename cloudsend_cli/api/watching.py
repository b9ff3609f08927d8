"""Waiting for ends, and reading what jobs write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cloudsend_cli.core.losses import describe_absence
from cloudsend_cli.core.model import FAILED, FINAL_STATES, JOB_STATES, PENDING, RUNNING
from cloudsend_cli.core.naming import build_id, job_id
from cloudsend_cli.core.silence import describe_silence
from cloudsend_cli.core.views import JobView, Progress, run_state_word
from cloudsend_cli.engine import logs, lookup
from cloudsend_cli.engine.homelogs import is_home
from cloudsend_cli.errors import MaestroError, NotFoundError, UnreachableError, WaitTimeout
from cloudsend_cli.maestro.client import MaestroClient, find_maestro
from cloudsend_cli.maestro.owed import list_owed
from cloudsend_cli.maestro.replies import parse_progress
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import JobRow

from .directory import Directory
from .reading import job_views

if TYPE_CHECKING:
    from cloudsend_cli.maestro.relay import Relay

Note = Callable[[str], None]
OPEN_STATES = (PENDING, RUNNING)
FEW = 50  # jobs that are asked for one by one
LISTEN = 2.0  # seconds between looks at the machines from which results are awaited
SILENT_MOST = 600.0  # for which they may be silent, all of them
LOG_PAUSE = 0.1
LOG_WITHIN = 0.5  # what a machine that is slow, or gone, holds up the logs of the others


def follow(home: Directory, run: str, timeout: float | None) -> Iterator[Progress]:
    run = lookup.find_run(home.reader(), run)
    return (progress for progress in follow_with_pauses(home, run, timeout, None) if progress is not None)


def follow_with_pauses(
    home: Directory, run: str, timeout: float | None, every: float | None
) -> Iterator[Progress | None]:
    """As `follow`; None when `every` seconds went by without news."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while run in home.reader().list_active_runs() or _is_ticked(home, run) or run in list_owed(home.path):
        maestro = home.hint(run)
        try:
            if maestro.ask("follow", run=run).get("active") is not True:
                break
            for progress in _listen(maestro, run, deadline, every):
                yield progress
                if progress is not None and progress.settled:
                    return
            return
        except MaestroError:
            continue
        finally:
            maestro.close()
    yield _last_progress(home, run)


def _is_ticked(home: Directory, run: str) -> bool:
    """Whether a maestro is not done with the run: it may be over, while its tables are being written."""
    maestro = find_maestro(home.path)
    if maestro is None:
        return False
    try:
        runs = maestro.ask("status").get("runs")
    except MaestroError:
        return False
    finally:
        maestro.close()
    return isinstance(runs, list) and run in runs


def _listen(
    maestro: MaestroClient, run: str, deadline: float | None, every: float | None
) -> Iterator[Progress | None]:
    """What the maestro tells of the run, until `deadline`. MaestroError: it is gone."""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        messages = maestro.messages(min((t for t in (left, every) if t is not None), default=None))
        for message in messages:
            progress = parse_progress(message.get("progress"))
            if progress is not None and progress.run == run:
                yield progress
        if not messages:
            if left == 0.0:
                return
            yield None


def _last_progress(home: Directory, run: str) -> Progress:
    row = home.reader().run_row(run)
    counts = {state: row.counts.get(state, 0) for state in JOB_STATES}
    return Progress(run, run_state_word(counts), counts, (), (), (), settled=True)


# ---- waiting -------------------------------------------------------------------------------------------------------


def wait(home: Directory, refs: Sequence[str], timeout: float | None, note: Note = lambda _: None) -> list[JobView]:
    """`note` is told once why it goes on when all have ended, and of machines that are not heard then."""
    store = home.reader()
    wanted: dict[str, set[int]] = {}
    for ref in refs:
        for row in lookup.find_jobs_or_run(store, ref):
            wanted.setdefault(row.run, set()).add(row.number)
    deadline = None if timeout is None else time.monotonic() + timeout
    for run, numbers in wanted.items():
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        _await_run(home, run, numbers, left, note)
        still, away = _count_open_jobs(home, run, numbers), _list_away(home, run, numbers)
        after = "" if timeout is None else f" after {timeout:g} s"
        if still:
            raise WaitTimeout(
                f"{still} of {len(numbers)} jobs of run {run} are not finished{after}", hint="they go on"
            )
        if away:
            text = f"{_results_of(len(away))} of run {run}, which have ended, are not home{after}"
            raise WaitTimeout(text, hint="they come by themselves")
    home.carry_on_rented()
    return [view for run, numbers in wanted.items() for view in _numbered(home, store, run, numbers)]


def _await_run(home: Directory, run: str, numbers: set[int], timeout: float | None, note: Note) -> None:
    """Until these jobs are final and their results at home or given up; of a whole run, also its tables.

    UnreachableError: all have ended, and for long none of the machines with their results has been heard.
    """
    row = home.reader().run_row(run)
    over = row.run.ended_at is not None and run not in list_owed(home.path)
    if over or not (len(numbers) == sum(row.counts.values()) or _is_awaited(home, run, numbers)):
        return
    coming = _ComingHome(home, run, note)
    for progress in follow_with_pauses(home, run, timeout, LISTEN):
        if progress is not None:
            whole = len(numbers) == sum(progress.counts.values())
            if _count_open(progress.counts) if whole else _count_open_jobs(home, run, numbers):
                coming.put_off()
            elif not whole and not _list_away(home, run, numbers):
                return
            else:
                coming.begin()
        if coming.begun:
            coming.look(_list_away(home, run, numbers))


class _ComingHome:
    """Results of jobs that have ended, as one waits for them."""

    def __init__(self, home: Directory, run: str, note: Note) -> None:
        self.begun = False
        self._home = home
        self._run = run
        self._note = note
        self._told: set[str] = set()
        self._heard, self._looked = 0.0, -LISTEN

    def put_off(self) -> None:
        """Some job is open, or open again."""
        self.begun = False

    def begin(self) -> None:
        if not self.begun:
            self.begun, self._heard, self._looked = True, time.monotonic(), -LISTEN

    def look(self, away: Mapping[int, str]) -> None:
        now = time.monotonic()
        if not away or now - self._looked < LISTEN:
            return
        self._looked = now
        self._tell("results", f"{_results_of(len(away))} are on the way home")
        views = self._home.views(self._home.reader(), self._run)
        for name in dict.fromkeys(away.values()):
            view = views.get(name)
            if view is not None and view.connected:
                self._heard = now
            elif view is not None and view.since:
                self._tell(name, f"{name}: {describe_silence(name, view)}")
        if now - self._heard > SILENT_MOST:
            text = f"{_results_of(len(away))} of run {self._run} are not home: their machines do not answer"
            raise UnreachableError(text, hint="they come by themselves when a machine answers and a maestro runs")

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._note(text)


def _results_of(count: int) -> str:
    return f"results of {count:,} job{'' if count == 1 else 's'}"


def _list_away(home: Directory, run: str, numbers: set[int]) -> dict[int, str]:
    return {number: node for number, node in home.reader().list_away(run).items() if number in numbers}


def _is_awaited(home: Directory, run: str, numbers: set[int]) -> bool:
    return bool(_count_open_jobs(home, run, numbers) or _list_away(home, run, numbers))


def _numbered(home: Directory, store: SqliteStore, run: str, numbers: set[int]) -> Iterator[JobView]:
    if len(numbers) <= FEW:
        rows = (row for number in sorted(numbers) for row in store.find_jobs(run=run, number=number))
    else:
        rows = (row for row in store.list_jobs(run) if row.number in numbers)
    return job_views(home, store, run, rows)


def _count_open_jobs(home: Directory, run: str, numbers: set[int]) -> int:
    """How many of these jobs are not final: by their rows where they are few, else by the run's counts first."""
    store = home.reader()
    if len(numbers) <= FEW:
        rows = (row for number in numbers for row in store.find_jobs(run=run, number=number))
        return sum(1 for row in rows if row.state not in FINAL_STATES)
    counts = store.count_jobs(run, superseded=True)
    open_jobs = _count_open(counts)
    if not open_jobs or len(numbers) == sum(counts.values()):
        return open_jobs
    return sum(1 for row in store.list_jobs(run, OPEN_STATES) if row.number in numbers)


def _count_open(counts: Mapping[str, int]) -> int:
    return sum(counts.get(state, 0) for state in OPEN_STATES)


# ---- processes -----------------------------------------------------------------------------------------------------


def find_pid(home: Directory, ref: str) -> int | None:
    row = lookup.find_job(home.reader(), ref)
    if row.state != RUNNING or row.run not in home.reader().list_active_runs():
        return None
    maestro = home.hint(row.run)
    try:
        pid = maestro.ask("pid", run=row.run, node=row.node, attempt=logs.uid_of(row)).get("pid")
    except MaestroError:
        return None
    finally:
        maestro.close()
    return pid if isinstance(pid, int) else None


# ---- logs ----------------------------------------------------------------------------------------------------------


def read_log(home: Directory, ref: str, want: logs.Reading) -> Iterator[bytes]:
    store = home.reader()
    row = lookup.find_job(store, ref)
    if want.follow and row.state not in FINAL_STATES:
        home.hint(row.run).close()
    build = _failed_build(store, row, want.stream)
    relay = _relay(home)
    open_source = _opener(home, store, row.run, relay)
    if build is not None:
        chunks = logs.read_ended(open_source(build), want.lines)
    else:
        _check_log_is_there(home, row)
        chunks = logs.read_log(store, row, open_source, want)
    return _closing(chunks, relay)


def _check_log_is_there(home: Directory, row: JobRow) -> None:
    """NotFoundError: the machine that had it is gone, and it had not come home."""
    went = describe_absence(row.state, row.reason, row.fetch)
    if went and not is_home(home.path / "logs", logs.uid_of(row)):
        hint = f"`cloudsend explain {job_id(row.run, row.number)}` says more; run its config again to do it again"
        raise NotFoundError(f"{row.name}: its log went with its machine {row.node}, which was {went}", hint=hint)


def _closing(chunks: Iterator[bytes], relay: Relay) -> Iterator[bytes]:
    try:
        yield from chunks
    finally:
        relay.close()


def _relay(home: Directory, within: float | None = None) -> Relay:
    from cloudsend_cli.maestro.relay import Relay

    return Relay(home.path / "logs", home.hint, within)


def _failed_build(store: SqliteStore, row: JobRow, stream: str) -> logs.LogPlace | None:
    """Of the build for which the job was given up: its log is then the job's, and lies where it was built."""
    if not row.reason.startswith("environment-failed"):
        return None
    frame = store.load_without_jobs(row.run)
    builds = [b for b in frame.builds.values() if b.key == row.environment]
    for build in sorted(builds, key=lambda b: b.state != FAILED):
        node = frame.nodes.get(build.node)
        uid = build_id(row.run, build.key, build.attempt)
        return logs.LogPlace(row.run, build.node, node.provider if node is not None else "", uid, stream)
    return None


def _opener(home: Directory, store: SqliteStore, run: str, relay: Relay) -> logs.OpenSource:
    """Logs on this machine are read where they are, the others through `relay`."""
    elsewhere = {p.name for p in store.run_row(run).run.providers if p.type != "local"}
    here = logs.open_local(home.path)
    return lambda place: relay.open(place) if place.provider in elsewhere else here(place)


def follow_logs(home: Directory, run: str, since: int | None) -> Iterator[tuple[str, str, bytes] | Progress]:
    store = home.reader()
    run = lookup.find_run(store, run)
    relay = _relay(home, LOG_WITHIN)
    merged = logs.MergedLogs(store, run, _opener(home, store, run, relay), relay.prepare)
    merged.skip_past(since)
    try:
        for progress in follow_with_pauses(home, run, None, LOG_PAUSE):
            if progress is not None:
                yield progress
            yield from merged.new_lines()
    finally:
        relay.close()


def log_tail(home: Directory, ref: str, lines: int) -> bytes:
    """For messages: what cannot be read now is not shown."""
    store = home.reader()
    row = lookup.find_job(store, ref)
    relay = _relay(home)
    open_source = _opener(home, store, row.run, relay)
    try:
        for stream in ("stderr", "stdout"):
            place = _failed_build(store, row, stream) or logs.place_of(row, logs.uid_of(row), stream)
            text = logs.read_tail(open_source(place), lines) if place.node else b""
            if text.strip():
                return text
    except UnreachableError:
        pass
    finally:
        relay.close()
    return b""

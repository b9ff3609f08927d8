"""The job's own bytes: read by offset from where they are, and followed until the job's end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cloudsend_cli.core.model import FINAL_STATES, RUNNING
from cloudsend_cli.core.naming import attempt_id, build_id
from cloudsend_cli.errors import NotFoundError, UnreachableError
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import EventRow, JobRow

BLOCK = 1 << 16
LOOK_AGAIN = 0.05
STREAMS = ("stdout", "stderr")


class LogCut(Exception):
    """The log has become shorter than what was read of it: its own job has cut it off."""


class LogSource(Protocol):
    """Where the bytes of one attempt's stream are."""

    def read(self, offset: int, length: int) -> bytes:
        """What is there from `offset` on, b"" when there is no more now. FileNotFoundError: nothing written yet."""

    def size(self) -> int:
        """How many bytes there are now. FileNotFoundError: nothing written yet."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A log on this machine: of a local attempt, or brought home."""

    path: Path

    def read(self, offset: int, length: int) -> bytes:
        with open(self.path, "rb") as file:
            data = os.pread(file.fileno(), length, offset)
            if offset and not data and os.fstat(file.fileno()).st_size < offset:
                raise LogCut
            return data

    def size(self) -> int:
        return os.stat(self.path).st_size


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Which stream of which attempt, and where it was executed."""

    run: str
    node: str
    provider: str
    attempt: str
    stream: str


OpenSource = Callable[[LogPlace], LogSource]
Prepare = Callable[[Iterable[tuple[LogSource, int]]], None]


def local_attempts(state_dir: Path) -> Path:
    return state_dir / "agent" / "attempts"


def open_local(state_dir: Path) -> OpenSource:
    """Logs of attempts on this machine, read without any maestro."""
    return lambda place: FileSource(local_attempts(state_dir) / place.attempt / place.stream)


def place_of(row: JobRow, attempt: str, stream: str) -> LogPlace:
    return LogPlace(row.run, row.node, row.provider, attempt, stream)


def uid_of(row: JobRow) -> str:
    return attempt_id(row.run, row.number, row.attempt)


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a log is wanted. `lines` None: from the beginning. `stop` ends a reading that follows.

    `note` is told once of each silence of the job's machine while its log is followed.
    """

    stream: str
    follow: bool
    lines: int | None
    stop: threading.Event
    note: Callable[[str], None] = lambda _: None


def read_log(store: SqliteStore, row: JobRow, open_source: OpenSource, want: Reading) -> Iterator[bytes]:
    """The newest attempt's bytes in order, each once. Following goes over to later attempts and ends with the job."""
    attempt = 0
    while not want.stop.is_set():
        row = _again(store, row)
        if row.attempt > attempt:
            first, attempt = attempt == 0, row.attempt
            yield from _read_attempt(store, row, open_source, want if first else replace(want, lines=None))
        elif not want.follow or row.state in FINAL_STATES:
            break
        else:
            want.stop.wait(LOOK_AGAIN)
    if attempt == 0 and not want.stop.is_set():
        why = f"never started: {row.reason}" if row.state in FINAL_STATES else "has not started yet: there is no log"
        raise NotFoundError(f"{row.name} {why}", hint="`cloudsend explain` says more")


def _read_attempt(store: SqliteStore, row: JobRow, open_source: OpenSource, want: Reading) -> Iterator[bytes]:
    reader = _Reader(open_source(place_of(row, uid_of(row), want.stream)), row.name, want)
    ended = silent = False
    while True:
        try:
            yield from reader.new_blocks()
            silent = False
        except UnreachableError as problem:
            if not want.follow:
                raise
            if not silent:
                silent = True
                want.note(f"{row.node}: {problem.message}; waiting")
        if not silent and (ended or not want.follow):
            return
        if want.stop.is_set():
            return
        now = _again(store, row)
        # ORDER: one more read follows the sight of the end, so that nothing written before it is missed.
        ended = now.attempt != row.attempt or now.state != RUNNING
        if silent or not ended:
            want.stop.wait(LOOK_AGAIN)


@dataclass(slots=True)
class _Reader:
    """How far one stream of one attempt has been read."""

    source: LogSource
    job: str
    want: Reading
    offset: int | None = None

    def new_blocks(self) -> Iterator[bytes]:
        if self.offset is None:
            self.offset = 0 if self.want.lines is None else _last_lines(self.source, self.want.lines)
        # Of a log that grows faster than it is read there is no end but the one that it had.
        end = None if self.want.follow else _size(self.source)
        while True:
            try:
                while (end is None or self.offset < end) and (data := _read(self.source, self.offset)):
                    self.offset += len(data)
                    yield data
                return
            except LogCut:
                self.offset = 0
                self.want.note(f"{self.job} has cut off its log; what follows is the log from its new beginning")


def _read(source: LogSource, offset: int) -> bytes:
    try:
        return source.read(offset, BLOCK)
    except FileNotFoundError:
        return b""


def _read_still(source: LogSource, offset: int) -> bytes:
    """The same of a log of which nothing more is expected."""
    try:
        return _read(source, offset)
    except LogCut:
        return b""


def _size(source: LogSource) -> int:
    try:
        return source.size()
    except FileNotFoundError:
        return 0


def _last_lines(source: LogSource, lines: int) -> int:
    """The offset at which the last `lines` lines begin, looked for from the end in blocks."""
    end = size = _size(source)
    if lines <= 0:
        return size
    while end > 0:
        start = max(0, end - BLOCK)
        data = _read_still(source, start)[: end - start]
        if not data:
            return 0  # the log is not as long as was said: it is shown from the beginning
        at = len(data)
        if end == size and data.endswith(b"\n"):
            at -= 1  # what follows the last newline is no line
        while (at := data.rfind(b"\n", 0, at)) >= 0:
            lines -= 1
            if lines == 0:
                return start + at + 1
        end = start
    return 0


def _again(store: SqliteStore, row: JobRow) -> JobRow:
    rows = store.find_jobs(run=row.run, number=row.number)
    return rows[0] if rows else row


def read_ended(source: LogSource, lines: int | None) -> Iterator[bytes]:
    """The bytes of a log that no longer grows."""
    offset = _last_lines(source, lines) if lines is not None else 0
    while data := _read_still(source, offset):
        offset += len(data)
        yield data


def read_tail(source: LogSource, lines: int) -> bytes:
    """The last lines, at most 64 KiB of them."""
    return _read_still(source, max(_last_lines(source, lines), _size(source) - BLOCK))


# ---- all jobs of a run ---------------------------------------------------------------------------------------------

ENDS = frozenset({"job-ended", "job-reopened"})
EVENTS_AT_ONCE = 256
BLOCKS_AT_ONCE = 16  # of one stream that is still written, before the others have their turn


@dataclass(slots=True)
class _Tail:
    source: LogSource
    offset: int = 0
    rest: bytes = b""

    def lines(self, *, last: bool) -> Iterator[bytes]:
        """Whole lines that are new, in blocks; at the end also one without a newline, completed."""
        blocks = 0
        while (last or blocks < BLOCKS_AT_ONCE) and (data := self._read()):
            blocks += 1
            self.offset += len(data)
            data = self.rest + data
            cut = data.rfind(b"\n") + 1
            if not cut and len(data) > BLOCK:
                cut = len(data)  # a line without end is shown in pieces rather than kept
            self.rest = data[cut:]
            if cut:
                yield data[:cut]
        if last and self.rest:
            yield self.rest + b"\n"
            self.rest = b""

    def _read(self) -> bytes:
        try:
            return _read(self.source, self.offset)
        except LogCut:
            self.offset, self.rest = 0, b""
            return _read(self.source, 0)


@dataclass(slots=True)
class MergedLogs:
    """New whole lines of every attempt of a run and of its environments' builds, asked for again and again.

    Each call looks at what runs and at what ended since the call before, which the audit trail tells: the cost does
    not grow with the number of jobs that are done.
    """

    store: SqliteStore
    run: str
    open_source: OpenSource
    prepare: Prepare = lambda _: None
    _tails: dict[tuple[str, str], _Tail] = field(default_factory=dict)
    _owed: dict[int, None] = field(default_factory=dict)  # jobs that ended and whose last words are not read yet
    _shown: dict[int, int] = field(default_factory=dict)  # job number -> its last attempt that is told to the end
    _builds_shown: set[str] = field(default_factory=set)
    _event: int = 0

    def skip_past(self, since: int | None = None) -> None:
        """Leave out what ended before `since`, a number of the audit trail; None: before now."""
        self._event = self.store.newest_event() if since is None else since
        new = self._events_since()
        ended = _numbers(self.run, new)
        for row in self.store.list_jobs(self.run, [RUNNING, *sorted(FINAL_STATES)]):
            over = row.attempt - (row.state == RUNNING or row.number in ended)
            if over > 0:
                self._shown[row.number] = over
        built = {r.subject for r in new if r.kind == "build"}
        for build in self.store.load_without_jobs(self.run).builds.values():
            if build.state != RUNNING and f"{self.run}/{build.node}/{build.key}" not in built:
                self._builds_shown.add(build_id(self.run, build.key, build.attempt))

    def new_lines(self) -> Iterator[tuple[str, str, bytes]]:
        """(name, stream, lines)"""
        yield from self._builds()
        for number in (*self._owed, *self._ended()):
            for row in self.store.find_jobs(run=self.run, number=number):
                yield from self._job(row)
        running = [row for row in self.store.list_jobs(self.run, [RUNNING]) if row.started_at is not None]
        self.prepare((tail.source, tail.offset) for row in running for tail in self._open(row))
        for row in running:
            yield from self._job(row)

    def _open(self, row: JobRow) -> list[_Tail]:
        """The tails of a job's newest attempt."""
        return [self._tail(place_of(row, uid_of(row), stream)) for stream in STREAMS]

    def _tail(self, place: LogPlace) -> _Tail:
        tail = self._tails.get((place.attempt, place.stream))
        if tail is None:
            tail = self._tails[place.attempt, place.stream] = _Tail(self.open_source(place))
        return tail

    def _ended(self) -> list[int]:
        """Numbers of jobs of which an attempt has ended since the last call."""
        new = self._events_since()
        self._event = new[-1].seq if new else self._event
        return list(_numbers(self.run, new))

    def _events_since(self) -> list[EventRow]:
        limit = EVENTS_AT_ONCE
        rows = self.store.events(None, limit)
        while len(rows) == limit and rows[0].seq > self._event + 1:
            limit *= 4
            rows = self.store.events(None, limit)
        return [r for r in rows if r.seq > self._event]

    def _job(self, row: JobRow) -> Iterator[tuple[str, str, bytes]]:
        for attempt in range(self._shown.get(row.number, 0) + 1, row.attempt + 1):
            ended = attempt < row.attempt or row.state != RUNNING
            places = [place_of(row, attempt_id(self.run, row.number, attempt), stream) for stream in STREAMS]
            try:
                yield from self._take(places, row.name, ended=ended)
            except UnreachableError:
                if ended:
                    self._owed[row.number] = None  # what it wrote last is shown when its machine is back
                return
            self._owed.pop(row.number, None)
            if ended:
                self._shown[row.number] = attempt

    def _builds(self) -> Iterator[tuple[str, str, bytes]]:
        frame = self.store.load_without_jobs(self.run)
        for build in frame.builds.values():
            uid = build_id(self.run, build.key, build.attempt)
            environment = frame.environments.get(build.key)
            if uid not in self._builds_shown and build.state != "wanted":
                name = f"environment {environment.name if environment else build.key}"
                node = frame.nodes.get(build.node)
                provider = node.provider if node is not None else ""
                places = [LogPlace(self.run, build.node, provider, uid, stream) for stream in STREAMS]
                with contextlib.suppress(UnreachableError):
                    yield from self._take(places, name, ended=build.state != RUNNING)
                    if build.state != RUNNING:
                        self._builds_shown.add(uid)

    def _take(self, places: list[LogPlace], name: str, *, ended: bool) -> Iterator[tuple[str, str, bytes]]:
        for place in places:
            for text in self._tail(place).lines(last=ended):
                yield name, place.stream, text
        if ended:
            for place in places:
                del self._tails[place.attempt, place.stream]


def _numbers(run: str, events: Iterable[EventRow]) -> dict[int, None]:
    """The jobs of the run whose attempts these events end, each once, in order."""
    subjects = (r.subject for r in events if r.kind in ENDS and r.subject.startswith(f"{run}."))
    return {int(n): None for s in subjects if (n := s.rpartition(".")[2]).isdigit()}

"""The job's own bytes: read by offset from where they are, and followed until the job's end."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cloudsend_cli.core.model import FINAL_STATES, RUNNING
from cloudsend_cli.core.naming import attempt_id, build_id
from cloudsend_cli.errors import NotFoundError
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import JobRow

BLOCK = 1 << 16
LOOK_AGAIN = 0.05
STREAMS = ("stdout", "stderr")


class LogSource(Protocol):
    """Where the bytes of one attempt's stream are."""

    def read(self, offset: int, length: int) -> bytes:
        """What is there from `offset` on, b"" when there is no more now. FileNotFoundError: nothing written yet."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A log on this machine: of a local attempt, or brought home."""

    path: Path

    def read(self, offset: int, length: int) -> bytes:
        with open(self.path, "rb") as file:
            return os.pread(file.fileno(), length, offset)


OpenSource = Callable[[JobRow | None, str, str], LogSource]  # (row, attempt id, stream)


def local_attempts(state_dir: Path) -> Path:
    return state_dir / "agent" / "attempts"


def open_local(state_dir: Path) -> OpenSource:
    """Logs of attempts on this machine, read without any maestro."""
    return lambda _, attempt, stream: FileSource(local_attempts(state_dir) / attempt / stream)


def uid_of(row: JobRow) -> str:
    return attempt_id(row.run, row.number, row.attempt)


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a log is wanted. `lines` None: from the beginning. `stop` ends a reading that follows."""

    stream: str
    follow: bool
    lines: int | None
    stop: threading.Event


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
    if attempt == 0 and not want.follow:
        raise NotFoundError(f"{row.name} has not started yet: there is no log", hint="`cloudsend explain` says why")


def _read_attempt(store: SqliteStore, row: JobRow, open_source: OpenSource, want: Reading) -> Iterator[bytes]:
    source = open_source(row, uid_of(row), want.stream)
    offset = _last_lines(source, want.lines) if want.lines is not None else 0
    ended = False
    while True:
        while data := _read(source, offset):
            offset += len(data)
            yield data
        if ended or not want.follow or want.stop.is_set():
            return
        now = _again(store, row)
        # ORDER: one more read follows the sight of the end, so that nothing written before it is missed.
        ended = now.attempt != row.attempt or now.state != RUNNING
        if not ended:
            want.stop.wait(LOOK_AGAIN)


def _read(source: LogSource, offset: int) -> bytes:
    try:
        return source.read(offset, BLOCK)
    except FileNotFoundError:
        return b""


def _last_lines(source: LogSource, lines: int) -> int:
    """The offset at which the last `lines` lines begin, found without keeping the file in memory."""
    starts: deque[int] = deque([0], maxlen=max(lines, 1) + 1)
    offset = 0
    ends_with_newline = True
    while data := _read(source, offset):
        at = data.find(b"\n")
        while at >= 0:
            starts.append(offset + at + 1)
            at = data.find(b"\n", at + 1)
        offset += len(data)
        ends_with_newline = data.endswith(b"\n")
    if lines <= 0:
        return offset
    if ends_with_newline and len(starts) > 1:
        starts.pop()  # what follows the last newline is no line
    return starts[max(0, len(starts) - lines)]


def _again(store: SqliteStore, row: JobRow) -> JobRow:
    rows = store.find_jobs(run=row.run, number=row.number)
    return rows[0] if rows else row


def read_tail(source: LogSource, lines: int) -> bytes:
    """The last lines, at most 64 KiB of them."""
    return _read(source, _last_lines(source, lines))[-BLOCK:]


# ---- all jobs of a run ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tail:
    name: str
    stream: str
    source: LogSource
    offset: int = 0
    rest: bytes = b""

    def lines(self, *, last: bool) -> bytes:
        """Whole lines that are new; at the end also one without a newline, completed."""
        out = []
        while data := _read(self.source, self.offset):
            self.offset += len(data)
            self.rest += data
            cut = self.rest.rfind(b"\n") + 1
            if not cut and len(self.rest) > BLOCK:
                cut = len(self.rest)
            out.append(self.rest[:cut])
            self.rest = self.rest[cut:]
        if last and self.rest:
            out.append(self.rest + b"\n")
            self.rest = b""
        return b"".join(out)


@dataclass(slots=True)
class MergedLogs:
    """New whole lines of every attempt of a run and of its environments' builds, asked for again and again."""

    store: SqliteStore
    run: str
    open_source: OpenSource
    _tails: dict[tuple[str, str], _Tail] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)

    def skip_past(self) -> None:
        """Leave out the attempts that ended before now: of a continued run only what is new is shown."""
        for row in self.store.list_jobs(self.run):
            if row.attempt and row.state in FINAL_STATES:
                self._finished.add(uid_of(row))

    def new_lines(self) -> Iterator[tuple[str, str, bytes]]:
        yield from self._builds()
        for row in self.store.list_jobs(self.run):
            if row.attempt == 0:
                continue
            uid = uid_of(row)
            if uid not in self._finished:
                ended = row.state != RUNNING
                yield from self._take(row, uid, row.name, ended=ended)
                if ended:
                    self._finished.add(uid)

    def _builds(self) -> Iterator[tuple[str, str, bytes]]:
        frame = self.store.load_without_jobs(self.run)
        for build in frame.builds.values():
            uid = build_id(self.run, build.key, build.attempt)
            environment = frame.environments.get(build.key)
            if uid not in self._finished and build.state != "wanted":
                name = f"environment {environment.name if environment else build.key}"
                yield from self._take(None, uid, name, ended=build.state != RUNNING)
                if build.state != RUNNING:
                    self._finished.add(uid)

    def _take(self, row: JobRow | None, uid: str, name: str, *, ended: bool) -> Iterator[tuple[str, str, bytes]]:
        for stream in STREAMS:
            tail = self._tails.get((uid, stream))
            if tail is None:
                tail = self._tails[uid, stream] = _Tail(name, stream, self.open_source(row, uid, stream))
            text = tail.lines(last=ended)
            if text:
                yield name, stream, text
            if ended:
                del self._tails[uid, stream]

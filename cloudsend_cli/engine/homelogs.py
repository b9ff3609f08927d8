"""Logs of attempts on other machines come home when the attempt has ended.

Each lies in `<logs>/<run>/<attempt>.<stream>`, and beside them the job's file of metrics, where it wrote one. That of
stdout comes last, also where it is empty: it says that all are whole. The copy is not synced: the host keeps its own
until it is told to forget, or given back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.explain import describe_bytes
from cloudsend_cli.core.naming import run_of_attempt

from .asking import Ahead, Ask, error_text
from .reports import FILE_MOST, METRICS, STDERR, STDOUT
from .results import free_space
from .wire import WHOLE_MOST

CHUNK = 256 * 1024
WINDOW = 2 << 20
ASKS_AT_ONCE = 64
SMALL = 4 << 20  # larger logs come with the results, so that an end is not told late
STREAMS = (STDERR, METRICS, STDOUT)  # ORDER: stdout last, it is the mark

Sizes = Mapping[str, int]
Bringing = Generator[list[Ask] | Ahead, list[Frame], str]


def log_path(logs: Path, attempt: str, stream: str) -> Path:
    return logs / run_of_attempt(attempt) / f"{attempt}.{stream}"


def is_home(logs: Path, attempt: str) -> bool:
    return log_path(logs, attempt, STDOUT).exists()


def parse_sizes(wire: object) -> dict[str, int] | None:
    """How much an ended attempt wrote, by stream; None where its end does not say."""
    if not isinstance(wire, dict):
        return None
    stdout, stderr, metrics = (_size(wire.get(f"{stream}_size")) for stream in (STDOUT, STDERR, METRICS))
    if stdout is None or stderr is None:
        return None
    logs = {STDERR: stderr, STDOUT: stdout}
    return {**logs, METRICS: min(metrics, FILE_MOST)} if metrics else logs


def _size(told: object) -> int | None:
    whole = isinstance(told, int) and not isinstance(told, bool)
    return told if whole and 0 <= told < WHOLE_MOST else None  # type: ignore[operator,return-value]


def bring_logs(attempts: Mapping[str, Sizes | None], logs: Path) -> Bringing:
    """Copy these logs home, those that are not there yet. Returns "" or what went wrong with the last that failed."""
    wanted: dict[str, Sizes] = {}
    unknown = [a for a, sizes in attempts.items() if sizes is None and not is_home(logs, a)]
    for first in range(0, len(unknown), ASKS_AT_ONCE):
        wanted.update((yield from _ask_sizes(unknown[first : first + ASKS_AT_ONCE])))
    wanted.update({a: sizes for a, sizes in attempts.items() if sizes is not None and not is_home(logs, a)})
    problem = _leave_out(wanted, logs)
    pieces = _pieces(wanted)
    failed: set[str] = set()
    while batch := list(_some(pieces)):
        asks = [
            Ask("read", {"attempt": attempt, "stream": stream, "offset": offset, "length": length})
            for attempt, stream, offset, length, _ in batch
            if length
        ]
        answers = iter((yield asks) if asks else ())
        for attempt, stream, offset, length, last in batch:
            reply = next(answers) if length else None
            if attempt in failed:
                continue
            try:
                problem_here = _take(log_path(logs, attempt, stream), offset, length, reply, last=last)
            except OSError as trouble:
                problem_here = f"its log cannot be written here: {trouble}"
            if problem_here:
                failed.add(attempt)
                problem = problem_here
    return problem


def _leave_out(wanted: dict[str, Sizes], logs: Path) -> str:
    """Takes out what the disk here does not hold, and says so."""
    problem = ""
    if wanted:
        try:
            # WHY NOT parents: a state directory that somebody removed is not made again, and open to others.
            logs.mkdir(mode=0o700, exist_ok=True)
            room = free_space(logs)
        except OSError as trouble:
            wanted.clear()
            return f"logs cannot be kept in {logs}: {trouble}"
        for attempt, sizes in list(wanted.items()):
            size = sum(sizes.values())
            if size > room:
                problem = f"its log is {describe_bytes(size)}, and {describe_bytes(room)} are free in {logs}"
                del wanted[attempt]
            else:
                room -= size
    return problem


def _ask_sizes(attempts: list[str]) -> Generator[list[Ask] | Ahead, list[Frame], dict[str, Sizes]]:
    places = [(attempt, stream) for attempt in attempts for stream in STREAMS]
    replies = yield [Ask("read", {"attempt": a, "stream": s, "offset": 0, "length": 0}) for a, s in places]
    found: dict[str, dict[str, int]] = {}
    for (attempt, stream), reply in zip(places, replies, strict=True):
        size = (_size(reply.get("total")) or 0) if reply.ok else 0
        found.setdefault(attempt, {})[stream] = min(size, FILE_MOST) if stream == METRICS else size
    return {attempt: sizes for attempt, sizes in found.items()}


def _pieces(wanted: Mapping[str, Sizes]) -> Iterator[tuple[str, str, int, int, bool]]:
    """(attempt, stream, offset, length, whether it is the stream's last)"""
    for attempt, sizes in wanted.items():
        for stream in STREAMS:
            size = sizes.get(stream, 0)
            if not size and stream == STDOUT:
                yield attempt, stream, 0, 0, True
            for offset in range(0, size, CHUNK):
                length = min(CHUNK, size - offset)
                yield attempt, stream, offset, length, offset + length == size


def _some(pieces: Iterator[tuple[str, str, int, int, bool]]) -> Iterator[tuple[str, str, int, int, bool]]:
    """As many as may be under way at once."""
    size = 0
    for count, piece in enumerate(pieces, 1):
        yield piece
        size += piece[3]
        if size >= WINDOW or count >= ASKS_AT_ONCE:
            return


def _take(path: Path, offset: int, length: int, reply: Frame | None, *, last: bool) -> str:
    if reply is not None and not reply.ok:
        return f"its log: {error_text(reply)}"
    data = reply.payload if reply is not None else b""
    if len(data) != length:
        return f"its log became shorter while it was read: {len(data)} of {length} bytes"
    part = path.with_name(f".{path.name}")
    if offset == 0:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    if data or last:
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            file.write(data)
    if last:
        part.replace(path)
    return ""

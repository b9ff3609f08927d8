"""Files over the agent's channel: uploads by content, results by manifest. Conversations of a link's thread."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.model import Upload

from .hostlink import Ask
from .results import Arrival, ResultError, ResultFile, job_directory, parse_manifest

CHUNK = 256 * 1024
WINDOW = 8  # chunks under way at once
FILES_IN_ONE_QUESTION = 5000

Sending = Generator[list[Ask], list[Frame], dict[str, str]]
Fetching = Generator[list[Ask], list[Frame], str]


def send_files(files: Sequence[Upload]) -> Sending:
    """Give the host what it lacks. Returns {sha256: why} for files that could not be sent; the others are there."""
    refused: dict[str, str] = {}
    for first in range(0, len(files), FILES_IN_ONE_QUESTION):
        part = {f.sha256: f for f in files[first : first + FILES_IN_ONE_QUESTION]}
        replies = yield [Ask("missing", {"files": list(part)})]
        missing = replies[0].get("missing")
        batch: list[Ask] = []
        for sha, held in missing.items() if isinstance(missing, dict) else ():
            if sha not in part:
                continue
            start = held if isinstance(held, int) else 0
            if part[sha].size <= CHUNK and start == 0:
                problem = _whole(part[sha], batch)
                if problem:
                    refused[sha] = problem
                if len(batch) >= 64:
                    _take_refusals((yield batch), batch, refused)
                    batch = []
            else:
                problem = yield from _send_large(part[sha], start)
                if problem:
                    refused[sha] = problem
        if batch:
            _take_refusals((yield batch), batch, refused)
    return refused


def _put(file: Upload, offset: int, data: bytes) -> Ask:
    fields = {"sha256": file.sha256, "size_total": file.size, "offset": offset, "mode": file.mode}
    return Ask("put", dict(fields), data)


def _whole(file: Upload, batch: list[Ask]) -> str:
    try:
        data = Path(file.source).read_bytes()
    except OSError as problem:
        return f"upload-missing: {file.path}: {problem.strerror}"
    if hashlib.sha256(data).hexdigest() != file.sha256:
        return f"upload-changed: {file.path} was edited after it was submitted; run the config again"
    batch.append(_put(file, 0, data))
    return ""


def _send_large(file: Upload, start: int) -> Generator[list[Ask], list[Frame], str]:
    try:
        source = open(file.source, "rb")  # noqa: SIM115 - closed below, in a generator that may be closed early
    except OSError as problem:
        return f"upload-missing: {file.path}: {problem.strerror}"
    try:
        if os.fstat(source.fileno()).st_size != file.size:
            return f"upload-changed: {file.path} was edited after it was submitted; run the config again"
        source.seek(start)
        offset = start
        while offset < file.size or file.size == 0:
            batch: list[Ask] = []
            while len(batch) < WINDOW and (data := source.read(CHUNK)):
                batch.append(_put(file, offset, data))
                offset += len(data)
            if not batch:
                return f"upload-changed: {file.path} was edited after it was submitted; run the config again"
            for reply in (yield batch):
                if reply.get("ok") is not True:
                    return f"upload-changed: {file.path}: {_error(reply)}"
    finally:
        source.close()
    return ""


def _take_refusals(replies: Sequence[Frame], asks: Sequence[Ask], refused: dict[str, str]) -> None:
    for ask, reply in zip(asks, replies, strict=True):
        if reply.get("ok") is not True:
            refused[str(ask.fields["sha256"])] = f"upload-refused: {_error(reply)}"


def _error(reply: Frame) -> str:
    error = reply.get("error")
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def fetch_files(attempt: str, patterns: Sequence[str], results_dir: str, run: str, name: str) -> Fetching:
    """Bring results home, verified. Returns "" or what went wrong; then nothing of this try is left behind."""
    replies = yield [Ask("manifest", {"attempt": attempt, "patterns": list(patterns)})]
    if replies[0].get("ok") is not True:
        return _error(replies[0])
    arrival: Arrival | None = None
    try:
        files = parse_manifest(replies[0].get("files"))
        arrival = Arrival(job_directory(results_dir, run, name), attempt)
        for file in files:
            arrival.begin(file)
            yield from _fetch_one(attempt, file, arrival)
            arrival.end()
        arrival.finish()
        arrival = None
    except (ResultError, OSError) as problem:
        return str(problem)
    finally:
        if arrival is not None:
            arrival.abandon()
    return ""


def _fetch_one(attempt: str, file: ResultFile, arrival: Arrival) -> Generator[list[Ask], list[Frame], None]:
    offset = 0
    while offset < file.size:
        asks: list[Ask] = []
        at = offset
        while at < file.size and len(asks) < WINDOW:
            length = min(CHUNK, file.size - at)
            asks.append(Ask("read", {"attempt": attempt, "path": file.path, "offset": at, "length": length}))
            at += length
        for ask, reply in zip(asks, (yield asks), strict=True):
            if reply.get("ok") is not True:
                raise ResultError(f"{file.path}: {_error(reply)}")
            if len(reply.payload) != ask.fields["length"]:
                raise ResultError(f"{file.path} became shorter while it was read")
            arrival.write(reply.payload)
        offset = at

"""Files over the agent's channel: uploads by content, results by manifest. Conversations of a link's thread."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.model import Upload
from cloudsend_cli.errors import ResultError

from .asking import Ahead, Ask, error_text
from .results import Arrival, Home, ResultFile, parse_links, parse_manifest
from .wire import clip

CHUNK = 256 * 1024
WINDOW = 2 << 20  # bytes under way at once, and
ASKS_AT_ONCE = 64  # requests
FILES_IN_ONE_QUESTION = 5000
RESUMES_MOST = 3
DISK_FULL = "disk-full"  # in the agent's words
MOST_WORDS = 1000  # letters of what went wrong: a machine's names may be in it

Sending = Generator[list[Ask] | Ahead, list[Frame], dict[str, str]]
Fetching = Generator[list[Ask] | Ahead, list[Frame], str]


def send_files(files: Sequence[Upload]) -> Sending:
    """Give the host what it lacks. Returns {sha256: why} for files that could not be sent; the others are there."""
    refused: dict[str, str] = {}
    for first in range(0, len(files), FILES_IN_ONE_QUESTION):
        part = {f.sha256: f for f in files[first : first + FILES_IN_ONE_QUESTION]}
        reply = (yield [Ask("missing", {"files": list(part)})])[0]
        missing = reply.get("missing")
        if not isinstance(missing, dict):
            return {**refused, **dict.fromkeys(part, f"upload-refused: {error_text(reply)}")}
        small: list[tuple[Upload, Ask]] = []
        for sha, held in missing.items():
            if sha not in part:
                continue
            start = held if isinstance(held, int) and 0 < held <= part[sha].size else 0
            if part[sha].size <= CHUNK and not start:
                small.append((part[sha], _whole(part[sha], refused)))
                if len(small) >= ASKS_AT_ONCE or sum(len(ask.payload) for _, ask in small) >= WINDOW:
                    yield from _send_small(small, refused)
                    small = []
            else:
                problem = yield from _send_large(part[sha], start)
                if problem:
                    refused[sha] = problem
        yield from _send_small(small, refused)
    return refused


def _put(file: Upload, offset: int, data: bytes) -> Ask:
    fields = {"sha256": file.sha256, "size_total": file.size, "offset": offset, "mode": file.mode}
    return Ask("put", dict(fields), data)


def _changed(file: Upload) -> str:
    return f"upload-changed: {file.path} was edited after it was submitted; run the config again"


def _missing(file: Upload, problem: OSError) -> str:
    return f"upload-missing: {file.path}: {problem.strerror}"


def _refused(file: Upload, reply: Frame) -> str:
    return DISK_FULL if reply.error_code == DISK_FULL else f"upload-refused: {file.path}: {error_text(reply)}"


def _whole(file: Upload, refused: dict[str, str]) -> Ask:
    data = b""
    try:
        data = Path(file.source).read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            refused[file.sha256] = _changed(file)
    except OSError as problem:
        refused[file.sha256] = _missing(file, problem)
    return _put(file, 0, data)


def _send_small(
    batch: Sequence[tuple[Upload, Ask]], refused: dict[str, str]
) -> Generator[list[Ask] | Ahead, list[Frame], None]:
    good = [(file, ask) for file, ask in batch if file.sha256 not in refused]
    damaged = []
    if good:
        for (file, _), reply in zip(good, (yield [ask for _, ask in good]), strict=True):
            if reply.error_code == "digest":
                damaged.append(file)
            elif not reply.ok:
                refused[file.sha256] = _refused(file, reply)
    for file in damaged:
        problem = yield from _send_large(file, 0)
        if problem:
            refused[file.sha256] = problem


def _send_large(file: Upload, start: int) -> Generator[list[Ask] | Ahead, list[Frame], str]:
    """Returns "" or what went wrong. What the host holds already of the file is not sent again, unless it is wrong."""
    try:
        source = open(file.source, "rb")  # noqa: SIM115 - closed below, in a generator that may be closed early
    except OSError as problem:
        return _missing(file, problem)
    try:
        if os.fstat(source.fileno()).st_size != file.size:
            return _changed(file)
        reply = Frame()
        for _ in range(RESUMES_MOST):
            answer = yield from _send_from(file, source.fileno(), start)
            if answer is None:
                return _changed(file)
            reply = answer
            if reply.ok:
                return ""
            if reply.error_code == "offset":
                held = reply["error"].get("offset")
                start = held if isinstance(held, int) and 0 < held <= file.size else 0
            elif reply.error_code == "digest":
                # What an earlier try left there was wrong, or this one arrived damaged: it is gone there now.
                if not start and not _is_as_submitted(file, source):
                    return _changed(file)
                start = 0
            else:
                break
        return _refused(file, reply)
    except OSError as problem:
        return _missing(file, problem)
    finally:
        source.close()


def _is_as_submitted(file: Upload, source: BinaryIO) -> bool:
    source.seek(0)
    digest = hashlib.sha256()
    while data := source.read(CHUNK):
        digest.update(data)
    return digest.hexdigest() == file.sha256


def _send_from(file: Upload, source: int, offset: int) -> Generator[list[Ask] | Ahead, list[Frame], Frame | None]:
    """The last reply, or the first bad one; None if the file became shorter. While one batch is on its way and is
    written there, the next is read here."""
    batches = _batches(file, source, offset)
    batch: list[Ask] | None = next(batches)
    if batch is None:
        return None
    yield Ahead(batch)
    replies: list[Frame] = []
    while batch:
        following = next(batches, [])
        replies = yield following or []
        bad = next((reply for reply in replies if not reply.ok), None)
        if following and bad is not None:
            yield []  # what was asked ahead is answered too
        if bad is not None or following is None:
            return bad
        batch = following
    return replies[-1]


def _batches(file: Upload, source: int, offset: int) -> Iterator[list[Ask] | None]:
    """What is sent at once, in turn, the first even if it is empty; None where the file ends too early."""
    begun = False
    while offset < file.size or not begun:
        begun = True
        batch: list[Ask] = []
        while len(batch) * CHUNK < WINDOW and (offset < file.size or not batch):
            data = os.pread(source, min(CHUNK, file.size - offset), offset)
            if not data and offset < file.size:
                yield None
                return
            batch.append(_put(file, offset, data))
            offset += len(data)
        yield batch


def fetch_files(attempt: str, patterns: Sequence[str], home: Home) -> Fetching:
    """Bring results home, verified. Returns "" or what went wrong; then nothing of this try is left behind."""
    replies = yield [Ask("manifest", {"attempt": attempt, "patterns": list(patterns)})]
    if not replies[0].ok:
        return error_text(replies[0])
    arrival: Arrival | None = None
    try:
        wire = replies[0].get("files")
        files = parse_manifest(wire)
        arrival = Arrival(home, attempt, sum(f.size for f in files))
        yield from _fetch_all(attempt, files, arrival)
        arrival.link(*parse_links(wire, files))
        arrival.finish()
        arrival = None
    except (ResultError, OSError) as problem:
        return clip(str(problem), MOST_WORDS)
    finally:
        if arrival is not None:
            arrival.abandon()
    return ""


def _fetch_all(
    attempt: str, files: Sequence[ResultFile], arrival: Arrival
) -> Generator[list[Ask] | Ahead, list[Frame], None]:
    """While one batch is written here, the next is on its way."""
    pieces = _pieces(files)
    batch = list(_some(pieces))
    yield Ahead(_reads(attempt, batch))
    while batch:
        following = list(_some(pieces))
        answers: Iterator[Frame] = iter(())
        if any(length for _, _, length in batch):
            answers = iter((yield _reads(attempt, following)))
        elif following:
            yield Ahead(_reads(attempt, following))
        for file, offset, length in batch:
            if offset == 0:
                arrival.begin(file)
            if length:
                _take_piece(file, length, next(answers), arrival)
            if offset + length == file.size:
                arrival.end()
        batch = following


def _reads(attempt: str, batch: Sequence[tuple[ResultFile, int, int]]) -> list[Ask]:
    return [
        Ask("read", {"attempt": attempt, "path": file.path, "offset": offset, "length": length})
        for file, offset, length in batch
        if length
    ]


def _take_piece(file: ResultFile, length: int, reply: Frame, arrival: Arrival) -> None:
    if not reply.ok:
        raise ResultError(f"{file.path}: {error_text(reply)}")
    if len(reply.payload) != length:
        raise ResultError(f"{file.path} became shorter while it was read")
    arrival.write(reply.payload)


def _pieces(files: Sequence[ResultFile]) -> Iterator[tuple[ResultFile, int, int]]:
    """(file, offset, length) in order; an empty file is one piece without length."""
    for file in files:
        offset = 0
        while True:
            length = min(CHUNK, file.size - offset)
            yield file, offset, length
            offset += length
            if offset >= file.size:
                break


def _some(pieces: Iterator[tuple[ResultFile, int, int]]) -> Iterator[tuple[ResultFile, int, int]]:
    """As many as may be under way at once: many small files cost one round trip together."""
    size = 0
    for count, piece in enumerate(pieces, 1):
        yield piece
        size += piece[2]
        if size >= WINDOW or count >= ASKS_AT_ONCE:
            return

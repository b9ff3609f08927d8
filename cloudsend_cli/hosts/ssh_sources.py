"""What is sent to a host by `ssh_sending`: bytes, open files, files and trees of this machine."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from cloudsend_cli.errors import NotFoundError, TransferFailed, UsageError

IN_MEMORY = 8 << 20
PIECE = 1 << 20


class Source(Protocol):
    """Contents of a known size, which may be read again."""

    size: int

    def read(self, offset: int, count: int) -> bytes: ...

    def close(self) -> None: ...


class BytesSource:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]

    def close(self) -> None:
        pass


class ObjectSource:
    """An open file of the caller's, from where it stands. One that cannot be read twice is copied aside first."""

    def __init__(self, file: Any, size: int | None) -> None:
        self._own: IO[bytes] | None = None
        if not _is_seekable(file) or isinstance(file, io.TextIOBase):
            file = self._own = _copied(file, size)
        self._file = file
        self._begin = file.tell()
        self.size = size if size is not None and self._own is None else file.seek(0, os.SEEK_END) - self._begin

    def read(self, offset: int, count: int) -> bytes:
        self._file.seek(self._begin + offset)
        data = b""
        while len(data) < count and (piece := self._file.read(count - len(data))):
            data += piece
        return data

    def close(self) -> None:
        if self._own is not None:
            self._own.close()


def _is_seekable(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except AttributeError:
        return False


def _copied(file: Any, size: int | None) -> IO[bytes]:
    aside = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - its reader closes it
    left = size
    while left is None or left > 0:
        piece = file.read(PIECE if left is None else min(PIECE, left))
        if not piece:
            break
        data = piece.encode() if isinstance(piece, str) else bytes(piece)
        aside.write(data)
        left = None if left is None else left - len(data)
    aside.seek(0)
    return aside


def source_of(given: Any, size: int | None) -> Source:
    """Of what `putfo` is given."""
    if isinstance(given, str):
        given = given.encode()
    if isinstance(given, (bytes, bytearray, memoryview)):
        data = bytes(given)
        return BytesSource(data if size is None else data[:size])
    if not hasattr(given, "read"):
        raise UsageError(f"neither text, bytes nor an open file: {type(given).__name__}")
    return ObjectSource(given, size)


class FileSource:
    def __init__(self, path: bytes) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        about = os.fstat(self._fd)
        if not stat.S_ISREG(about.st_mode):
            os.close(self._fd)
            raise TransferFailed(f"{shown(path)} is no file any more")
        self.size = about.st_size

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self._fd, count, offset)

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory that is sent. `parts` lead to it from what the caller named."""

    path: bytes
    parts: tuple[bytes, ...]
    mode: int
    times: tuple[int, int]

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(slots=True)
class Listing:
    """What the caller named, with all below it; each directory before what is in it."""

    name: bytes
    entries: list[Entry] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def list_tree(path: bytes, *, recursive: bool) -> Listing:
    """Links are followed, as scp does, but not in circles. Devices, pipes and sockets are left out."""
    listing = Listing(os.path.basename(os.path.abspath(path)))
    try:
        about = os.stat(path)
    except OSError as problem:
        raise NotFoundError(f"{shown(path)}: {problem.strerror}") from problem
    if stat.S_ISDIR(about.st_mode) and not recursive:
        raise TransferFailed(f"{shown(path)} is a directory", hint="pass recursive=True to send all of it")
    if not (stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode)):
        raise TransferFailed(f"{shown(path)} is neither a file nor a directory")
    listing.entries.append(_entry(path, (), about))
    if stat.S_ISDIR(about.st_mode):
        try:
            _add_below(listing, path, (), ((about.st_dev, about.st_ino),))
        except OSError as problem:
            raise TransferFailed(f"{shown(problem.filename or path)}: {problem.strerror}") from problem
    return listing


def _add_below(listing: Listing, path: bytes, parts: tuple[bytes, ...], above: tuple[tuple[int, int], ...]) -> None:
    for name in sorted(os.listdir(path)):
        below = os.path.join(path, name)
        try:
            about = os.stat(below)
        except FileNotFoundError:  # a link to nothing
            listing.left_out.append(shown(below))
            continue
        key = (about.st_dev, about.st_ino)
        if stat.S_ISREG(about.st_mode):
            listing.entries.append(_entry(below, (*parts, name), about))
        elif stat.S_ISDIR(about.st_mode) and key not in above:
            listing.entries.append(_entry(below, (*parts, name), about))
            _add_below(listing, below, (*parts, name), (*above, key))
        else:
            listing.left_out.append(shown(below))


def _entry(path: bytes, parts: tuple[bytes, ...], about: os.stat_result) -> Entry:
    return Entry(path, parts, about.st_mode, (int(about.st_atime), int(about.st_mtime)))


def shown(path: bytes | str) -> str:
    """A name as it may stand in a message."""
    text = os.fsdecode(path)
    return text if text.isprintable() else repr(text)


def read_paths(given: Any) -> list[bytes]:
    """One path, or several."""
    if isinstance(given, (str, bytes, os.PathLike)):
        return [read_path(given)]
    paths = [read_path(path) for path in given]
    if not paths:
        raise UsageError("an empty list of files")
    return paths


def read_path(given: Any) -> bytes:
    with contextlib.suppress(TypeError, ValueError):
        path = os.fsencode(given)
        if path and b"\0" not in path:
            return path
    raise UsageError(f"not a path: {given!r}")

"""Files of a running host, opened from outside: a command on it costs five processes, and tests ask often."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

OPENAT2 = 437  # of every architecture
NO_MAGIC_LINKS, IN_ROOT = 0x02, 0x10
NOT_THERE = (FileNotFoundError, NotADirectoryError)
_libc = ctypes.CDLL(None, use_errno=True)


class NotPlain(Exception):
    """Only a command on the host can do it as its user would."""


def is_plain(path: str) -> bool:
    """Not of a file system that shows each process something else."""
    return not path.startswith(("/proc", "/sys", "/dev"))


@contextlib.contextmanager
def open_inside(root: Path, path: str, flags: int, mode: int = 0) -> Iterator[int]:
    """A descriptor. No link leads out of `root`, which is that of the host's namespace of mounts."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, NO_MAGIC_LINKS | IN_ROOT)
        number = _libc.syscall(OPENAT2, top, os.fsencode(path), how, len(how))
        if number < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
    finally:
        os.close(top)
    try:
        yield number
    finally:
        os.close(number)


def read_inside(root: Path, path: str, uid: int) -> bytes:
    """A file that this user may read; FileNotFoundError if there is none."""
    try:
        with open_inside(root, path, os.O_RDONLY | os.O_NONBLOCK) as number:
            _check(os.fstat(number), uid, stat.S_IRUSR)
            with open(number, "rb", closefd=False) as reader:
                return reader.read()
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise NotPlain from problem


def exists_inside(root: Path, path: str) -> bool:
    try:
        with open_inside(root, path, os.O_PATH):
            return True
    except NOT_THERE:
        return False
    except OSError as problem:
        raise NotPlain from problem


def write_inside(root: Path, path: str, data: bytes, mode: int, uid: int) -> None:
    """A file of this user, new or whole in place of what was in it."""
    try:
        with open_inside(root, str(PurePosixPath(path).parent), os.O_PATH | os.O_DIRECTORY) as folder:
            _check(os.fstat(folder), uid, stat.S_IWUSR, stat.S_ISDIR)
        with _open_to_write(root, path) as number:
            if os.fstat(number).st_uid == 0:  # new
                os.fchown(number, uid, uid)
            _check(os.fstat(number), uid, stat.S_IWUSR)
            os.ftruncate(number, 0)
            with open(number, "wb", closefd=False) as writer:
                writer.write(data)
            os.fchmod(number, mode)
    except OSError as problem:
        raise NotPlain from problem


@contextlib.contextmanager
def _open_to_write(root: Path, path: str) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        try:
            number = stack.enter_context(open_inside(root, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            number = stack.enter_context(open_inside(root, path, os.O_WRONLY | os.O_NONBLOCK))
        yield number


def _check(about: os.stat_result, uid: int, may: int, kind: object = stat.S_ISREG) -> None:
    assert callable(kind)
    if about.st_uid != uid or not about.st_mode & may or not kind(about.st_mode):
        raise NotPlain

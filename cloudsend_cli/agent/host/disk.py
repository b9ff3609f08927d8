"""Whole reads and writes, without the layers of `open`: each attempt costs several."""

import errno
import os

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def read_file(path, limit=1 << 26):
    """The content, at least up to limit; None where it cannot be read. Never waits, as for a pipe in its place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(fd, 65536)
        while len(raw) >= 65536 and len(raw) < limit:
            more = os.read(fd, limit)
            if not more:
                break
            raw += more
        return raw
    except OSError:
        return None
    finally:
        os.close(fd)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_new(path, raw):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, raw)
    finally:
        os.close(fd)


def write_durably(path, raw):
    """Replaces a file whole, so that it is there after a power loss as well."""
    with open(path + ".new", "wb") as writer:
        writer.write(raw)
        writer.flush()
        os.fsync(writer.fileno())
    os.rename(path + ".new", path)
    sync_folder(os.path.dirname(path))


def sync_folder(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path):
    """Removes a file if that is possible."""
    try:
        os.unlink(path)
    except OSError:
        pass

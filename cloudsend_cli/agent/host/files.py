"""Uploads, and paths below a folder that no link leads out of."""

import hashlib
import os

from .disk import NO_SPACE, write_all
from .texts import to_bytes

STORE_TIME = 946684800  # mtime of a stored upload: a hard link written to by a job shows by another mtime


def split_path(path):
    """The components of a relative path that stays where it is put."""
    raw = to_bytes(path)
    parts = raw.split(b"/")
    if not raw or len(raw) > 4096 or b"\0" in raw or any(part in (b"", b".", b"..") for part in parts):
        raise ValueError("not a plain relative path: %r" % path[:200])
    return parts


def open_folder_below(root, parts, create=False):
    """Opens the folder root/parts without following a link in any component but root."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if create:
                try:
                    os.mkdir(part, 0o700, dir_fd=here)
                except FileExistsError:
                    pass
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return here
    except BaseException:
        os.close(here)
        raise


def open_below(root, parts, flags):
    """Opens the file root/parts without following a link in any component but root."""
    folder = open_folder_below(root, parts[:-1])
    try:
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)


def sha256_of(fd):
    """(hex digest, number of bytes) of what follows in an open file."""
    digest, size = hashlib.sha256(), 0
    while True:
        raw = os.read(fd, 1 << 20)
        if not raw:
            return digest.hexdigest(), size
        digest.update(raw)
        size += len(raw)


def stored(home, sha):
    """The stat of an upload that is whole and was not written to through one of its links; else None."""
    path = "%s/files/%s" % (home, sha)
    try:
        found = os.lstat(path)
        if int(found.st_mtime) == STORE_TIME:
            return found
        os.unlink(path)
    except OSError:
        pass
    return None


def lay_out(home, work, files, private, private_below=None):
    """Puts uploads into the work directory: hard links of read-only files, or copies. LookupError: one is not here."""
    below = split_path(private_below) if private_below else None
    for item in files:
        parts = split_path(item["path"])
        copy = private or (below is not None and parts[: len(below)] == below)
        folder = open_folder_below(work, parts[:-1], create=True)
        try:
            if "link" in item:
                os.symlink(to_bytes(item["link"]), parts[-1], dir_fd=folder)
            else:
                lay_out_file(home, item["sha256"], item.get("mode", 0o644), copy, folder, parts[-1])
        finally:
            os.close(folder)


def lay_out_file(home, sha, mode, private, folder, name):
    found, source = stored(home, sha), "%s/files/%s" % (home, sha)
    if found is None:
        raise LookupError(sha)
    if not private and bool(found.st_mode & 0o100) == bool(mode & 0o100):
        try:
            return os.link(source, name, dst_dir_fd=folder)
        except FileExistsError:
            raise
        except OSError as problem:  # no links here, or too many of this file: a copy will do
            if problem.errno in NO_SPACE:
                raise
    with open(source, "rb") as reader:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            for raw in iter(lambda: reader.read(1 << 20), b""):
                write_all(fd, raw)
            os.fchmod(fd, mode & 0o777 | 0o600)
        finally:
            os.close(fd)

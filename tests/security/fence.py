"""What lies in a directory, to the byte: taken before and after, it shows whether anything was written outside."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

Entry = tuple[int, int, int, str]


def snapshot(root: Path, *, leave_out: Path | None = None) -> dict[str, Entry]:
    """{path: (mode, size, mtime, content)} of all below `root`, links not followed, but for what is below `leave_out`.

    Directories are told without their time and size: what is left out may be made in them.
    """
    found: dict[str, Entry] = {}
    todo = [os.fsencode(root)]
    skipped = os.fsencode(leave_out) if leave_out is not None else None
    while todo:
        folder = todo.pop()
        for entry in os.scandir(folder):
            if entry.path == skipped:
                continue
            about = entry.stat(follow_symlinks=False)
            name = os.fsdecode(entry.path)
            if stat.S_ISDIR(about.st_mode):
                todo.append(entry.path)
                found[name] = (about.st_mode, 0, 0, "")
            else:
                found[name] = (about.st_mode, about.st_size, about.st_mtime_ns, _content(entry.path, about))
    return found


def _content(path: bytes, about: os.stat_result) -> str:
    if stat.S_ISLNK(about.st_mode):
        return os.fsdecode(os.readlink(path))
    if stat.S_ISREG(about.st_mode):
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    return ""

"""The state directory: private, on a local disk, and ours, or it is not used."""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

from cloudsend_cli.errors import StateDirError

MOUNTINFO = Path("/proc/self/mountinfo")
ELSEWHERE = "choose a directory on a local disk with --state-dir or CLOUDSEND_HOME"

# SQLite's locks do not hold on these, or only within one machine: two maestros could write at once.
NETWORK_TYPES = frozenset({
    "9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs", "gfs2", "gpfs", "kafs",
    "lustre", "mmfs", "ncp", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb",
    "smb2", "smb3", "smbfs", "vboxsf", "wekafs",
})  # fmt: skip
LOCAL_FUSE_TYPES = frozenset({"fuse.fuse-overlayfs", "fuse.overlayfs"})  # the root directory of rootless containers


def open_state_dir(path: Path, *, mountinfo: str | None = None, create: bool = True) -> Path:
    """The real path of a directory that only we can read; creates it, and its parents, with mode 0700.

    Raises StateDirError with what to do. `mountinfo` replaces the kernel's table of mounts.
    """
    try:
        path = Path(os.path.abspath(os.path.expanduser(path)))
        if create:
            _create(path)
        _check_link(path)
        real = Path(os.path.realpath(path))
        info = os.stat(real)
        _check_mode(real, info)
        for parent in real.parents:
            _check_parent(real, parent)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"the state directory {path} cannot be used: {reason}"
        raise StateDirError(message, hint=ELSEWHERE) from error
    kind = file_system_of(str(real), _read_mountinfo() if mountinfo is None else mountinfo)
    if is_network_type(kind):
        message = f"the state directory {real} is on a network file system ({kind}), where locks do not hold"
        raise StateDirError(message, hint=f"{ELSEWHERE}, such as {_local_suggestion()}")
    return real


def is_network_type(kind: str) -> bool:
    if kind.startswith("fuse."):
        return kind not in LOCAL_FUSE_TYPES
    return kind in NETWORK_TYPES or kind == "fuse"


def file_system_of(path: str, mountinfo: str) -> str:
    """The type of the file system that holds `path` (absolute, without links), "" when it is not known. Pure."""
    best, found = -1, ""
    for point, kind in parse_mountinfo(mountinfo):
        prefix = point.rstrip("/")
        # ORDER: of two mounts on one point the later one covers the earlier, hence >=.
        if (path == prefix or path.startswith(f"{prefix}/")) and len(prefix) >= best:
            best, found = len(prefix), kind
    return found


def parse_mountinfo(text: str) -> list[tuple[str, str]]:
    """(mount point, type) in the order of mounting, from the text of /proc/self/mountinfo. Pure."""
    mounts = []
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if separator and len(fields) >= 5:
            point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
            mounts.append((point, kinds[0]))
    return mounts


def _read_mountinfo() -> str:
    try:
        return MOUNTINFO.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _local_suggestion() -> str:
    return f"/var/tmp/cloudsend-{os.geteuid()}"  # noqa: S108 - named to the user, and checked when it is chosen


def _create(path: Path) -> None:
    missing = []
    for directory in (path, *path.parents):
        if os.path.lexists(directory):
            break
        missing.append(directory)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            continue  # somebody else was faster; the checks below say whether it is good


def _check_link(path: Path) -> None:
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode) and info.st_uid not in {os.geteuid(), 0}:
        message = f"the state directory {path} is a symbolic link that belongs to user {info.st_uid}"
        raise StateDirError(message, hint=ELSEWHERE)


def _check_mode(real: Path, info: os.stat_result) -> None:
    if not stat.S_ISDIR(info.st_mode):
        raise StateDirError(f"the state directory {real} is not a directory", hint=ELSEWHERE)
    if info.st_uid != os.geteuid():
        message = f"the state directory {real} belongs to user {info.st_uid}, and this is user {os.geteuid()}"
        raise StateDirError(message, hint=ELSEWHERE)
    if info.st_mode & 0o077:
        mode = stat.S_IMODE(info.st_mode)
        message = f"the state directory {real} is open to other users (mode {mode:04o})"
        raise StateDirError(message, hint=f"chmod 700 {shlex.quote(str(real))}")


def _check_parent(real: Path, parent: Path) -> None:
    mode = os.stat(parent).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        message = f"any user can replace the state directory {real}, as {parent} is writable by all"
        raise StateDirError(message, hint=f"chmod o-w {shlex.quote(str(parent))}, or {ELSEWHERE}")

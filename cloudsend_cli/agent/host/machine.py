"""What this machine says of itself now: load, free space, who we are on it. Nothing here is kept."""

import os
import pwd
import sys

from .disk import read_file

LITTLE = 65536  # bytes


def read_load():
    """The load average of the last minute; None where the kernel does not tell."""
    try:
        return float((read_file(os.environ.get("CLOUDSEND_LOADAVG") or "/proc/loadavg") or b"").split()[0])
    except (ValueError, IndexError):
        return None


def read_vitals(home):
    vitals = {"load": read_load(), "disk_free": None, "inodes_free": None}
    try:
        disk = os.statvfs(home)
        vitals["disk_free"] = disk.f_bavail * disk.f_frsize
        vitals["inodes_free"] = disk.f_favail if disk.f_files else None  # some file systems have no fixed number
    except OSError:
        pass
    return vitals


def has_no_room(home):
    """Whether next to nothing more can be written: what fails then can often not even say why."""
    try:
        disk = os.statvfs(home)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < LITTLE or bool(disk.f_files and not disk.f_favail)


def user_name(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def describe_self():
    return {"user": user_name(os.geteuid()), "python": sys.version.split()[0]}

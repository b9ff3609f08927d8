"""What is on disk of an attempt: its record, which is the claim and the end, and its tombstone.

attempts/<id>/record is created with O_EXCL before anything is spawned: that is the claim, and it is for ever. Its
size never changes afterwards, so a full disk cannot lose the end. Its creator holds its flock for the life of the
attempt; whoever finds the lock free may judge, and writes the verdict before letting go of the lock.
"""

import errno
import os
import stat
import zlib

from .disk import read_file
from .encoding import compact, parse
from .protocol import METRICS, STREAMS

RECORD = 1024
FINAL = ("exited", "lost", "cancelled", "stale")


def folder_of(home, ident):
    return "%s/attempts/%s" % (home, ident)


def is_claimed(home, ident):
    return os.path.exists("%s/attempts/%s/record" % (home, ident))


def write_record(fd, body):
    """Writes the whole record or raises: a record of another size is one of which nothing was spawned."""
    body = body.ljust(RECORD - 10)
    if os.pwrite(fd, b"%08x %s\n" % (zlib.crc32(body), body), 0) < RECORD:
        raise OSError(errno.ENOSPC, "short write")


def read_record(fd):
    """The record; {} where it is too short to have been followed by a spawn; 'claimed' where it is damaged."""
    raw = os.pread(fd, RECORD, 0)
    if len(raw) < RECORD:
        return {}
    return (parse(raw[9:]) if raw[:8] == b"%08x" % zlib.crc32(raw[9:-1]) else None) or {"state": "claimed"}


def peek(home, ident):
    """The record as it is at this moment; {} where it is short or damaged; None where there is none."""
    raw = read_file("%s/attempts/%s/record" % (home, ident))
    if raw is None:
        return None
    return (parse(raw[9:]) if len(raw) == RECORD else None) or {}


def status_on_disk(home, ident):
    """The status of an attempt that is not in memory; None where it was neither claimed nor cancelled."""
    found = peek(home, ident)
    if found is not None:
        return sized(home, ident, found) if found else {"state": "claimed"}
    cause = get_tombstone(home, ident)
    return sized(home, ident, {"state": "cancelled", "cause": cause}) if cause else None


def sized(home, ident, status):
    """The same status; an end with the sizes of its files, by which a client knows what there is to bring home."""
    if status.get("state") in FINAL:
        for stream in STREAMS:
            if stream + "_size" not in status:
                try:
                    status[stream + "_size"] = os.stat("%s/attempts/%s/%s" % (home, ident, stream)).st_size
                except OSError:
                    status[stream + "_size"] = 0
        if METRICS + "_size" not in status:
            add_metrics_size(home, ident, status)
    return status


def add_metrics_size(home, ident, status):
    """Of few attempts there is such a file; what a job has put in its place that is no file does not count."""
    try:
        about = os.lstat("%s/attempts/%s/%s" % (home, ident, METRICS))
    except OSError:
        return
    if stat.S_ISREG(about.st_mode) and about.st_size:
        status[METRICS + "_size"] = about.st_size


def pack_status(status):
    """JSON that fits a record: names of missing outputs are dropped from the end, and counted; details are cut."""
    raw = compact(status)
    while len(raw) > RECORD - 10 and status.get("detail"):
        status["detail"] = status["detail"][: len(status["detail"]) // 2]
        raw = compact(status)
    while len(raw) > RECORD - 10 and status.get("missing"):
        status["missing_more"] = status.get("missing_more", 0) + 1
        status["missing"] = status["missing"][:-1]
        raw = compact(status)
    return raw


def put_tombstone(home, ident, cause):
    """True when it is new. A symbolic link: made whole or not at all, exclusively, and without a data block."""
    try:
        os.symlink(cause, "%s/tombstones/%s" % (home, ident))
        return True
    except FileExistsError:
        return False


def get_tombstone(home, ident):
    try:
        return os.readlink("%s/tombstones/%s" % (home, ident))
    except OSError:
        return None

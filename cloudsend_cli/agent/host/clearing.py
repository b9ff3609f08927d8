"""The end of an attempt whose runner is dead; executed in a child of the daemon, as it may take a while."""

import fcntl
import os
import time

from .logfile import log
from .outputs import complete
from .processes import find_tree, kill_tree, start_time
from .records import FINAL, folder_of, get_tombstone, pack_status, read_record, sized, write_record
from .spec import read_spec


def clear_away(home, ident, orphans):
    """Ends what the runner left, then writes the verdict. Returns the status; b"" where something survives.

    Whether the job had come to its own end is not known, unless the runner had written so: then it is `lost`.
    """
    base = folder_of(home, ident)
    record = os.open(base + "/record", os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
    found = read_record(record)
    if found.get("state") in FINAL:
        return pack_status(sized(home, ident, found))

    def find():
        roots = [pid for pid, start in orphans if start_time(pid) == start]
        if found.get("pid") and found.get("pid_start") and start_time(found["pid"]) == found["pid_start"]:
            roots.append(found["pid"])
        return find_tree(ident, roots)

    survivors = kill_tree(find, 0)
    if survivors:
        log("%d processes of %s cannot be killed" % (survivors, ident))
        return b""
    if found.get("state") == "exiting":
        status = dict(found, state="exited")
        kept = read_spec(home, ident)
        complete(home, kept["spec"] if kept else {}, base + "/work", status)
    else:
        status = {
            "state": "lost",
            "started": found.get("started"),
            "ended": time.time(),
            "exit_code": None,
            "signal": None,
            "cause": get_tombstone(home, ident),
            "pid": found.get("pid"),
        }
    raw = pack_status(sized(home, ident, status))
    write_record(record, raw)
    return raw

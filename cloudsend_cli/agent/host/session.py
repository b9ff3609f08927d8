"""Whether a daemon outlives the login session it was started from: found out by what happens, and kept.

session.json: {"survives": true or null, "deaths", "boot", "daemon", "session"}. While a daemon lives, and after it was
killed, `daemon` is its process id; one that leaves by itself takes it out.
"""

import os
import time

from .disk import read_file, write_new
from .processes import process, start_time

SESSION = "CLOUDSEND_AGENT_SESSION"  # from attach to the daemon: PID:START of processes that end with the session
ENOUGH = 2.0  # seconds after the end of the session
MANY = 2


def describe_session():
    """The leader of our session, and its parent: of sshd the process that ends with the connection."""
    leader = os.getsid(0)
    found = process(leader)
    pids = [leader, found[0]] if found else [os.getpid()]
    return ",".join("%d:%d" % (pid, start_time(pid) or 0) for pid in pids if pid > 1)


def is_over(session):
    try:
        pairs = [pair.split(":") for pair in session.split(",") if pair]
        return all(start_time(int(pid)) != int(start) for pid, start in pairs)
    except ValueError:
        return False


def read_kept(home):
    from .encoding import parse  # the daemon has it, and attach does without but at an end

    kept = parse(read_file(home + "/session.json"))
    return kept if isinstance(kept, dict) else {}


def write_kept(home, kept):
    from .encoding import compact

    path = "%s/session.json" % home
    try:
        write_new(path + ".new", compact(kept))
        os.rename(path + ".new", path)
    except OSError:
        pass  # a full disk: found out another time


class Survival:
    """`survives` is True once it was seen, False after several daemons that died with their session, else None."""

    def __init__(self, home, boot):
        self.home, self.over_since = home, None
        self.kept = {"survives": None, "deaths": 0}
        kept = read_kept(home)
        self.kept.update(survives=kept.get("survives"), deaths=kept.get("deaths", 0))
        session = kept.get("session")
        if kept.get("daemon") and kept.get("boot") == boot and isinstance(session, str) and is_over(session):
            self.kept["deaths"] += 1
        self.session = os.environ.get(SESSION, "")
        self.kept.update(boot=boot, daemon=os.getpid(), session=self.session)
        write_kept(home, self.kept)

    @property
    def survives(self):
        return self.kept["survives"] or (False if self.kept["deaths"] >= MANY else None)

    def tick(self):
        if self.kept["survives"] or not self.session or not is_over(self.session):
            return
        now = time.monotonic()
        self.over_since = self.over_since or now
        if now - self.over_since >= ENOUGH:
            self.kept.update(survives=True, deaths=0)
            write_kept(self.home, self.kept)

    def leave(self):
        write_kept(self.home, dict(self.kept, daemon=None))


def note_other_death(home):
    """By attach: the session goes on, so that whatever has ended the daemon was not the end of the session."""
    kept = read_kept(home)
    for _ in range(20):
        if not kept.get("daemon"):
            return
        if not process(kept["daemon"]):
            return write_kept(home, dict(kept, daemon=None))
        time.sleep(0.05)  # its connections end a little before it does

"""A machine that was rented says so by a directory, in which its dead man's switch and the agent leave word.

armed    by the switch, once it watches          adopted  touched by us when a client has come that wants something
notice   by the switch: JSON of the provider,    active   touched by us while there is something to do or to fetch here
         while the machine is being taken back,  lease    by us: the uptime, in seconds, at which the machine must end
         or its own, when its life is nearly over
"""

import os
import stat
import time

from .disk import read_file, write_new
from .encoding import parse
from .logfile import log
from .protocol import Refused
from .spec import is_number

FOLDER = "/run/cloudsend"
MOST_NOTICE = 4096
RESULTS_WAIT = float(os.environ.get("CLOUDSEND_RESULTS_WAIT") or 3600)  # seconds, for a client that was away


def rented_folder():
    return os.environ.get("CLOUDSEND_RENTED_DIR") or FOLDER


def read_notice(folder):
    """What the provider says; None where nothing is said. What is no JSON object is about to be written."""
    raw = read_file(folder + "/notice", MOST_NOTICE)
    found = parse(raw) if raw and len(raw) <= MOST_NOTICE else None
    return found if isinstance(found, dict) else None


def read_deadline():
    """When the provider takes the machine, in its own words; "" where it does not say."""
    when = (read_notice(rented_folder()) or {}).get("time")
    return when[:100] if isinstance(when, str) and when.isprintable() else ""


def read_seconds_left():
    """Until the machine ends itself, where that was announced; None where it does not say."""
    at = (read_notice(rented_folder()) or {}).get("uptime")
    return max(0.0, at - read_uptime()) if is_number(at) else None


def read_uptime():
    return float(read_file("/proc/uptime").split()[0])


class Rented:
    """`here`: the directory is there and ours. Elsewhere nothing is done but to look for it now and then.

    A client counts while it is heard from: the connection of a laptop that was closed stands for a quarter of an hour.
    """

    LOOK_EVERY, TOUCH_EVERY, HEARD_WITHIN = 5.0, 5.0, 60.0

    def __init__(self, owners, attempts, peers):
        self.owners, self.attempts, self.peers = owners, attempts, peers
        self.folder = rented_folder()
        self.here, self.notice = False, None
        self.look_at = self.touch_at = 0.0
        self.complaint = None
        self.look(time.monotonic())

    def ops(self):
        return {"lease": self.lease}

    def look(self, now):
        if now >= self.look_at:
            self.look_at = now + self.LOOK_EVERY
            self.here = self.is_ours()
        self.notice = read_notice(self.folder) if self.here else None

    def is_ours(self):
        """Nobody else may say that the machine is being taken back, nor lead our writing elsewhere."""
        try:
            about = os.lstat(self.folder)
        except OSError:
            return False
        return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o022

    def tick(self, now):
        """True where a notice has come, changed, or gone."""
        before = self.notice
        self.look(now)
        if self.here and now >= self.touch_at and self.is_in_use(now):
            self.touch_at = now + self.TOUCH_EVERY
            if not os.path.exists(self.folder + "/adopted"):  # it was not ours yet when the client came
                self.touch("adopted")
            self.touch("active")
        return before != self.notice

    def is_in_use(self, now):
        clients = any(
            self.is_wanting(peer) and now - peer.heard < self.HEARD_WITHIN for peer in self.peers.by_fd.values()
        )
        return clients or self.attempts.is_any_unfinished() or self.is_awaited(now)

    def is_awaited(self, now):
        """Whether the machine waits for a client that has not taken a result yet: else it would be lost with it."""
        return self.here and self.attempts.is_any_awaited(now, RESULTS_WAIT)

    def is_wanting(self, peer):
        return peer.owner is not None and not self.owners.only_looks(peer)

    def adopt(self, peer):
        """A client has said who it is."""
        if self.here and self.is_wanting(peer):
            self.touch("adopted")
            self.touch("active")

    def touch(self, name):
        path = "%s/%s" % (self.folder, name)
        try:
            try:
                os.utime(path)
            except FileNotFoundError:
                write_new(path, b"")
            self.complaint = None
        except OSError as problem:
            if str(problem) != self.complaint:
                self.complaint = str(problem)
                log("the dead man's switch is not told:", problem)

    def describe(self):
        """{} elsewhere than on rented machines."""
        if not self.here:
            return {}
        armed = os.path.exists(self.folder + "/armed")
        return {"rented": {"armed": armed, "lease": self.read_lease(), "notice": self.notice}}

    def read_lease(self):
        """How many seconds are left; None without a lease."""
        try:
            return max(0.0, round(float(read_file(self.folder + "/lease", 64).split()[0]) - read_uptime(), 2))
        except (AttributeError, ValueError, IndexError):
            return None

    def lease(self, peer, frame, payload):
        """The switch ends the machine after so many seconds from now, whoever lives then; null: not for that."""
        seconds, path = frame.get("seconds"), self.folder + "/lease"
        if not self.here:
            raise Refused("not-rented", "this machine is not rented")
        if seconds is None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        elif is_number(seconds) and seconds < 1e9:
            write_new(path + ".new", b"%d\n" % (read_uptime() + seconds))
            os.rename(path + ".new", path)
        else:
            raise Refused("bad-request", "seconds is a number or null")
        return {"lease": self.read_lease()}

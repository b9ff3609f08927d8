"""The claim on this machine, so that two users, or two homes of one, do not overbook it without knowing.

A claimed machine is one abstract socket on which the daemon that has it listens and says who it is. The kernel gives
it up when the daemon dies. A name without a file needs no directory that two users share; its scope is the network
namespace.
"""

import os
import select
import socket
import struct
import time

from .disk import read_file, write_durably
from .encoding import compact, parse
from .logfile import log
from .machine import user_name
from .owners import is_owner
from .protocol import Refused

NAME = "cloudsend-machine"
PATIENCE = 0.3  # seconds in which another daemon says who it is


class Claims:
    """`kept` are the claims that last between runs, {owner: since}; `sock` listens while the machine is ours.

    Besides those that are kept, a client who wants the machine for itself claims it while it is connected or has
    attempts that are not at their end. `missing`: all this is so, and another daemon has the machine.
    """

    def __init__(self, home, owners, attempts, peers):
        self.home, self.owners, self.attempts, self.peers = home, owners, attempts, peers
        self.path, self.address = home + "/claims.json", "\0" + (os.environ.get("CLOUDSEND_MACHINE") or NAME)
        found = parse(read_file(self.path))
        self.kept = {
            owner: since for owner, since in (found if isinstance(found, dict) else {}).items() if is_owner(owner)
        }
        self.sock, self.since, self.missing = None, None, False

    def ops(self):
        return {"claim": self.claim, "release": self.release}

    def describe(self):
        return [{"owner": owner, "since": since} for owner, since in sorted(self.kept.items())]

    def claim(self, peer, frame, payload):
        owner = named_owner(peer, frame)
        if not self.take():
            self.refuse(self.find_holder())
        if owner not in self.kept:
            self.write(dict(self.kept, **{owner: time.time()}))
        return {"claims": self.describe()}

    def release(self, peer, frame, payload):
        owner = named_owner(peer, frame)
        if owner in self.kept:
            self.write({name: since for name, since in self.kept.items() if name != owner})
        self.settle()
        return {"claims": self.describe()}

    def write(self, kept):
        write_durably(self.path, compact(kept))
        self.kept = kept

    def admit(self, owner, exclusive):
        """Takes the machine for a client who wants it alone. Refused where another daemon has it.

        Who has attempts here is let in: nothing new starts, but what there is can be seen, stopped and fetched.
        """
        if not exclusive or self.take():
            return
        holder = self.find_holder()
        ours = holder["uid"] == os.geteuid() and holder["home"] == self.home  # the daemon before us, on its way out
        if not ours and not self.attempts.has_any_of(owner):
            self.refuse(holder)

    def refuse(self, holder):
        raise Refused("taken", "this machine is in use by cloudsend of " + describe_holder(holder), holder=holder)

    def settle(self):
        """Takes the machine, or gives it up, as is wanted now."""
        wanted = bool(self.kept) or self.is_wanted_by_clients()
        self.missing = wanted and not self.take()
        if not wanted and self.sock:
            self.drop()

    def is_wanted_by_clients(self):
        alone = self.owners.alone
        return bool(alone) and (
            any(peer.owner in alone and not self.owners.only_looks(peer) for peer in self.peers.by_fd.values())
            or self.attempts.is_any_unfinished(alone)
        )

    def take(self):
        """True when the machine is ours."""
        if self.sock:
            return True
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(self.address)
            sock.listen(16)
            sock.setblocking(False)
        except OSError:
            sock.close()
            return False
        self.sock, self.since, self.missing = sock, time.time(), False
        self.peers.epoll.register(sock.fileno(), select.EPOLLIN)
        return True

    def drop(self):
        self.peers.epoll.unregister(self.sock.fileno())
        self.sock.close()
        self.sock = None

    def fileno(self):
        return self.sock.fileno() if self.sock else -1

    def answer(self):
        """Tells whoever asks who has this machine."""
        about = {
            "user": user_name(os.geteuid()),
            "uid": os.geteuid(),
            "home": self.home,
            "since": self.since,
            "pid": os.getpid(),
        }
        try:
            asking = self.sock.accept()[0]
            with asking:
                asking.setblocking(False)
                asking.send(compact(about) + b"\n")
        except OSError as problem:
            log("claim:", problem)

    def find_holder(self):
        """Who has the machine: {user, uid, home, since}. The kernel says whose process it is, the rest is its word."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        holder = {"user": None, "uid": None, "home": None, "since": None}
        try:
            sock.settimeout(PATIENCE)
            sock.connect(self.address)
            uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            holder.update(uid=uid, user=user_name(uid))
            said = parse(receive_line(sock))
            if isinstance(said, dict):
                holder.update(home=printable(said.get("home")), since=plausible_time(said.get("since")))
        except OSError:
            pass
        finally:
            sock.close()
        return holder

    def describe_taken(self):
        """The holder where another daemon has the machine; None where it is ours or nobody's."""
        if self.sock:
            return None
        holder = self.find_holder()
        return holder if holder["uid"] is not None else None


def named_owner(peer, frame):
    owner = frame.get("owner", peer.owner)
    if not is_owner(owner):
        raise Refused("bad-request", "owner is a string")
    return owner


def receive_line(sock):
    raw, until = b"", time.monotonic() + PATIENCE
    while b"\n" not in raw and len(raw) < 4096:
        sock.settimeout(max(0.001, until - time.monotonic()))
        more = sock.recv(4096)
        if not more:
            break
        raw += more
    return raw[:4096]


def printable(text):
    """Some text of a stranger, short and without anything that a terminal would act on."""
    if not isinstance(text, str):
        return None
    return "".join(char if " " <= char <= "~" else "?" for char in text[:200])


def plausible_time(value):
    return value if type(value) in (int, float) and 0 < value < 1e11 else None


def describe_holder(holder):
    text = "another user" if holder["uid"] is None else "%s (uid %d)" % (printable(holder["user"]), holder["uid"])
    if holder["home"]:
        text += ", home %s" % holder["home"]
    if holder["since"]:
        text += ", since %s" % time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(holder["since"]))
    return text

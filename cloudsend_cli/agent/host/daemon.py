"""The daemon: its parts, and the loop that serves clients, children and clocks."""

import os
import re
import select
import socket
import sys
import time

from .attempts import Attempts
from .claims import Claims
from .disk import remove
from .encoding import compact
from .following import Following
from .forgetting import Forgetting
from .hands import Hands
from .holding import LoadLimit
from .home import Failed, boot_and_home, open_home, own_sha256, take_lock
from .inventory import Inventory
from .journal import Journal
from .logfile import log
from .machine import describe_self, read_load, read_vitals
from .news import News
from .orders import Orders
from .owners import Owners
from .peer import LOG_BUFFER, Peers
from .preempting import Preempting
from .processes import become_subreaper, reap, start_time
from .protocol import PROTOCOL
from .recovery import judge, recover
from .rented import Rented
from .requests import Requests
from .session import Survival
from .sweeping import Sweep
from .texts import to_bytes
from .transfers import Transfers
from .waiting import Queue


class Daemon:
    """Single-threaded: nothing in the loop waits but `poll`. Whoever makes one holds the lock of the home."""

    ADOPTED_EVERY, TICK = 0.2, 0.5

    def __init__(self, home, lock):
        self.home, self.lock = home, lock
        self.boot, self.agent = boot_and_home(home), os.urandom(8).hex()
        self.sha = own_sha256()
        umask = os.umask(0o077)
        self.idle_limit = float(os.environ.get("CLOUDSEND_AGENT_IDLE") or 60)
        self.beat_every = float(os.environ.get("CLOUDSEND_AGENT_BEAT") or 5)
        for name in ("attempts", "tombstones", "envs", "files"):
            os.makedirs(home + "/" + name, 0o700, exist_ok=True)
        self.queue = Queue()
        self.limit = LoadLimit(self.queue)
        self.owners = Owners(home, self.queue, self.limit)
        self.epoll = select.epoll()
        self.peers = Peers(self.epoll)
        self.news, self.journal = News(self.peers), Journal(home)
        self.hands = Hands(self.epoll, home, inherited_environment(), umask, self.boot)
        self.attempts = Attempts(home, self.boot, self.queue, self.hands, self.news, self.journal)
        self.following = Following(self.attempts)
        self.quiet_since = self.tick_at = self.beat_at = self.adopted_at = time.monotonic()
        self.leaving = False
        become_subreaper()
        self.claims = Claims(home, self.owners, self.attempts, self.peers)
        self.rented = Rented(self.owners, self.attempts, self.peers)
        self.orders = Orders(self.attempts, self.describe_holds, lambda: self.rented.notice is not None)
        self.preempting = Preempting(self.rented, self.attempts, self.orders.cancel_one)
        self.facts, self.survival = describe_self(), Survival(home, self.boot)
        self.sweep = Sweep(home, self.hands)
        self.forgetting = Forgetting(self.attempts, self.sweep)
        recover(self.attempts, self.journal)
        self.forgetting.resume()
        self.claims.settle()
        self.peers.listen(home, self.greeting, self.make_requests().answer)

    def make_requests(self):
        ops = {"hello": self.hello, "handover": self.handover, "ping": self.ping}
        transfers = Transfers(self.home, self.hands, self.sweep.told)
        for part in (self.orders, self.claims, self.rented, Inventory(self.attempts), self.forgetting, transfers):
            ops.update(part.ops())
        ops.update(self.following.ops())
        return Requests(self.owners, ops)

    def hello(self, peer, frame, payload):
        self.owners.introduce(peer, frame, self.claims.admit)
        self.claims.settle()
        self.rented.adopt(peer)
        about = dict(self.about(), claims=self.claims.describe(), others=self.count_others(peer))
        if self.claims.missing or self.owners.only_looks(peer):
            about["taken"] = self.claims.describe_taken()
        return about

    def handover(self, peer, frame, payload):
        log("handing over")
        self.leaving = True
        return {}

    def ping(self, peer, frame, payload):
        return {"time": time.time(), "load": read_load()}

    def count_others(self, peer):
        counts = self.attempts.count()
        return sum(count["running"] for owner, count in counts.items() if owner != peer.owner)

    def describe_holds(self):
        """Why attempts may wait although there are places."""
        holds = {"held_by_load": self.limit.held, "held_by_claim": self.claims.missing}
        return {name: True for name, holding in holds.items() if holding}

    def about(self):
        about = {
            "protocol": PROTOCOL,
            "boot": self.boot,
            "agent": self.agent,
            "sha": self.sha,
            "pid": os.getpid(),
            "hostname": socket.gethostname(),
            "home": self.home,
            "time": time.time(),
            "resources": self.queue.describe_total(),
            "free": self.queue.describe_free(),
            "max_load": self.limit.most,
            "survives_logout": self.survival.survives,
        }
        for more in (self.facts, read_vitals(self.home), self.describe_holds(), self.rented.describe()):
            about.update(more)
        return about

    def greeting(self):
        return b"cloudsend-agent-%d %s\n" % (PROTOCOL, compact(self.about()))

    def serve(self):
        listener = self.peers.listener.fileno()
        peers, hands = self.peers.by_fd, self.hands.by_fd
        while not self.leaving:
            for fd, mask in self.epoll.poll(self.timeout(time.monotonic()) + 0.0005):
                if fd in peers:
                    peers[fd].handle(mask)
                elif fd in hands:
                    self.hear(hands[fd])
                elif fd == listener:
                    self.peers.accept()
                elif fd == self.claims.fileno():
                    self.claims.answer()
            now = time.monotonic()
            if self.queue.heads and not self.is_held(now):
                self.attempts.dispatch()
            self.look_at_clocks(now)
            if now - self.quiet_since > self.idle_limit:
                break
            self.news.send(now)
            self.serve_peers(now)
        self.leave()

    def is_held(self, now):
        return self.preempting.holds() or self.claims.missing or self.limit.holds(now)

    def timeout(self, now):
        wake = min(self.tick_at, self.beat_at, self.news.wake())
        if self.attempts.adopted:
            wake = min(wake, self.adopted_at)
        if self.peers.following():
            wake = min(wake, self.following.at)
        return max(0.0, wake - now)

    def hear(self, hand):
        heard = self.hands.hear(hand)
        if heard:
            attempt, end = heard
            if end is None:
                judge(self.attempts, attempt)
            else:
                self.attempts.end(attempt, end)

    def look_at_clocks(self, now):
        if now >= self.adopted_at and self.attempts.adopted:
            self.adopted_at = now + self.ADOPTED_EVERY
            for attempt in list(self.attempts.adopted):
                judge(self.attempts, attempt)
        if now >= self.tick_at:
            self.tick_at = now + self.TICK
            self.tick(now)
        if now >= self.beat_at:
            self.beat_at = now + self.beat_every
            self.beat()

    def serve_peers(self, now):
        """Whom this turn has touched: logs are pumped, requests that had to wait are answered, buffers sent."""
        follow = now >= self.following.at
        touched = self.peers.touched
        if follow:
            self.following.at = now + self.following.EVERY
            touched.update(self.peers.following())
        for peer in list(touched):
            if peer.follows and peer.connected and (follow or peer.unsent < LOG_BUFFER):
                self.following.pump(peer)
            peer.serve()
        touched.clear()

    def tick(self, now):
        if not self.owns_home():
            log("the home directory is gone; leaving")
            self.leaving = True
            return
        self.attempts.orphans.tick()
        self.journal.write(now)
        if self.rented.tick(now):
            log("notice of the provider:", self.rented.notice)
            self.beat(urgent=True)
        self.preempting.tick()
        reap()
        self.attempts.kill_again()
        self.limit.tick()
        self.survival.tick()
        self.claims.settle()
        clients = bool(self.peers.by_fd)
        self.hands.retire_idle(now, keep=self.queue.total[0] / 1000.0 if clients else 0)
        if clients or self.claims.kept or self.attempts.is_any_unfinished() or self.rented.is_awaited(now):
            self.quiet_since = now

    def beat(self, urgent=False):
        if not self.peers.by_fd:
            return
        counts = self.attempts.count()
        event = {"ev": "heartbeat", "time": time.time(), "free": self.queue.describe_free()}
        event["survives_logout"] = self.survival.survives
        for more in (read_vitals(self.home), self.describe_holds(), self.rented.describe()):
            event.update(more)
        for state in ("running", "queued"):
            event[state] = sum(count[state] for count in counts.values())

        def event_for(peer):
            own = counts.get(peer.owner, {"running": 0})["running"]
            return dict(event, others=event["running"] - own)

        self.peers.send_heartbeat(event_for, urgent)

    def owns_home(self):
        """Whether the lock we hold is the one another daemon of this home would ask for."""
        try:
            return os.path.samestat(os.fstat(self.lock), os.stat(self.home + "/agent.lock"))
        except OSError:
            return False

    def leave(self):
        """Runners go on; the lock is given up last."""
        self.peers.listener.close()
        self.journal.write(time.monotonic(), everything=True)
        self.peers.send_last_words()
        if self.owns_home():
            self.survival.leave()
            remove(self.home + "/agent.sock")
        if self.claims.sock:
            self.claims.drop()  # before the lock, so that the next daemon can take it
        os.close(self.lock)


def inherited_environment():
    """What jobs get of ours: not the marks of our session, which may be another's by then."""
    hidden = re.compile(rb"CLOUDSEND_|SSH_(CLIENT|CONNECTION|TTY|AUTH_SOCK)$|(OLD)?PWD$|SHLVL$|_$")
    return {name: value for name, value in os.environb.items() if not hidden.match(name)}


def serve(home):
    """The daemon in this process, until it leaves; nothing where another serves this home."""
    try:
        home = open_home(home)
    except Failed as problem:
        sys.stderr.write("cloudsend agent: %s\n" % problem.args[1])
        return 1
    lock = take_lock(home)
    if lock is None:
        return 0
    os.ftruncate(lock, 0)
    try:
        os.write(lock, b"%d %d\n" % (os.getpid(), start_time(os.getpid())))  # see hung.py
        daemon = Daemon(home, lock)
    except OSError as problem:
        os.write(1, b"failed %s" % to_bytes(str(problem)))
        raise
    os.write(1, b"ready\n")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    log("serving", home, daemon.sha[:12])
    daemon.serve()
    log("left")
    return 0

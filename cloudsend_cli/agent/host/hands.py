"""The daemon's children: runners, and processes that do one long thing and return its result."""

import os
import select
import socket
import time

from .disk import write_all
from .logfile import log_exception
from .processes import children_of, reap, start_time
from .protocol import CHUNK
from .runner import RETIRED, TAKEN, Runner


class Hand:
    """The daemon's end of a child. A runner has a socket; what does one thing has a pipe, and `done`."""

    def __init__(self, pid, fd, sock=None, done=None):
        self.pid, self.fd, self.sock, self.done = pid, fd, sock, done
        self.start = start_time(pid)
        self.attempt, self.idle_since, self.result, self.retired = None, 0.0, bytearray(), False


class Hands:
    """`kept` are processes that retired runners left alive, as asked: nobody's orphans."""

    RUNNERS_MAX, IDLE_RUNNER = 1000, 10.0

    def __init__(self, epoll, home, env, umask, boot):
        self.epoll, self.home, self.env, self.umask, self.boot = epoll, home, env, umask, boot
        self.by_fd, self.idle, self.runners = {}, [], 0
        self.kept = set()

    def are_free(self):
        return bool(self.idle) or self.runners < self.RUNNERS_MAX

    def take_runner(self):
        return self.idle.pop() if self.idle else self.fork_runner()

    def fork_runner(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            self.be_runner(theirs)
        theirs.close()
        hand = Hand(pid, ours.fileno(), sock=ours)
        self.runners += 1
        return self.register(hand)

    def be_runner(self, sock):
        code = 1
        try:
            forget_descriptors(sock.fileno())
            Runner(self.home, sock, self.env, self.umask, self.boot).serve()
            code = 0
        except ConnectionError:  # the daemon died; what it sent unread is still queued on disk
            code = 0
        except BaseException:  # noqa: BLE001
            log_exception("runner")
        finally:
            os._exit(code)

    def fork(self, work, done):
        """Does something long in a child; done gets the bytes it returned, or b'' if it died."""
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                forget_descriptors(writer)
                write_all(writer, work())
            except BrokenPipeError:  # the daemon died: nobody waits for it
                pass
            except BaseException:  # noqa: BLE001
                log_exception("hand")
            finally:
                os._exit(0)
        os.close(writer)
        self.register(Hand(pid, reader, done=done))

    def register(self, hand):
        self.by_fd[hand.fd] = hand
        self.epoll.register(hand.fd, select.EPOLLIN)
        return hand

    def hear(self, hand):
        """Reads what a child says. Returns (attempt, its end), (attempt, None) where it must be judged, or None."""
        if hand.sock is None:
            return self.hear_result(hand)
        try:
            raw = hand.sock.recv(4096)
        except OSError:
            raw = b""
        attempt = hand.attempt
        if not raw:
            self.let_go(hand)
            if hand.retired:
                self.kept |= self.orphans()
            return (attempt, None) if attempt else None
        hand.attempt = None
        if raw.startswith(RETIRED):
            hand.retired = True
        else:
            hand.idle_since = time.monotonic()
            self.idle.append(hand)
        if attempt is None:
            return None
        return attempt, None if raw.startswith(TAKEN) else raw[1:]

    def hear_result(self, hand):
        raw = os.read(hand.fd, CHUNK)
        hand.result += raw
        if not raw:
            self.let_go(hand)
            hand.done(bytes(hand.result))

    def let_go(self, hand):
        """Closes our end, upon which a runner ends after what it does, and waits for that."""
        self.epoll.unregister(hand.fd)
        del self.by_fd[hand.fd]
        if hand.sock is None:
            os.close(hand.fd)
        else:
            hand.sock.close()
            self.runners -= 1
            if hand in self.idle:
                self.idle.remove(hand)
        try:
            os.waitpid(hand.pid, 0)
        except ChildProcessError:
            pass

    def retire_idle(self, now, keep):
        """Lets runners go that were idle for long, the longest first, until no more than keep are left."""
        while self.idle and now - self.idle[0].idle_since > self.IDLE_RUNNER and self.runners > keep:
            self.let_go(self.idle[0])

    def orphans(self):
        """{(pid, start time)} of children that no hand accounts for: what a killed runner left."""
        if not reap():
            return set()
        known = {hand.pid for hand in self.by_fd.values()}
        return {child for child in children_of(os.getpid()) if child[0] not in known} - self.kept


def forget_descriptors(keep):
    """In a child: the lock above all, which would outlive the daemon, and the other runners' connections."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != keep:
            try:
                os.close(int(name))
            except OSError:
                pass

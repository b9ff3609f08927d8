"""Connections of clients: frames in, a bounded buffer out."""

import json
import select
import time
from collections import deque

from .encoding import compact, is_deeper
from .home import listen
from .logfile import log_exception
from .protocol import CHUNK, MAX_DEPTH, MAX_LINE, MAX_PAYLOAD

LOG_BUFFER = 1 << 20  # unsent bytes of one client above which logs and requests wait
HARD_BUFFER = 8 << 20  # ... above which the client is dropped: it reconnects and asks for a report


class Peers:
    """All connections, and those that have something to send or to read at the end of this turn of the loop."""

    def __init__(self, epoll):
        self.epoll, self.by_fd, self.touched = epoll, {}, set()
        self.listener = self.greeting = self.answer = None

    def listen(self, home, greeting, answer):
        """From here on clients are let in: greeting() is their first line, answer(peer, frame, payload) the rest."""
        self.greeting, self.answer = greeting, answer
        self.listener = listen(home)
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)

    def accept(self):
        try:
            peer = Peer(self, self.listener.accept()[0])
        except OSError:
            return
        self.by_fd[peer.fd] = peer
        self.epoll.register(peer.fd, select.EPOLLIN)
        peer.send_raw(self.greeting())
        self.touched.add(peer)

    def drop(self, peer):
        if peer.connected:
            peer.connected = False
            del self.by_fd[peer.fd]
            self.epoll.unregister(peer.fd)
            peer.sock.close()

    def of(self, owner):
        """Nobody's news, "", is everybody's."""
        return [
            peer
            for peer in self.by_fd.values()
            if peer.owner is not None and owner in (peer.owner, "") and not peer.eof
        ]

    def following(self):
        return [peer for peer in self.by_fd.values() if peer.follows]

    def send_heartbeat(self, event_for, urgent=False):
        """To those who have read everything so far; the others have enough to read, unless it is urgent."""
        for peer in self.by_fd.values():
            if peer.owner is not None and (urgent or not peer.outbox):
                peer.send(event_for(peer))
                self.touched.add(peer)

    def send_last_words(self):
        for peer in list(self.by_fd.values()):
            peer.sock.setblocking(True)
            peer.sock.settimeout(0.5)
            peer.flush()


class Peer:
    """One connection. A request waits while the replies before it do not drain."""

    def __init__(self, peers, sock):
        self.peers, self.sock, self.fd = peers, sock, sock.fileno()
        self.connected = True  # its fd may be another's afterwards
        self.inbox, self.outbox, self.unsent = bytearray(), deque(), 0
        self.parts = 0  # long replies in the outbox that are not all bytes yet; these are not counted as unsent
        self.frame = None  # a frame whose payload is still on its way
        self.owner, self.epoch = None, -1
        self.follows = {}  # (attempt, stream) -> next offset
        self.eof = self.closing = False
        self.heard = time.monotonic()
        self.mask = select.EPOLLIN
        sock.setblocking(False)

    def send(self, message, payload=b""):
        if payload:
            message["size"] = len(payload)
        self.send_raw(compact(message) + b"\n" + payload)

    def send_raw(self, raw):
        self.outbox.append(raw)
        self.unsent += len(raw)

    def reply(self, ident, fields, payload=b""):
        """Answers a request, maybe later; nothing where no answer was asked for or the client has gone."""
        if ident is not None and self.connected:
            self.send(dict({"re": ident, "ok": True}, **fields), payload)
            self.peers.touched.add(self)

    def reply_in_parts(self, ident, name, items, extra):
        """Answers with a long list, or object where name ends with ":"; items are JSON, and asked for as they go out.

        Requests wait meanwhile, and whatever else is sent comes after it: so it is as good as one reply.
        """
        if ident is not None and self.connected:
            self.outbox.append(make_parts(ident, name, items, extra))
            self.parts += 1
            self.peers.touched.add(self)

    def serve(self):
        """At the end of a turn: acts on requests that had to wait, and sends."""
        waits = True
        while waits and self.connected:
            if self.inbox and not self.closing:
                self.read_frames()
            waits = self.parts > 0
            self.flush()
            waits = waits and not self.parts

    def handle(self, mask):
        if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not self.eof:
            try:
                raw = self.sock.recv(CHUNK)
            except BlockingIOError:
                raw = None
            except OSError:
                return self.peers.drop(self)
            if raw:
                self.inbox += raw
                self.heard = time.monotonic()
            elif raw == b"":
                self.eof = True
            self.read_frames()
        elif self.eof and mask & (select.EPOLLHUP | select.EPOLLERR):
            return self.peers.drop(self)
        self.peers.touched.add(self)

    def read_frames(self):
        """Acts on what is complete."""
        try:
            while not self.closing and self.unsent < LOG_BUFFER and not self.parts:
                if self.frame is None:
                    self.frame = self.read_line()
                    if self.frame is None:
                        return
                size = self.frame.get("size", 0)
                if len(self.inbox) < size:
                    return
                frame, self.frame = self.frame, None
                payload = bytes(self.inbox[:size])
                del self.inbox[:size]
                self.peers.answer(self, frame, payload)
        except (ValueError, RecursionError) as problem:
            self.send({"ev": "error", "error": {"code": "protocol", "message": str(problem)[:200]}})
            self.closing = True

    def read_line(self):
        """The next frame without its payload; None while it is not complete. ValueError: it is none."""
        end = self.inbox.find(b"\n", 0, MAX_LINE + 1)
        if end < 0:
            if len(self.inbox) > MAX_LINE:
                raise ValueError("a line of more than %d bytes" % MAX_LINE)
            return None
        frame = json.loads(self.inbox[:end].decode("utf-8"))
        del self.inbox[: end + 1]
        if not isinstance(frame, dict):
            raise ValueError("a frame is an object")
        if is_deeper(frame, MAX_DEPTH):
            raise ValueError("nested more than %d times" % MAX_DEPTH)
        size = frame.get("size", 0)
        if type(size) is not int or not 0 <= size <= MAX_PAYLOAD:
            raise ValueError("size is 0 to %d" % MAX_PAYLOAD)
        return frame

    def flush(self):
        """Sends what the socket takes. Drops the client where it is gone, done, or far behind."""
        try:
            self.send_outbox()
        except BlockingIOError:
            pass
        except OSError:
            return self.peers.drop(self)
        if self.unsent > HARD_BUFFER or ((self.closing or self.eof) and not self.outbox):
            return self.peers.drop(self)
        mask = 0 if self.eof or self.closing or self.unsent >= LOG_BUFFER else select.EPOLLIN
        mask |= select.EPOLLOUT if self.outbox else 0
        if mask != self.mask:
            self.mask = mask
            self.peers.epoll.modify(self.fd, mask)

    def send_outbox(self):
        while self.outbox:
            if self.parts:
                self.expand()
                if not self.outbox:
                    return
                raw = self.outbox[0]
            else:
                raw = b"".join(self.outbox) if self.unsent < CHUNK else self.outbox[0]
                if self.unsent < CHUNK:
                    self.outbox.clear()
                    self.outbox.append(raw)
            count = self.sock.send(raw)
            self.unsent -= count
            if count < len(raw):
                self.outbox[0] = raw[count:]
                return
            self.outbox.popleft()

    def expand(self):
        """Makes bytes of what comes next."""
        while self.outbox and not isinstance(self.outbox[0], bytes):
            try:
                raw = next(self.outbox[0], None)
            except Exception:  # noqa: BLE001  half a reply was sent, and there is no other half
                log_exception("a long reply")
                raise ConnectionAbortedError() from None
            if raw is None:
                self.outbox.popleft()
                self.parts -= 1
            else:
                self.outbox.appendleft(raw)
                self.unsent += len(raw)


def make_parts(ident, name, items, extra):
    """Frames of one reply; all but the last say more."""
    brackets = b"{}" if name.endswith(":") else b"[]"
    head = b'{"re":%s,"ok":true,%s:%s' % (compact(ident), compact(name.rstrip(":")), brackets[:1])
    part, size = [], 0
    for item in items:
        if part and size + len(item) > MAX_LINE // 4:
            yield head + b",".join(part) + brackets[1:] + b',"more":true}\n'
            part, size = [], 0
        part.append(item)
        size += len(item)
    end = b"," + compact(extra)[1:] if extra else b"}"
    yield head + b",".join(part) + brackets[1:] + end + b"\n"

"""Logs as they grow: follow, unfollow, and the pump."""

import os

from .files import open_below
from .logfile import log
from .peer import LOG_BUFFER
from .protocol import CHUNK, STREAMS, Refused, are_whole
from .records import folder_of
from .transfers import attempt_folder


class Following:
    """Files are looked at a few times a second, and more often while a client drains much."""

    EVERY, MOST = 0.1, 1000

    def __init__(self, attempts):
        self.attempts, self.home = attempts, attempts.home
        self.at = 0.0

    def ops(self):
        return {"follow": self.follow, "unfollow": self.unfollow}

    def follow(self, peer, frame, payload):
        attempt_folder(self.home, frame)
        stream, offset = frame.get("stream"), frame.get("offset", 0)
        if stream not in STREAMS or not are_whole((offset,), 1 << 62):
            raise Refused("bad-request", "stream is stdout or stderr, offset a whole number")
        if len(peer.follows) >= self.MOST:
            raise Refused("bad-request", "too many streams are followed")
        peer.follows[frame["attempt"], stream] = offset
        self.at = 0.0
        return {}

    def unfollow(self, peer, frame, payload):
        peer.follows.pop((str(frame.get("attempt")), str(frame.get("stream"))), None)
        return {}

    def pump(self, peer):
        """Sends followed logs as far as the client drains them."""
        for (ident, stream), offset in list(peer.follows.items()):
            # ORDER: whether it has ended is looked up before the file is read to its end.
            attempt = self.attempts.get(ident)
            ended = attempt is None or attempt.state == "ended"
            try:
                fd = open_below(folder_of(self.home, ident), [stream.encode()], os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                if ended:
                    send_log_end(peer, ident, stream, offset)
                continue
            try:
                send_grown(peer, ident, stream, fd, offset, ended)
            except OSError as problem:
                log("log of", ident, problem)
            finally:
                os.close(fd)
            if not peer.connected:
                return


def send_grown(peer, ident, stream, fd, offset, ended):
    while peer.connected and peer.unsent < LOG_BUFFER:
        event = {"ev": "log", "attempt": ident, "stream": stream}
        if os.fstat(fd).st_size < offset:
            event["truncated"], offset = True, 0
        raw = os.pread(fd, CHUNK, offset)
        if raw or "truncated" in event:
            peer.send(dict(event, offset=offset), raw)
            offset += len(raw)
            peer.follows[ident, stream] = offset
        elif ended:
            send_log_end(peer, ident, stream, offset)
        if len(raw) < CHUNK:
            return
        peer.flush()


def send_log_end(peer, ident, stream, offset):
    del peer.follows[ident, stream]
    peer.send({"ev": "log-end", "attempt": ident, "stream": stream, "offset": offset})

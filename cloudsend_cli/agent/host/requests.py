"""Requests and their answers: who may ask what, and what a failure is called."""

from .disk import NO_SPACE
from .logfile import log_exception
from .protocol import Refused

BEFORE_HELLO = ("hello", "handover", "ping")
MUTATING = ("start", "cancel", "revoke", "ack", "put", "claim", "release", "adopt", "forget", "lease")


class Requests:
    """An op is called with (peer, frame, payload) and returns its reply; None: it has replied, or will."""

    def __init__(self, owners, ops):
        self.owners, self.ops = owners, ops

    def answer(self, peer, frame, payload):
        op = frame.get("op")
        try:
            reply = self.find(peer, op)(peer, frame, payload)
        except Refused as refusal:
            reply = {"ok": False, "error": refusal.error}
        except OSError as problem:
            code = "disk-full" if problem.errno in NO_SPACE else "os"
            reply = {"ok": False, "error": {"code": code, "message": str(problem)[:300]}}
        except Exception as problem:  # noqa: BLE001
            log_exception("op %s" % repr(op)[:60])
            reply = {"ok": False, "error": {"code": "internal", "message": repr(problem)[:300]}}
        if reply is not None:
            peer.reply(frame.get("id"), reply)

    def find(self, peer, op):
        found = self.ops.get(op) if isinstance(op, str) else None
        if found is None:
            raise Refused("unknown-op", "no such op: %s" % repr(op)[:60])
        if peer.owner is None and op not in BEFORE_HELLO:
            raise Refused("hello-first", "the first frame is hello")
        if op in MUTATING and self.owners.is_fenced(peer):
            raise Refused("fenced", "a newer client of %s has taken over" % peer.owner)
        return found

"""Ops that order attempts about: start, cancel, revoke, ack, report."""

import os
import re

from .disk import NO_SPACE
from .encoding import compact, encode_json, parse
from .leaving import PREEMPTED
from .protocol import ID, Refused, idents_of
from .records import folder_of, get_tombstone, is_claimed, put_tombstone, sized, status_on_disk
from .spec import check_spec, forget_torn, read_spec, shape_of, without_secrets, write_spec


class Orders:
    """What is answered is on disk: `queued` a spec, `tombstoned` and `revoked` a tombstone."""

    def __init__(self, attempts, describe_holds, is_taken_back):
        self.attempts, self.home, self.describe_holds = attempts, attempts.home, describe_holds
        self.is_taken_back = is_taken_back

    def ops(self):
        return {
            "start": self.start,
            "cancel": self.cancel,
            "revoke": self.revoke,
            "ack": self.ack,
            "report": self.report,
        }

    def start(self, peer, frame, payload):
        specs, results = frame.get("attempts"), {}
        if not isinstance(specs, list):
            raise Refused("bad-request", "attempts is a list")
        for i, spec in enumerate(specs):
            ident = spec.get("id") if isinstance(spec, dict) else None
            if not isinstance(ident, str) or not ID.match(ident):
                results["#%d" % i] = "bad-spec: id"
            elif frame.get("boot") != self.attempts.boot:
                results[ident] = "wrong-boot"
            else:
                try:
                    results[ident] = self.accept(peer.owner, ident, spec)
                except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, re.error) as problem:
                    results[ident] = "bad-spec: %s" % str(problem)[:200]
        return {"results": results}

    def accept(self, owner, ident, spec):
        check_spec(spec)
        refusal = self.find_refusal(ident)
        if refusal:
            return refusal
        body, digest = without_secrets(spec)
        shape = shape_of(spec)
        if self.attempts.get(ident):
            # Its directory may have been deleted under us: what is in memory counts.
            return self.accept_again(ident, read_spec(self.home, ident) or {"digest": None}, digest)
        try:
            os.mkdir(folder_of(self.home, ident), 0o700)
        except FileExistsError:
            kept = read_spec(self.home, ident)
            if kept:
                return self.accept_again(ident, kept, digest)
        except OSError as problem:
            if problem.errno in NO_SPACE:
                return "disk-full"
            raise
        try:
            too_large = self.attempts.queue.too_large(shape)
            if too_large:
                raise ValueError("more %s than this host has" % too_large)
            kept = '{"digest":"%s","boot":%s,"owner":%s,"seq":%d,"spec":%s}' % (
                digest,
                encode_json(self.attempts.boot),
                encode_json(owner),
                self.attempts.next_seq,
                body,
            )
            write_spec(folder_of(self.home, ident), spec.get("secrets"), kept.encode("ascii"))
        except (OSError, ValueError) as problem:
            forget_torn(self.home, ident)
            if getattr(problem, "errno", None) in NO_SPACE:
                return "disk-full"
            raise
        self.attempts.enqueue_new(ident, owner, shape)
        return "queued"

    def find_refusal(self, ident):
        if ident in self.attempts.forgotten:
            return "forgotten"
        if get_tombstone(self.home, ident) is not None:
            return "cancelled"
        known = not self.is_taken_back() or self.attempts.get(ident) or read_spec(self.home, ident)
        return None if known else PREEMPTED

    def accept_again(self, ident, kept, digest):
        if kept.get("digest") not in (digest, None):  # what was ordered is not known of an orphan
            return "mismatch"
        self.attempts.tell_again(ident, kept)
        return "duplicate"

    def cancel(self, peer, frame, payload):
        cause, results = frame.get("cause", "cancelled"), {}
        if not isinstance(cause, str) or not re.match(r"[a-z][a-z0-9-]{0,31}\Z", cause):
            raise Refused("bad-request", "cause is a word")
        for ident in idents_of(frame):
            results[ident] = self.cancel_one(ident, cause)
        return {"results": results}

    def cancel_one(self, ident, cause):
        attempt = self.attempts.get(ident)
        if (attempt and attempt.state == "ended") or ident in self.attempts.forgotten:
            return "ended"
        # ORDER: tombstone first, record second; the runner looks in the other order, so one of both sees the other.
        put_tombstone(self.home, ident, cause)
        if attempt is None:
            status = status_on_disk(self.home, ident)
            return "ended" if status and status["state"] != "cancelled" else "tombstoned"
        if attempt.state == "running" and is_claimed(self.home, ident):
            self.attempts.kill(attempt)
            return "killing"
        if attempt.state == "queued":
            self.attempts.never(attempt, {"state": "cancelled", "cause": get_tombstone(self.home, ident) or cause})
        return "tombstoned"

    def revoke(self, peer, frame, payload):
        return {"results": {ident: self.revoke_one(ident) for ident in idents_of(frame)}}

    def revoke_one(self, ident):
        attempt = self.attempts.get(ident)
        if attempt is None:
            if ident in self.attempts.forgotten:
                return "too-late"
            return "too-late" if os.path.exists(folder_of(self.home, ident)) else "unknown"
        if attempt.state == "ended":
            if parse(attempt.status)["state"] not in ("cancelled", "stale") or is_claimed(self.home, ident):
                return "too-late"
            put_tombstone(self.home, ident, "revoked")
            return "revoked"
        # ORDER: as for cancel.
        ours = put_tombstone(self.home, ident, "revoked")
        if is_claimed(self.home, ident):
            if ours:
                os.unlink("%s/tombstones/%s" % (self.home, ident))
            return "too-late"
        if attempt.state == "queued":
            self.attempts.never(attempt, {"state": "cancelled", "cause": get_tombstone(self.home, ident)})
        return "revoked"

    def ack(self, peer, frame, payload):
        for ident in idents_of(frame):
            self.attempts.acknowledge(ident)
        return {}

    def report(self, peer, frame, payload):
        """What is not acknowledged of this owner, or of that what is named; with all, whatever is on this host."""
        attempts = self.attempts
        named = set(idents_of(frame)) if "attempts" in frame else None
        if frame.get("all") is True:
            idents = [name for name in os.listdir(self.home + "/attempts") if ID.match(name)]
        else:
            # Nobody's are everybody's: an orphan may have no known owner.
            idents = [
                ident
                for ident, attempt in attempts.by_id.items()
                if attempt.owner in (peer.owner, "") and (named is None or ident in named)
            ]
        ready = [
            key
            for key in sorted(os.listdir(self.home + "/envs"))
            if os.path.exists("%s/envs/%s/.ready" % (self.home, key))
        ]
        extra = dict(
            self.describe_holds(), environments=ready, free=attempts.queue.describe_free(), boot=attempts.boot
        )
        statuses = (b'"%s":%s' % (ident.encode(), self.find_status(ident)) for ident in idents)
        peer.reply_in_parts(frame.get("id"), "attempts:", statuses, extra)

    def find_status(self, ident):
        attempt = self.attempts.get(ident)
        if attempt and attempt.state == "ended":
            return attempt.status
        known = self.attempts.status(attempt) if attempt else status_on_disk(self.home, ident)
        return compact(known or sized(self.home, ident, {"state": "stale"}))

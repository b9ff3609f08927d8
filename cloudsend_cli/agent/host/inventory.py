"""Ops for a client that has lost its own records: everything that is on this host, and whose it is from now on."""

import os

from .encoding import compact
from .protocol import ID, MAX_LINE, Refused, idents_of
from .records import folder_of, sized, status_on_disk
from .spec import read_spec

# What is told of a spec: not its files, which are many, nor any secret, which is not kept.
TOLD = (
    "argv",
    "env",
    "cwd",
    "cpus",
    "memory",
    "gpus",
    "slots",
    "environment",
    "outputs",
    "timeout",
    "grace",
    "kind",
    "about",
)


class Inventory:
    """Reads the files of all attempts, so a child does it, a page at a time."""

    PAGE = 4 << 20  # bytes; well below what a client may leave unread

    def __init__(self, attempts):
        self.attempts, self.home, self.hands = attempts, attempts.home, attempts.hands

    def ops(self):
        return {"inventory": self.inventory, "adopt": self.adopt}

    def inventory(self, peer, frame, payload):
        after = frame.get("after")
        if after is not None and not (isinstance(after, str) and ID.match(after)):
            raise Refused("bad-request", "after is an id, or null")

        def done(result):
            if result[-1:] != b".":
                error = {"code": "internal", "message": "it was interrupted"}
                return peer.reply(frame.get("id"), {"ok": False, "error": error})
            last, *lines = result[:-1].split(b"\n")
            extra = {"next": last.decode() or None, "boot": self.attempts.boot}
            peer.reply_in_parts(frame.get("id"), "attempts", lines, extra)

        self.hands.fork(lambda: self.read_page(after or ""), done)

    def read_page(self, after):
        """The id to go on after, b'' at the end, and a line for each attempt."""
        lines, size = [], 0
        for ident in sorted(os.listdir(self.home + "/attempts")):
            if ident <= after or not ID.match(ident):
                continue
            line = self.describe(ident)
            if line:
                lines.append(line)
                size += len(line)
            if size > self.PAGE:
                return b"\n".join([ident.encode(), *lines]) + b"."
        return b"\n".join([b"", *lines]) + b"."

    def describe(self, ident):
        kept = read_spec(self.home, ident)
        if kept is None:
            return None
        attempt = self.attempts.get(ident)
        status = self.attempts.status(attempt) if attempt else status_on_disk(self.home, ident)
        about = {
            "id": ident,
            "owner": self.attempts.owner_of(ident, kept),
            "boot": kept.get("boot"),
            "status": status or sized(self.home, ident, {"state": "stale"}),
            "acknowledged": attempt is None,
            "spec": {name: kept["spec"][name] for name in TOLD if kept["spec"].get(name) is not None},
        }
        line = compact(about)
        if len(line) > MAX_LINE - 4096:  # a spec that filled a frame leaves no room for the rest
            line = compact(dict(about, spec={"about": kept["spec"].get("about")}, cut=True))
        return line

    def adopt(self, peer, frame, payload):
        results = {}
        for ident in idents_of(frame):
            results[ident] = "adopted" if os.path.exists(folder_of(self.home, ident) + "/spec.json") else "unknown"
        self.attempts.adopt([ident for ident in results if results[ident] == "adopted"], peer.owner)
        return {"results": results}

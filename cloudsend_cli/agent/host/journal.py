"""The journal: acknowledged ends, ends that were not acknowledged for a while, attempts that changed their owner.

For the first two it spares a start the opening of records, and it may lack lines of them (a full disk, a crash): then
the records are read, and what was acknowledged is told once more.
"""

import os
from collections import deque

from .disk import read_file, write_all
from .encoding import compact, parse
from .logfile import log
from .texts import to_bytes, to_text


class Journal:
    """Lines `a ID`, `e ID STATUS` and `o ID OWNER`. Torn lines are skipped."""

    COMPACT_FROM, END_AFTER = 1 << 20, 0.5

    def __init__(self, home):
        self.path = home + "/journal"
        self.fd = None
        self.acked, self.ended = [], deque()  # ids, and attempts, that are not in the file yet
        self.debt = []  # lines that could not be written so far

    def read(self):
        """(acknowledged ids, {id: JSON of its end}, {id: its new owner})."""
        acked, ends, owners = set(), {}, {}
        for line in (read_file(self.path, 1 << 32) or b"").split(b"\n"):
            word = line.split(b" ", 2)
            if word[0] == b"a" and len(word) == 2:
                acked.add(to_text(word[1]))
            elif word[0] == b"e" and len(word) == 3 and parse(word[2]):
                ends[to_text(word[1])] = word[2]
            elif word[0] == b"o" and len(word) == 3 and isinstance(parse(word[2]), str):
                owners[to_text(word[1])] = parse(word[2])
        return acked, ends, owners

    def open(self, acked, ends, owners):
        """Appends from now on, to a shorter file with just these if it has become long."""
        try:
            if os.path.exists(self.path) and os.stat(self.path).st_size >= self.COMPACT_FROM:
                self.rewrite(acked, ends, owners)
        except OSError as problem:
            log("the journal was not compacted:", problem)
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def rewrite(self, acked, ends, owners):
        with open(self.path + ".new", "wb") as writer:
            writer.writelines(b"a %s\n" % to_bytes(ident) for ident in sorted(acked))
            writer.writelines(b"e %s %s\n" % (to_bytes(ident), raw) for ident, raw in ends.items())
            writer.writelines(owner_line(ident, owner) for ident, owner in owners.items())
            writer.flush()
            os.fsync(writer.fileno())
        os.rename(self.path + ".new", self.path)

    def write_owner(self, idents, owner):
        """On disk when it returns; raises OSError otherwise."""
        # The empty line ends what an earlier write, cut short by a full disk, may have left.
        write_all(self.fd, b"\n" + b"".join(owner_line(ident, owner) for ident in idents))
        os.fdatasync(self.fd)

    def write(self, now, everything=False):
        """Appends what has gathered; an end only when it has waited for its acknowledgement for a while."""
        lines = [b"a %s\n" % ident.encode() for ident in self.acked]
        has_ends = False
        while self.ended and (now - self.ended[0].ended >= self.END_AFTER or everything):
            attempt = self.ended.popleft()
            if attempt.state == "ended":
                lines.append(b"e %s %s\n" % (attempt.id.encode(), attempt.status))
                has_ends = True
        self.acked = []
        self.debt.extend(lines)
        if not self.debt:
            return
        try:
            write_all(self.fd, b"\n" + b"".join(self.debt))  # the empty line is for the same reason
            self.debt = []
            if has_ends:
                os.fdatasync(self.fd)
        except OSError as problem:
            log("journal:", problem)


def owner_line(ident, owner):
    return b"o %s %s\n" % (to_bytes(ident), compact(owner))

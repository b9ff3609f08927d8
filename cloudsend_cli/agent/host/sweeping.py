"""Uploads that no attempt on this host uses, and that none has used for a week, are dropped."""

import os
import re
import time

from .disk import read_file, remove
from .encoding import compact, parse
from .protocol import SHA

WEEK = 7 * 86400.0
USED = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class Sweep:
    """`told` are those that a client of this daemon was told to be here: it may count on them.

    The time of the last use is ctime, which changes when a work directory's link to an upload comes or goes.
    """

    def __init__(self, home, hands):
        self.home, self.hands = home, hands
        self.keep = float(os.environ.get("CLOUDSEND_KEEP_UPLOADS") or WEEK)
        self.told, self.busy = set(), False

    def begin(self):
        """Files are read by a child; what is dropped is looked at once more here."""
        if not self.busy:
            self.busy = True
            self.hands.fork(lambda: compact(self.find_unused()), self.drop)

    def find_unused(self):
        old = {name for name in os.listdir(self.home + "/files") if self.is_old(name)}
        for ident in os.listdir(self.home + "/attempts") if old else ():
            spec = read_file("%s/attempts/%s/spec.json" % (self.home, ident)) or b""
            old.difference_update(found.decode() for found in USED.findall(spec))
        return sorted(old)

    def is_old(self, name):
        try:
            about = os.lstat("%s/files/%s" % (self.home, name))
        except OSError:
            return False
        used = about.st_ctime if SHA.match(name) else about.st_mtime
        return time.time() - used > self.keep

    def drop(self, result):
        self.busy = False
        for name in parse(result) or ():
            if name not in self.told and self.is_old(name):
                remove("%s/files/%s" % (self.home, name))

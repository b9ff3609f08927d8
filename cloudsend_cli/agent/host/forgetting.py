"""Ended attempts that nobody needs any more go, with all but their ids: those are never started again.

A line `ID .` in the file `forgotten` comes first, and is on disk before anything is taken away. Then the directory
moves to the trash, which a child empties; at its start a daemon does what one that was killed has left undone.
"""

import errno
import json
import os
import time

from .disk import read_file, remove, write_all
from .encoding import compact
from .logfile import log
from .protocol import Refused, idents_of
from .records import FINAL, folder_of, status_on_disk
from .spec import is_number, read_spec
from .texts import to_text

LONG_PATH = 2000  # bytes; what lies deeper is moved up before it is removed


class Forgetting:
    MOST = 1000  # attempts in one request

    def __init__(self, attempts, sweep):
        self.attempts, self.home, self.hands, self.sweep = attempts, attempts.home, attempts.hands, sweep
        self.path, self.trash = self.home + "/forgotten", self.home + "/trash"
        os.makedirs(self.trash, 0o700, exist_ok=True)
        self.ids = attempts.forgotten
        for line in (read_file(self.path, 1 << 32) or b"").split(b"\n"):
            if line.endswith(b" ."):  # otherwise it was cut short, and may name another attempt
                self.ids.add(to_text(line[:-2]))

    def ops(self):
        return {"forget": self.forget}

    def resume(self):
        """After a start: what was promised to be forgotten goes, and the trash is emptied."""
        if self.ids:
            self.take_away(self.ids.intersection(os.listdir(self.home + "/attempts")))
            for ident in self.ids.intersection(os.listdir(self.home + "/tombstones")):
                remove("%s/tombstones/%s" % (self.home, ident))
        self.clean_up()

    def forget(self, peer, frame, payload):
        idents, age = idents_of(frame), frame.get("age", 0)
        if len(idents) > self.MOST or not is_number(age):
            raise Refused("bad-request", "at most %d attempts; age is a number of seconds" % self.MOST)

        def done(result):
            results = json.loads(result.decode()) if result else {}
            if not result:
                error = {"code": "internal", "message": "it was interrupted"}
                return peer.reply(frame.get("id"), {"ok": False, "error": error})
            try:
                self.commit([ident for ident, verdict in results.items() if verdict == "forgotten"], results)
            except OSError as problem:
                code = "disk-full" if problem.errno == errno.ENOSPC else "os"
                return peer.reply(frame.get("id"), {"ok": False, "error": {"code": code, "message": str(problem)}})
            peer.reply(frame.get("id"), {"results": results})
            self.clean_up()

        self.hands.fork(lambda: compact({i: self.judge(i, peer.owner, age) for i in idents}), done)

    def judge(self, ident, owner, age):
        """In a child, as it reads much."""
        if ident in self.ids:
            return "forgotten"
        kept = read_spec(self.home, ident)
        if kept is None:
            return "unknown"
        if self.attempts.owner_of(ident, kept) != owner:
            return "another-owner"
        attempt = self.attempts.get(ident)
        if attempt:
            return "not-acknowledged" if attempt.state == "ended" else "not-ended"
        status = status_on_disk(self.home, ident) or {"state": "stale"}
        if status["state"] not in FINAL:
            return "not-ended"
        ended = status.get("ended") or os.stat(folder_of(self.home, ident) + "/spec.json").st_mtime
        return "too-young" if time.time() - ended < age else "forgotten"

    def commit(self, idents, results):
        """ORDER: the promise, on disk, then the deed."""
        for ident in idents:
            if ident in self.attempts.by_id:  # somebody has asked for it again meanwhile
                results[ident] = "not-acknowledged"
        idents = [ident for ident in idents if results[ident] == "forgotten" and ident not in self.ids]
        if not idents:
            return
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, b"\n" + b"".join(b"%s .\n" % ident.encode() for ident in idents))
            os.fsync(fd)
        finally:
            os.close(fd)
        self.ids.update(idents)
        self.take_away(idents)
        for ident in idents:
            remove("%s/tombstones/%s" % (self.home, ident))
            self.attempts.owners.pop(ident, None)

    def take_away(self, idents):
        for ident in idents:
            try:
                os.rename(folder_of(self.home, ident), unused_name(self.trash))
            except OSError as problem:
                log("forgotten", ident, problem)

    def clean_up(self):
        """Empties the trash, then drops uploads that nothing has used for long."""
        if os.listdir(self.trash):
            self.hands.fork(lambda: empty(self.trash), lambda result: self.sweep.begin())
        else:
            self.sweep.begin()


def unused_name(folder):
    return "%s/%s" % (folder, os.urandom(8).hex())


def empty(trash):
    """Removes all below a folder, without following links, whatever permissions and depths a job has left there."""
    failed = set()
    todo = [os.path.join(trash, name) for name in os.listdir(trash)]
    while todo:
        path = todo[-1]
        folders = [found for found in clear_files(path) if found not in failed]
        if folders:
            for i, found in enumerate(folders):
                if len(os.fsencode(found)) > LONG_PATH:
                    folders[i] = unused_name(trash)
                    os.rename(found, folders[i])
            todo.extend(folders)
            continue
        todo.pop()
        try:
            os.rmdir(path)
        except OSError as problem:
            failed.add(path)
            log("trash:", problem)
    return b"."


def clear_files(path):
    """Removes what is no folder, and returns the paths of the folders."""
    folders = []
    try:
        os.chmod(path, 0o700)
        entries = list(os.scandir(path))
    except OSError as problem:
        log("trash:", problem)
        return folders
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
        else:
            remove(entry.path)
    return folders

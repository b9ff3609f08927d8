"""Attempts that run on although their directories are gone: somebody has deleted the home, or a part of it.

Only their environment still tells whose they are. They get a directory again, so that their ids are never started a
second time, and count as running until the last of their processes has ended; how it ended nobody can know.
"""

import os
import time

from .disk import read_file, write_new
from .encoding import compact, parse
from .logfile import log
from .processes import all_processes, find_tree, kill_tree, look_twice, start_time
from .protocol import ID, are_whole
from .records import folder_of, get_tombstone, pack_status, put_tombstone, sized, write_record
from .spec import is_names, is_number
from .texts import to_text

TAKES = b"CLOUDSEND_TAKES"  # in the environment of each attempt: its owner, and what it takes of this host
GRACE = 10.0


def describe_takes(owner, spec, gpus):
    return compact(
        {
            "owner": owner,
            "cpus": spec.get("cpus", 1),
            "memory": spec.get("memory", 0),
            "gpu_ids": list(gpus),
            "slots": spec.get("slots") or [],
        }
    )


class Orphans:
    """`known` are the processes of each that were seen last; only when all have ended it is looked for more."""

    def __init__(self, attempts):
        self.attempts, self.home, self.hands = attempts, attempts.home, attempts.hands
        self.known, self.killing = {}, set()

    def find(self, ended):
        """Before anybody asks: gives a directory to each attempt of this home that runs without one.

        Not to those that have ended, and left processes that were to be kept.
        """
        for ident, (pid, environ) in find_attempts(self.home).items():
            if ident not in ended and not os.path.exists(folder_of(self.home, ident) + "/spec.json"):
                log("attempt", ident, "runs, and its directory is gone")
                try:
                    self.settle(ident, pid, read_takes(environ))
                except OSError as problem:
                    log("attempt", ident, problem)
                    put_tombstone(self.home, ident, "home-deleted")  # needs no space, and forbids a second start too

    def settle(self, ident, pid, takes):
        # ORDER: the record comes first. What has a spec and no record would wait to be started.
        base = folder_of(self.home, ident)
        os.makedirs(base, 0o700, exist_ok=True)
        about = {"state": "running", "orphan": True, "boot": self.attempts.boot, "gpu_ids": takes["gpu_ids"]}
        about.update(pid=pid, pid_start=start_time(pid), runner=runner_of(pid, self.home))
        record = os.open(base + "/record", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            write_record(record, pack_status(about))
        finally:
            os.close(record)
        spec = {"id": ident, "argv": ["?"], "gpus": len(takes["gpu_ids"])}
        spec.update((name, takes[name]) for name in ("cpus", "memory", "slots"))
        kept = {"digest": None, "boot": self.attempts.boot, "owner": takes["owner"], "seq": 0, "spec": spec}
        write_new(base + "/spec.json", compact(kept))

    def watch(self, attempt):
        """From now on this attempt is one of ours."""
        self.attempts.adopted.discard(attempt)
        self.known.setdefault(attempt, set())

    def tick(self):
        for attempt, known in list(self.known.items()):
            if not any(start_time(pid) == start for pid, start, _ in known):
                found = look_twice(lambda: self.tree(attempt))  # noqa: B023
                if found:
                    self.known[attempt] = found
                else:
                    self.end(attempt)

    def tree(self, attempt):
        """Without its runner: that one is another daemon's, and may live on."""
        found = parse((read_file(folder_of(self.home, attempt.id) + "/record") or b"")[9:])
        runner = found.get("runner") if isinstance(found, dict) else None
        if runner and not is_runner(runner, self.home):
            runner = None
        return {item for item in find_tree(attempt.id, [runner] if runner else []) if item[0] != runner}

    def kill(self, attempt):
        """TERM, grace, KILL of all that is found, in a child as it takes long; until it is all gone."""
        if attempt in self.killing:
            return
        self.killing.add(attempt)
        self.hands.fork(
            lambda: b"%d" % kill_tree(lambda: self.tree(attempt), GRACE),
            lambda result: self.killing.discard(attempt),
        )

    def end(self, attempt):
        del self.known[attempt]
        status = {"state": "lost", "started": None, "ended": time.time(), "exit_code": None, "signal": None}
        status["cause"] = get_tombstone(self.home, attempt.id) or "home-deleted"
        raw = pack_status(sized(self.home, attempt.id, status))
        try:
            record = os.open(folder_of(self.home, attempt.id) + "/record", os.O_RDWR | os.O_CLOEXEC)
            try:
                write_record(record, raw)
            finally:
                os.close(record)
        except OSError as problem:
            log("record of", attempt.id, problem)
        self.attempts.end(attempt, raw)


def find_attempts(home):
    """{id: (a process, its environment)} of the attempts of this home that run, by what our own processes carry."""
    found, below = {}, os.fsencode(home) + b"/attempts/"
    for pid, _ in all_processes():
        try:
            if os.stat("/proc/%d" % pid).st_uid != os.geteuid():
                continue
        except OSError:
            continue
        raw = read_file("/proc/%d/environ" % pid) or b""
        if b"CLOUDSEND_RUN_DIR=" + below in raw:
            environ = dict(item.split(b"=", 1) for item in raw.split(b"\0") if b"=" in item)
            ident = to_text(environ.get(b"CLOUDSEND_ATTEMPT", b""))
            if ID.match(ident) and environ.get(b"CLOUDSEND_RUN_DIR") == below + os.fsencode(ident) + b"/work":
                found.setdefault(ident, (pid, environ))
    return found


def read_takes(environ):
    """What it takes, with a guess where it does not say: it could have changed it."""
    said = parse(environ.get(TAKES, b""))
    takes = {"owner": "", "cpus": 1, "memory": 0, "gpu_ids": [], "slots": []}
    if isinstance(said, dict):
        for name, good in (
            ("owner", lambda value: isinstance(value, str) and len(value) <= 200),
            ("cpus", is_number),
            ("memory", is_number),
            ("gpu_ids", lambda value: isinstance(value, list) and len(value) < 100 and are_whole(value, 1 << 16)),
            ("slots", lambda value: is_names(value) and len(compact(value)) < 65536),
        ):
            if name in said and good(said[name]):
                takes[name] = said[name]
    return takes


def is_runner(pid, home):
    """A runner has the words of the daemon that it was forked from, and leads a session, which no daemon does."""
    words = (read_file("/proc/%d/cmdline" % pid) or b"").split(b"\0")
    try:
        return words[-3:-1] == [b"serve", os.fsencode(home)] and os.getsid(pid) == pid != os.getpid()
    except OSError:
        return False


def runner_of(pid, home):
    """The runner above a process of an attempt; None where there is none any more."""
    parents = {child: about[0] for child, about in all_processes()}
    seen = set()
    while pid in parents and pid not in seen:
        seen.add(pid)
        if is_runner(pid, home):
            return pid
        pid = parents[pid]
    return None

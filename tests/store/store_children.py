"""Processes that use a store, forks of one that has loaded it: interpreters would cost more than what these do.

usage: store_children.py SOCKET, the number of an open one
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import Changes
from cloudsend_cli.errors import ConflictError
from cloudsend_cli.store.sqlite import SqliteStore

WORDS_MOST = 1 << 16


class Child:
    """One of them; `out` is what it says."""

    def __init__(self, line: socket.socket, pid: int, out: int) -> None:
        self._line = line
        self.pid = pid
        self.out = os.fdopen(out)

    def wait(self) -> int:
        """Its exit status."""
        self.out.close()
        self._line.send(json.dumps(["wait", self.pid]).encode())
        return int(self._line.recv(WORDS_MOST))


class Nursery:
    """Where they come from."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def start(self, what: Callable[..., None], *words: object) -> Child:
        """A process that does one of DEEDS."""
        out, theirs = os.pipe()
        request = json.dumps([what.__name__, *map(str, words)]).encode()
        socket.send_fds(self._line, [request], [theirs])
        os.close(theirs)
        return Child(self._line, int(self._line.recv(WORDS_MOST)), out)

    def close(self) -> None:
        self._line.close()
        self._process.wait(10)


# ---- what they do --------------------------------------------------------------------------------------------------


def write(directory: str, commits: str, epoch: str) -> None:
    """Raise every job's `maxrss` to the version that the commit makes, and acknowledge each commit with a line."""
    left = int(commits)
    store = SqliteStore.open(Path(directory))
    number = store.take_epoch("writer") if epoch == "epoch" else None
    state = store.load("abc123")
    print("ready", flush=True)
    while left:
        new = state.run.version + 1
        changes = Changes(jobs={n: replace(job, maxrss=new) for n, job in state.jobs.items()})
        try:
            store.commit("abc123", state.run.version, changes, [Event("step", str(new))], epoch=number)
        except ConflictError:
            state = store.load("abc123")
            continue
        state.apply(changes)
        state.set_version(new)
        left -= 1
        print(new, flush=True)
    store.close()


def open_when_told(directory: str, gate: str) -> None:
    """Once nobody holds the gate's lock any more."""
    with open(gate) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        print(SqliteStore.open(Path(directory)).installation_id(), flush=True)


DEEDS: dict[str, Callable[..., None]] = {deed.__name__: deed for deed in (write, open_when_told)}


def serve(line: socket.socket) -> None:
    """Until nobody asks any more; what was not waited for ends then."""
    living: set[int] = set()
    while True:
        data, streams, *_ = socket.recv_fds(line, WORDS_MOST, 1)
        if not data:
            for pid in living:
                os.kill(pid, signal.SIGKILL)
            return
        what, *words = json.loads(data)
        if what == "wait":
            living.discard(words[0])
            line.send(str(os.waitstatus_to_exitcode(os.waitpid(words[0], 0)[1])).encode())
            continue
        pid = os.fork()
        if pid == 0:
            line.close()
            os.dup2(streams[0], 1)
            os.close(streams[0])
            DEEDS[what](*words)
            return
        living.add(pid)
        os.close(streams[0])
        line.send(str(pid).encode())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

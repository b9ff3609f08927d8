"""A whole cloudsend in a directory of its own: maestro, agent, jobs; nothing of it is alive after `close`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sshlab.commands import rest

from cloudsend_cli.api import Client
from cloudsend_cli.core.submission import SubmitOptions
from cloudsend_cli.core.views import JobView, Progress
from cloudsend_cli.maestro.local import lock_holder

T = TypeVar("T")
DEADLINE = 60.0


def wait_for(happened: Callable[[], T], deadline: float = DEADLINE) -> T:
    """The first true answer. For what no event tells: other processes, files."""
    begun = asked = time.monotonic()
    while not (found := happened()):
        now = time.monotonic()
        assert now < begun + deadline, f"not within {deadline:g} s"
        time.sleep(min(0.01, rest(0.005, now - begun, now - asked)))  # scenarios act on what they see, at once
        asked = time.monotonic()
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False


def find_agent(home: Path) -> int | None:
    """The pid of the daemon that listens in `home`, from its greeting."""
    with contextlib.suppress(OSError, ValueError, KeyError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(home / "agent.sock"))
        line = b""
        while not line.endswith(b"\n"):
            data = sock.recv(1 << 16)
            if not data:
                return None
            line += data
        return int(json.loads(line.partition(b" ")[2])["pid"])
    return None


def find_processes(directory: Path) -> dict[int, bytes]:
    """Whatever lives and belongs to this state directory: {pid: command line}."""
    mark = os.fsencode(str(directory))
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                command = _read(f"/proc/{name}/cmdline")
                if not command:  # the kernel's own, and what is dead
                    continue
                ours = mark + b"\0" in command or mark + b"/" in command
                if (ours or b"RUN_DIR=" + mark + b"/" in _read(f"/proc/{name}/environ")) and is_alive(int(name)):
                    found[int(name)] = command
    return found


def _read(path: str) -> bytes:
    """As pathlib does, in a third of the time: all processes are looked at again and again."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(number, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(number)


class Stack:
    """One state directory and a client of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.home = self.state / "agent"
        self.files = directory / "files"
        self.files.mkdir()
        self.client = Client(self.state)

    def config(self, name: str = "jobs.json", **config: object) -> str:
        path = self.files / name
        path.write_text(json.dumps(config), encoding="utf-8")
        return str(path)

    def submit(self, *, fresh: bool = False, name: str = "jobs.json", **config: object) -> str:
        return self.client.submit(self.config(name, **config), options=SubmitOptions(fresh=fresh)).run

    def settle(self, run: str, deadline: float = DEADLINE) -> Progress:
        last = None
        for progress in self.client.follow(run, timeout=deadline):
            last = progress
        assert last is not None and last.settled, last
        return last

    def jobs(self, run: str) -> dict[str, JobView]:
        return {job.name: job for job in self.client.list_jobs(run)}

    def maestro(self) -> int | None:
        return lock_holder(self.state)

    def agent(self) -> int | None:
        return find_agent(self.home)

    def kill_maestro(self) -> None:
        pid = self.maestro()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not is_alive(pid))

    def kill_agent(self) -> None:
        pid = self.agent()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not is_alive(pid))

    def close(self) -> None:
        self.client.close()
        until = time.monotonic() + 10
        while (found := find_processes(self.directory)) and time.monotonic() < until:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        assert not found, found

"""Commands of the machine: run with a deadline, and with their words when they fail."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from .spec import LabError

T = TypeVar("T")
DEADLINE = 20.0
# Nothing of the environment of the tests reaches a host.
ENVIRON = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def run(command: Sequence[str], text: str = "") -> str:
    """Run a command of the kit itself; what it prints."""
    done = subprocess.run(
        command, input=text.encode(), capture_output=True, timeout=DEADLINE, env=ENVIRON, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise LabError(f"{' '.join(command)}: exit {done.returncode}: {said}\n{text}")
    return done.stdout.decode(errors="replace")


def wait_for(happened: Callable[[], T], what: str, deadline: float = DEADLINE) -> T:
    """The first true answer. For what no event tells: other processes, files of the kernel."""
    begun = asked = time.monotonic()
    while not (found := happened()):
        now = time.monotonic()
        if now > begun + deadline:
            raise LabError(f"not within {deadline:g} s: {what}")
        time.sleep(rest(0.002, now - begun, now - asked))
        asked = time.monotonic()
    return found


def rest(least: float, waited: float, asking: float) -> float:
    """Seconds until it is asked again: what comes late may be noticed late, and what is dear is asked seldom."""
    return max(least, min(0.05, waited / 20), min(0.1, 4 * asking))


def read_line(stream: IO[bytes], what: str) -> str:
    """One line that a process of ours says, with a deadline."""
    line, until = b"", time.monotonic() + DEADLINE
    while not line.endswith(b"\n"):
        if not select.select([stream], [], [], max(0.0, until - time.monotonic()))[0]:
            raise LabError(f"not within {DEADLINE:g} s: {what}")
        if not (byte := os.read(stream.fileno(), 1)):
            raise LabError(f"ended before: {what}")
        line += byte
    return line.decode().strip()


def start_time(pid: int) -> str | None:
    """What tells a process from a later one with the same pid; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else fields[19].decode()


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def send(pid: int, sig: int) -> None:
    """A signal to a process that may just have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)


def with_descendants(pids: set[int]) -> set[int]:
    """These processes and their children and children's children, as far as they live."""
    parents = {}
    for pid in processes():
        with contextlib.suppress(OSError):
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    found = set(pids)
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return {pid for pid in found if start_time(pid)}

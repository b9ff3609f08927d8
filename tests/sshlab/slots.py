"""Numbers that labs hold while they live, one each, and the end of what a killed lab left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from .cgroups import remove_cgroups_of, thaw_cgroups_of
from .commands import processes, run, send, start_time, wait_for, with_descendants
from .spec import PREFIX, LabError

SLOTS = 200
MARK = "CLOUDSEND_SSHLAB"  # in the environment of what runs outside of namespaces: the lab's directory


def slots_directory() -> Path:
    """One place for all labs of one user on this machine, whatever TMPDIR says."""
    place = Path("/tmp", f"{PREFIX}-{os.geteuid()}") if os.geteuid() else Path("/run", PREFIX)
    place.mkdir(mode=0o700, exist_ok=True)
    if place.is_symlink() or place.stat().st_uid != os.geteuid():
        raise LabError(f"{place} belongs to another user")
    return place


class Slot:
    """A number of which the lock is held until `release`, or until this process ends in whatever way."""

    def __init__(self, number: int, lock: int) -> None:
        self.number = number
        self._lock = lock

    def record(self, directory: Path, keeper: int | None = None) -> None:
        """Say what is to be removed if this process does not come to do it."""
        facts = {"directory": str(directory), "keeper": keeper, "started": keeper and start_time(keeper)}
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps(facts).encode(), 0)

    def release(self) -> None:
        os.ftruncate(self._lock, 0)
        os.close(self._lock)


def take_slot(usable: Callable[[int], bool]) -> Slot:
    """Take a free number that is usable. First, whatever killed labs left behind is removed."""
    taken = None
    for number in range(SLOTS):
        path = slots_directory() / f"slot-{number}"
        if taken is not None and not path.exists():
            break  # numbers are taken from below: nobody was further up
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        remove_leftovers(number, os.pread(lock, 1 << 16, 0))
        os.ftruncate(lock, 0)
        if taken is None and usable(number):
            taken = Slot(number, lock)
        else:
            os.close(lock)
    if taken is None:
        raise LabError(f"no free slot of {SLOTS} for a lab in {slots_directory()}")
    return taken


def remove_leftovers(number: int, record: bytes) -> None:
    if not record:
        return
    facts = json.loads(record)
    keeper, directory = facts["keeper"], Path(facts["directory"])
    if os.geteuid() == 0:  # others have none; and their numbers are not those of root's labs
        thaw_cgroups_of(number)
    if keeper and start_time(keeper) == facts["started"]:
        send(keeper, signal.SIGKILL)
        wait_for(lambda: start_time(keeper) is None, f"the keeper {keeper} of a killed lab ends")
    end_marked(str(directory))
    if os.geteuid() == 0:
        if Path(f"/sys/class/net/cslab{number}").exists():
            with contextlib.suppress(LabError):  # it goes by itself when its other end has gone
                run(["ip", "link", "delete", f"cslab{number}"])
        remove_cgroups_of(number)
    if directory.name.startswith(PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def marked_processes(value: str) -> set[int]:
    """Processes that were started with this mark in their environment, or name it in their command line: sshd writes
    that over its environment."""
    mark, found = f"{MARK}={value}".encode(), set()
    for pid in processes():
        with contextlib.suppress(OSError):
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            is_marked = any(entry == mark or entry.startswith(mark + b"/") for entry in entries)
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            if is_marked or (title.startswith(b"sshd: ") and f"{value}/".encode() in title):
                found.add(pid)
    return {pid for pid in found if start_time(pid)} - {os.getpid()}


def end_marked(value: str) -> None:
    """End these and what descends from them."""

    def none_left() -> bool:
        left = with_descendants(marked_processes(value))
        for pid in left:
            send(pid, signal.SIGKILL)
        return not left

    wait_for(none_left, f"processes marked {value} end")

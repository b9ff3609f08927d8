"""The maestro as a background process of the state directory: one at a time, started on demand, gone when idle."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from cloudsend_cli.errors import CloudsendError, ConflictError

LOCK = "maestro.lock"
LOG = "maestro.log"
LOG_LIMIT = 4 << 20


def lock_maestro(state_dir: Path, *, takeover: bool) -> int | None:
    """The open lock file with our pid in it, None if another maestro holds it.

    A takeover replaces the file, so that a paused maestro keeps a lock nobody looks at; the epoch fences its writes.
    """
    path = state_dir / LOCK
    if takeover:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        if holds_lock(state_dir, fd):  # it may have been replaced between open and lock
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd
        os.close(fd)


def holds_lock(state_dir: Path, fd: int) -> bool:
    """Whether this open file is still the lock that others look at."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(state_dir / LOCK))
    except FileNotFoundError:
        return False


def lock_holder(state_dir: Path) -> int | None:
    """The pid of the maestro that holds the lock, None if nobody does."""
    try:
        fd = os.open(state_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 20, 0)
        return int(text) if text.strip().isdigit() else None
    finally:
        os.close(fd)
    return None


def main(arguments: list[str]) -> int:
    """`python -m cloudsend_cli.maestro.local STATE_DIR READY_FD [takeover]`"""
    state_dir, ready = Path(arguments[0]), int(arguments[1])
    lock = lock_maestro(state_dir, takeover="takeover" in arguments[2:])
    if lock is None:
        os.write(ready, b"busy")
        return 0
    try:
        return _serve(state_dir, ready, lock)
    except ConflictError:
        _log("a newer maestro has taken over; this one stops")
        return 0
    except CloudsendError as problem:
        _log(f"{problem.code}: {problem.message} {problem.hint}")
        return problem.exit_status
    except Exception:  # noqa: BLE001 - the last line of defence: the log must say why the maestro ended
        _log(traceback.format_exc())
        return 70


def _serve(state_dir: Path, ready: int, lock: int) -> int:
    from cloudsend_cli.store.sqlite import SqliteStore

    from .loop import Loop

    gc.freeze()  # what is loaded stays
    gc.enable()
    try:
        store = SqliteStore.open(state_dir)
    except CloudsendError as problem:
        os.write(ready, json.dumps({"message": problem.message, "hint": problem.hint}).encode())
        raise
    try:
        epoch = store.take_epoch(f"pid {os.getpid()} at {time.time():.0f}")
        loop = Loop(state_dir, store, epoch, log=_log, in_office=lambda: holds_lock(state_dir, lock))

        def stop(*_: object) -> None:
            loop.stopping = True
            loop.wake()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _log(f"maestro {os.getpid()} serves {state_dir} under epoch {epoch}")
        os.write(ready, b"ready")
        os.close(ready)
        loop.serve()
        _log(f"maestro {os.getpid()} leaves")
    finally:
        store.close()
    return 0


def _log(text: str) -> None:
    """Words of machines may be in it: nothing is written that a terminal obeys."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    shown = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    sys.stderr.write(f"{stamp} {shown}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    gc.disable()  # until all is loaded: looking for garbage in it takes a tenth of the time
    status = main(sys.argv[1:])
    gc.freeze()  # see cloudsend_cli/__main__.py
    sys.exit(status)

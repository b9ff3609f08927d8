"""How commands reach the maestro: find it, start it, ask it, follow it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cloudsend_cli.errors import MaestroError

from .local import LOCK, LOG, LOG_LIMIT, lock_holder
from .sockets import LineReader, Message, connect, encode

ANSWER_LIMIT = 5.0
START_LIMIT = 15.0
PATIENCE = 60.0  # with a maestro that lives, is not stopped, and does not answer
STARTS_MOST = 3
LOOK_AGAIN = 0.02
READY, BUSY = "ready", "busy"


class MaestroClient:
    """One connection. Any OSError or EOF becomes MaestroError: the maestro is gone or does not answer."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = LineReader()
        self._messages: list[Message] = []
        self._next = 1

    def ask(self, op: str, *, limit: float = ANSWER_LIMIT, **fields: object) -> Message:
        """The reply to one request, waiting up to `limit`; messages pushed before it are kept for `messages`."""
        number = self.send(op, limit=limit, **fields)
        try:
            while True:
                messages = list(self._receive())
                reply = next((m for m in messages if m.get("re") == number), None)
                self._messages.extend(m for m in messages if m is not reply)
                if reply is not None:
                    return reply
        except OSError as problem:
            raise MaestroError(f"the maestro does not answer: {problem}") from problem

    def send(self, op: str, *, limit: float = ANSWER_LIMIT, **fields: object) -> int:
        """Ask without waiting: the number that its reply carries as `re`, one of `messages`."""
        number, self._next = self._next, self._next + 1
        try:
            self._sock.settimeout(limit)
            self._sock.sendall(encode({"id": number, "op": op, **fields}))
        except OSError as problem:
            raise MaestroError(f"the maestro does not answer: {problem}") from problem
        return number

    def messages(self, timeout: float | None) -> list[Message]:
        """Pushed messages and late replies, waiting up to `timeout` for the first; none: the time ran out."""
        if not self._messages:
            try:
                self._sock.settimeout(None)
                if select.select([self._sock], [], [], timeout)[0]:
                    self._messages.extend(self._receive())
            except OSError as problem:
                raise MaestroError(f"the maestro went away: {problem}") from problem
        found, self._messages = self._messages, []
        return found

    def _receive(self) -> Iterator[Message]:
        data = self._sock.recv(1 << 16)
        if not data:
            raise MaestroError("the maestro has ended")
        return iter(self._reader.feed(data))

    def close(self) -> None:
        self._sock.close()


def find_maestro(state_dir: Path) -> MaestroClient | None:
    """A connection to the running maestro that answers, else None."""
    holder = lock_holder(state_dir)
    if holder is not None and _is_stopped(holder):
        return None
    try:
        client = MaestroClient(connect(state_dir, ANSWER_LIMIT))
    except OSError:
        return None
    try:
        client.ask("status")
    except MaestroError:
        client.close()
        return None
    return client


def ensure_maestro(state_dir: Path) -> MaestroClient:
    """A connection to a maestro that answers, started if there is none.

    One that holds the lock and does not answer is superseded: at once if it is stopped, else when `PATIENCE` has run
    out. It may be starting, leaving, or reading a large run, and then an answer comes.
    """
    until = time.monotonic() + PATIENCE
    ended = 0
    while True:
        client = find_maestro(state_dir)
        if client is not None:
            return client
        late = time.monotonic() > until
        holder = lock_holder(state_dir)
        takeover = holder is not None and (late or _is_stopped(holder))
        try:
            said = _start_maestro(state_dir, ("takeover",) if takeover else ()) if takeover or holder is None else BUSY
        except OSError as problem:
            raise MaestroError(f"the maestro could not be started in {state_dir}: {problem.strerror}") from problem
        if takeover:
            until = time.monotonic() + PATIENCE
        ended += said not in {BUSY, READY}
        if ended >= STARTS_MOST:
            raise _why_not(said, state_dir)
        if said == BUSY:
            time.sleep(LOOK_AGAIN)


def _why_not(said: str, state_dir: Path) -> MaestroError:
    try:
        problem = json.loads(said)
        return MaestroError(f"the maestro could not be started: {problem['message']}", hint=str(problem["hint"]))
    except (ValueError, TypeError, LookupError):
        hint = f"its log is {state_dir / LOG}"
        return MaestroError("the maestro could not be started", hint=hint, context=read_log(state_dir, 5))


def _is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger holds that process."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in {b"T", b"t"}
    except (OSError, IndexError):
        return False


def _start_maestro(state_dir: Path, arguments: tuple[str, ...]) -> str:
    """Its first word: READY, BUSY, why it cannot be (JSON), or nothing if it ended without a word."""
    log = state_dir / LOG
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
    read, write = os.pipe()
    try:
        with open(log, "ab", opener=_private) as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "cloudsend_cli.maestro.local", str(state_dir), str(write), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                pass_fds=(write,),
                start_new_session=True,
            )
        os.close(write)
        write = -1
        said = (
            os.read(read, 1 << 16).decode("utf-8", "replace")
            if select.select([read], [], [], START_LIMIT)[0]
            else BUSY
        )
        if said == READY or (said == BUSY and process.poll() is None):
            _leave_running(process)
        else:
            process.wait()
        return said
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


def _leave_running(process: subprocess.Popen[bytes]) -> None:
    # The maestro outlives its starter on purpose; without this the interpreter warns about a process left behind.
    process.returncode = 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def stop_maestro(state_dir: Path) -> bool:
    """Ask the maestro to leave; jobs go on. False if none answers."""
    client = find_maestro(state_dir)
    if client is None:
        return False
    with contextlib.suppress(MaestroError):
        client.ask("stop")
    with contextlib.suppress(MaestroError):
        while client.messages(10.0):
            pass
    client.close()
    return True


def read_log(state_dir: Path, lines: int) -> str:
    """The last lines of the maestro's log."""
    try:
        with open(state_dir / LOG, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200 * lines))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


__all__ = ["LOCK", "MaestroClient", "ensure_maestro", "find_maestro", "read_log", "stop_maestro"]

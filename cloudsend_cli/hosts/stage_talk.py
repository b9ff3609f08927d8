"""The client's side of the stage: the agent's file is put on the host, or facts are asked, over one fresh channel."""

from __future__ import annotations

import hashlib
import json
import secrets
import select
import time
import zlib
from functools import lru_cache
from typing import Any, Protocol

from cloudsend_cli.errors import CloudsendError, UnfitError, UnreachableError

from .bootstrap import STAGE_MARK, first_words, opening, python_name

SILENCE_LIMIT = 20.0  # without a byte either way
NOISE_LIMIT = 8 << 20
NOISE_KEPT = 4096
LINE_LIMIT = 64 << 10
BLOCKED_PAUSE = 2  # ms
STATUS_LIMIT = 2.0
COMPILED = 2  # what the stage needs; the agent is True


class StageStream(Protocol):
    """A channel to the command line of `bootstrap`, and what can be learned when it ends."""

    def fileno(self) -> int: ...

    def recv(self, size: int) -> bytes: ...

    def send(self, data: bytes) -> int: ...

    def unread(self, data: bytes) -> None: ...

    @property
    def stderr(self) -> bytes: ...

    def exit_status(self, limit: float) -> int | None: ...


class StageTalk:
    """One conversation. Whatever the host says outside lines of our nonce is noise of its login shell."""

    def __init__(self, stream: StageStream, name: str, python: str) -> None:
        self._stream = stream
        self._name = name
        self._python = python
        self._nonce = secrets.token_hex(16)
        self._mark = f"{STAGE_MARK} {self._nonce} ".encode()
        self._buffer = bytearray()
        self._noise = b""
        self._noise_size = 0
        self._poll = select.poll()
        self._poll.register(stream.fileno(), select.POLLIN)
        self._moved = time.monotonic()

    def attach(self, home: str, source: bytes, sha256: str, compiled: bytes = b"") -> None:
        """Afterwards the stream is the agent's, from its first byte on."""
        header: dict[str, object] = {"verb": "attach", "home": home, "size": len(source), "sha256": sha256}
        if compiled:
            tag = compiled.partition(b"\n")[0].decode("ascii")
            header["compiled"] = {"tag": tag, "sha256": hashlib.sha256(compiled).hexdigest()}
        self.begin(header)
        needed: set[object] = set()
        while (answer := self.next_word()).get("ready") is not True:
            need = answer.get("need")
            if need is True and not needed:
                self._send(source)
            elif need == COMPILED and compiled and need not in needed:
                self._send(_packed(compiled))
            elif need is not None or not needed:
                raise self._strange(json.dumps(answer))
            if need is not None:
                needed.add(need)
        if self._buffer:
            self._stream.unread(bytes(self._buffer))

    def begin(self, header: dict[str, object], stage: str = "stage") -> None:
        self._send(opening(self._nonce, self._python, header, stage))

    def ask(self, line: bytes) -> None:
        self._send(line + b"\n")

    def next_word(self) -> dict[str, Any]:
        """The next line with our nonce. An error that it tells is raised."""
        while True:
            line = self._next_line()
            if line is None:
                self._receive()
                continue
            if line == b"none" or line.startswith(b"none "):
                raise self._no_python(line[5:].decode("utf-8", "replace"))
            try:
                word = json.loads(line)
            except ValueError:
                raise self._strange(first_words(line)) from None
            if not isinstance(word, dict):
                raise self._strange(first_words(line))
            if "error" in word:
                raise self._refused(str(word["error"]), str(word.get("message", "")))
            return word

    # ---- bytes -----------------------------------------------------------------------------------------------------

    def _next_line(self) -> bytes | None:
        at = self._buffer.find(self._mark)
        if at < 0:
            self._drop_noise(max(0, len(self._buffer) - len(self._mark)))
            return None
        self._drop_noise(at)
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > LINE_LIMIT:
                raise self._strange("a line without end")
            return None
        line = bytes(self._buffer[len(self._mark) : end])
        del self._buffer[: end + 1]
        return line.rstrip(b"\r")

    def _drop_noise(self, size: int) -> None:
        if size and len(self._noise) < NOISE_KEPT:
            self._noise += self._buffer[: min(size, NOISE_KEPT)]
        self._noise_size += size
        del self._buffer[:size]
        if self._noise_size > NOISE_LIMIT:
            raise self._unfit(f"{self._name} prints without end at login", "make its login files silent")

    def _receive(self) -> None:
        self._wait(None)
        try:
            data = self._stream.recv(256 << 10)
        except BlockingIOError:
            return
        except OSError as problem:
            raise self._lost(str(problem)) from problem
        if not data:
            raise self._ended()
        self._moved = time.monotonic()
        self._buffer += data

    def _wait(self, pause: int | None) -> None:
        left = self._moved + SILENCE_LIMIT - time.monotonic()
        if left <= 0:
            raise self._silent()
        self._poll.poll(min(left * 1000, 1000) if pause is None else pause)

    def _send(self, data: bytes) -> None:
        view = data
        while view:
            try:
                count = self._stream.send(view)
            except BlockingIOError:
                self._wait(BLOCKED_PAUSE)
                if self._has_input():
                    self._receive()
                continue
            except OSError:
                while True:
                    self.next_word()  # a refusal came before the end: it is raised, and else the end
            self._moved = time.monotonic()
            view = view[count:]

    def _has_input(self) -> bool:
        return bool(self._poll.poll(0))

    # ---- what went wrong -------------------------------------------------------------------------------------------

    def _said(self) -> str:
        out = first_words(self._noise + bytes(self._buffer[:NOISE_KEPT]))
        err = first_words(self._stream.stderr)
        return "\n".join(part for part in (out, err) if part)

    def _unfit(self, message: str, hint: str) -> UnfitError:
        return UnfitError(message, hint=hint, context=self._said())

    def _strange(self, words: str) -> UnfitError:
        return self._unfit(f"{self._name} answers what cloudsend did not ask: {words}", "look at its login shell")

    def _no_python(self, found: str) -> UnfitError:
        if self._python:
            message = f"{self._python} on {self._name} does not start, or is older than {python_name()}"
            return self._unfit(message, "name another one with `python:`, or leave it out to have one looked for")
        which = f"; {found.strip()} there is older or does not start" if found.strip() else ""
        return self._unfit(
            f"no {python_name()} on {self._name}{which}",
            "install one, or name the path of one with `python:`",
        )

    def _refused(self, code: str, message: str) -> UnfitError:
        message = first_words(message.encode("utf-8", "replace"), 1, 300)
        if code == "rekey":
            return self._unfit(message, "look at the configuration of its sshd")
        return self._unfit(f"the agent's directory on {self._name} cannot be used: {message}", _advice(code))

    def _lost(self, reason: str) -> UnreachableError:
        return UnreachableError(f"the connection to {self._name} was lost: {reason}", hint="it is tried again")

    def _silent(self) -> UnreachableError:
        return UnreachableError(
            f"{self._name} let us in, but says nothing for {SILENCE_LIMIT:g} s",
            hint="does its login shell wait for something? try `ssh HOST true`",
            context=self._said(),
        )

    def _ended(self) -> CloudsendError:
        """The channel ended without the word that was waited for."""
        status = self._stream.exit_status(STATUS_LIMIT)
        if status is None:
            return self._lost("no exit status came")
        last = self._said().rpartition("\n")[2]
        end = f"exit status {status}" + (f": {last}" if last else "")
        return self._unfit(
            f"the login shell of {self._name} did not run the command that starts the agent ({end})",
            "is the account allowed to run commands (no ForceCommand, no nologin, no `exit` in its rc files)? "
            "try `ssh HOST /bin/sh -c true`",
        )


@lru_cache(maxsize=1)
def _packed(compiled: bytes) -> bytes:
    """As the stage reads it; the same for each host."""
    packed = zlib.compress(compiled)
    return b"%d\n" % len(packed) + packed


def _advice(code: str) -> str:
    return {
        "ENOSPC": "free some space there, or name another place with `home:`",
        "EDQUOT": "the quota is used up: free some space, or name another place with `home:`",
        "EROFS": "the file system is read-only: name a writable place with `home:`",
        "EACCES": "name a directory that you may write with `home:`",
        "home-mode": "close it to other users, as the message says",
        "home-owner": "name a directory of your own with `home:`",
    }.get(code, "look at the directory, or name another place with `home:`")

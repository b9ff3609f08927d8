"""A host's files by SFTP over one channel, many requests at a time. Names are bytes, as a host may have any.

Not paramiko's client: it decodes names strictly, takes packets of any size, and starts a thread for each file.
"""

from __future__ import annotations

import contextlib
import select
import struct
import time
from collections import deque
from collections.abc import Callable

from cloudsend_cli.core.ports import ByteStream
from cloudsend_cli.errors import CloudsendError, TransferFailed, UnfitError, UnreachableError

from . import sftp_wire as wire
from .sftp_wire import Attributes, Fields, pack_attributes, pack_packet, pack_text

SILENCE_LIMIT = 30.0
PIECE = 32 << 10
WINDOW = 64  # requests on their way
PACKET_MOST = 512 << 10
NAMES_MOST = 1_000_000  # in one directory
SEND_WAIT = 0.005


class Refused(Exception):
    """The host's answer to a request, when it is no."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


class Sftp:
    """`deadline`, if set, is when it is given up, by time.monotonic()."""

    def __init__(self, stream: ByteStream, where: str, deadline: float | None = None) -> None:
        self._stream = stream
        self._where = where
        self._deadline = deadline
        self._data = bytearray()
        self._number = 0
        self._asked: set[int] = set()
        self._unheard: set[int] = set()  # of those asked: nobody waits for the answer
        self._early: dict[int, tuple[int, Fields]] = {}
        self._written: deque[tuple[int, int]] = deque()  # requests on their way, and how far each comes
        self.last = b""  # the path that was named last: for messages
        self._poller = select.poll()
        self._poller.register(stream.fileno(), select.POLLIN)
        self._extensions = self._greet()

    def close(self) -> None:
        self._stream.close()

    # ---- requests --------------------------------------------------------------------------------------------------

    def find(self, path: bytes, *, follow: bool = True) -> Attributes | None:
        """What is there; None if nothing is."""
        try:
            return self._ask(wire.STAT if follow else wire.LSTAT, self._path(path), wire.ATTRS).attributes()
        except Refused as problem:
            if problem.code == wire.NO_SUCH_FILE:
                return None
            raise

    def resolve(self, path: bytes) -> bytes:
        fields = self._ask(wire.REALPATH, self._path(path), wire.NAME)
        fields.number()
        return fields.text()

    def list_directory(self, path: bytes) -> list[tuple[bytes, Attributes]]:
        handle = self._ask(wire.OPENDIR, self._path(path), wire.HANDLE).text()
        found: list[tuple[bytes, Attributes]] = []
        try:
            while len(found) <= NAMES_MOST:
                fields = self._ask(wire.READDIR, pack_text(handle), wire.NAME)
                for _ in range(fields.number()):
                    name = fields.text()
                    fields.text()
                    found.append((name, fields.attributes()))
        except Refused as problem:
            if problem.code != wire.AT_END:
                raise
            return found
        finally:
            self.close_handle(handle)
        raise TransferFailed(f"{self._where}: a directory with more than {NAMES_MOST} names")

    def open_to_read(self, path: bytes) -> bytes:
        return self._ask(wire.OPEN, self._opening(path, wire.FOR_READING), wire.HANDLE).text()

    def open_to_write(self, path: bytes) -> bytes:
        return self._ask(wire.OPEN, self._opening(path, wire.FOR_WRITING), wire.HANDLE).text()

    def open_new(self, path: bytes, mode: int | None) -> bytes:
        """None: with the mode that its host gives new files."""
        flags = wire.FOR_WRITING | wire.CREATE | wire.EXCLUSIVE
        return self._ask(wire.OPEN, self._opening(path, flags, mode), wire.HANDLE).text()

    def _opening(self, path: bytes, flags: int, mode: int | None = None) -> bytes:
        return self._path(path) + struct.pack(">I", flags) + pack_attributes(mode)

    def close_handle(self, handle: bytes) -> None:
        """Nothing waits for it."""
        self._unheard.add(self._request(wire.CLOSE, pack_text(handle)))

    def look_at(self, handle: bytes) -> Attributes:
        return self._ask(wire.FSTAT, pack_text(handle), wire.ATTRS).attributes()

    def change(self, path: bytes, mode: int | None, times: tuple[int, int] | None = None) -> None:
        self._ask(wire.SETSTAT, self._path(path) + pack_attributes(mode, times))

    def change_opened(self, handle: bytes, mode: int) -> None:
        self._ask(wire.FSETSTAT, pack_text(handle) + pack_attributes(mode))

    def make_directory(self, path: bytes, mode: int) -> None:
        self._ask(wire.MKDIR, self._path(path) + pack_attributes(mode))

    def remove(self, path: bytes) -> None:
        self._ask(wire.REMOVE, self._path(path))

    def replace(self, old: bytes, new: bytes) -> None:
        """Rename, over what is there."""
        if wire.POSIX_RENAME in self._extensions:
            self._ask(wire.EXTENDED, pack_text(wire.POSIX_RENAME) + pack_text(old) + self._path(new))
            return
        with contextlib.suppress(Refused):  # its RENAME replaces nothing: there is a moment without a file
            self.remove(new)
        self._ask(wire.RENAME, pack_text(old) + self._path(new))

    # ---- contents --------------------------------------------------------------------------------------------------

    def read(self, handle: bytes, begin: int, end: int, sink: Callable[[int, bytes], None], window: int) -> None:
        """Have `sink` take the bytes from `begin` to `end`, in order. TransferFailed if the file ends before."""
        asked: deque[tuple[int, int, int]] = deque()
        at = begin
        while at < end or asked:
            while at < end and len(asked) < window:
                count = min(PIECE, end - at)
                asked.append((self._ask_to_read(handle, at, count), at, count))
                at += count
            number, offset, count = asked.popleft()
            while count:
                try:
                    data = self._answer(number, wire.DATA).text()
                except Refused as problem:
                    if problem.code == wire.AT_END:
                        raise TransferFailed("it became shorter while it was fetched", hint="fetch it again") from None
                    raise
                if not 0 < len(data) <= count:
                    raise self._nonsense(f"{len(data)} bytes for {count}")
                sink(offset, data)
                offset, count = offset + len(data), count - len(data)
                if count:
                    number = self._ask_to_read(handle, offset, count)

    def _ask_to_read(self, handle: bytes, offset: int, count: int) -> int:
        return self._request(wire.READ, pack_text(handle) + struct.pack(">QI", offset, count))

    def write(
        self,
        handle: bytes,
        begin: int,
        end: int,
        source: Callable[[int, int], bytes],
        done: Callable[[int], None],
        window: int,
    ) -> None:
        """Send what `source(offset, count)` gives; `done` is told up to where the host has taken it.

        The answers to the last pieces are left for `finish`.
        """
        at = begin
        while at < end:
            if len(self._written) >= window:
                self._hear_of_piece(done)
            data = source(at, min(PIECE, end - at))
            payload = pack_text(handle) + struct.pack(">Q", at) + pack_text(data)
            at += len(data)
            self._written.append((self._request(wire.WRITE, payload), at))

    def _hear_of_piece(self, done: Callable[[int], None]) -> None:
        number, upto = self._written.popleft()
        self._answer(number, wire.STATUS)
        done(upto)

    def finish(
        self, handle: bytes, mode: int | None, times: tuple[int, int] | None, done: Callable[[int], None]
    ) -> int:
        """Close what was written, in one round trip with its last pieces. How much the host has of it."""
        change = self._request(wire.FSETSTAT, pack_text(handle) + pack_attributes(mode, times))
        look = self._request(wire.FSTAT, pack_text(handle))
        self.close_handle(handle)
        while self._written:
            self._hear_of_piece(done)
        self._answer(change, wire.STATUS)
        return self._answer(look, wire.ATTRS).attributes().size

    # ---- packets ---------------------------------------------------------------------------------------------------

    def _greet(self) -> set[bytes]:
        self._send(struct.pack(">IBI", 5, wire.INIT, 3))
        kind, fields = self._packet()
        if kind != wire.VERSION:
            raise self._nonsense(f"a packet of type {kind}")
        try:
            fields.number()
            found = set()
            while fields.more:
                found.add(fields.text())
                fields.text()
        except ValueError as problem:
            raise self._nonsense(str(problem)) from None
        return found

    def _ask(self, kind: int, payload: bytes, wanted: int = wire.STATUS) -> Fields:
        return self._answer(self._request(kind, payload), wanted)

    def _request(self, kind: int, payload: bytes) -> int:
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._send(pack_packet(kind, self._number, payload))
        self._asked.add(self._number)
        return self._number

    def _answer(self, number: int, wanted: int) -> Fields:
        try:
            while number not in self._early:
                kind, fields = self._packet()
                answered = fields.number()
                if answered not in self._asked:
                    raise ValueError("an answer to nothing")
                self._asked.discard(answered)
                if answered in self._unheard:
                    self._unheard.discard(answered)
                else:
                    self._early[answered] = (kind, fields)
            kind, fields = self._early.pop(number)
            if kind == wire.STATUS:
                code = fields.number()
                if code != wire.OK or wanted != wire.STATUS:
                    raise Refused(code, _words(code, fields))
            elif kind != wanted:
                raise ValueError(f"a packet of type {kind}")
        except ValueError as problem:
            raise self._nonsense(str(problem)) from None
        return fields

    def _packet(self) -> tuple[int, Fields]:
        size = int.from_bytes(self._receive(4), "big")
        if not 0 < size <= PACKET_MOST:
            raise self._nonsense(f"a packet of {size} bytes")
        data = self._receive(size)
        return data[0], Fields(data[1:])

    def _receive(self, count: int) -> bytes:
        until = self._until()
        while len(self._data) < count:
            try:
                piece = self._stream.recv(256 << 10)
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0:
                    raise self._silent() from None
                self._poller.poll(left * 1000 + 1)
                continue
            if not piece:
                raise UnreachableError(f"{self._where}: the connection was lost", hint="it is tried again")
            self._data += piece
            until = self._until()
        data = bytes(self._data[:count])
        del self._data[:count]
        return data

    def _path(self, path: bytes) -> bytes:
        self.last = path
        return pack_text(path)

    def _send(self, data: bytes) -> None:
        until = self._until()
        while data:
            try:
                data = data[self._stream.send(data) :]
                until = self._until()
            except BlockingIOError:
                if time.monotonic() > until:
                    raise self._silent() from None
                time.sleep(SEND_WAIT)  # there is nothing to wait for: a window and a buffer each may have room first
            except OSError as problem:
                raise UnreachableError(f"{self._where}: {problem}", hint="it is tried again") from problem

    def _until(self) -> float:
        until = time.monotonic() + SILENCE_LIMIT
        return until if self._deadline is None else min(until, self._deadline)

    def _silent(self) -> CloudsendError:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return TransferFailed(f"{self._where}: it was not done in the time given", hint="give a longer `timeout`")
        return UnreachableError(f"{self._where}: no answer for {SILENCE_LIMIT:.0f} s", hint="it is tried again")

    def _nonsense(self, what: str) -> UnfitError:
        return UnfitError(
            f"{self._where} does not speak SFTP: {what}",
            hint="do the start-up files of the login shell there print something? They may, on a terminal only",
        )


def _words(code: int, fields: Fields) -> str:
    known = {wire.NO_SUCH_FILE: "no such file or directory", wire.DENIED: "permission denied"}
    if code in known:
        return known[code]
    words = fields.text().decode("utf-8", "replace") if fields.more else ""
    return "".join(c if c.isprintable() else "?" for c in words)[:200] or f"status {code}"

"""The client's side of the agent's channel: frames, a decoder that trusts nothing, and one channel without threads."""

from __future__ import annotations

import hashlib
import io
import json
from collections import deque
from functools import lru_cache
from importlib import resources
from typing import Any, Protocol

PROTOCOL = 1
MAX_LINE = 1 << 20
MAX_PAYLOAD = 1 << 20
MAX_NOISE = 1 << 20
# Weights, about the bytes that frames take in memory: of replies in parts that are not whole yet, of those among them
# that may name each of many files, and of what is taken at one go.
MAX_REPLY, MAX_LISTS, MAX_TURN = 64 << 20, 256 << 20, 8 << 20
MAX_WORDS = 300  # letters of what a machine says to people
GREETING = b"cloudsend-agent-1 "
REFUSAL = b"cloudsend-agent-error "
READ_SIZE = 256 << 10
READS_PER_TURN = 64
AGENT_MAIN = b"""import os
import sys

if os.environ.get("CLOUDSEND_AGENT_COMPILED"):
    from host.loading import load_compiled

    load_compiled()

from host.main import main

sys.exit(main(sys.argv))
"""


def plain(text: object, most: int = MAX_WORDS) -> str:
    """A machine's words as they go into logs and messages: short, and with nothing that a terminal obeys."""
    words = text if isinstance(text, str) else repr(text)
    return "".join(c if c.isprintable() else "?" for c in words[:most]) + ("…" if len(words) > most else "")


class ProtocolError(Exception):
    """The other side sent what no agent sends. The channel is of no more use; what it carried is unknown."""


class AgentRefused(ProtocolError):
    """There is an agent, but it cannot serve: its own words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ChannelClosed(Exception):
    """The channel ended. Says nothing about the attempts."""


class Frame(dict[str, Any]):
    """One JSON object and the bytes that came with it."""

    payload: bytes = b""
    weight = 0

    @property
    def event(self) -> str | None:
        value = self.get("ev")
        return value if isinstance(value, str) else None

    @property
    def reply_to(self) -> int | None:
        value = self.get("re")
        return value if type(value) is int else None

    @property
    def ok(self) -> bool:
        return self.get("ok") is True

    @property
    def error_code(self) -> str | None:
        error = self.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return code if isinstance(code, str) else None


class ByteStream(Protocol):
    """A non-blocking pipe to a host."""

    def fileno(self) -> int: ...

    def recv(self, size: int) -> bytes:
        """b'' when it is closed; BlockingIOError when there is nothing now."""
        ...

    def send(self, data: bytes) -> int:
        """How many bytes were taken; BlockingIOError when none can be now."""
        ...

    def close(self) -> None: ...


def encode_frame(fields: dict[str, Any], payload: bytes = b"") -> bytes:
    """The frame's bytes. Names that are not UTF-8 are carried as surrogate escapes, \\udcXX."""
    if len(payload) > MAX_PAYLOAD:
        raise ProtocolError(f"a payload of {len(payload)} bytes; at most {MAX_PAYLOAD} go into one frame")
    if payload:
        fields = {**fields, "size": len(payload)}
    try:
        line = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, RecursionError) as problem:
        raise ProtocolError(f"cannot be sent as JSON: {problem}") from None
    if len(line) > MAX_LINE:
        raise ProtocolError(f"a frame of {len(line)} bytes; at most {MAX_LINE}")
    return line + b"\n" + payload


def weigh(line: bytes) -> int:
    """About how many bytes of memory the frame of this line takes: a machine can send 2 bytes that take 64."""
    objects = line.count(b"{") + line.count(b"[")
    return 256 + len(line) + 64 * objects + 24 * line.count(b'"') + 8 * line.count(b",")


def decode_object(line: bytes) -> Frame:
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ProtocolError(f"not a frame: {line[:80]!r}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"not an object: {line[:80]!r}")
    frame = Frame(value)
    frame.weight = weigh(line)
    return frame


class FrameDecoder:
    """Bytes in, frames out. Everything before the greeting line is noise of login shells and is skipped."""

    def __init__(self, *, greeting: bool = True) -> None:
        self.hello: Frame | None = None
        self.noise = b""
        self._buffer = bytearray()
        self._seen = 0  # bytes of the buffer without a line end
        self._noise_size = 0
        self._greeting = greeting
        self._frame: Frame | None = None
        self._size = 0

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        try:
            while True:
                if self._frame is not None:
                    if len(self._buffer) - start < self._size:
                        return frames
                    with memoryview(self._buffer) as view:
                        self._frame.payload = bytes(view[start : start + self._size])
                    start += self._size
                    frames.append(self._frame)
                    self._frame = None
                    continue
                end = self._buffer.find(b"\n", max(start, self._seen))
                if (end if end >= 0 else len(self._buffer)) - start > MAX_LINE:
                    raise ProtocolError(f"a line of more than {MAX_LINE} bytes")
                if end < 0:
                    self._seen = len(self._buffer)
                    return frames
                line = bytes(self._buffer[start:end])
                start = end + 1
                if self._greeting:
                    self._skip_noise(line)
                    continue
                frame = decode_object(line)
                size = frame.get("size", 0) if frame.get("ev") == "log" or "re" in frame else 0
                if type(size) is not int or not 0 <= size <= MAX_PAYLOAD:
                    raise ProtocolError(f"a payload of {size!r} bytes")
                if size:
                    self._frame, self._size = frame, size
                else:
                    frames.append(frame)
        finally:
            del self._buffer[:start]
            self._seen = max(0, self._seen - start)

    def _skip_noise(self, line: bytes) -> None:
        at = line.find(GREETING)
        if at >= 0:
            self.hello = decode_object(line[at + len(GREETING) :])
            self._greeting = False
            return
        at = line.find(REFUSAL)
        if at >= 0:
            words = decode_object(line[at + len(REFUSAL) :])
            raise AgentRefused(plain(words.get("code", "unknown")), plain(words.get("message", "no reason given")))
        self._noise_size += len(line) + 1
        self.noise = (self.noise + line + b"\n")[-4096:]
        if self._noise_size > MAX_NOISE:
            raise ProtocolError("no agent answered: the login shell prints without end")


class AgentChannel:
    """One open channel. It belongs to one thread and has none inside; its owner waits on fileno()."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._decoder = FrameDecoder()
        self._out: deque[bytes] = deque()
        self._unsent = 0
        self._next_id = 1
        self._parts: dict[int, Frame] = {}
        self._parts_weight = 0
        self._lists: set[int] = set()  # requests whose replies may be long
        self.received = 0  # bytes, also of frames that are not whole yet

    @property
    def hello(self) -> Frame | None:
        """The agent's greeting, once it was read."""
        return self._decoder.hello

    @property
    def noise(self) -> bytes:
        """The last that came before the greeting: what a login shell says when there is no agent."""
        return self._decoder.noise

    @property
    def unsent(self) -> int:
        return self._unsent

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        self._stream.close()

    def request(self, op: str, payload: bytes = b"", **fields: object) -> int:
        """Queues a request; its reply carries the returned number as "re"."""
        ident = self._next_id
        self._next_id += 1
        if op == "manifest":
            self._lists.add(ident)
        self._queue(encode_frame({"id": ident, "op": op, **fields}, payload))
        return ident

    def tell(self, op: str, **fields: object) -> None:
        """Queues a request that is not answered, not even with an error."""
        self._queue(encode_frame({"op": op, **fields}))

    def flush(self) -> bool:
        """Writes what goes without blocking; True when all has gone."""
        while self._out:
            data = self._out[0]
            if len(self._out) > 1 and self._unsent <= READ_SIZE:
                data = b"".join(self._out)
                self._out = deque([data])
            try:
                count = self._stream.send(data)
            except BlockingIOError:
                return False
            except OSError as problem:
                raise ChannelClosed(str(problem)) from problem
            self._unsent -= count
            if count < len(data):
                self._out[0] = data[count:]
            else:
                self._out.popleft()
        return True

    def receive(self) -> list[Frame]:
        """The frames that are there now, or many of them. A reply in parts is returned whole, with its last part."""
        frames: list[Frame] = []
        weight = 0
        for _ in range(READS_PER_TURN):
            try:
                data = self._stream.recv(READ_SIZE)
            except BlockingIOError:
                break
            except OSError as problem:
                raise ChannelClosed(str(problem)) from problem
            if not data:
                if frames:
                    break
                raise ChannelClosed("the agent's channel ended")
            self.received += len(data)
            for frame in self._decoder.feed(data):
                weight += frame.weight
                whole = self._join(frame)
                if whole is not None:
                    frames.append(whole)
            if len(data) < READ_SIZE or weight > MAX_TURN:
                break
        return frames

    def _queue(self, data: bytes) -> None:
        self._out.append(data)
        self._unsent += len(data)

    def _join(self, frame: Frame) -> Frame | None:
        ident = frame.reply_to
        if ident is None:
            return frame
        if "more" not in frame and ident not in self._parts:
            self._lists.discard(ident)
            return frame
        if not 0 < ident < self._next_id:
            raise ProtocolError(f"a reply to a request that was never sent: {ident}")
        self._parts_weight += frame.weight
        if self._parts_weight > (MAX_LISTS if ident in self._lists else MAX_REPLY):
            raise ProtocolError("a reply without end")
        so_far = self._parts.setdefault(ident, Frame())
        so_far.weight += frame.weight
        for name, value in frame.items():
            known = so_far.get(name)
            if isinstance(known, dict) and isinstance(value, dict):
                known.update(value)
            elif isinstance(known, list) and isinstance(value, list):
                known.extend(value)
            else:
                so_far[name] = value
        if frame.get("more") is True:
            return None
        so_far.pop("more", None)
        self._parts_weight -= so_far.weight
        self._lists.discard(ident)
        return self._parts.pop(ident)


@lru_cache(maxsize=1)
def agent_source() -> bytes:
    """The file that is put on hosts: the modules of `agent.host` in a zip that Python executes.

    The same bytes from every Python, as its sha256 tells agents apart: names in order, no times, nothing compressed.
    """
    import zipfile

    modules = [item for item in resources.files("cloudsend_cli.agent.host").iterdir() if item.name.endswith(".py")]
    contents = {f"host/{item.name}": item.read_bytes() for item in modules}
    contents["__main__.py"] = AGENT_MAIN
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(contents.items()):
            about = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            about.create_system = 3
            about.external_attr = 0o100644 << 16
            archive.writestr(about, content)
    return whole.getvalue()


@lru_cache(maxsize=1)
def agent_sha256() -> str:
    return hashlib.sha256(agent_source()).hexdigest()

"""The maestro's unix socket: JSON lines, mode 0600, for this user only."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

SOCKET = "maestro.sock"
MAX_LINE = 8 << 20
Message = dict[str, object]


@contextlib.contextmanager
def socket_path(state_dir: Path) -> Iterator[str]:
    """A path to the socket that fits into a socket address, however deep the state directory is."""
    path = str(state_dir / SOCKET)
    if len(os.fsencode(path)) < 100 or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    fd = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


def listen(state_dir: Path) -> socket.socket:
    """A listening socket that replaces whatever was left there; the caller holds the maestro's lock."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        (state_dir / SOCKET).unlink()
    with socket_path(state_dir) as path:
        old = os.umask(0o177)
        try:
            server.bind(path)
        finally:
            os.umask(old)
    server.listen(64)
    server.setblocking(False)
    return server


def connect(state_dir: Path, timeout: float) -> socket.socket:
    """A connection to the maestro. OSError when none listens."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        with socket_path(state_dir) as path:
            client.connect(path)
        if peer_uid(client) not in {0, os.geteuid()}:  # put there while the directory was open to others
            raise ConnectionRefusedError("what listens there is another user's")
    except BaseException:
        client.close()
        raise
    return client


def peer_uid(client: socket.socket) -> int:
    """The user at the other end."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.geteuid()  # the socket's mode is the only guard where the kernel does not tell
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


class LineReader:
    """Bytes in, messages out. ValueError for a line that is too long or no JSON object."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        self._rest += data
        if b"\n" not in data:
            if len(self._rest) > MAX_LINE:
                raise ValueError("a line is too long")
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        messages = []
        for line in lines:
            try:
                message = json.loads(line)
            except RecursionError:
                raise ValueError("nested too deeply") from None
            if not isinstance(message, dict):
                raise ValueError("not an object")
            messages.append(message)
        return messages

"""A ByteStream over one channel of an SSH connection."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

STDERR_KEPT = 4096
SEND_TURN = 256 << 10  # how much one `send` hands on at most, in packets of the channel


class Wake:
    """What a channel's buffer sets when it has bytes, as a descriptor to poll.

    Not the channel's own fileno(): that one joins stdout and stderr with a race that can lose a wake-up.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_set = False

    def fileno(self) -> int:
        return self._reader

    def set(self) -> None:
        if not self._is_set and self._writer >= 0:
            self._is_set = True
            os.write(self._writer, b"*")

    def clear(self) -> None:
        if self._is_set:
            self._is_set = False
            os.read(self._reader, 1)

    def close(self) -> None:
        reader, writer, self._reader, self._writer = self._reader, self._writer, -1, -1
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)


class ChannelStream:
    """Bytes of an exec channel. `channel` is a paramiko Channel; `has_room`: whether its connection takes a packet.

    A connection that is lost and a command that has ended look the same here: closed, and nothing more is implied.
    """

    def __init__(self, channel: Any, has_room: Callable[[], bool], closed: Callable[[], None]) -> None:
        self._channel = channel
        self._closed: Callable[[], None] | None = closed
        self._early = b""
        self._stderr = b""
        self._wake = Wake()
        channel.settimeout(0.0)
        channel.in_buffer.set_event(self._wake)
        self._has_room = has_room

    def fileno(self) -> int:
        return self._wake.fileno()

    def unread(self, data: bytes) -> None:
        """Have `recv` return these bytes first."""
        self._early = data + self._early

    def recv(self, size: int) -> bytes:
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        self._drain_stderr()
        try:
            return bytes(self._channel.recv(size))
        except TimeoutError:
            raise BlockingIOError from None
        except EOFError:  # the connection was lost before the host could be told that there is room for more
            return b""

    def send(self, data: bytes) -> int:
        """Fills the channel's window. Never waits for the connection: its buffer is asked before each packet."""
        sent = 0
        end = min(len(data), SEND_TURN)
        while sent < end and self._has_room():
            try:
                count = self._channel.send(data[sent:end])
            except TimeoutError:
                break
            except EOFError:  # it ended between the look and the packet
                raise BrokenPipeError("the connection was lost") from None
            if count == 0:
                raise BrokenPipeError("the channel is closed")
            sent += count
        if not sent and data:
            self._drain_stderr()
            raise BlockingIOError
        return sent

    def _drain_stderr(self) -> None:
        with contextlib.suppress(TimeoutError, EOFError):
            while self._channel.recv_stderr_ready() and (data := self._channel.recv_stderr(65536)):
                self._stderr = (self._stderr + data)[-STDERR_KEPT:]

    @property
    def stderr(self) -> bytes:
        """The last of what came on the channel's stderr: for people, never parsed."""
        self._drain_stderr()
        return self._stderr

    def exit_status(self, limit: float) -> int | None:
        """The command's status, waited for; None when the connection was lost, or a signal ended it."""
        self._channel.status_event.wait(limit)
        status = int(self._channel.exit_status)
        return None if status < 0 else status

    def close(self) -> None:
        closed, self._closed = self._closed, None
        if closed is None:
            return
        self._channel.in_buffer.set_event(threading.Event())  # so that its thread holds the descriptor no more
        self._wake.close()
        if self._has_room():
            with contextlib.suppress(OSError, EOFError):
                self._channel.close()
        closed()

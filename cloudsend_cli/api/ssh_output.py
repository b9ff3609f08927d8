"""What a command of `SSH.exec_command` has left: streams of the shape that paramiko's have, to be read at leisure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO


class CommandChannel:
    """Stands where programs written for paramiko look for the exit status."""

    def __init__(self, status: int) -> None:
        self.exit_status = status

    def recv_exit_status(self) -> int:
        """-1: a signal ended it, or nobody saw its end."""
        return self.exit_status

    def exit_status_ready(self) -> bool:
        return True


class CommandStream:
    """All that came on one stream. `read` gives bytes; lines, and iterating over them, give text."""

    def __init__(self, data: IO[bytes], status: int) -> None:
        self._data = data
        self.channel = CommandChannel(status)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)

    def readline(self) -> str:
        return self._data.readline().decode("utf-8", "replace")

    def readlines(self) -> list[str]:
        return list(self)

    def __iter__(self) -> Iterator[str]:
        while line := self.readline():
            yield line

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._data.seek(offset, whence)

    def write(self, data: str | bytes) -> int:
        raise ValueError("the command has ended: pass what it is to read as `input`")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._data.close()

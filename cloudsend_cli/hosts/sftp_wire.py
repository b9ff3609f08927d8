"""The words of SFTP, version 3: packets, attributes, and what a status means. Pure."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
OPENDIR, READDIR, REMOVE, MKDIR, REALPATH, STAT, RENAME = 11, 12, 13, 14, 16, 17, 18
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED = 101, 102, 103, 104, 105, 200

OK, AT_END, NO_SUCH_FILE, DENIED, UNSUPPORTED = 0, 1, 2, 3, 8
FOR_READING, FOR_WRITING, CREATE, EXCLUSIVE = 1, 2, 8, 32
POSIX_RENAME = b"posix-rename@openssh.com"

_SIZE, _OWNER, _PERMISSIONS, _TIMES, _MORE = 1, 2, 4, 8, 1 << 31


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a host says of a file. `mode` has the type as well."""

    size: int = 0
    mode: int = 0
    accessed: int = 0
    modified: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Fields:
    """Reads a packet. ValueError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError("a packet that is cut off")
        piece, self._at = self._data[self._at : end], end
        return piece

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def long(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def text(self) -> bytes:
        return self._take(self.number())

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def attributes(self) -> Attributes:
        flags = self.number()
        size = self.long() if flags & _SIZE else 0
        if flags & _OWNER:
            self._take(8)
        mode = self.number() if flags & _PERMISSIONS else 0
        accessed, modified = (self.number(), self.number()) if flags & _TIMES else (0, 0)
        if flags & _MORE:
            for _ in range(self.number()):
                self.text()
                self.text()
        return Attributes(size, mode, accessed, modified)


def pack_text(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def pack_attributes(mode: int | None = None, times: tuple[int, int] | None = None) -> bytes:
    """Of what is to be set: permissions, and the times of access and change."""
    flags = (_PERMISSIONS if mode is not None else 0) | (_TIMES if times is not None else 0)
    data = struct.pack(">I", flags)
    if mode is not None:
        data += struct.pack(">I", mode)
    if times is not None:
        data += struct.pack(">II", *(max(0, t) & 0xFFFFFFFF for t in times))
    return data


def pack_packet(kind: int, number: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) + 5, kind, number) + payload

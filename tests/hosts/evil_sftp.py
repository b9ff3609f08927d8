"""An SFTP server that lies: `Subsystem sftp python3 evil_sftp.py MODE`. What it offers is chosen by its argument.

names: a directory of names that lead elsewhere. deep: directories without an end. long: a packet of 2 GiB.
noise: the words of a start-up file before the first packet. short: files end before their size. silent: says nothing.
"""

from __future__ import annotations

import os
import struct
import sys
import time

MODE = sys.argv[1]
DIRECTORY, FILE = 0o040755, 0o100644


def receive(count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            sys.exit()
        data += piece
    return data


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def attributes(mode: int, size: int = 0) -> bytes:
    return struct.pack(">IQI", 1 | 4, size, mode)


def send(kind: int, payload: bytes) -> None:
    data = struct.pack(">IB", len(payload) + 1, kind) + payload
    while data:
        data = data[os.write(1, data) :]


def names(path: bytes) -> list[tuple[bytes, int]]:
    if MODE == "deep":
        return [(b"d", DIRECTORY)]
    name = bytes.fromhex("".join(sys.argv[2:]))
    return [(b"good", FILE), (name, FILE)]


def serve() -> None:
    listed = False
    path = b""
    while True:
        size, kind = struct.unpack(">IB", receive(5))
        payload = receive(size - 1)
        if kind == 1:
            send(2, struct.pack(">I", 3))
            continue
        number, rest = payload[:4], payload[4:]
        if kind in (7, 17):  # stat
            path = rest[4:]
            mode = FILE if path.endswith(b"file") else DIRECTORY
            send(105, number + attributes(mode, 100))
        elif kind in (3, 11):
            path, listed = rest[4:], False
            send(102, number + text(b"h"))
        elif kind == 8:
            send(105, number + attributes(FILE, 100))
        elif kind == 12 and not listed:
            listed = True
            found = names(path)
            entries = b"".join(text(n) + text(b"") + attributes(mode, 4) for n, mode in found)
            send(104, number + struct.pack(">I", len(found)) + entries)
        elif kind == 5:
            (offset,) = struct.unpack(">Q", rest[5:13])
            if offset:
                send(101, number + struct.pack(">I", 1) + text(b"") + text(b""))
            else:
                send(103, number + text(b"evil"))
        else:
            send(101, number + struct.pack(">I", 1 if kind == 12 else 0) + text(b"") + text(b""))


if MODE == "noise":
    os.write(1, b"Welcome to the cluster!\n")
elif MODE == "long":
    os.write(1, struct.pack(">IB", 1 << 31, 2))
elif MODE == "silent":
    time.sleep(60)
serve()

"""A TCP proxy in front of one host that delays, slows, cuts, corrupts or swallows what passes, each way on its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass

CHUNK = 1 << 16
AHEAD = 256  # chunks that may be on their way: as the window of a long fat pipe


@dataclass
class Way:
    """One direction. All fields may be changed while connections go through."""

    delay: float = 0.0
    """Seconds that each byte takes, without limit to their number."""
    rate: float | None = None
    """Bytes per second."""
    cut_after: int | None = None
    """All connections are reset when `count` comes to this: exactly so many bytes pass. Then it is None again."""
    corrupt_at: int | None = None
    """The bit 0 of this byte (counted as `count`, from 0) is flipped. Then it is None again."""
    blackhole: bool = False
    """Bytes are taken from the sender and thrown away."""
    held: bool = False
    """Bytes are neither taken nor passed on, until it is False again."""
    count: int = 0
    """Bytes that have passed, of all connections."""


class Proxy:
    """Listens on loopback. `up` is the way to the host, `down` the way from it."""

    def __init__(self, address: str, port: int, up: Way, down: Way) -> None:
        self.up, self.down = up, down
        self.connections = 0
        self._target = (address, port)
        self._tasks: set[asyncio.Task[None]] = set()  # one for each open connection
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.host, self.port = "127.0.0.1", int(listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(listener),), daemon=True
        )
        self._thread.start()

    def cut(self) -> None:
        """Reset all connections that are open now."""
        asyncio.run_coroutine_threadsafe(self._reset_all(), self._loop).result(10)

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connect, sock=listener, limit=CHUNK)
        await self._stop.wait()
        server.close()
        await self._reset_all()

    async def _reset_all(self) -> None:
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        ends = [writer]
        ways: list[asyncio.Task[None]] = []
        try:
            there_reader, there = await asyncio.open_connection(*self._target, limit=CHUNK)
            ends.append(there)
            for one in ((reader, there, self.up), (there_reader, writer, self.down)):
                ways.append(asyncio.ensure_future(self._carry(*one)))
            await asyncio.gather(*ways)
            for end in ends:
                end.close()  # both sides have said that they are done
        except (OSError, asyncio.CancelledError):
            for end in ends:
                reset(end)
        finally:
            for way in ways:
                way.cancel()
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        """Read ahead of what is due, so that a delay is no limit to the rate."""
        ahead: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(AHEAD)

        async def read() -> None:
            data: bytes | OSError = b"-"
            while data and not isinstance(data, OSError):
                try:
                    data = await reader.read(CHUNK)
                except OSError as error:
                    data = error
                await ahead.put((time.monotonic() + way.delay, data))

        reading = asyncio.ensure_future(read())
        try:
            while True:
                due, data = await ahead.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if isinstance(data, OSError):
                    raise data
                if not data:
                    writer.write_eof()
                    return
                for piece in slices(data, way.rate):
                    await self._pass(piece, writer, way)
        finally:
            reading.cancel()

    async def _pass(self, piece: bytes, writer: asyncio.StreamWriter, way: Way) -> None:
        if way.rate is not None:
            await asyncio.sleep(len(piece) / way.rate)
        while way.held:
            await asyncio.sleep(0.005)
        if way.blackhole:
            return
        room = len(piece) if way.cut_after is None else way.cut_after - way.count
        is_cut = way.cut_after is not None and room <= len(piece)
        piece = piece[: max(0, room)]
        if way.corrupt_at is not None and 0 <= (place := way.corrupt_at - way.count) < len(piece):
            piece = piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :]
            way.corrupt_at = None
        way.count += len(piece)
        writer.write(piece)
        await writer.drain()
        if is_cut:
            way.cut_after = None
            asyncio.get_running_loop().create_task(self._reset_all())
            await asyncio.Event().wait()  # for the end that this brings


def slices(data: bytes, rate: float | None) -> list[bytes]:
    """Pieces of 20 ms, so that a slow way dribbles."""
    size = len(data) if rate is None else max(1, int(rate / 50))
    return [data[start : start + size] for start in range(0, len(data), size)]


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()

"""Clients of the maestro's socket, served by its one thread: hints, questions, and progress for those who follow."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from .sockets import LineReader, Message, encode, listen, peer_uid

MOST_UNSENT = 4 << 20


class Connection:
    """One client. Whoever does not read is dropped rather than buffered without bound."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.follows: set[str] = set()
        self.closed = False
        self.blocked = False  # the selector waits until it takes more
        self._reader = LineReader()
        self._unsent = b""

    def read(self) -> list[Message]:
        try:
            data = self.sock.recv(1 << 16)
            messages = self._reader.feed(data) if data else []
        except BlockingIOError:
            return []
        except (OSError, ValueError):
            self.closed = True
            return []
        self.closed = self.closed or not data
        return messages

    def send(self, message: Message) -> None:
        self._unsent += encode(message)
        if len(self._unsent) > MOST_UNSENT:
            self.closed = True
        self.flush()

    def flush(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)


class Server:
    """Waits for clients and for wake-ups from other threads; `handle` gets each message in the caller's thread."""

    def __init__(self, state_dir: Path, handle: Callable[[Connection, Message], None]) -> None:
        self._handle = handle
        self._listener = listen(state_dir)
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self.connections: set[Connection] = set()

    def wake(self) -> None:
        """Have `wait` return soon; from any thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"x")

    def wait(self, timeout: float | None) -> None:
        """Until something happened or `timeout` seconds went by; messages were handled when it returns."""
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fd == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 65536)
            elif events & selectors.EVENT_READ:
                self._serve(key.data)
        self.flush()

    def flush(self) -> None:
        """Send what clients take now, and let go of those that have left."""
        for connection in list(self.connections):
            connection.flush()
            if connection.closed:
                self._drop(connection)
            elif connection.unsent != connection.blocked:
                connection.blocked = connection.unsent
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.blocked else 0)
                self._selector.modify(connection.sock, wanted, connection)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sock, _ = self._listener.accept()
            if peer_uid(sock) not in {0, os.geteuid()}:
                sock.close()
                return
            connection = Connection(sock)
            self.connections.add(connection)
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve(self, connection: Connection) -> None:
        for message in connection.read():
            self._handle(connection, message)

    def _drop(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._selector.unregister(connection.sock)
        connection.sock.close()

    def followers(self, run: str) -> Iterator[Connection]:
        return (c for c in self.connections if run in c.follows)

    def close(self) -> None:
        for connection in list(self.connections):
            self._drop(connection)
        self._selector.close()
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

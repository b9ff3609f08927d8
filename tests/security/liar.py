"""A machine whose agent says whatever a test wants, at the end of a real link."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from cloudsend_cli.agent.client import GREETING
from cloudsend_cli.core.model import HostAddress

Request = dict[str, Any]
Answer = Callable[[Request], bytes]  # what is sent for a request, raw

BOOT = "b00t"
RESOURCES = {"cpus": 4, "memory": 1 << 34, "gpus": 0}


def frame(payload: bytes = b"", **fields: object) -> bytes:
    size = {"size": len(payload)} if payload else {}
    return json.dumps({**fields, **size}).encode() + b"\n" + payload


def reply(request: Request, payload: bytes = b"", **fields: object) -> bytes:
    return frame(payload, **{"re": request["id"], "ok": True, **fields})


def honest(request: Request) -> bytes:
    """As an agent without any attempts answers."""
    op = request.get("op")
    if "id" not in request:
        return b""
    if op == "hello":
        return reply(request, boot=BOOT, pid=7, resources=RESOURCES)
    if op == "report":
        return reply(request, attempts={}, environments=[], boot=BOOT)
    if op == "start":
        return reply(request, results={spec["id"]: "queued" for spec in request["attempts"]})
    if op == "missing":
        return reply(request, missing=dict.fromkeys(request["files"], 0))
    return reply(request)


class Stream:
    """The client's end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, size: int) -> bytes:
        try:
            return self._sock.recv(size)
        except ConnectionError:
            return b""

    def send(self, data: bytes) -> int:
        return self._sock.send(data)

    def close(self) -> None:
        self._sock.close()


class Liar:
    """A host as `core.ports.Host` has it. `answer` may be changed at any time; `greeting` is sent to each client."""

    patience = 10.0
    warning = ""

    def __init__(self, name: str, answer: Answer = honest, greeting: bytes = GREETING + b"{}\n") -> None:
        self.address = HostAddress("ssh", f"ssh:{name}", host=name)
        self.answer = answer
        self.greeting = greeting
        self.sessions = 0
        self.heard: list[Request] = []
        self._near: socket.socket | None = None
        self._lock = threading.Lock()

    def open_agent(self, source: bytes, sha256: str, compiled: object = None) -> Stream:
        ours, theirs = socket.socketpair()
        self.sessions += 1
        threading.Thread(target=self._serve, args=(theirs,), name=f"liar {self.address.host}", daemon=True).start()
        return Stream(ours)

    def open_shell(self, command: object) -> int:
        raise NotImplementedError

    def say(self, data: bytes) -> bool:
        """Of its own accord; False when nobody listens any more."""
        near = self._near
        if near is None:
            return False
        with contextlib.suppress(OSError), self._lock:
            near.sendall(data)
            return True
        return False

    def _serve(self, sock: socket.socket) -> None:
        self._near = sock
        with sock, contextlib.suppress(OSError):
            sock.sendall(self.greeting)
            rest = b""
            while data := sock.recv(1 << 20):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    request = self._parse(line)
                    if request is not None:
                        with self._lock:
                            sock.sendall(self.answer(request))

    def _parse(self, line: bytes) -> Request | None:
        """What follows a line as its payload is no request, and passed over."""
        with contextlib.suppress(ValueError):
            request = json.loads(line)
            if isinstance(request, dict) and "op" in request:
                self.heard.append(request)
                return request
        return None

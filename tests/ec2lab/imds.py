"""The metadata service at 169.254.169.254, in the lab's router: it knows machines by the address they come from."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .instance import Instance
from .moto_server import ACCOUNT

ADDRESS = "169.254.169.254"
CLONE_NEWNET = 0x40000000


def listen_in(namespace: str, address: str, port: int) -> socket.socket:
    """A listening socket of another network namespace: a thread goes there, makes it, and ends."""
    made: list[socket.socket] = []
    errors: list[OSError] = []

    def make() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            place = os.open(namespace, os.O_RDONLY)
            try:
                if libc.setns(place, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(place)
            made.append(socket.create_server((address, port), backlog=128))
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return made[0]


class Metadata:
    def __init__(self, namespace: str, find: Callable[[str], Instance | None]) -> None:
        self.find = find
        self.tokens: dict[str, tuple[str, float]] = {}  # token: (instance, until)
        self.asked: list[tuple[str, str]] = []  # (instance, path): what was read
        self._server = _Server((ADDRESS, 80), _Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listen_in(namespace, ADDRESS, 80)
        self._server.metadata = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def read(self, one: Instance, path: str) -> str | None:
        """What is at a path; None: nothing."""
        facts = self._facts(one)
        if path in facts:
            return facts[path]
        below = sorted(
            {name[len(path) :].lstrip("/").split("/")[0] for name in facts if name.startswith(path.rstrip("/") + "/")}
        )
        return "\n".join(below) if below and path.startswith("/latest/meta-data") else None

    def _facts(self, one: Instance) -> dict[str, str]:
        meta = "/latest/meta-data"
        facts = {
            f"{meta}/instance-id": one.id,
            f"{meta}/instance-type": one.type,
            f"{meta}/instance-life-cycle": one.market,
            f"{meta}/ami-id": one.image,
            f"{meta}/local-ipv4": one.private or "",
            f"{meta}/hostname": f"ip-{(one.private or '').replace('.', '-')}.{one.region}.compute.internal",
            f"{meta}/placement/availability-zone": one.zone,
            f"{meta}/placement/region": one.region,
            "/latest/dynamic/instance-identity/document": json.dumps({
                "accountId": ACCOUNT, "region": one.region, "availabilityZone": one.zone, "instanceId": one.id,
                "instanceType": one.type, "imageId": one.image, "privateIp": one.private, "architecture": "x86_64",
            }),
        }  # fmt: skip
        if one.public:
            facts[f"{meta}/public-ipv4"] = one.public
        if one.public_key:
            facts[f"{meta}/public-keys/0/openssh-key"] = one.public_key
        if one.user_data:
            facts["/latest/user-data"] = one.user_data.decode("utf-8", "surrogateescape")
        for name, value in one.reports.items():
            facts[f"{meta}/{name}"] = value if isinstance(value, str) else json.dumps(value)
        return facts

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    metadata: Metadata

    def handle_error(self, request: object, client_address: object) -> None:
        """A machine that has gone is nobody's mistake."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: _Server

    def do_PUT(self) -> None:
        one = self.server.metadata.find(self.client_address[0])
        lasts = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if one is None or self.path != "/latest/api/token" or not lasts.isdigit() or "X-Forwarded-For" in self.headers:
            self._send(400 if self.path == "/latest/api/token" else 404, "")
            return
        token = secrets.token_urlsafe(40)
        self.server.metadata.tokens[token] = (one.id, time.monotonic() + int(lasts))
        self._send(200, token)

    def do_GET(self) -> None:
        metadata = self.server.metadata
        one = metadata.find(self.client_address[0])
        if one is None:
            self._send(404, "")
            return
        token = self.headers.get("X-aws-ec2-metadata-token")
        owner, until = metadata.tokens.get(token or "", ("", 0.0))
        is_good = owner == one.id and time.monotonic() < until
        if (token is not None and not is_good) or (token is None and one.tokens_required):
            self._send(401, "")
            return
        metadata.asked.append((one.id, self.path))
        found = metadata.read(one, self.path)
        self._send(404 if found is None else 200, found or "")

    def _send(self, status: int, content: str) -> None:
        body = content.encode("utf-8", "surrogateescape")
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass

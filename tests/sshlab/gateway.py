"""The way from hosts to package indexes: they have no route out, but an HTTPS proxy in the process of the tests."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network, ip_address


class Tunnel(BaseHTTPRequestHandler):
    timeout = 60

    def do_CONNECT(self) -> None:
        assert isinstance(self.server, Gateway)
        name, _, port = self.path.rpartition(":")
        if ip_address(self.client_address[0]) not in self.server.network:
            self.send_error(403)
            return
        try:
            there = socket.create_connection((name, int(port)), timeout=20)
        except OSError as error:
            self.send_error(502, str(error))
            return
        with there:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self._carry(there)
        self.server.tunnels.append(self.path)

    def _carry(self, there: socket.socket) -> None:
        other = {self.connection: there, there: self.connection}
        while ready := select.select(list(other), [], [], self.timeout)[0]:
            for sock in ready:
                if not (data := sock.recv(1 << 16)):
                    return
                other[sock].sendall(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is told."""


class Gateway(ThreadingHTTPServer):
    """Listens at this machine's address in the lab's network, for the hosts of this lab alone."""

    daemon_threads = True

    def __init__(self, address: str, network: str) -> None:
        super().__init__((address, 0), Tunnel)
        self.network = IPv4Network(network)
        self.tunnels: list[str] = []
        self.url = f"http://{address}:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join(10)
        self.server_close()

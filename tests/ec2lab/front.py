"""The endpoint that clients talk to: takes a request, meets its faults, has it carried out, answers or does not."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .access import Access
from .faults import Call, Fault, Faults
from .wire import ApiError, Reply, Request, parse_request, reply_error

Carry = Callable[[Request, Call], Reply]


class Dropped(Exception):
    """No answer: the connection is closed."""


class Front:
    """`carry` does what a request asks; `limit` raises when there were too many."""

    def __init__(self, address: str, access: Access, carry: Carry, limit: Callable[[Request], None]) -> None:
        self.faults = Faults()
        self.calls: list[Call] = []
        self.outages: dict[str, str] = {}  # region: drop or a code of errors
        self.failures: list[str] = []
        self._access, self._carry, self._limit = access, carry, limit
        self._numbers = itertools.count(1)
        self._server = _Server((address, 0), _Handler)
        self._server.front = self
        self.address, self.port = address, self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def answer(self, request: Request) -> Reply:
        started = time.time()
        call = Call(
            next(self._numbers), started, request.service, request.region, request.action,
            {name: value for name, value in request.params.items() if name not in {"Action", "Version"}},
            request.access_key,
        )  # fmt: skip
        self.calls.append(call)
        try:
            return self._answer(request, call)
        except ApiError as error:
            call.outcome = error.code
            return reply_error(request, error)
        finally:
            call.seconds = time.time() - started

    def _answer(self, request: Request, call: Call) -> Reply:
        if (outage := self.outages.get(request.region)) is not None:
            if outage == "drop":
                call.outcome = "dropped before"
                raise Dropped
            raise ApiError(outage, "Service is unavailable. Please try again shortly.", 503)
        faults = self.faults.take(request)
        self._meet([fault for fault in faults if not fault.after], call, "dropped before")
        who = self._access.check(request)
        self._limit(request)
        self._access.allow(request, who)
        if request.service == "ec2" and request.is_true("DryRun"):
            raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        reply = self._carry(request, call)
        call.effects += 1
        if any(fault.twice for fault in faults):
            reply = self._carry(request, call)
            call.effects += 1
        self._meet([fault for fault in faults if fault.after], call, "dropped after")
        call.outcome = "ok"
        return reply

    def _meet(self, faults: list[Fault], call: Call, dropped: str) -> None:
        for fault in faults:
            if fault.gate is not None:
                fault.gate.hold()
            time.sleep(fault.delay)
        for fault in faults:
            if fault.error is not None:
                raise fault.error
            if fault.drop:
                call.outcome = dropped
                raise Dropped

    def close(self) -> None:
        self.faults.clear()
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    front: Front

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is nobody's mistake."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/checkip":  # as https://checkip.amazonaws.com does
            self._send(Reply(200, f"{self.client_address[0]}\n".encode(), "text/plain"))
        else:
            self._send(Reply(404, b"", "text/plain"))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = parse_request("POST", self.path, dict(self.headers.items()), body)
        try:
            reply = self.server.front.answer(request)
        except Dropped:
            self.close_connection = True
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the test the reason
            self.server.front.failures.append(f"{request.action}: {error!r}")
            reply = reply_error(request, ApiError("LabFailure", f"the lab itself failed: {error!r}", 400))
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *args: object) -> None:
        pass

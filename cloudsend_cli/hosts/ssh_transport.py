"""What goes over the wire: algorithms, bounds on what a server may send, and the sockets below."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

import paramiko
from paramiko.packet import Packetizer

from .ssh_config import Route

WINDOW = 4 << 20
PACKET_LIMIT = 512 << 10  # we ask for packets of 32 KiB; RFC 4253 has 35,000 bytes as what all must take
READ_AHEAD = 256 << 10
DEAD_AFTER = 10.0

CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")

# Without a handler, what paramiko logs about each failed try reaches the user's terminal beside our own words.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class BoundedPackets(Packetizer):  # type: ignore[misc] # untyped
    """A server's word for the size of a packet is not taken for memory to fill."""

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > PACKET_LIMIT:
            raise paramiko.SSHException(f"a packet of {n} bytes")
        return bytes(super().read_all(n, check_rekey))


class SshTransport(paramiko.Transport):  # type: ignore[misc] # untyped
    """Remembers what the server said when it hung up."""

    farewell = ""

    def _parse_disconnect(self, m: Any) -> None:
        m.get_int()
        self.farewell = "".join(c for c in m.get_text() if c.isprintable())[:200]


def make_transport(sock: Any, key_types: Sequence[str], *, only: bool = False) -> SshTransport:
    """A transport that prefers host keys of `key_types`, or takes no other."""
    transport = SshTransport(sock, default_window_size=WINDOW, packetizer_class=BoundedPackets)
    options = transport.get_security_options()
    options.ciphers = tuple(c for c in CIPHERS if c in options.ciphers)
    options.digests = tuple(m for m in MACS if m in options.digests)
    options.key_types = preferred_types(key_types, options.key_types, only=only)
    return transport


def send_signal(channel: paramiko.Channel, name: str) -> None:
    """Have the server send a signal to the group of a channel's command, as RFC 4254 6.9 has it; no answer comes."""
    message = paramiko.Message()
    message.add_byte(bytes([paramiko.common.MSG_CHANNEL_REQUEST]))
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    channel.transport._send_user_message(message)


def preferred_types(wanted: Sequence[str], offered: Sequence[str], *, only: bool = False) -> tuple[str, ...]:
    """The wanted types of host keys first, so that the server shows one that can be compared."""
    names = [t for k in wanted for t in (("rsa-sha2-512", "rsa-sha2-256") if k == "ssh-rsa" else (k,))]
    first = [t for t in names if t in offered]
    return tuple(first if only else first + [t for t in offered if t not in first])


# ---- sockets -----------------------------------------------------------------------------------------------------


class ConnectionSocket(socket.socket):
    """A connected socket as a transport's thread reads it: in large pieces, as each packet is asked for in two."""

    _ahead = b""
    _at = 0
    program: subprocess.Popen[bytes] | None = None  # at the other end, in place of a network
    eager = True  # while setting up: acknowledge at once, as a server that has Nagle's algorithm on waits 40 ms for it

    def recv(self, size: int, flags: int = 0) -> bytes:
        at = self._at
        if at < len(self._ahead):
            data = self._ahead[at : at + size]
            self._at = at + len(data)
            return data
        data = super().recv(max(size, READ_AHEAD), flags)
        if self.eager and self.family != socket.AF_UNIX and hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if len(data) <= size:
            return data
        self._ahead, self._at = data, size
        return data[:size]

    def close(self) -> None:
        super().close()
        program, self.program = self.program, None
        if program is not None and program.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(
                    program.pid, signal.SIGTERM
                )  # not every program ends with its input; nohup has SIGHUP ignored


def open_socket(route: Route, timeout: float) -> ConnectionSocket:
    """A socket to the machine, or to the program that the user's configuration puts in between."""
    if route.proxy_command:
        return run_proxy(route.proxy_command)
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(route.address_family, socket.AF_UNSPEC)
    found = socket.getaddrinfo(route.hostname, route.port, family, socket.SOCK_STREAM)
    until = time.monotonic() + timeout
    failed: OSError = TimeoutError()
    for kind, sort, protocol, _, address in found:
        sock = ConnectionSocket(kind, sort, protocol)
        try:
            tune(sock)
            sock.settimeout(max(0.5, until - time.monotonic()))
            sock.connect(address)
            return sock
        except OSError as problem:
            sock.close()
            failed = problem
    raise failed


def tune(sock: socket.socket) -> None:
    """Small packets leave at once, and a peer that does not answer is given up."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 3),
        ("TCP_KEEPINTVL", 3),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", int(DEAD_AFTER * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def run_proxy(command: str) -> ConnectionSocket:
    """The program on one end of a socket pair.

    Not paramiko's ProxyCommand: a socket can be polled and shut down, and nothing of the program is left behind.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, name="ssh proxy", daemon=True).start()
    sock = ConnectionSocket(fileno=ours.detach())
    sock.program = process
    return sock

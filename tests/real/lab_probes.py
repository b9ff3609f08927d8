"""How tests of the lab look at its hosts from outside."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from sshlab import Lab, LabHost, Proxy

from cloudsend_cli import SSH

MakeLab = Callable[..., Lab]
MakeHosts = Callable[..., list[LabHost]]
Ssh = Callable[..., subprocess.CompletedProcess[str]]
OpenSsh = Callable[..., SSH]
QUICK = 0.3  # what says nothing for so long is silent


@contextmanager
def connection(to: LabHost | Proxy) -> Iterator[socket.socket]:
    """A connection to sshd that has said its first line."""
    where = (to.address if isinstance(to, LabHost) else to.host, to.port)
    with closing(socket.create_connection(where, timeout=5)) as sock:
        assert sock.recv(4) == b"SSH-"
        sock.recv(4096)
        yield sock


def is_silent(sock: socket.socket) -> bool:
    sock.settimeout(QUICK)
    try:
        sock.recv(1)
    except TimeoutError:
        sock.settimeout(5)
        return True
    return False


def answers(host: LabHost, timeout: float = QUICK) -> bool:
    try:
        with closing(socket.create_connection((host.address, host.port), timeout=timeout)) as sock:
            return sock.recv(4) == b"SSH-"
    except TimeoutError:
        return False


@contextmanager
def session(lab: Lab, host: LabHost, command: str = "cat") -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(lab.ssh(host, f"echo ready; {command}"), stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def wait_until(happened: Callable[[], object], deadline: float = 10) -> None:
    until = time.monotonic() + deadline
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)

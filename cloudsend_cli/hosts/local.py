"""This machine as a host: the same agent over the same protocol, attached through a socket pair."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import UnreachableError

# The agent outlives the shell that started it, so it starts with what a login has, not with the shell's variables.
AGENT_ENVIRONMENT = ("HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
AGENT_SETTINGS = ("CLOUDSEND_BOOT_ID", "CLOUDSEND_AGENT_IDLE", "CLOUDSEND_RENTED_DIR")
COMPILED = "CLOUDSEND_AGENT_COMPILED"
BRIDGE_LIMIT = 1.0


class SocketStream:
    """A ByteStream over a connected socket and the process at its other end."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._process = process

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
        """The bridge is told to end, so that what was sent still arrives; it keeps nothing that could be lost."""
        self._sock.close()
        try:
            self._process.wait(timeout=BRIDGE_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LocalHost:
    """This machine. `address.home` is the agent's directory, inside the state directory."""

    patience = 20.0
    warning = ""

    def __init__(self, address: HostAddress) -> None:
        self.address = address

    def open_agent(self, source: bytes, sha256: str, compiled: Callable[[], bytes] | None = None) -> SocketStream:
        home = Path(self.address.home)
        try:
            path = _put_agent(home, source, sha256)
            environ = _agent_environment()
            if compiled is not None and (code := compiled()):
                environ[COMPILED] = _put_compiled(path, code)
            ours, theirs = socket.socketpair()
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", str(path), "attach", str(home)],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    env=environ,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as problem:
            raise UnreachableError(
                f"the agent could not be started on this machine: {problem}",
                hint=f"look at free space and permissions of {home}",
            ) from problem
        return SocketStream(ours, process)

    def open_shell(self, command: Sequence[str]) -> int:
        """A shell on this machine."""
        shell = os.environ.get("SHELL", "/bin/sh")
        return subprocess.call([shell] if not command else list(command))


def _agent_environment() -> dict[str, str]:
    kept = {k: v for k in (*AGENT_ENVIRONMENT, *AGENT_SETTINGS) if (v := os.environ.get(k)) is not None}
    kept.setdefault("PATH", os.defpath)
    return kept


def _put_agent(home: Path, source: bytes, sha256: str) -> Path:
    """The agent's file under its content's name; it appears whole or not at all."""
    home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the mode is that of the last one only
    home.mkdir(mode=0o700, exist_ok=True)
    path = home / f"agent-{sha256[:16]}.pyz"
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == source:
            return path
    _write_whole(path, source)
    return path


def _put_compiled(agent: Path, code: bytes) -> str:
    """The agent's modules as this Python has compiled them, beside its file, which can do without. Their sha256."""
    digest = hashlib.sha256(code).hexdigest()
    path = agent.with_name(f"{agent.stem}-{digest[:16]}.code")
    with contextlib.suppress(OSError):
        if not path.exists():
            for older in agent.parent.glob("agent-*.code"):
                older.unlink(missing_ok=True)
            _write_whole(path, code)
    return digest


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".agent-{os.getpid()}-{threading.get_ident()}")
    temporary.write_bytes(data)
    os.chmod(temporary, 0o600)
    os.replace(temporary, path)

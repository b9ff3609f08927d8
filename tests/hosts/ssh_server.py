"""A real sshd of one's own on a loopback port, with a home directory of its own for whoever logs in."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from real_stack import find_processes, wait_for

from cloudsend_cli.core.model import HostAddress

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
KEY_TYPES = {"ed25519": ("-t", "ed25519"), "rsa": ("-t", "rsa", "-b", "2048"), "ecdsa": ("-t", "ecdsa")}


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> str:
    """A new key pair; the public line without its comment."""
    for old in (path, path.with_name(path.name + ".pub")):
        old.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", *KEY_TYPES[kind], "-N", passphrase, "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return public_line(path)


def public_line(path: Path) -> str:
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class SshServer:
    """`options` are lines of sshd_config that win over ours; `host_keys` the kinds of keys it has."""

    def __init__(
        self,
        directory: Path,
        login_key: Path,
        *,
        host_keys: tuple[str, ...] = ("ed25519",),
        flags: tuple[str, ...] = (),
        **options: str,
    ) -> None:
        if SSHD is None:
            pytest.skip("no sshd here: apt-get install openssh-server")
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        self.port = free_port()
        self.login_key = login_key
        self.host_keys = {kind: directory / f"key-{kind}" for kind in host_keys}
        self.lines = {kind: make_key(path, kind) for kind, path in self.host_keys.items()}
        self._options = options
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def name(self) -> str:
        """As known_hosts has it."""
        return f"[127.0.0.1]:{self.port}"

    @property
    def known_line(self) -> str:
        return f"{self.name} {next(iter(self.lines.values()))}"

    def fingerprint(self, kind: str = "ed25519") -> str:
        command = ["ssh-keygen", "-l", "-E", "sha256", "-f", str(self.host_keys[kind]) + ".pub"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.split()[1]

    def address(self, **settings: str) -> HostAddress:
        given = {"key": str(self.login_key), **settings}
        return HostAddress(
            "ssh",
            f"ssh:{self.port}",
            home=str(self.directory / "agent"),
            host="127.0.0.1",
            port=self.port,
            settings=tuple(sorted((k, v) for k, v in given.items() if v)),
        )

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own empty directory, as its package makes it
        environ = {
            "HOME": str(self.home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "CLOUDSEND_AGENT_IDLE": "30",
        }
        lines = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "PidFile": str(self.directory / "pid"),
            "AuthorizedKeysFile": str(self.login_key) + ".pub",
            "StrictModes": "no",
            "UsePAM": "no",
            "UseDNS": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "LogLevel": "DEBUG1",
            "PermitRootLogin": "yes",
            "SetEnv": " ".join(f'"{name}={value}"' for name, value in environ.items()),
            **self._options,
        }
        text = "".join(f"{name} {value}\n" for name, value in lines.items())
        text += "".join(f"HostKey {path}\n" for path in self.host_keys.values())
        (self.directory / "config").write_text(text)
        (self.directory / "log").write_text("")
        assert SSHD is not None
        self._process = subprocess.Popen(
            [SSHD, "-D", *self._flags, "-E", str(self.directory / "log"), "-f", str(self.directory / "config")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        return "Server listening" in self.log()

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def change_key(self, kind: str = "ed25519") -> None:
        self.stop()
        self.lines[kind] = make_key(self.host_keys[kind], kind)
        self.start()

    def logins(self) -> int:
        return self.log().count("Accepted publickey for")

    def saw_login(self) -> bool:
        return "userauth-request" in self.log() or self.logins() > 0

    def sessions(self) -> list[int]:
        """The processes that serve connections."""
        assert self._process is not None
        return [
            int(pid)
            for pid in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        ]

    def kill_sessions(self) -> None:
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None:
            sessions = self.sessions()
            self._process.terminate()
            self._process.wait()
            self._process = None
            for pid in sessions:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.stop()
        while found := find_processes(self.directory):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def user_name() -> str:
    return getpass.getuser()

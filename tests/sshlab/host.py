"""A host of the lab as tests see it, at whichever level it is made."""

from __future__ import annotations

import re
import signal
import subprocess
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import sshd
from .commands import wait_for
from .spec import NEEDS_NAMESPACES, USER, HostSpec, LabError, NotHere


class LabHost(ABC):
    """One machine with sshd. What a level cannot do raises NotHere."""

    user = USER
    port = 22
    home = f"/home/{USER}"
    is_paused = False
    boot_id = ""
    host_key = ""

    def __init__(self, number: int, address: str, spec: HostSpec, key_path: Path) -> None:
        self.number = number
        self.name = f"h{number}"
        self.address = address
        self.spec = spec
        self.user = spec.user
        self.home = f"/home/{spec.user}"
        self.key_path = key_path
        self.environ: dict[str, str] = {}  # of sessions and of exec(), beside the usual
        self._sshd_options: Mapping[str, str] = spec.sshd
        self._sshd_extra = ""

    def __repr__(self) -> str:
        return f"<{self.name} {self.address}:{self.port} {'up' if self.is_up else 'down'}>"

    # For a client

    def provider_entry(self) -> dict[str, str | int]:
        """As `hosts:` of a provider of type ssh takes it."""
        return {"host": self.address, "port": self.port, "user": self.user, "key": str(self.key_path)}

    # Power

    @property
    @abstractmethod
    def is_up(self) -> bool: ...

    @abstractmethod
    def power_on(self) -> None: ...

    @abstractmethod
    def power_off(self, clean: bool = False) -> None:
        """End everything at once and silently; `clean`: processes are ended first, so that connections are closed."""

    def reboot(self, clean: bool = False) -> None:
        """A new boot id and no process of before; disk, home and address are kept."""
        self.power_off(clean)
        self.power_on()

    def wait_down(self, timeout: float = 20) -> str:
        """Wait until the host has ended itself by reboot(2); `reboot` or `off`. Then power_on() boots it again."""
        raise NotHere(NEEDS_NAMESPACES)

    @abstractmethod
    def pause(self) -> None:
        """Freeze every process. The kernel goes on: TCP connects, and nothing answers."""

    @abstractmethod
    def resume(self) -> None: ...

    # Network

    def partition(self) -> None:
        """Drop every packet to and from the host, until heal()."""
        raise NotHere(NEEDS_NAMESPACES)

    def partition_in(self) -> None:
        """Drop what goes to the host; what it sends arrives."""
        raise NotHere(NEEDS_NAMESPACES)

    def partition_out(self) -> None:
        """Drop what the host sends; what goes to it arrives."""
        raise NotHere(NEEDS_NAMESPACES)

    def hide_from_client(self) -> None:
        """Drop what goes between this machine and the host; other hosts reach it, as behind a bastion."""
        raise NotHere(NEEDS_NAMESPACES)

    def loss(self, percent: float) -> None:
        """Lose packets at random, each way."""
        raise NotHere(NEEDS_NAMESPACES)

    def throttle(self, rate: str | None) -> None:
        """Limit each way to a rate as tc writes it (`1mbit`); None lifts it."""
        raise NotHere(NEEDS_NAMESPACES)

    def refuse(self) -> None:
        """Answer every TCP packet with RST, until heal()."""
        raise NotHere(NEEDS_NAMESPACES)

    def reset_connections(self) -> None:
        """Break every TCP connection with RST, towards both ends."""
        raise NotHere(NEEDS_NAMESPACES)

    @abstractmethod
    def heal(self) -> None:
        """Take back all faults of the network; nothing to do where there can be none."""

    # sshd

    def sshd(self, options: Mapping[str, str] | None = None, *, extra: str = "", **more: str) -> None:
        """Run sshd with these options only (`MaxStartups="1"`), and `extra` (such as a Match block) at the end."""
        self._sshd_options, self._sshd_extra = {**(options or {}), **more}, extra
        self._put_sshd_config()
        self.restart_sshd()

    def restart_sshd(self) -> None:
        """A new listener; sessions go on, as on Debian."""
        self.stop_sshd()
        self.start_sshd()

    def stop_sshd(self) -> None:
        """End the listener: connections are refused, sessions go on."""
        self._signal(self.pids(sshd.LISTENER), signal.SIGTERM)
        wait_for(lambda: not self.pids(sshd.LISTENER), f"sshd of {self.name} ends")

    def start_sshd(self) -> None:
        try:
            self._start_listener()
        except LabError as error:
            raise LabError(f"{error}\n{self.sshd_log()}") from error

    def kill_sshd_sessions(self) -> None:
        """SIGKILL what serves the connections; what they started stays."""
        self._signal(self.pids(sshd.SESSION), signal.SIGKILL)

    def new_host_key(self) -> None:
        """As a machine installed anew. `known_hosts` keeps the old key."""
        self._put_host_key()
        self.restart_sshd()

    @abstractmethod
    def sshd_log(self) -> str: ...

    @abstractmethod
    def _start_listener(self) -> None: ...

    @abstractmethod
    def _put_sshd_config(self) -> None: ...

    @abstractmethod
    def _put_host_key(self) -> None: ...

    # Inside

    @abstractmethod
    def command(self, argv: Sequence[str], *, root: bool = False, env: Mapping[str, str] | None = None) -> list[str]:
        """What to execute on this machine to have `argv` run on the host, in the home directory, without sshd."""

    def exec(
        self,
        argv: Sequence[str],
        *,
        root: bool = False,
        data: bytes = b"",
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the host without sshd, as its user or as root."""
        command = self.command(argv, root=root, env=env)
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout, check=False)
        if check and done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise LabError(f"{self.name}: {' '.join(argv)}: exit {done.returncode}: {said}")
        return done

    def sh(self, script: str, *args: str, root: bool = False) -> str:
        """Run a script of sh on the host; what it prints, without the last newline."""
        done = self.exec(["/bin/sh", "-c", script, "sh", *args], root=root)
        return done.stdout.decode(errors="replace").removesuffix("\n")

    def write(self, path: str, data: bytes | str, *, mode: int = 0o644, root: bool = False) -> None:
        """Write a file whole; a relative path is below the home directory, of which the parents are made."""
        content = data.encode() if isinstance(data, str) else data
        script = 'mkdir -p -- "$(dirname -- "$1")" && cat >"$1" && chmod "$2" -- "$1"'
        self.exec(["/bin/sh", "-c", script, "sh", self._absolute(path), f"{mode:o}"], data=content, root=root)

    def read(self, path: str, *, root: bool = False) -> bytes:
        done = self.exec(["cat", "--", self._absolute(path)], root=root, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise (FileNotFoundError if "No such file" in said else LabError)(f"{self.name}: {said}")
        return done.stdout

    def exists(self, path: str) -> bool:
        return self.exec(["test", "-e", self._absolute(path)], root=True, check=False).returncode == 0

    def _absolute(self, path: str) -> str:
        return path if path.startswith("/") else f"{self.home}/{path}"

    def pids(self, pattern: str = "") -> list[int]:
        """Processes whose command line matches, as the host itself numbers them."""
        return sorted(pid for pid, line in self.processes().items() if re.search(pattern, line))

    @abstractmethod
    def processes(self) -> dict[int, str]:
        """All processes of the host: pid, as the host itself counts, and command line."""

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        """Send a signal to a process of the host, by the host's own number; also while the host is paused."""
        if not self._signal([pid], sig):
            raise ProcessLookupError(f"{self.name} has no process {pid}")

    @abstractmethod
    def _signal(self, pids: Sequence[int], sig: int) -> int:
        """Send a signal to those of these processes that the host has; how many there were."""

    @abstractmethod
    def set_shell(self, path: str) -> None:
        """The user's login shell from the next login on."""

    @abstractmethod
    def set_python(self, choice: str) -> None:
        """What `python3` is from now on; the choices are those of HostSpec.python."""

    def set_clock_offset(self, seconds: float) -> None:
        """A wrong wall clock for each process that starts from now on; later calls change it for them at once."""
        raise NotHere(NEEDS_NAMESPACES)

    def fill_disk(self) -> None:
        """Leave no byte free in the home directory. It must be of its own: HostSpec.home_size."""
        raise NotHere(NEEDS_NAMESPACES)

    def fill_inodes(self) -> None:
        raise NotHere(NEEDS_NAMESPACES)

    def free_disk(self) -> None:
        """Take back what fill_disk and fill_inodes wrote."""
        raise NotHere(NEEDS_NAMESPACES)

    def remount(self, path: str, options: str) -> None:
        """Change a mount of the host (`ro`, `noexec`), until its next boot."""
        raise NotHere(NEEDS_NAMESPACES)

    def limit_memory(self, size: str | None) -> None:
        """What all processes of the host may use together."""
        raise NotHere(NEEDS_NAMESPACES)

    # The lab's own

    def start(self) -> None:
        """The first boot."""
        self.power_on()
        if self.spec.python != "machine":
            self.set_python(self.spec.python)

    def set_address(self, address: str) -> None:
        """As after a stop and start in a cloud. Old connections are left to their fate."""
        raise NotHere(NEEDS_NAMESPACES)

    def thaw(self) -> None:
        """Before the lab ends: what is frozen cannot be ended."""
        if self.is_up and self.is_paused:
            self.resume()

    @abstractmethod
    def close(self) -> None:
        """End the host and remove what is its own."""

    @abstractmethod
    def forget(self) -> None:
        """After the lab has ended, and all hosts with it."""


def new_boot_id() -> str:
    return str(uuid.uuid4())

"""Hosts without namespaces, for those who are not root: an sshd of one's own on an address of the loopback network."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import pythons, sshd
from .commands import DEADLINE, ENVIRON, send, start_time, wait_for, with_descendants
from .host import LabHost, new_boot_id
from .slots import MARK, Slot, end_marked, marked_processes
from .spec import NEEDS_NAMESPACES, HostSpec, LabError, NotHere

PORT = 22022
LEAVES_OUT = (
    "hosts on loopback addresses: no faults of the network but those of lab.proxy(), no silent power-off (a reboot "
    "closes its connections), no users, /tmp, root, disks, memory limits and host names of their own, no host without "
    "any Python"
)
# The user's real shell runs this; it then does what sshd would have done for a user with this home and shell.
ENTER = """#!/bin/sh
cd "$HOME" || exit
SHLVL=0
command=${LAB_FORCED:-$SSH_ORIGINAL_COMMAND}
[ -n "$command" ] && exec "$SHELL" -c "$command"
exec "$SHELL" -l
"""


def is_usable(number: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((f"127.77.{number}.1", PORT))
        except OSError:
            return False
    return True


class Loopback:
    level = "loopback"

    def __init__(self, slot: Slot, directory: Path, reason: str) -> None:
        self.slot, self.directory = slot, directory
        self.leaves_out = f"{reason}, so {LEAVES_OUT}"
        # What tests do to hosts, they would do to this machine: never as root.
        if os.geteuid() == 0:
            raise NotHere(f"{reason}; and hosts on loopback addresses are only for an ordinary user, not for root")
        user = pwd.getpwuid(os.geteuid())
        if Path(user.pw_shell).name in {"nologin", "false"}:
            raise NotHere(f"{reason}, and the user {user.pw_name} cannot log in: the shell is {user.pw_shell}")

    def make_host(self, number: int, spec: HostSpec, key_path: Path) -> LabHost:
        for wish in ("home_size", "home_inodes", "noexec", "memory"):
            if getattr(spec, wish):
                raise NotHere(NEEDS_NAMESPACES)
        return LoopbackHost(self, number, spec, key_path)

    def close(self) -> None:
        end_marked(str(self.directory))


class LoopbackHost(LabHost):
    port = PORT

    def __init__(self, lab: Loopback, number: int, spec: HostSpec, key_path: Path) -> None:
        super().__init__(number, f"127.77.{lab.slot.number}.{number}", spec, key_path)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._files = lab.directory / self.name
        self._programs = self._files / "bin"
        self._programs.mkdir(parents=True)
        (self._files / "enter").write_text(ENTER)
        (self._files / "enter").chmod(0o755)
        self.home = spec.home_of.home if spec.home_of else str(self._files / "home")
        Path(self.home).mkdir(mode=0o750, exist_ok=True)
        self._shell = spec.shell
        self._listener: subprocess.Popen[bytes] | None = None
        self._sshds: dict[int, str | None] = {}
        self._put_host_key()

    # Power

    @property
    def is_up(self) -> bool:
        return bool(self.boot_id)

    def power_on(self) -> None:
        if not self.is_up:
            self.boot_id = new_boot_id()
            self._put_sshd_config()
            self.start_sshd()

    def power_off(self, clean: bool = False) -> None:
        if not clean:
            raise NotHere(NEEDS_NAMESPACES)
        self._end()

    def reboot(self, clean: bool = False) -> None:
        """A new boot id and no process of before. The connections are closed, clean or not."""
        del clean
        self._end()
        self.power_on()

    def _end(self) -> None:
        def none_left() -> bool:
            left = self.processes()
            for pid in left:
                send(pid, signal.SIGKILL)
            return not left

        wait_for(none_left, f"{self.name} ends")
        self._reap()
        self.boot_id = ""
        self.is_paused = False

    def _reap(self) -> None:
        if self._listener is not None:
            self._listener.wait(DEADLINE)
            self._listener = None

    def pause(self) -> None:
        self._signal_all(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)
        self.is_paused = False

    def _signal_all(self, sig: int) -> None:
        done: set[int] = set()
        while new := self.processes().keys() - done:
            for pid in new:
                send(pid, sig)
            done |= new

    def heal(self) -> None:
        """There is nothing to heal."""

    # sshd

    def _environ(self) -> dict[str, str]:
        return {
            **ENVIRON,
            "PATH": f"{self._programs}:{ENVIRON['PATH']}",
            "HOME": self.home,
            "SHLVL": "9",  # a bash that is not the host's shell reads no rc file there
            "SHELL": self._shell,
            "CLOUDSEND_BOOT_ID": self.boot_id,
            MARK: str(self._files),
        }

    def _start_listener(self) -> None:
        program = sshd.find_sshd()
        assert program is not None
        pid_file = self._files / "pid"
        pid_file.unlink(missing_ok=True)
        self._listener = subprocess.Popen(
            [program, "-D", "-E", str(self._files / "log"), "-f", str(self._files / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRON,
            start_new_session=True,
        )
        listener = self._listener
        wait_for(lambda: pid_file.exists() or listener.poll() is not None, f"sshd of {self.name} listens")
        if listener.poll() is not None:
            self._reap()
            raise LabError(f"sshd of {self.name} does not start")

    def stop_sshd(self) -> None:
        super().stop_sshd()
        self._reap()

    def _sshd_pids(self) -> set[int]:
        """The listener and what descends from it or from an older one. They hide their environment: they rename it."""
        if self._listener is not None:
            self._sshds[self._listener.pid] = start_time(self._listener.pid)
        living = {pid for pid, started in self._sshds.items() if start_time(pid) == started is not None}
        found = with_descendants(living)
        self._sshds = {pid: start_time(pid) for pid in found}  # one whose parent is killed is nobody's descendant
        return found

    def sshd_log(self) -> str:
        log = self._files / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _put_sshd_config(self) -> None:
        options = dict(self._sshd_options)
        environ = {**self._environ(), **self.environ, "LAB_FORCED": options.pop("ForceCommand", "")}
        lines = {
            "Port": str(self.port),
            "ListenAddress": self.address,
            "HostKey": str(self._files / "key"),
            "PidFile": str(self._files / "pid"),
            "AuthorizedKeysFile": str(self.key_path.with_suffix(".pub")),
            "StrictModes": "no",  # the directories above belong to others
            "ForceCommand": str(self._files / "enter"),
        }
        text = sshd.config(options, lines, environ, self._sshd_extra)
        (self._files / "sshd_config").write_text(text)

    def _put_host_key(self) -> None:
        self.host_key = sshd.make_key(self._files / "key")

    # Inside

    def command(self, argv: Sequence[str], *, root: bool = False, env: Mapping[str, str] | None = None) -> list[str]:
        if root:
            raise NotHere(NEEDS_NAMESPACES)
        user = {"USER": self.user, "LOGNAME": self.user}
        environ = {**self._environ(), **user, **self.environ, **(env or {})}
        assigned = (f"{name}={value}" for name, value in environ.items())
        return ["env", "-i", *assigned, "/bin/sh", "-c", 'cd && exec "$@"', "sh", *argv]

    def processes(self) -> dict[int, str]:
        found = {}
        for pid in marked_processes(str(self._files)) | self._sshd_pids():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found[pid] = line.decode(errors="replace").strip()
        return found

    def _signal(self, pids: Sequence[int], sig: int) -> int:
        found = self.processes().keys() & set(pids)
        for pid in found:
            send(pid, sig)
        return len(found)

    def write(self, path: str, data: bytes | str, *, mode: int = 0o644, root: bool = False) -> None:
        if root or not Path(self._absolute(path)).is_relative_to(self.home):
            raise NotHere(NEEDS_NAMESPACES)
        super().write(path, data, mode=mode)

    def exists(self, path: str) -> bool:
        return os.path.lexists(self._absolute(path))

    def set_shell(self, path: str) -> None:
        self._shell = path
        self._put_sshd_config()
        self.restart_sshd()

    def set_python(self, choice: str) -> None:
        """By what comes first in the PATH: /usr/bin/python3 stays where it is."""
        if choice == "none":
            raise NotHere(NEEDS_NAMESPACES)
        for old in self._programs.glob("python*"):
            old.unlink()
        if choice == "broken":
            (self._programs / "python3").write_text(pythons.BROKEN_PROGRAM)
            (self._programs / "python3").chmod(0o755)
        elif choice != "machine":
            path = choice if choice.startswith("/") else pythons.find_here(choice)
            for name in pythons.names(choice):
                (self._programs / name).symlink_to(path)

    def close(self) -> None:
        self._end()
        shutil.rmtree(self._files, ignore_errors=True)

    def forget(self) -> None:
        self._end()

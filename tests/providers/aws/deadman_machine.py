"""A machine for the dead man's switch: a real shell and real processes, with a clock that the tests set.

`shutdown`, `poweroff` and `systemctl` are found first in PATH and only write down that they were called.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudsend_cli.providers.aws.userdata import read_script

# What /bin/sh is on Debian and on Amazon's Linux. Not busybox: it may take its own `poweroff` for the one in PATH.
SHELLS = [words for words in (("dash",), ("bash", "--posix")) if shutil.which(words[0])]
PATIENCE = 30.0

# A process that looks like our agent's: `python3 .../agent-<hash>.pyz serve HOME`, with or without a child.
AGENT = """
import os, subprocess, sys, time
if sys.argv[3:] and sys.argv[3] == "leader":
    os.setsid()
if sys.argv[4:] and sys.argv[4] == "busy":
    subprocess.Popen(["sleep", "600"])
print("up", flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], object], what: str = "") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited in vain{': ' + what if what else ''}")
        time.sleep(0.01)


def parent_of(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


class Machine:
    """Directories in the place of a machine's, and what it executes at a boot."""

    def __init__(self, root: Path, shell: tuple[str, ...]) -> None:
        self.root, self.shell = root, shell
        self.state, self.run, self.proc, self.units = (root / n for n in ("state", "run", "proc", "units"))
        self.rented, self.mine = self.run / "cloudsend", self.run / "cloudsend-deadman"
        self.bin = root / "bin"
        self.uptime, self.boots = 0.0, 0
        self.switch: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[bytes]] = []
        self.children: list[int] = []
        self.settings: dict[str, object] = {"idle": 600, "life": 86400, "unadopted": 1200}
        self.env = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CLOUDSEND_DEADMAN_STATE": str(self.state),
            "CLOUDSEND_DEADMAN_RUN": str(self.run),
            "CLOUDSEND_DEADMAN_PROC": str(self.proc),
            "CLOUDSEND_DEADMAN_UNITS": str(self.units),
            "CLOUDSEND_DEADMAN_CONSOLE": str(root / "console"),
        }
        self.bin.mkdir(parents=True)
        self.state.mkdir()
        for name in ("shutdown", "poweroff", "systemctl", "reboot", "halt", "logger"):
            self.fake(name)

    def fake(self, name: str, status: int = 0) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.root}/called"\nexit {status}\n')
        path.chmod(0o755)

    def called(self, name: str) -> list[str]:
        try:
            lines = (self.root / "called").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if line.split(" ")[0] == name]

    @property
    def ended(self) -> str:
        """Why it ended itself; "" while it has not."""
        path = self.state / "ended"
        return path.read_text().strip() if path.exists() and self.called("shutdown") else ""

    # ---- the clock ------------------------------------------------------------------------------------------------

    def set_uptime(self, seconds: float) -> None:
        self.uptime = seconds
        new = self.root / "uptime.new"
        new.write_text(f"{seconds:.2f} 123.45\n")
        new.rename(self.proc / "uptime")

    def pass_time(self, seconds: float) -> None:
        """... and let the switch look twice: the second look began when all was as it is now."""
        self.set_uptime(self.uptime + seconds)
        for _ in range(2):
            self.await_look()

    def await_look(self) -> None:
        looks = self.root / "looks"
        before = looks.stat().st_size if looks.exists() else 0
        until(lambda: looks.exists() and looks.stat().st_size > before, "the switch does not look")

    # ---- boots ----------------------------------------------------------------------------------------------------

    def power_on(self, *, clear: bool = True) -> None:
        """What a kernel has at a boot: an empty /run and another boot id."""
        self.boots += 1
        if clear:
            shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.proc, ignore_errors=True)
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        (self.proc / "sys/kernel/random/boot_id").write_text(f"boot-{self.boots}\n")
        self.run.mkdir(exist_ok=True)
        self.set_uptime(3.0)

    def write_script(self) -> None:
        (self.state / "deadman").write_text(read_script())
        settings = {**self.settings, "tick": 0.02}
        (self.state / "deadman.conf").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        sleep = self.bin / "sleep"  # tells when the switch has looked
        real = shutil.which("sleep", path="/usr/bin:/bin")
        sleep.write_text(f'#!/bin/sh\necho >>"{self.root}/looks"\nexec {real} "$@"\n')
        sleep.chmod(0o755)

    def start(self, **settings: object) -> None:
        """A boot as far as the switch that watches."""
        self.settings.update(settings)
        self.power_on()
        self.write_script()
        self.watch()

    def watch(self) -> None:
        self.switch = subprocess.Popen([*self.shell, str(self.state / "deadman"), "watch"], env=self.env)
        until((self.rented / "armed").exists, "it is not armed")
        self.await_look()

    def kill(self) -> None:
        if self.switch is not None:
            self.switch.kill()
            self.switch.wait()
            self.switch = None

    def close(self) -> None:
        self.kill()
        for process in self.started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for pid in [*self.loops(), *self.children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def loops(self) -> list[int]:
        """The processes, whoever started them, that execute the switch of this machine; not what it forks."""
        wanted = f"{self.state}/deadman".encode()
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                if wanted in words and b"watch" in words:
                    found[int(path.parent.name)] = parent_of(path.parent)
            except (OSError, IndexError):
                continue
        return [pid for pid, parent in found.items() if parent not in found]

    # ---- what the agent does --------------------------------------------------------------------------------------

    def adopt(self) -> None:
        (self.rented / "adopted").touch()
        self.touch()

    def touch(self) -> None:
        (self.rented / "active").touch()
        os.utime(self.rented / "active", ns=(time.time_ns(), time.time_ns()))

    def start_agent(self, *words: str, verb: str = "serve") -> subprocess.Popen[bytes]:
        """One whose command line, session and child are those of our agent, a runner or a busy runner."""
        path = self.root / "agent-0123456789abcdef.pyz"
        path.write_text(AGENT)
        command = [sys.executable, "-I", "-S", "-B", str(path), verb, str(self.root / "home"), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.started.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        self.show(process.pid)
        for other in Path("/proc").glob("[0-9]*"):
            try:
                if parent_of(other) == process.pid:
                    self.children.append(int(other.name))
            except (OSError, IndexError):
                continue
        for child in self.children:
            self.show(child)
        return process

    def show(self, pid: int) -> None:
        """In the machine's /proc, where the test's other processes are not."""
        (self.proc / str(pid)).symlink_to(f"/proc/{pid}")

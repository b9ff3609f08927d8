"""One boot of a host: its namespaces and the processes in them, from the first process to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .commands import DEADLINE, ENVIRON, processes, read_line, send, start_time
from .spec import LabError

SCRIPT = Path(__file__).with_name("enter-host.sh")
NAMESPACES = ("net", "mount", "pid", "uts", "ipc")


class Boot:
    """Starts the first process; `plug_in` is called with its pid when its network namespace is there."""

    def __init__(
        self,
        enter_lab: Sequence[str],
        arguments: Sequence[str],
        plug_in: Callable[[int], None],
        own_uptime: bool = False,
    ) -> None:
        self.namespaces = (*NAMESPACES, "time") if own_uptime else NAMESPACES
        files = Path(arguments[0])
        self._console = files / "console"
        unshare = ["unshare", *(f"--{name}" for name in self.namespaces), "--fork"]
        if own_uptime:
            unshare += ["--boottime", f"-{int(time.clock_gettime(time.CLOCK_BOOTTIME))}"]
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                [*enter_lab, *unshare, "sh", str(SCRIPT), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                env=ENVIRON,
                start_new_session=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.init, self._started, self._namespace = 0, None, 0
        try:
            self.init = int(read_line(self._process.stdout, "the host says its pid"))
            self._started = start_time(self.init)
            self._namespace = pid_namespace(self.init)
            assert self._namespace != pid_namespace(os.getpid())
            plug_in(self.init)
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()
            read_line(self._process.stdout, "the host is up")
        except (LabError, OSError) as error:
            self._process.stdin.close()  # a script that still waits for it ends
            self.end()
            raise LabError(f"{error}\n{self._console.read_text(errors='replace')}") from error
        finally:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The child of ours that ends when the host does."""
        return self._process.pid

    @property
    def goes_on(self) -> bool:
        # INVARIANT: nothing is ever done to, or as, another process that has come by the first one's pid.
        return self._process.poll() is None and start_time(self.init) == self._started is not None

    def enter(self, *namespaces: str) -> list[str]:
        if not self.goes_on:
            raise LabError("the host is down")
        return ["nsenter", "--target", str(self.init), *(f"--{name}" for name in namespaces)]

    @property
    def root(self) -> Path:
        """Its files, as its processes see them. Links are to be followed as they do."""
        if not self.goes_on:
            raise LabError("the host is down")
        return Path(f"/proc/{self.init}/root")

    def listens(self, port: int) -> bool:
        """Whether there is a listening socket, found without a connection to it."""
        lines = Path(f"/proc/{self.init}/net/tcp").read_text().splitlines()[1:]
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)

    def pids(self) -> dict[int, int]:
        """All processes of the host: as this machine counts, and as the host does."""
        found: dict[int, int] = {}
        for pid in processes() if self.goes_on else []:
            with contextlib.suppress(OSError):
                if pid_namespace(pid) == self._namespace and start_time(pid):
                    status = Path(f"/proc/{pid}/status").read_text()
                    found[pid] = int(status.partition("NSpid:")[2].partition("\n")[0].split()[-1])
        return found

    def signal_all(self, sig: int) -> None:
        """Again until no new process turns up, which one that was not yet stopped may have started."""
        done: set[int] = set()
        while new := self.pids().keys() - done:
            for pid in new:
                send(pid, sig)
            done |= new

    def end(self) -> None:
        """The end of the first process is that of all, at once."""
        if self.goes_on:
            send(self.init, signal.SIGKILL)
        self._process.wait(DEADLINE)

    def wait(self, timeout: float) -> str:
        """How it ended: the kernel tells reboot(2) inside a PID namespace to those outside; or the script tells."""
        status = self._process.wait(timeout)
        ways = {-signal.SIGHUP: "reboot", -signal.SIGINT: "off", 100: "off", 101: "reboot", 102: "halt"}
        return ways.get(status, "killed")


def pid_namespace(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/pid").st_ino

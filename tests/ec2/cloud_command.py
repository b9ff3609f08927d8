"""The real command of somebody who rents from the cloud of these tests, and what their jobs say while they run."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import warm_commands
from ec2lab import Cloud, Instance, Row

CLOUDSEND = [sys.executable, "-m", "cloudsend_cli"]
LONG = 120.0
# A job: says who it is, what it found to go on from, and `held`; is held until it is let go, and says `done`.
WORK = """\
import os, pathlib, socket, sys
name, where, port = sys.argv[1:4]
attempt = os.environ["CLOUDSEND_ATTEMPT"].rpartition(".")[2]
before = pathlib.Path(os.environ.get("CLOUDSEND_RESUME_DIR", "nowhere"), "kept", "steps")
steps = before.read_text() if before.is_file() else ""
os.makedirs("kept")
pathlib.Path("kept", "steps").write_text(steps + "worked-" + attempt + "\\n")
with socket.create_connection((where, int(port))) as line:
    said = [name, attempt, "from", *steps.split()]
    line.sendall(" ".join(said).encode() + b"\\n")
    if not line.recv(1):
        sys.exit(9)
pathlib.Path("out").write_text(name + " by attempt " + attempt + "\\n" + steps)
with socket.create_connection((where, int(port))) as line:
    line.sendall((name + " " + attempt + " done\\n").encode())
    line.recv(1)
"""


class Witness:
    """Hears a line from each thing that happens on machines, whatever becomes of them; `let` says what goes on."""

    def __init__(self, address: str) -> None:
        self.heard: list[list[str]] = []
        self._held: list[tuple[list[str], socket.socket]] = []
        self._goes: Callable[[list[str]], bool] = lambda words: False
        self._changed = threading.Condition()
        self._server = socket.create_server((address, 0), backlog=500)
        self.address, self.port = self._server.getsockname()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._server.accept()
                line.settimeout(10)
                threading.Thread(target=self._hear, args=(line,), daemon=True).start()

    def _hear(self, line: socket.socket) -> None:
        try:
            words = line.makefile("rb").readline().decode().split()
        except OSError:
            return
        with self._changed:
            self.heard.append(words)
            self._held.append((words, line))
            self._release()
            self._changed.notify_all()

    def _release(self) -> None:
        for words, line in list(self._held):
            if words[-1:] == ["done"] or self._goes(words):
                with suppress(OSError):
                    line.sendall(b".")
                line.close()
                self._held.remove((words, line))

    def let(self, goes: Callable[[list[str]], bool]) -> None:
        """From now on these are not held."""
        with self._changed:
            self._goes = goes
            self._release()

    def until(self, happened: Callable[[], Any], timeout: float = LONG) -> Any:
        with self._changed:
            assert self._changed.wait_for(happened, timeout), self.heard
        return happened()

    def begun(self, name: str | None = None) -> list[list[str]]:
        """The lines with which attempts have begun."""
        return [words for words in self.heard if words[2:3] == ["from"] and name in (None, words[0])]

    def done(self) -> list[str]:
        return [words[0] for words in self.heard if words[-1] == "done"]

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._server.close()
        with self._changed:
            for _, line in self._held:
                line.close()


class Desk:
    """A directory with configs, a state directory, and the command."""

    def __init__(self, ec2: Cloud, state_dir: Path, folder: Path) -> None:
        self.ec2, self.state_dir, self.folder = ec2, state_dir, folder
        self.witness = Witness(ec2.client_address)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CLOUDSEND_"))}
        self.environ = environ | ec2.environ
        self.environ |= {"CLOUDSEND_HOME": str(state_dir), "CLOUDSEND_CALLER_CIDR": ec2.client_address}
        self.environ["CLOUDSEND_MAESTRO_LINGER"] = "1"
        (folder / "work.py").write_text(WORK)

    def __call__(self, *words: str, status: int | None = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = warm_commands.run(words, environ=self.environ, folder=self.folder, stdin=stdin, timeout=240)
        assert status is None or done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *words: str, status: int | None = 0) -> Any:
        return json.loads(self(*words, "-o", "json", status=status).stdout)

    def config(self, text: str, name: str = "run.yml") -> str:
        """`WORK NAME` in the text is a job that is held, see Witness."""
        line = f"python3 work.py \\1 {self.witness.address} {self.witness.port}"
        (self.folder / name).write_text(re.sub(r"WORK ([^\s,\"]+)", line, text))
        return name

    def submit(self, config: str, *words: str) -> str:
        """Submit and leave; the run's id."""
        return str(self.json("run", config, "--detach", *words)["run"])

    def submit_aged(self, config: str, *words: str, age: float = 60.0) -> tuple[str, Instance]:
        """The same, and its one machine, which was started so many seconds ago: what is paid for whole ends sooner."""
        gate = self.ec2.hold("RunInstances", after=True)
        run = self.submit(config, *words)
        assert gate.reached.wait(60)
        machine = self.ec2.instances[-1]
        machine.launched -= age
        gate.release()
        return run, machine

    def wait(self, run: str, status: int | None = 0) -> dict[str, Any]:
        """Until it is over: what `info run` says."""
        self("wait", run, "--timeout", "200", status=status)
        return dict(self.json("info", "run", run))

    def jobs(self, run: str) -> dict[str, dict[str, Any]]:
        return {job["name"]: job for job in self.json("list", "jobs", "--run", run)}

    def kill_maestro(self) -> None:
        """As if the machine that it runs on had lost its power, for ever."""
        pid = int(self.json("maestro", "status")["pid"])
        ending = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(ending)

    def machines(self, **wanted: str) -> list[Instance]:
        """Those that live, with these attributes."""
        return [one for one in self.ec2.alive if all(getattr(one, key) == value for key, value in wanted.items())]

    def launches(self) -> list[tuple[str, str, str, str]]:
        """(zone, type, market, outcome) of each call of RunInstances."""
        return [
            (
                str(call.params.get("Placement.AvailabilityZone", "")),
                str(call.params["InstanceType"]),
                "spot" if "InstanceMarketOptions.MarketType" in call.params else "on-demand",
                call.outcome,
            )
            for call in self.ec2.calls_of("RunInstances")
        ]

    def close(self) -> None:
        self.witness.close()
        warm_commands.run(["maestro", "stop"], environ=self.environ, folder=self.folder)


@contextmanager
def desk_of(ec2: Cloud, state_dir: Path, folder: Path) -> Iterator[Desk]:
    desk = Desk(ec2, state_dir, folder)
    try:
        yield desk
    finally:
        desk.close()


def until(happened: Callable[[], Any], timeout: float = LONG, every: float = 0.1) -> Any:
    """For what no event tells of."""
    end = time.monotonic() + timeout
    while not (result := happened()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every)
    return result


def dollars(rows: Sequence[Row]) -> float:
    return sum(row.dollars for row in rows)

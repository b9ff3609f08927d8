"""What tests of the network look at while it is broken: which job is unknown since when, and what readers have got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from real_stack import DEADLINE, wait_for
from ssh_cluster import PROVIDER, Cluster
from sshlab import Lab, LabHost, Proxy

from cloudsend_cli.api import Client

UNKNOWN_WITHIN = 30.0  # DESIGN: a partition is detected in under 30 s
RESUMED_WITHIN = 5.0
GIB = 1 << 30

# A job that writes numbered lines to its log, and the same bytes to ~/truth.NAME, until there is a file ~/stop.
WRITER = r"""
import os, time

home = os.path.expanduser("~/")
with open(home + "ledger", "a") as ledger:
    print(os.environ["CLOUDSEND_ATTEMPT"], file=ledger)
truth = os.open(home + "truth." + os.environ["CLOUDSEND_JOB"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
number, last = 0, False
while not last:
    last = os.path.exists(home + "stop")
    number += 1
    line = b"%07d %s\n" % (number, b"x" * (number % 61))
    for out in (truth, 1):
        assert os.write(out, line) == len(line)
    time.sleep(0.02)
"""


class FaultyCluster(Cluster):
    """Jobs go to the host that the test names: no two hosts have both the CPUs and the memory that a job asks for."""

    def __init__(
        self, directory: Path, lab: Lab, hosts: Sequence[LabHost], ways: Mapping[str, Proxy] | None = None
    ) -> None:
        self.ways = dict(ways or {})
        super().__init__(directory, lab, hosts)

    def entry(self, host: LabHost) -> dict[str, Any]:
        """Of providers.yml."""
        entry: dict[str, Any] = {"name": host.name, **host.provider_entry(), **self.size(host)}
        way = self.ways.get(host.name)
        return entry if way is None else {**entry, "host": way.host, "port": way.port}

    def write_providers(self, **settings: object) -> None:
        """Each host's entry, with `settings` laid over it by the host's name."""
        for name, value in settings.items():
            assert isinstance(value, dict), name
        entries = [{**self.entry(host), **dict(settings.get(host.name, {}))} for host in self.hosts]
        lab = {"name": PROVIDER, "type": "ssh", "hosts": entries}
        (self.files / "providers.yml").write_text(json.dumps({"providers": [lab]}), encoding="utf-8")

    def size(self, host: LabHost) -> dict[str, Any]:
        place = self.hosts.index(host)
        return {"cpus": 100 - place, "memory": f"{place + 1}GiB"}

    def job(self, host: LabHost, name: str, run: str, **more: object) -> dict[str, Any]:
        """A job for this host, which has room for one at a time."""
        return {"name": name, "run": run, **self.size(host), **more}

    def writer(self, host: LabHost) -> dict[str, Any]:
        host.write("writer.py", WRITER)
        return self.job(host, host.name, "exec python3 ~/writer.py")

    def truth(self, host: LabHost) -> bytes:
        """What the writer of this host wrote."""
        return host.read(f"truth.{host.name}")

    def count_connections(self, host: LabHost) -> int:
        entry = self.entry(host)
        return self.log_of_maestro().count(f"connected to ssh:{entry['user']}@{entry['host']}:{entry['port']},")

    def command(self, *words: str) -> Reader:
        return Reader([sys.executable, "-m", "cloudsend_cli", "--state-dir", str(self.state), *words], self.files)


def forget_flows(host: LabHost) -> None:
    """As a NAT that was idle for too long: what belongs to connections that are open now is dropped, others pass."""
    peers = host.exec(["ss", "-Htn", "state", "established", f"( sport = :{host.port} )"], root=True).stdout
    ports = ", ".join(line.split()[-1].rpartition(":")[2] for line in peers.decode().splitlines())
    rules = "".join(
        f"add chain inet nat {way} {{ type filter hook {way} priority 0; }}\n"
        f"add rule inet nat {way} tcp {side} {{ {ports} }} drop\n"
        for way, side in (("input", "sport"), ("output", "dport"))
    )
    host.exec(["nft", "-f", "-"], root=True, data=b"add table inet nat\n" + rules.encode())


class Reader:
    """A command of ours in a process of its own; what it prints is kept with the time of each piece."""

    def __init__(self, argv: Sequence[str], directory: Path) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self._said: list[tuple[float, bytes]] = []
        environ = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "PYTHONPATH", "CLOUDSEND_SSH_CONFIG")
            if name in os.environ
        }
        self.process = subprocess.Popen(list(argv), cwd=directory, env=environ, stdin=-3, stdout=-1, stderr=-1)
        self._threads = [
            threading.Thread(target=self._take, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.pieces), (self.process.stderr, self._said))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _take(stream: Any, pieces: list[tuple[float, bytes]]) -> None:
        with stream:
            while data := os.read(stream.fileno(), 1 << 16):
                pieces.append((time.monotonic(), data))

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in list(self.pieces))

    @property
    def said(self) -> str:
        return b"".join(data for _, data in list(self._said)).decode(errors="replace")

    def printed(self, since: float, mark: bytes = b"") -> float | None:
        """When it first printed something (with `mark` in it) after this moment."""
        return next((at for at, data in list(self.pieces) if at > since and mark in data), None)

    def told(self, since: float, mark: str) -> float | None:
        """The same of what it says on stderr."""
        return next((at for at, data in list(self._said) if at > since and mark.encode() in data), None)

    def longest_gap(self, since: float, until: float, mark: bytes = b"") -> float:
        """The longest time between two pieces."""
        times = [at for at, data in list(self.pieces) if since < at < until and mark in data]
        return max(b - a for a, b in zip([since, *times], [*times, until], strict=True))

    def finish(self, deadline: float = DEADLINE) -> int:
        status = self.process.wait(deadline)
        for thread in self._threads:
            thread.join(deadline)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.finish()


class Watch:
    """Looks at the jobs of a run again and again, as `list jobs` does, and keeps when each phase was first seen."""

    def __init__(self, state: Path, run: str) -> None:
        self.changes: list[tuple[float, str, str]] = []  # (moment, job, phase)
        self.phases: dict[str, str] = {}
        self.problem: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(state, run), daemon=True)
        self._thread.start()

    def _look(self, state: Path, run: str) -> None:
        try:
            with Client(state) as client:
                while not self._stop.wait(0.05):
                    for job in client.list_jobs(run):
                        if self.phases.get(job.name) != job.phase:
                            self.phases[job.name] = job.phase
                            self.changes.append((time.monotonic(), job.name, job.phase))
        except BaseException as problem:  # noqa: BLE001 - told by the next question
            self.problem = problem

    def until(self, job: str, phase: str, since: float, deadline: float = DEADLINE) -> float:
        """Seconds from `since` until the job was first shown so."""

        def seen() -> float | None:
            assert self.problem is None, self.problem
            return next(
                (at for at, name, what in list(self.changes) if (name, what) == (job, phase) and at > since), None
            )

        return wait_for(seen, deadline) - since

    def seen(self, job: str) -> list[str]:
        return [phase for _, name, phase in self.changes if name == job]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def begin_writers(cluster: FaultyCluster) -> str:
    """A run with one writer on each host, which all run."""
    run = cluster.submit(jobs=[cluster.writer(host) for host in cluster.hosts])
    for host in cluster.hosts:
        cluster.until_phase(run, host.name, "RUNNING")
    return run


def end_writers(cluster: FaultyCluster, run: str) -> None:
    """Nothing was lost, nothing was done twice, and every byte is here."""
    for host in cluster.hosts:
        host.write("stop", "")
    cluster.settle(run)
    for host in cluster.hosts:
        job = cluster.jobs(run)[host.name]
        assert (job.state, job.attempt) == ("succeeded", 1), job
        assert cluster.ledger(host) == [job.uid]
        assert cluster.tail(host.name) == cluster.truth(host)

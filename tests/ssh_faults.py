"""What tests of faults do to the agent of a real host, and what they look at there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import warm_commands
from real_stack import DEADLINE, wait_for
from ssh_cluster import Cluster
from sshlab import LabHost

LEDGER = 'echo "$CLOUDSEND_ATTEMPT" >>~/ledger\n'  # the first thing that a job does: one line for each execution
AGENTS = ".cloudsend/agent"
SERVES = r"agent-[0-9a-f]+\.pyz serve "


def until_file(path: str, meanwhile: str = "sleep 0.05") -> str:
    """Shell text that goes on when the file is there."""
    return f"while ! [ -e {path} ]; do {meanwhile}; done\n"


@cache
def agent_home(host: LabHost) -> str:
    """The agent's directory, which has the name of its machine."""
    about = host.sh("cat /etc/machine-id; hostname")
    return f"{AGENTS}/{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def agent_pid(host: LabHost) -> int:
    """The daemon that lives on the host now. Runners are forks with the same command line: it holds the lock."""
    return wait_for(lambda: _holder(host, f"{agent_home(host)}/agent.lock"))


def _holder(host: LabHost, path: str) -> int:
    script = """
        inode=$(stat -c %i "$1") || exit 0
        while read -r _ kind _ _ pid place _; do
            if [ "$kind ${place##*:}" = "FLOCK $inode" ]; then echo "$pid"; fi
        done </proc/locks
    """
    return int((host.sh(script, path).split() or ["0"])[-1])  # a table that changes while it is read may name it twice


def record_of(host: LabHost, attempt: str) -> dict[str, Any]:
    """The durable record of an attempt: state, runner, pid."""
    raw = host.read(f"{agent_home(host)}/attempts/{attempt}/record")
    found = json.loads(raw[9:])
    assert isinstance(found, dict)
    return found


def connections(cluster: Cluster, host: LabHost) -> int:
    return cluster.log_of_maestro().count(f"connected to ssh:{host.user}@{host.address}:")


def wait_connected(cluster: Cluster, host: LabHost, before: int, deadline: float = DEADLINE) -> None:
    """Until there were more connections than `before`."""
    wait_for(lambda: connections(cluster, host) > before, deadline)


def wait_ledger(cluster: Cluster, host: LabHost, lines: int, deadline: float = DEADLINE) -> None:
    """Until so many executions have begun."""
    wait_for(lambda: len(cluster.ledger(host)) >= lines, deadline)


def kill_agent(cluster: Cluster, host: LabHost, deadline: float = DEADLINE) -> float:
    """kill -9 its daemon, and wait until the maestro has another one: the seconds that this took."""
    before = connections(cluster, host)
    host.kill(agent_pid(host), signal.SIGKILL)
    begun = time.monotonic()
    wait_connected(cluster, host, before, deadline)
    return time.monotonic() - begun


def cloudsend(cluster: Cluster, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """The command itself, in the directory of the configs."""
    line = ["--state-dir", str(cluster.state), *words]
    done = warm_commands.run(line, environ=os.environ, folder=cluster.files, timeout=DEADLINE)
    if check:
        done.check_returncode()
    return done


def check_host(cluster: Cluster, host: LabHost) -> str:
    """What `cloudsend check HOST` says, with what to do next."""
    done = cloudsend(cluster, "check", host.name)
    return done.stdout + done.stderr


class Tail:
    """`cloudsend tail -f` of one job, from its beginning, in a thread of its own."""

    def __init__(self, cluster: Cluster, job: str, stream: str = "stdout") -> None:
        self.data = b""
        self.notes: list[str] = []
        self.problem: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(cluster, job, stream), daemon=True)
        self._thread.start()

    def _read(self, cluster: Cluster, job: str, stream: str) -> None:
        try:
            blocks = cluster.client.read_log(job, stream, follow=True, stop=self._stop, note=self.notes.append)
            for block in blocks:
                self.data += block
        except BaseException as problem:  # noqa: BLE001 - told by `result`
            self.problem = problem
        finally:
            cluster.client.close()

    def until(self, happened: Callable[[bytes], object], deadline: float = DEADLINE) -> None:
        wait_for(lambda: self.problem or happened(self.data), deadline)
        assert self.problem is None, self.problem

    def until_longer(self, by: int, deadline: float = DEADLINE) -> None:
        """Until so many bytes more have come."""
        goal = len(self.data) + by
        self.until(lambda data: len(data) >= goal, deadline)

    def result(self, deadline: float = DEADLINE) -> bytes:
        """All of it, once the job has ended."""
        self._thread.join(deadline)
        self._stop.set()
        assert self.problem is None, self.problem
        assert not self._thread.is_alive(), self.data[-200:]
        return self.data

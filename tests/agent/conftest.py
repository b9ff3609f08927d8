"""A real agent per test: its own home, clients through real pipes, and nothing left alive afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloudsend_cli.agent.client import AgentChannel, ChannelClosed, Frame, agent_source
from cloudsend_cli.agent.compiled import COMPILED, agent_compiled

FINAL = ("exited", "lost", "cancelled", "stale")
DEADLINE = 30.0
PYTHON = os.environ.get("CLOUDSEND_TEST_AGENT_PYTHON") or sys.executable  # of the agents


class Client:
    """One attached channel that remembers what it was told."""

    def __init__(
        self,
        home: Path,
        *,
        agent: Path,
        python: str = PYTHON,
        owner: str = "tests",
        epoch: int = 1,
        resources: dict[str, float] | None = None,
        env: dict[str, str] | None = None,
        rcvbuf: int | None = None,
        hello: bool = True,
        via: Sequence[str] = (),
        **terms: object,
    ) -> None:
        near, far = socket.socketpair()
        if rcvbuf:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        command = [*via, python, "-I", "-S", "-B", str(agent), "attach", str(home)]
        environ = {**os.environ, COMPILED: hashlib.sha256(agent_compiled()).hexdigest(), **(env or {})}
        self.process = subprocess.Popen(command, stdin=far, stdout=far, env=environ)
        far.close()
        near.setblocking(False)
        self.socket = near
        self.channel = AgentChannel(near)
        self.status: dict[str, dict[str, Any]] = {}
        self.events: list[Frame] = []
        self.logs: dict[tuple[str, str], bytearray] = {}
        self.log_from: dict[tuple[str, str], int] = {}
        self.log_ends: set[tuple[str, str]] = set()
        self.replies: dict[int, Frame] = {}
        try:
            self.until(lambda: self.channel.hello is not None)
            fields = {"owner": owner, "epoch": epoch, "resources": resources, **terms}
            self.about = self.call("hello", **fields) if hello else self.channel.hello or Frame()
        except BaseException:
            self.close()
            raise
        self.boot = self.about.get("boot")

    def step(self, seconds: float = 0.1) -> None:
        blocked = not self.channel.flush()
        select.select([self.socket], [self.socket] if blocked else [], [], seconds)
        for frame in self.channel.receive():
            if frame.reply_to is not None:
                self.replies[frame.reply_to] = frame
            elif frame.event == "changes":
                self.status.update(frame["items"])
            elif frame.event == "log":
                key = (frame["attempt"], frame["stream"])
                log = self.logs.setdefault(key, bytearray())
                expected = self.log_from.setdefault(key, frame["offset"]) + len(log)
                if frame.get("truncated"):
                    self.log_from[key] = -len(log)
                else:
                    assert frame["offset"] == expected
                log += frame.payload
            elif frame.event == "log-end":
                self.log_ends.add((frame["attempt"], frame["stream"]))
            else:
                self.events.append(frame)

    def until(self, happened: Callable[[], Any], deadline: float = DEADLINE) -> Any:
        end = time.monotonic() + deadline
        while not (result := happened()):
            assert time.monotonic() < end, f"not within {deadline} s; last known: {self.status}"
            self.step()
        return result

    def call(self, op: str, payload: bytes = b"", **fields: object) -> Frame:
        ident = self.channel.request(op, payload, **fields)
        return self.until(lambda: self.replies.pop(ident, None))

    def start(self, *specs: dict[str, Any], boot: str | None = None) -> dict[str, str]:
        return self.call("start", boot=boot or self.boot, attempts=list(specs))["results"]

    def wait(self, *idents: str, deadline: float = DEADLINE) -> dict[str, Any]:
        self.until(lambda: all(self.status.get(i, {}).get("state") in FINAL for i in idents), deadline)
        return self.status[idents[0]]

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        assert self.start(spec) == {spec["id"]: "queued"}
        return self.wait(spec["id"])

    def running(self, ident: str) -> int:
        """Waits for the record to name the job's process, and returns its id."""

        def pid() -> Any:
            return self.call("report")["attempts"].get(ident, {}).get("pid")

        return int(self.until(pid))

    def report(self) -> dict[str, Any]:
        return self.call("report")["attempts"]

    def wait_for_report(self, ident: str) -> dict[str, Any]:
        """Its end as the report has it, of whichever daemon has seen it."""
        self.until(lambda: self.report()[ident]["state"] in FINAL)
        return dict(self.report()[ident])

    def stream(self, ident: str, name: str = "stdout") -> bytes:
        return self.call("read", attempt=ident, stream=name, offset=0, length=1 << 20).payload

    def put(self, data: bytes, mode: int = 0o644, sha: str | None = None) -> str:
        sha = sha or hashlib.sha256(data).hexdigest()
        for at in range(0, len(data) or 1, 256 << 10):
            chunk = data[at : at + (256 << 10)]
            reply = self.call("put", chunk, sha256=sha, size_total=len(data), offset=at, mode=mode)
            assert reply.ok, reply
        return sha

    def close(self) -> None:
        self.socket.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Host:
    """A home directory and the clients attached to it."""

    def __init__(self, home: Path, agent: Path) -> None:
        self.home = home
        self.agent = agent
        self.clients: list[Client] = []

    def attach(self, **options: Any) -> Client:
        client = Client(self.home, **{"agent": self.agent, **options})
        self.clients.append(client)
        return client

    def record(self, ident: str) -> bytes:
        return (self.home / "attempts" / ident / "record").read_bytes()

    def processes(self) -> list[int]:
        """Everything that was started for this home and lives: the daemon, runners, jobs."""
        found = []
        marks = (os.fsencode(str(self.home)) + b"\0", os.fsencode(str(self.home)) + b"/")
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    command = _cmdline(int(name))
                    if not command:  # the kernel's own, and what is dead
                        continue
                    serves = b".pyz\0serve\0" in command and marks[0] in command
                    if serves or b"CLOUDSEND_RUN_DIR=" + marks[1] in Path("/proc", name, "environ").read_bytes():
                        state = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[0]
                        if state not in "ZX":
                            found.append(int(name))
                except OSError:
                    continue
        return found

    def jobs(self) -> list[int]:
        return [pid for pid in self.processes() if b".pyz\0serve" not in _cmdline(pid)]

    def crash(self, client: Client) -> None:
        """kill -9 of the daemon; the runners live on."""
        os.kill(client.about["pid"], signal.SIGKILL)
        with pytest.raises((ChannelClosed, BrokenPipeError)):
            client.until(lambda: False)
        client.close()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for _ in range(100):
            found = self.processes()
            if not found:
                return
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def _cmdline(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(happened: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    end = time.monotonic() + deadline
    while not (result := happened()):
        assert time.monotonic() < end, f"not within {deadline} s"
        time.sleep(0.01)
    return result


def sh(ident: str, script: str, **more: Any) -> dict[str, Any]:
    return {"id": ident, "argv": ["/bin/sh", "-c", script], **more}


@pytest.fixture(scope="session")
def agent_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is put on hosts, as it is put there; beside it the compiled modules that this machine gets as well."""
    path = tmp_path_factory.mktemp("agent") / "agent.pyz"
    path.write_bytes(agent_source())
    digest = hashlib.sha256(agent_compiled()).hexdigest()
    path.with_name(f"agent-{digest[:16]}.code").write_bytes(agent_compiled())
    return path


@pytest.fixture
def make_host(tmp_path: Path, agent_file: Path) -> Iterator[Callable[[str], Host]]:
    hosts: list[Host] = []

    def make(name: str = "h") -> Host:
        hosts.append(Host(tmp_path / name, agent_file))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def host(make_host: Callable[[str], Host]) -> Host:
    return make_host("h")


@pytest.fixture
def agent(host: Host) -> Client:
    return host.attach(resources={"cpus": 4, "memory": 1 << 34, "gpus": 2})

"""Our agent on a rented machine: its host key at the first login, its dead man's switch, the provider's notice."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_user import User, surroundings
from ec2lab import Cloud

from cloudsend_cli.agent.client import AgentChannel, Frame, agent_sha256, agent_source
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import CloudsendError
from cloudsend_cli.hosts.ssh import SshHost

DEADLINE = 60.0
STEADY = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"


class Session:
    """One client of a machine's agent."""

    def __init__(self, host: SshHost) -> None:
        end = time.monotonic() + DEADLINE
        while True:
            try:
                self.stream = host.open_agent(agent_source(), agent_sha256())
                break
            except CloudsendError:  # it boots
                assert time.monotonic() < end
        self.channel = AgentChannel(self.stream)
        self.notices: list[Any] = []
        self.status: dict[str, dict[str, Any]] = {}
        self.hello = self.call("hello", owner="tests", epoch=1, resources=None)

    def step(self) -> list[Frame]:
        self.channel.flush()
        select.select([self.stream], [], [], 0.1)
        frames = self.channel.receive()
        for frame in frames:
            if frame.event == "changes":
                self.status.update(frame["items"])
            elif frame.event == "heartbeat":
                self.notices.append(frame["rented"]["notice"])
        return frames

    def call(self, op: str, **fields: object) -> Frame:
        ident = self.channel.request(op, **fields)
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            found = [frame for frame in self.step() if frame.reply_to == ident]
            if found:
                return found[0]
        raise AssertionError(f"no answer to {op}")

    def until(self, happened: Callable[[], Any]) -> Any:
        end = time.monotonic() + DEADLINE
        while not (result := happened()):
            assert time.monotonic() < end, (self.status, self.notices[-3:])
            self.step()
        return result

    def start(self, ident: str, script: str, **more: object) -> str:
        spec = {"id": ident, "argv": ["/bin/sh", "-c", script], "cpus": 0.1, **more}
        return str(self.call("start", boot=self.hello["boot"], attempts=[spec])["results"][ident])

    def said(self, ident: str, stream: str) -> bytes:
        return self.call("read", attempt=ident, stream=stream, offset=0, length=1000).payload


@pytest.fixture
def user(ec2: Cloud, state_dir: Path) -> Iterator[User]:
    with surroundings(ec2):
        yield User(ec2, state_dir)


@pytest.fixture
def known_hosts(state_dir: Path) -> Path:
    return state_dir / "known_hosts"


def address_of(user: User, made: str) -> HostAddress:
    address = user.status(made).address
    assert address is not None
    return address


def test_first_login_replaces_the_key_of_the_user_data(user: User, ec2: Cloud, known_hosts: Path) -> None:
    made = user.create()
    user.running(made)
    address = address_of(user, made)
    host = SshHost(address, known_hosts)
    session = Session(host)
    assert host.warning == ""
    (line,) = known_hosts.read_text().splitlines()
    name, _, key = line.partition(" ")
    assert name == made and key != dict(address.settings)["host_key"]
    user_data = ec2.host(made).sh("ls /etc/ssh", root=True)
    assert "cloudsend" not in user_data
    session.until(lambda: session.call("hello", owner="tests", epoch=1)["rented"]["armed"])
    session.until(lambda: ec2.host(made).exists("/run/cloudsend/adopted"))
    session.stream.close()
    ec2.stop(made)
    ec2.wait(made, "stopped")
    ec2.start(made)
    user.running(made)
    after = address_of(user, made)
    assert after.host != address.host
    Session(SshHost(after, known_hosts)).stream.close()
    assert known_hosts.read_text() == f"{line}\n"


def test_notice_of_the_provider_ends_what_runs_and_a_lease_the_machine(
    user: User, ec2: Cloud, known_hosts: Path
) -> None:
    made = user.create(market="spot")
    user.running(made)
    session = Session(SshHost(address_of(user, made), known_hosts))
    session.until(lambda: session.call("hello", owner="tests", epoch=1)["rented"]["armed"])
    assert session.start("a.1", STEADY, on_preempt='echo "saved before $CLOUDSEND_PREEMPT_AT"') == "queued"
    session.until(lambda: session.said("a.1", "stdout"))
    ec2.notice(made, seconds=300)
    session.until(lambda: session.status.get("a.1", {}).get("state") == "exited")
    assert session.status["a.1"]["cause"] == "preempted"
    (notice,) = [found for found in session.notices if found][:1]
    assert notice["action"] == "terminate"
    assert session.said("a.1", "stderr").decode().splitlines()[0] == f"saved before {notice['time']}"
    assert session.start("a.2", "exit 3") == "preempted"
    ec2.notice(made, withdrawn=True)
    session.until(lambda: session.notices[-1] is None)
    assert session.start("a.2", "exit 3") == "queued"
    session.until(lambda: session.status.get("a.2", {}).get("exit_code") == 3)
    session.call("lease", seconds=0)
    ec2.wait(made, "terminated")

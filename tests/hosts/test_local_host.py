"""This machine as a host: the agent's file is put whole, and an agent is attached to in a clean environment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from agent_hello import ask_hello
from real_stack import find_agent, find_processes, wait_for

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.core.model import HostAddress, JobSpec
from cloudsend_cli.core.ports import Hosts
from cloudsend_cli.engine.hearsay import HERE
from cloudsend_cli.engine.hostpool import HostPool, RunFacts, RunHosts
from cloudsend_cli.errors import UnreachableError
from cloudsend_cli.hosts.local import LocalHost
from cloudsend_cli.testing.contract import RUN, HostsContract, LinkUnderTest


@pytest.fixture
def home(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CLOUDSEND_AGENT_IDLE", "30")
    yield state_dir / "agent"
    while found := find_processes(state_dir):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def address_of(home: Path) -> HostAddress:
    return HostAddress("local", f"local:{home}", home=str(home))


def test_directories_that_are_made_on_the_way_are_private(tmp_path: Path) -> None:
    """Seen: a state directory that was removed came back open to others, by its running maestro."""
    home = tmp_path / "gone" / "agent"
    LocalHost(address_of(home)).open_agent(b"raise SystemExit", "0" * 64).close()
    assert [path.stat().st_mode & 0o777 for path in (home, home.parent)] == [0o700, 0o700]


class TestLocalHostsContract(HostsContract):
    @pytest.fixture
    def address(self, home: Path) -> HostAddress:
        return address_of(home)

    @pytest.fixture
    def hosts(self, home: Path) -> Iterator[Hosts]:
        pool = HostPool(LocalHost, "tests", 1, lambda _: None)
        facts = RunFacts({"PATH": "/usr/bin:/bin"}, str(home / "results"), dict)
        hosts = RunHosts(
            RUN,
            pool,
            lambda: None,
            lambda: facts,
            lambda: None,
            home / "logs",
            resumes=home / "resume",
            weigh=lambda *_: HERE,
        )
        yield hosts
        hosts.close()
        pool.close()

    @pytest.fixture
    def job(self, state_dir: Path) -> Callable[[str], JobSpec]:
        scripts = {"quick": "exit 0", "bad": "exit 3", "long": "exec sleep 600"}

        def make(kind: str) -> JobSpec:
            text = f"echo $CLOUDSEND_ATTEMPT >> {state_dir}/ledger; {scripts[kind]}"
            return JobSpec(kind, ("/bin/sh", "-c", text), kind)

        return make

    @pytest.fixture
    def executions(self, state_dir: Path) -> Callable[[str], int]:
        ledger = state_dir / "ledger"
        return lambda attempt: ledger.read_text().split().count(attempt) if ledger.exists() else 0

    @pytest.fixture
    def wait(self) -> Callable[[], bool]:
        import time

        until = time.monotonic() + 60

        def wait() -> bool:
            time.sleep(0.005)
            return time.monotonic() < until

        return wait

    def test_cancel_ends_what_runs(
        self, link: LinkUnderTest, job: Callable[[str], JobSpec], executions: Callable[[str], int]
    ) -> None:
        """As in the contract. A busy machine says `running` of what a runner holds and has not executed yet."""
        link.start("1.1", job("long"))
        link.until(lambda: executions(link.id("1.1")) == 1)
        link.hosts.cancel("n-0", [link.id("1.1")], "cancelled")
        status = link.until_ended("1.1")
        assert (status.state, status.cause) == ("exited", "cancelled")


def test_twenty_at_once_put_one_whole_file_and_reach_one_agent(home: Path) -> None:
    source, sha = agent_source(), agent_sha256()
    with ThreadPoolExecutor(20) as pool:
        streams = list(pool.map(lambda _: LocalHost(address_of(home)).open_agent(source, sha), range(20)))
        agents = {frame["pid"] for frame in pool.map(ask_hello, streams)}
    for stream in streams:
        stream.close()
    assert agents == {find_agent(home)}
    assert [hashlib.sha256(p.read_bytes()).hexdigest() for p in home.glob("agent-*")] == [sha]
    assert list(home.glob(".agent-*")) == []


def test_a_damaged_agent_file_is_replaced(home: Path) -> None:
    source, sha = agent_source(), agent_sha256()
    LocalHost(address_of(home)).open_agent(source, sha).close()
    (path,) = home.glob("agent-*")
    path.write_bytes(source[:1000])
    stream = LocalHost(address_of(home)).open_agent(source, sha)
    assert ask_hello(stream)["home"] == str(home)
    stream.close()
    assert path.read_bytes() == source


def test_the_agent_gets_nothing_of_the_shell_that_started_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_SECRET", "x")
    stream = LocalHost(address_of(home)).open_agent(agent_source(), agent_sha256())
    ask_hello(stream)
    pid = find_agent(home)
    names = {v.partition(b"=")[0] for v in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}
    assert b"CANARY_SECRET" not in names and b"PATH" in names
    stream.close()


def test_a_home_that_cannot_be_used_is_unreachable_with_the_reason(state_dir: Path) -> None:
    (state_dir / "agent").write_text("a file")
    with pytest.raises(UnreachableError, match="could not be started"):
        LocalHost(address_of(state_dir / "agent")).open_agent(agent_source(), agent_sha256())


def test_an_agent_that_refuses_says_why(home: Path) -> None:
    home.mkdir(mode=0o755)
    stream = LocalHost(address_of(home)).open_agent(agent_source(), agent_sha256())
    with pytest.raises(UnreachableError, match="chmod 700"):
        ask_hello(stream)
    stream.close()
    wait_for(lambda: not [c for c in find_processes(home.parent).values() if b"attach" in c])

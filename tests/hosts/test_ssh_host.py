"""A machine by SSH: the contract, one connection, noise and refusals of login shells, limits of sshd."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_hello import ask_hello
from real_stack import find_agent, wait_for
from ssh_server import SshServer, user_name
from ssh_steps import agent_of, greeted, open_agent, read_all

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.core.model import HostAddress, JobSpec
from cloudsend_cli.core.ports import Hosts
from cloudsend_cli.engine.hearsay import HERE
from cloudsend_cli.engine.hostpool import HostPool, RunFacts, RunHosts
from cloudsend_cli.errors import UnfitError, UnreachableError
from cloudsend_cli.hosts import ssh_connect
from cloudsend_cli.hosts.ssh import SshHost, probe
from cloudsend_cli.hosts.ssh_config import resolve
from cloudsend_cli.testing.contract import RUN, HostsContract, LinkUnderTest

OpenHost = Callable[[HostAddress], SshHost]
MakeServer = Callable[..., SshServer]
MOTD_SIZE = 1 << 20


class TestSshHostsContract(HostsContract):
    @pytest.fixture
    def address(self, server: SshServer) -> HostAddress:
        return server.address()

    @pytest.fixture
    def hosts(self, server: SshServer, open_host: OpenHost) -> Iterator[Hosts]:
        pool = HostPool(open_host, "tests", 1, lambda _: None)
        facts = RunFacts({"PATH": "/usr/bin:/bin"}, str(server.directory / "results"), dict)
        hosts = RunHosts(
            RUN,
            pool,
            lambda: None,
            lambda: facts,
            lambda: None,
            server.directory / "logs",
            resumes=server.directory / "resume",
            weigh=lambda *_: HERE,
        )
        yield hosts
        hosts.close()
        pool.close()

    @pytest.fixture
    def job(self, server: SshServer) -> Callable[[str], JobSpec]:
        scripts = {"quick": "exit 0", "bad": "exit 3", "long": "exec sleep 600"}

        def make(kind: str) -> JobSpec:
            text = f"echo $CLOUDSEND_ATTEMPT >> {server.directory}/ledger; {scripts[kind]}"
            return JobSpec(kind, ("/bin/sh", "-c", text), kind)

        return make

    @pytest.fixture
    def executions(self, server: SshServer) -> Callable[[str], int]:
        ledger = server.directory / "ledger"
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


# ---- the agent -----------------------------------------------------------------------------------------------------


def test_the_agent_is_put_once_and_reached_again(server: SshServer, open_host: OpenHost) -> None:
    host = open_host(server.address())
    first = greeted(host)
    (path,) = (server.directory / "agent").glob("agent-*.pyz")
    written = path.stat()
    assert greeted(host)["pid"] == first["pid"]
    assert path.read_bytes() == agent_source()
    assert stat.S_IMODE(written.st_mode) == 0o600
    assert path.stat().st_ino == written.st_ino  # not sent again
    assert list((server.directory / "agent").glob(".agent-*")) == []


@pytest.mark.parametrize("damage", ["truncated", "tampered", "a link", "readable by all"])
def test_a_damaged_agent_file_is_replaced_before_it_is_executed(
    server: SshServer, open_host: OpenHost, damage: str
) -> None:
    host = open_host(server.address())
    greeted(host)
    (path,) = (server.directory / "agent").glob("agent-*.pyz")
    if damage == "truncated":
        path.write_bytes(agent_source()[:1000])
    elif damage == "tampered":
        path.write_bytes(b"#" + agent_source()[1:])
    elif damage == "a link":
        path.rename(server.directory / "elsewhere")
        path.symlink_to(server.directory / "elsewhere")
    else:
        path.chmod(0o644)
    assert greeted(host)["home"] == str(server.directory / "agent")
    assert not path.is_symlink()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == agent_sha256()


def test_the_default_home_is_named_after_the_machine(server: SshServer, open_host: OpenHost) -> None:
    address = server.address()
    host = open_host(HostAddress("ssh", address.key, "", address.host, address.port, "", address.settings))
    home = Path(str(greeted(host)["home"]))
    assert home.parent == server.home / ".cloudsend" / "agent"
    assert len(home.name) == 12
    assert stat.S_IMODE(home.stat().st_mode) == stat.S_IMODE(home.parent.parent.stat().st_mode) == 0o700


def test_the_jobs_keep_the_umask_of_the_login(server: SshServer, open_host: OpenHost) -> None:
    (server.home / ".bashrc").write_text("umask 027\n")
    host = open_host(server.address())
    greeted(host)
    pid = find_agent(server.directory / "agent")
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Umask:\t0077" in status  # the daemon's own
    with agent_of(host) as stream:
        assert ask_hello(stream)["ok"] is True


def test_one_connection_carries_eight_channels_and_ends_with_the_last(server: SshServer, open_host: OpenHost) -> None:
    host = open_host(server.address())
    streams = [open_agent(host) for _ in range(9)]
    assert server.logins() == 2
    assert len({ask_hello(s)["pid"] for s in streams[:-1]}) == 1
    for stream in streams[:-1]:
        stream.close()
    wait_for(lambda: len(server.sessions()) == 1)
    assert ask_hello(streams[-1])["ok"] is True
    streams[-1].close()
    wait_for(lambda: server.sessions() == [])


def test_a_killed_session_is_a_closed_stream_and_nothing_more(server: SshServer, open_host: OpenHost) -> None:
    host = open_host(server.address())
    stream = open_agent(host)
    agent = ask_hello(stream)["pid"]
    server.kill_sessions()
    assert read_all(stream) == b""
    stream.close()
    assert greeted(host)["pid"] == agent


def test_what_is_not_read_is_not_sent(server: SshServer, known_hosts: Path) -> None:
    """The window is full: BlockingIOError, and all of it arrives when the other side reads."""
    connection = ssh_connect.connect(resolve(server.address()), known_hosts, 3.0)
    gate = server.directory / "gate"
    os.mkfifo(gate)
    data = os.urandom(32 << 20)
    stream = connection.open_stream(f"cat {gate}; head -c {len(data)} | sha256sum")
    sent = 0
    with pytest.raises(BlockingIOError):
        while sent < len(data):
            sent += stream.send(data[sent:])
    gate.write_bytes(b"")
    poller = select.poll()
    while sent < len(data):
        try:
            sent += stream.send(data[sent:])
        except BlockingIOError:
            poller.poll(2)
    assert read_all(stream).split()[0] == hashlib.sha256(data).hexdigest().encode()
    stream.close()


def test_a_flood_on_stderr_does_not_block_the_channel(server: SshServer, open_host: OpenHost) -> None:
    (server.home / ".bashrc").write_text("head -c 6000000 /dev/zero | tr '\\0' 'x' >&2\n")
    host = open_host(server.address())
    with agent_of(host) as stream:
        assert ask_hello(stream)["ok"] is True
        assert 0 < len(stream.stderr) <= 4096


# ---- login shells --------------------------------------------------------------------------------------------------


def test_noise_of_rc_files_is_skipped(server: SshServer, open_host: OpenHost) -> None:
    (server.home / ".bashrc").write_text(f"printf 'no line end'; head -c {MOTD_SIZE} /dev/urandom; echo $RANDOM >&2\n")
    assert greeted(open_host(server.address()))["ok"] is True


@pytest.mark.parametrize(
    ("force", "words"),
    [
        ("echo only backups are allowed here; exit 3", "only backups are allowed here"),
        ("/usr/sbin/nologin", "not available"),
        ("exit 1", ""),
    ],
)
def test_an_account_that_runs_no_commands_is_unfit_and_says_so(
    make_server: MakeServer, open_host: OpenHost, force: str, words: str
) -> None:
    server = make_server(ForceCommand=force)
    with pytest.raises(UnfitError, match="did not run the command") as caught:
        open_agent(open_host(server.address()))
    assert words in caught.value.context
    assert "ForceCommand" in caught.value.hint


def test_exit_in_the_rc_file_is_unfit(server: SshServer, open_host: OpenHost) -> None:
    (server.home / ".bashrc").write_text("echo 'quota: \033[31mused up'; exit 1\n")
    with pytest.raises(UnfitError, match="exit status 1") as caught:
        open_agent(open_host(server.address()))
    assert caught.value.context == "quota: ?[31mused up"


def test_a_command_that_echoes_is_not_an_agent(make_server: MakeServer, open_host: OpenHost) -> None:
    server = make_server(ForceCommand="head -c 3000")
    with pytest.raises(UnfitError):
        open_agent(open_host(server.address()))


def test_a_shell_that_waits_is_given_up(
    make_server: MakeServer, open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudsend_cli.hosts.stage_talk.SILENCE_LIMIT", 0.3)
    server = make_server(ForceCommand="echo choose: 1 or 2; sleep 600")
    with pytest.raises(UnreachableError, match="says nothing for") as caught:
        open_agent(open_host(server.address()))
    assert "choose" in caught.value.context


# ---- facts and a shell ---------------------------------------------------------------------------------------------


def test_facts_are_told_and_nothing_is_written(server: SshServer, known_hosts: Path) -> None:
    facts = probe(server.address(), known_hosts)
    assert facts.user == user_name()
    assert facts.hostname == socket.gethostname()
    assert facts.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.cpus == len(os.sched_getaffinity(0))
    assert facts.memory > 1 << 20 and facts.disk_free > 0
    assert abs(facts.clock_offset) <= facts.round_trip_ms / 1000
    assert facts.home == str(server.directory / "agent")
    assert not (server.directory / "agent").exists()


def test_a_home_of_another_kind_is_unfit(server: SshServer, known_hosts: Path, open_host: OpenHost) -> None:
    (server.directory / "agent").write_text("a file")
    with pytest.raises(UnfitError, match="is not a directory"):
        probe(server.address(), known_hosts)
    with pytest.raises(UnfitError, match=r"is not a directory|File exists"):
        open_agent(open_host(server.address()))


def test_a_home_open_to_others_is_unfit(server: SshServer, known_hosts: Path, open_host: OpenHost) -> None:
    (server.directory / "agent").mkdir(mode=0o755)
    for attempt in (lambda: probe(server.address(), known_hosts), lambda: open_agent(open_host(server.address()))):
        with pytest.raises(UnfitError, match="chmod 700"):
            attempt()

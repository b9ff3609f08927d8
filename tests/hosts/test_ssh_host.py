"""A machine by SSH: the contract, one connection, noise and refusals of login shells, limits of sshd."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shlex
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from real_stack import find_agent, wait_for
from ssh_server import SshServer, free_port, public_line, user_name

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.core.model import HostAddress, JobSpec
from cloudsend_cli.core.ports import Hosts
from cloudsend_cli.engine.hostlink import ask_hello
from cloudsend_cli.engine.hostpool import HostPool, RunFacts, RunHosts
from cloudsend_cli.errors import HostKeyError, UnfitError, UnreachableError
from cloudsend_cli.hosts import ssh_connect
from cloudsend_cli.hosts.ssh import SshHost, probe
from cloudsend_cli.hosts.ssh_config import resolve
from cloudsend_cli.hosts.ssh_stream import ChannelStream
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
        hosts = RunHosts(RUN, pool, lambda: None, lambda: facts, lambda: None, server.directory / "logs")
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


def open_agent(host: SshHost) -> ChannelStream:
    return host.open_agent(agent_source(), agent_sha256())


@contextlib.contextmanager
def agent_of(host: SshHost) -> Iterator[ChannelStream]:
    stream = open_agent(host)
    try:
        yield stream
    finally:
        stream.close()


def greeted(host: SshHost) -> dict[str, object]:
    with agent_of(host) as stream:
        return dict(ask_hello(stream))


def read_all(stream: ChannelStream) -> bytes:
    poller = select.poll()
    poller.register(stream.fileno(), select.POLLIN)
    data = b""
    while True:
        assert poller.poll(20_000), "nothing came for 20 s"
        with contextlib.suppress(BlockingIOError):
            piece = stream.recv(1 << 16)
            if not piece:
                return data
            data += piece


# ---- the agent -----------------------------------------------------------------------------------------------------


def test_the_agent_is_put_once_and_reached_again(server: SshServer, open_host: OpenHost) -> None:
    host = open_host(server.address())
    first = greeted(host)
    (path,) = (server.directory / "agent").glob("agent-*")
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
    (path,) = (server.directory / "agent").glob("agent-*")
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


# ---- limits of sshd ------------------------------------------------------------------------------------------------


def test_with_one_session_the_second_is_refused_and_the_first_lives(
    make_server: MakeServer, open_host: OpenHost
) -> None:
    host = open_host(make_server(MaxSessions="1").address())
    with agent_of(host) as first:
        with pytest.raises(UnreachableError, match="no more channels"):
            open_agent(host)
        assert ask_hello(first)["ok"] is True
    assert greeted(host)["ok"] is True


def test_a_login_dropped_for_too_many_is_unreachable_and_works_later(
    make_server: MakeServer, open_host: OpenHost
) -> None:
    server = make_server(MaxStartups="1")
    host = open_host(server.address())
    with socket.create_connection(("127.0.0.1", server.port)) as other:
        assert other.recv(4) == b"SSH-"
        with pytest.raises(UnreachableError, match="drops new logins"):
            open_agent(host)
    wait_for(lambda: server.sessions() == [])
    assert greeted(host)["ok"] is True


def test_thirty_at_once_are_let_in_one_after_another(server: SshServer, open_host: OpenHost) -> None:
    """sshd refuses at random from ten unfinished logins on."""
    with ThreadPoolExecutor(30) as pool:
        streams = list(pool.map(lambda _: open_agent(open_host(server.address())), range(30)))
    for stream in streams:
        stream.close()
    assert server.logins() == 30
    assert [p.name for p in (server.directory / "agent").glob("agent-*.pyz")] == [f"agent-{agent_sha256()[:16]}.pyz"]


# ---- what is no sshd -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listener(talk: Callable[[socket.socket], None]) -> Iterator[HostAddress]:
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    talk(sock.accept()[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield HostAddress("ssh", "ssh:x", host="127.0.0.1", port=sock.getsockname()[1])
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_port_that_refuses(open_host: OpenHost) -> None:
    port = free_port()
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{port} cannot be reached: Connection refused"):
        open_agent(open_host(HostAddress("ssh", "ssh:x", host="127.0.0.1", port=port)))


def test_a_name_without_an_address(open_host: OpenHost) -> None:
    with pytest.raises(UnreachableError, match=r"no address for no-such-machine\.invalid:22"):
        open_agent(open_host(HostAddress("ssh", "ssh:x", host="no-such-machine.invalid")))


def test_a_web_server_is_not_an_ssh_server(open_host: OpenHost) -> None:
    def answer(sock: socket.socket) -> None:
        with sock:
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 120)

    with listener(answer) as address, pytest.raises(UnreachableError, match="is not an SSH server"):
        open_agent(open_host(address))


def test_a_frozen_server_is_given_up(open_host: OpenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connect, "BANNER_LIMIT", 0.2)
    kept: list[socket.socket] = []
    with listener(kept.append) as address, pytest.raises(UnreachableError, match="does not answer in time"):
        open_agent(open_host(address))
    for sock in kept:
        sock.close()


def test_a_server_that_stops_in_the_key_exchange_is_given_up(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_connect, "HANDSHAKE_LIMIT", 0.3)
    kept: list[socket.socket] = []

    def begin(sock: socket.socket) -> None:
        kept.append(sock)
        sock.sendall(b"SSH-2.0-x\r\n")

    with listener(begin) as address, pytest.raises(UnreachableError, match="does not answer in time"):
        open_agent(open_host(address))
    for sock in kept:
        sock.close()


def test_a_packet_of_a_gigabyte_is_not_waited_for(open_host: OpenHost) -> None:
    def flood(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"SSH-2.0-x\r\n" + struct.pack(">IBBxx", (1 << 30) + 4, 4, 20))
            while True:
                sock.sendall(bytes(1 << 20))

    with listener(flood) as address, pytest.raises(UnreachableError, match="a packet of"):
        open_agent(open_host(address))


def test_random_bytes_after_the_banner_are_unreachable(open_host: OpenHost) -> None:
    def babble(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"SSH-2.0-x\r\n" + struct.pack(">IBB", 1020, 4, 20) + os.urandom(5000))

    with listener(babble) as address, pytest.raises(UnreachableError):
        open_agent(open_host(address))


# ---- machines in between -------------------------------------------------------------------------------------------


def as_hop(server: SshServer) -> str:
    return f"{user_name()}@127.0.0.1:{server.port}"


def let_in(ssh_config: Path, server: SshServer) -> None:
    """The user's configuration has the key for hops."""
    with ssh_config.open("a") as writer:
        writer.write(f"IdentityFile {server.login_key}\n")


def test_a_jump_goes_through_each_machine_in_order(
    make_server: MakeServer, open_host: OpenHost, ssh_config: Path
) -> None:
    first, second, goal = make_server(), make_server(), make_server()
    let_in(ssh_config, goal)
    host = open_host(goal.address(jump=f"{as_hop(first)},{as_hop(second)}"))
    assert greeted(host)["home"] == str(goal.directory / "agent")
    assert (first.logins(), second.logins(), goal.logins()) == (1, 1, 1)
    wait_for(lambda: not first.sessions() and not second.sessions() and not goal.sessions())


def test_a_jump_of_the_users_configuration_is_taken(
    make_server: MakeServer, open_host: OpenHost, ssh_config: Path
) -> None:
    hop, goal = make_server(), make_server()
    let_in(ssh_config, goal)
    with ssh_config.open("a") as writer:
        writer.write(f"Host gpu\n HostName 127.0.0.1\n Port {goal.port}\n ProxyJump {as_hop(hop)}\n")
    assert greeted(open_host(HostAddress("ssh", "ssh:gpu", host="gpu")))["ok"] is True
    assert hop.logins() == 1


def test_the_key_of_a_machine_in_between_is_checked_too(
    make_server: MakeServer, open_host: OpenHost, ssh_config: Path
) -> None:
    hop, goal = make_server(known=False), make_server()
    let_in(ssh_config, goal)
    with pytest.raises(HostKeyError, match=r"127\.0\.0\.1 is not known") as caught:
        open_agent(open_host(goal.address(jump=as_hop(hop))))
    assert hop.fingerprint() in caught.value.message
    assert not hop.saw_login()
    assert goal.sessions() == [] and not goal.saw_login()


def test_a_machine_in_between_that_forwards_nothing(
    make_server: MakeServer, open_host: OpenHost, ssh_config: Path
) -> None:
    hop, goal = make_server(AllowTcpForwarding="no"), make_server()
    let_in(ssh_config, goal)
    with pytest.raises(UnreachableError, match="forbids it"):
        open_agent(open_host(goal.address(jump=as_hop(hop))))


def test_a_dead_machine_behind_a_jump_is_unreachable(
    make_server: MakeServer, open_host: OpenHost, ssh_config: Path
) -> None:
    hop = make_server()
    let_in(ssh_config, hop)
    with pytest.raises(UnreachableError, match="no more channels"):
        open_agent(
            open_host(HostAddress("ssh", "x", host="127.0.0.1", port=free_port(), settings=(("jump", as_hop(hop)),)))
        )


RELAY = """
import socket, sys, threading
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def pump(read, write):
    while data := read(65536):
        write(data)
threading.Thread(target=pump, args=(sys.stdin.buffer.raw.read, there.sendall), daemon=True).start()
pump(there.recv, lambda data: (sys.stdout.buffer.write(data), sys.stdout.buffer.flush()))
"""


def test_a_proxy_command_of_the_users_configuration_is_used_and_ends(
    server: SshServer, open_host: OpenHost, ssh_config: Path, state_dir: Path
) -> None:
    relay = state_dir / "relay.py"
    relay.write_text(RELAY)
    with ssh_config.open("a") as writer:
        writer.write(f"Host *\n ProxyCommand {sys.executable} {relay} %h %p\n")
    with agent_of(open_host(server.address())) as stream:
        assert ask_hello(stream)["ok"] is True
        assert count_relays(relay) == 1
    wait_for(lambda: count_relays(relay) == 0)


def count_relays(relay: Path) -> int:
    done = subprocess.run(["pgrep", "-fc", str(relay)], capture_output=True, text=True, check=False)
    return int(done.stdout)


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


HOSTILE = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "$HOME",
    "`id`",
    "!!",
    "\n",
    "a\nb",
    "\\",
    "\\n",
    "%s",
    "*",
    "~",
    "é",
    "-n",
    ";",
    "#",
]


def run_shell(server: SshServer, known_hosts: Path, command: list[str], settings: dict[str, str]) -> tuple[int, bytes]:
    """In a process of its own, as its output is the terminal's."""
    code = (
        "import json,sys; from pathlib import Path; from cloudsend_cli.core.model import HostAddress;"
        "from cloudsend_cli.hosts.ssh import SshHost; a=json.loads(sys.argv[1]);"
        "a['settings']=tuple(map(tuple,a['settings']));"
        "sys.exit(SshHost(HostAddress(**a),Path(sys.argv[2])).open_shell(json.loads(sys.argv[3])))"
    )
    import json
    from dataclasses import asdict

    address = json.dumps(asdict(server.address(**settings)))
    done = subprocess.run(
        [sys.executable, "-c", code, address, str(known_hosts), json.dumps(command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_command_gets_its_arguments_and_its_status_comes_back(server: SshServer, known_hosts: Path) -> None:
    script = f"{sys.executable} -c 'import os,sys; os.write(1, b\"\\0\".join(map(os.fsencode, sys.argv[1:])))'"
    command = [*shlex.split(script), *HOSTILE]
    assert run_shell(server, known_hosts, command, {}) == (0, "\0".join(HOSTILE).encode())
    assert run_shell(server, known_hosts, ["sh", "-c", "exit 7"], {})[0] == 7


def test_a_shell_of_a_machine_that_nobody_knows_is_refused(make_server: MakeServer, known_hosts: Path) -> None:
    server = make_server(known=False)
    status, words = run_shell(server, known_hosts, ["true"], {})
    assert status == 255 and b"Host key verification failed" in words
    assert not server.saw_login()
    pinned = public_line(server.host_keys["ed25519"])
    assert run_shell(server, known_hosts, ["echo", "in"], {"host_key": pinned}) == (0, b"in\n")


def test_a_shell_goes_through_machines_in_between(
    make_server: MakeServer, known_hosts: Path, ssh_config: Path
) -> None:
    first, second, goal = make_server(), make_server(), make_server()
    let_in(ssh_config, goal)
    jump = f"{as_hop(first)},{as_hop(second)}"
    assert run_shell(goal, known_hosts, ["echo", "in"], {"jump": jump}) == (0, b"in\n")
    assert (first.logins(), second.logins(), goal.logins()) == (1, 1, 1)

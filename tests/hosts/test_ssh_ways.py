"""Ways to a machine through others, and the user's terminal there."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_hello import ask_hello
from real_stack import wait_for
from ssh_server import SshServer, free_port, public_line
from ssh_steps import agent_of, as_hop, greeted, let_in, open_agent, run_shell

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import HostKeyError, UnreachableError
from cloudsend_cli.hosts import ssh_connect
from cloudsend_cli.hosts.ssh import SshHost
from cloudsend_cli.hosts.ssh_config import resolve

OpenHost = Callable[[HostAddress], SshHost]
MakeServer = Callable[..., SshServer]


# ---- machines in between -------------------------------------------------------------------------------------------


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


def test_a_machine_that_stalls_behind_a_jump_does_not_hold_the_sender(
    make_server: MakeServer, known_hosts: Path, ssh_config: Path
) -> None:
    """The machine in between is well and takes no more. paramiko would wait for it for ever."""
    hop, goal = make_server(), make_server()
    let_in(ssh_config, goal)
    connection = ssh_connect.connect(resolve(goal.address(jump=as_hop(hop))), known_hosts, 3.0)
    streams = [connection.open_stream("sleep 600") for _ in range(6)]  # each may have 2 MiB on the way
    (stalled,) = goal.sessions()
    os.kill(stalled, signal.SIGSTOP)
    refused = 0
    while refused < 50:
        for stream in streams:
            try:
                stream.send(bytes(1 << 20))
                refused = 0
            except BlockingIOError:
                refused += 1
        select.poll().poll(2)
    for stream in streams:
        stream.close()
    os.kill(stalled, signal.SIGCONT)


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


# ---- the user's terminal -------------------------------------------------------------------------------------------


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


def test_a_command_gets_its_arguments_and_its_status_comes_back(server: SshServer, known_hosts: Path) -> None:
    script = f"{sys.executable} -c 'import os,sys; os.write(1, b\"\\0\".join(map(os.fsencode, sys.argv[1:])))'"
    command = [*shlex.split(script), *HOSTILE]
    assert run_shell(server.address(), known_hosts, command) == (0, "\0".join(HOSTILE).encode())
    assert run_shell(server.address(), known_hosts, ["sh", "-c", "exit 7"])[0] == 7


def test_a_shell_of_a_machine_that_nobody_knows_is_refused(make_server: MakeServer, known_hosts: Path) -> None:
    server = make_server(known=False)
    status, words = run_shell(server.address(), known_hosts, ["true"])
    assert status == 255 and b"Host key verification failed" in words
    assert not server.saw_login()
    pinned = public_line(server.host_keys["ed25519"])
    assert run_shell(server.address(host_key=pinned), known_hosts, ["echo", "in"]) == (0, b"in\n")


def test_a_shell_goes_through_machines_in_between(
    make_server: MakeServer, known_hosts: Path, ssh_config: Path
) -> None:
    first, second, goal = make_server(), make_server(), make_server()
    let_in(ssh_config, goal)
    jump = f"{as_hop(first)},{as_hop(second)}"
    assert run_shell(goal.address(jump=jump), known_hosts, ["echo", "in"]) == (0, b"in\n")
    assert (first.logins(), second.logins(), goal.logins()) == (1, 1, 1)

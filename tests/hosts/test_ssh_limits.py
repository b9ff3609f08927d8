"""What sshd refuses, and what is no sshd at all: refused or given up, with the reason, and tried again."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from agent_hello import ask_hello
from real_stack import wait_for
from ssh_server import SshServer, free_port
from ssh_steps import agent_of, greeted, open_agent

from cloudsend_cli.agent.client import agent_sha256
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import UnreachableError
from cloudsend_cli.hosts import ssh_connect
from cloudsend_cli.hosts.ssh import SshHost

OpenHost = Callable[[HostAddress], SshHost]
MakeServer = Callable[..., SshServer]


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

"""Machines that were rented: known by an alias and by the key they were made with, whatever the user's files say."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_server import SshServer, free_port, make_key
from ssh_steps import as_hop, greeted, open_agent, run_shell

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import AuthError, ConfigError, HostKeyError, UnreachableError
from cloudsend_cli.hosts.ssh import SshHost
from cloudsend_cli.hosts.ssh_config import Route
from cloudsend_cli.hosts.ssh_shell import wait_while_refused

OpenHost = Callable[[HostAddress], SshHost]
MakeServer = Callable[..., SshServer]
ALIAS = "i-0abc"


@pytest.fixture
def server(make_server: MakeServer) -> SshServer:
    return make_server(known=False)


def rented(server: SshServer, made_with: str = "", **settings: str) -> HostAddress:
    return server.address(alias=ALIAS, config="none", host_key=made_with or server.lines["ed25519"], **settings)


def refusal(host: SshHost) -> HostKeyError:
    with pytest.raises(HostKeyError) as caught:
        open_agent(host)
    return caught.value


def test_the_key_that_it_was_made_with_is_known(server: SshServer, open_host: OpenHost, known_hosts: Path) -> None:
    assert greeted(open_host(rented(server)))["ok"] is True
    assert not known_hosts.exists()


def test_any_other_key_is_a_hard_stop(server: SshServer, open_host: OpenHost, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    error = refusal(open_host(rented(server, other)))
    assert f"the host key of {ALIAS} has changed" in error.message
    assert "(the key that it was made with)" in error.message
    assert "cloudsend terminate instance" in error.hint
    assert not server.saw_login()


def test_a_key_that_is_kept_under_the_alias_wins(
    server: SshServer, open_host: OpenHost, known_hosts: Path, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other")
    known_hosts.write_text(f"{ALIAS} {server.lines['ed25519']}\n")
    assert greeted(open_host(rented(server, other)))["ok"] is True
    known_hosts.write_text(f"{ALIAS} {other}\n")
    assert f"{known_hosts}:1" in refusal(open_host(rented(server))).message


def test_nothing_else_that_is_known_plays_a_part(
    server: SshServer, open_host: OpenHost, known_hosts: Path, tmp_path: Path
) -> None:
    other, mine = make_key(tmp_path / "other"), server.lines["ed25519"]
    users = tmp_path / "user_known_hosts"
    users.write_text(f"{ALIAS} {mine}\n{server.known_line}\n127.0.0.1 {mine}\n")
    known_hosts.write_text(f"{server.known_line}\n127.0.0.1 {mine}\ni-0other {mine}\n")
    assert "has changed" in refusal(open_host(rented(server, other))).message
    error = refusal(open_host(server.address(alias=ALIAS, config="none")))
    assert f"the host key of {ALIAS} is not known" in error.message
    assert not server.saw_login()
    users.write_text(f"@revoked * {mine}\n{ALIAS} {other}\n")
    assert greeted(open_host(rented(server)))["ok"] is True


def test_the_address_may_change_and_be_anothers(
    make_server: MakeServer, server: SshServer, open_host: OpenHost
) -> None:
    """The alias stays; the machine that has the address now is another one, and would let us in."""
    stranger = make_server(known=False)
    assert greeted(open_host(rented(server)))["ok"] is True
    assert "has changed" in refusal(open_host(rented(stranger, server.lines["ed25519"]))).message
    assert not stranger.saw_login()


def test_the_users_configuration_is_not_consulted(server: SshServer, open_host: OpenHost, ssh_config: Path) -> None:
    with ssh_config.open("a") as writer:
        writer.write("User nobody\nHostName 192.0.2.1\nProxyJump nowhere.invalid\nHostKeyAlias other\n")
    assert greeted(open_host(rented(server)))["ok"] is True
    ssh_config.write_text("Nonsense yes\n")
    assert greeted(open_host(rented(server)))["ok"] is True


def test_a_machine_in_between_is_reached_with_the_same_key(
    make_server: MakeServer, server: SshServer, open_host: OpenHost, ssh_config: Path, known_hosts: Path
) -> None:
    hop = make_server()
    ssh_config.write_text("Nonsense yes\n")
    assert greeted(open_host(rented(server, jump=as_hop(hop))))["ok"] is True
    assert (hop.logins(), server.logins()) == (1, 1)
    status = run_shell(rented(server, jump=as_hop(hop)), known_hosts, ["echo", "in"])
    assert status == (0, b"in\n")
    known_hosts.unlink()
    assert "127.0.0.1 is not known" in refusal(open_host(rented(server, jump=as_hop(hop)))).message


@pytest.mark.parametrize("alias", ["*", "a,b", "!i-0abc", "i-0abc ssh-rsa", "../x", "-x", "a\nb"])
def test_what_is_no_alias_is_refused(server: SshServer, open_host: OpenHost, alias: str) -> None:
    with pytest.raises(ConfigError, match="not a host key alias"):
        open_agent(open_host(server.address(alias=alias)))


def test_a_machine_that_has_not_our_key_yet_may_still_start(
    server: SshServer, open_host: OpenHost, tmp_path: Path
) -> None:
    make_key(tmp_path / "id")
    with pytest.raises(AuthError) as caught:
        open_agent(open_host(rented(server, key=str(tmp_path / "id"))))
    assert "may still be starting" in caught.value.hint


def test_a_machine_that_boots_is_tried_again_soon(server: SshServer, open_host: OpenHost) -> None:
    """Its sshd is not up, then it is: one and the same host."""
    host = open_host(rented(server))
    server.stop()
    for _ in range(5):
        with pytest.raises(UnreachableError, match=f"{ALIAS} .127.0.0.1.:{server.port} cannot be reached") as caught:
            open_agent(host)
        assert caught.value.transient and not caught.value.retry_after
    server.start()
    assert greeted(host)["ok"] is True


def test_a_machine_without_an_address_yet_is_not_reached(open_host: OpenHost, login_key: Path) -> None:
    settings = (("alias", ALIAS), ("config", "none"), ("key", str(login_key)))
    with pytest.raises(UnreachableError):
        open_agent(open_host(HostAddress("ssh", "aws:i", host="127.0.0.1", port=free_port(), settings=settings)))


# ---- the user's terminal there -------------------------------------------------------------------------------------


def test_a_shell_is_given_what_counts_and_nothing_more(
    server: SshServer, known_hosts: Path, ssh_config: Path, tmp_path: Path
) -> None:
    ssh_config.write_text("Nonsense yes\n")
    assert run_shell(rented(server), known_hosts, ["echo", "in"]) == (0, b"in\n")
    other = make_key(tmp_path / "other")
    known_hosts.write_text(f"{server.known_line}\n")
    status, words = run_shell(rented(server, other), known_hosts, ["true"])
    assert status == 255 and b"Host key verification failed" in words
    known_hosts.write_text(f"{ALIAS} {server.lines['ed25519']}\n")
    assert run_shell(rented(server, other), known_hosts, ["echo", "in"]) == (0, b"in\n")
    known_hosts.write_text(f"{ALIAS} {other}\n")
    assert run_shell(rented(server), known_hosts, ["true"])[0] == 255


class OpensWhenTold(io.StringIO):
    """A machine whose sshd listens as soon as somebody has been told that it does not yet."""

    def __init__(self, door: socket.socket) -> None:
        super().__init__()
        self.door = door

    def write(self, text: str) -> int:
        self.door.listen()
        return super().write(text)


def test_a_shell_waits_for_a_machine_that_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))  # taken, and it does not listen: connections are refused
        told = OpensWhenTold(door)
        monkeypatch.setattr(sys, "stderr", told)
        route = Route("m", "127.0.0.1", door.getsockname()[1], alias="cloudsend-m")
        wait_while_refused(route)
        assert told.getvalue() == "the machine refuses connections, as one that boots: trying for 60 s\n"
        visitor, _ = door.accept()
        visitor.close()


def test_a_shell_does_not_wait_for_a_machine_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        told = OpensWhenTold(door)
        monkeypatch.setattr(sys, "stderr", told)
        wait_while_refused(Route("m", "127.0.0.1", door.getsockname()[1]))
        assert told.getvalue() == ""

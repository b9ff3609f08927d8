"""Logging in: which keys are offered, in what order, and what is said when none is taken."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_stack import wait_for
from ssh_server import SshServer, make_key

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import AuthError, UnreachableError
from cloudsend_cli.hosts.ssh import SshHost
from cloudsend_cli.hosts.ssh_auth import check_private, load_key, read_public_key

OpenHost = Callable[[HostAddress], SshHost]
MakeServer = Callable[..., SshServer]


@pytest.fixture
def agent(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """An ssh-agent; `agent(path, …)` gives it keys."""
    sock = state_dir / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))

    def add(*paths: Path) -> None:
        from real_stack import wait_for

        wait_for(sock.exists)
        environ = {**os.environ, "SSH_ASKPASS": str(state_dir / "askpass"), "SSH_ASKPASS_REQUIRE": "force"}
        (state_dir / "askpass").write_text("#!/bin/sh\necho secret\n")
        (state_dir / "askpass").chmod(0o700)
        subprocess.run(["ssh-add", "-q", *map(str, paths)], check=True, env=environ, stderr=subprocess.DEVNULL)

    yield add
    process.terminate()
    process.wait()


@pytest.fixture
def configured(ssh_config: Path) -> Callable[..., None]:
    def configure(*lines: str) -> None:
        with ssh_config.open("a") as writer:
            writer.write("".join(f"{line}\n" for line in lines))

    return configure


def enter(host: SshHost) -> None:
    host.open_agent(agent_source(), agent_sha256()).close()


def refusal(host: SshHost) -> AuthError:
    with pytest.raises(AuthError) as caught:
        enter(host)
    return caught.value


def keys(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"wrong-{n}" for n in range(count)]
    for path in paths:
        make_key(path)
    return paths


def test_a_key_that_is_not_allowed_is_named(server: SshServer, open_host: OpenHost, tmp_path: Path) -> None:
    (wrong,) = keys(tmp_path, 1)
    error = refusal(open_host(server.address(key=str(wrong))))
    assert "127.0.0.1 does not let" in error.message and f"keys offered: {wrong}" in error.message
    assert f"ssh -p {server.port}" in error.hint


def test_no_key_at_all_is_told(server: SshServer, open_host: OpenHost, configured: Callable[..., None]) -> None:
    configured("IdentityFile /nonexistent/id")
    assert "keys offered: none" in refusal(open_host(server.address(key=""))).message


def test_a_key_file_that_is_not_there_is_named(server: SshServer, open_host: OpenHost) -> None:
    error = refusal(open_host(server.address(key="/nonexistent/id")))
    assert error.message == "the key file /nonexistent/id does not exist"
    assert server.logins() == 0


def test_a_key_file_that_others_can_read_is_not_used(
    server: SshServer, open_host: OpenHost, tmp_path: Path, login_key: Path
) -> None:
    path = tmp_path / "open"
    path.write_bytes(login_key.read_bytes())
    path.chmod(0o644)
    error = refusal(open_host(server.address(key=str(path))))
    assert "keys offered: none" in error.message and f"chmod 600 {path}" in error.hint
    with pytest.raises(PermissionError):
        check_private(path)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_each_type_of_key_lets_in(make_server: MakeServer, open_host: OpenHost, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "id"
    make_key(path, kind)
    server = make_server(AuthorizedKeysFile=f"{path}.pub")
    enter(open_host(server.address(key=str(path))))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_keys_without_a_comment_are_read(tmp_path: Path, kind: str) -> None:
    """paramiko reads half of such ecdsa keys as damaged: "Invalid key curve identifier"."""
    for _ in range(4 if kind == "rsa" else 12):
        line = make_key(tmp_path / "id", kind)
        key = load_key(tmp_path / "id")
        assert f"{key.get_name()} {key.get_base64()}" == line


def test_a_key_in_the_old_format_lets_in(make_server: MakeServer, open_host: OpenHost, tmp_path: Path) -> None:
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(path)], check=True)
    server = make_server(AuthorizedKeysFile=f"{path}.pub")
    enter(open_host(server.address(key=str(path))))


@pytest.fixture
def locked_key(tmp_path: Path) -> Path:
    path = tmp_path / "locked"
    make_key(path, passphrase="secret")
    return path


@pytest.mark.parametrize("with_public", [True, False])
def test_a_key_with_a_passphrase_asks_for_the_agent_and_is_used_by_it(
    make_server: MakeServer,
    open_host: OpenHost,
    locked_key: Path,
    agent: Callable[..., None],
    tmp_path: Path,
    with_public: bool,
) -> None:
    public = Path(f"{locked_key}.pub").rename(tmp_path / "authorized")
    if with_public:
        Path(f"{locked_key}.pub").write_bytes(public.read_bytes())
    server = make_server(AuthorizedKeysFile=str(public))
    host = open_host(server.address(key=str(locked_key)))
    agent(*keys(tmp_path, 1))
    assert f"run `ssh-add {locked_key}`" in refusal(host).hint
    agent(locked_key)
    enter(host)


def test_an_agent_alone_lets_in(
    server: SshServer, open_host: OpenHost, agent: Callable[..., None], login_key: Path, tmp_path: Path
) -> None:
    agent(*keys(tmp_path, 2), login_key)
    enter(open_host(server.address(key="")))


def test_a_public_key_chooses_one_of_the_agent(
    make_server: MakeServer,
    open_host: OpenHost,
    agent: Callable[..., None],
    login_key: Path,
    tmp_path: Path,
    configured: Callable[..., None],
) -> None:
    server = make_server(MaxAuthTries="1")
    agent(*keys(tmp_path, 4), login_key)
    configured("IdentitiesOnly yes", f"IdentityFile {login_key}.pub")
    enter(open_host(server.address(key="")))


def test_only_the_configured_key_is_offered_where_many_are_held(
    make_server: MakeServer, open_host: OpenHost, agent: Callable[..., None], login_key: Path, tmp_path: Path
) -> None:
    agent(*keys(tmp_path, 8), login_key)
    server = make_server(MaxAuthTries="1")
    enter(open_host(server.address()))
    assert "Too many authentication failures" not in server.log()


def test_of_many_keys_so_few_are_offered_that_sshd_does_not_hang_up(
    server: SshServer, open_host: OpenHost, agent: Callable[..., None], tmp_path: Path
) -> None:
    agent(*keys(tmp_path, 8))
    error = refusal(open_host(server.address(key="")))
    assert error.message.count(" of the agent") == 5
    assert "name the right one with `key:`" in error.hint
    assert "Too many authentication failures" not in server.log()


def test_a_server_that_hangs_up_over_failures_is_told_in_its_words(
    make_server: MakeServer, open_host: OpenHost, agent: Callable[..., None], tmp_path: Path
) -> None:
    agent(*keys(tmp_path, 4))
    server = make_server(MaxAuthTries="2")
    assert "Too many authentication failures" in refusal(open_host(server.address(key=""))).message


def test_an_agent_that_is_gone_is_named(
    server: SshServer, open_host: OpenHost, monkeypatch: pytest.MonkeyPatch, configured: Callable[..., None]
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
    configured("IdentityFile /nonexistent/id")
    assert "the ssh-agent at /nonexistent/agent does not answer" in refusal(open_host(server.address(key=""))).hint
    enter(open_host(server.address()))


def test_an_agent_that_the_configuration_forbids_is_not_asked(
    server: SshServer,
    open_host: OpenHost,
    agent: Callable[..., None],
    login_key: Path,
    configured: Callable[..., None],
) -> None:
    agent(login_key)
    configured("IdentityAgent none", "IdentityFile /nonexistent/id")
    assert "keys offered: none" in refusal(open_host(server.address(key=""))).message


def test_a_server_that_takes_passwords_only_is_told(make_server: MakeServer, open_host: OpenHost) -> None:
    server = make_server(PubkeyAuthentication="no", PasswordAuthentication="yes")
    error = refusal(open_host(server.address()))
    assert "takes no keys" in error.message and "password" in error.message


def test_a_second_factor_is_told(make_server: MakeServer, open_host: OpenHost) -> None:
    methods = "publickey,password"
    server = make_server(PasswordAuthentication="yes", AuthenticationMethods=methods)
    error = refusal(open_host(server.address()))
    assert "asks for a second factor: password" in error.message


def test_a_connection_lost_during_the_login_is_not_a_refusal(
    server: SshServer, open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut when the key is about to be sent."""
    import paramiko

    genuine = paramiko.Transport.auth_publickey

    def cut(self: paramiko.Transport, *arguments: object) -> object:
        server.kill_sessions()
        return genuine(self, *arguments)

    monkeypatch.setattr(paramiko.Transport, "auth_publickey", cut)
    with pytest.raises(UnreachableError, match="lost during the login"):
        enter(open_host(server.address()))


def test_the_agent_is_never_forwarded(
    server: SshServer, open_host: OpenHost, agent: Callable[..., None], configured: Callable[..., None]
) -> None:
    configured("ForwardAgent yes")
    stream = open_host(server.address()).open_agent(agent_source(), agent_sha256())
    found = wait_for(lambda: list_environments(server))  # a program that is being started has none for a moment
    stream.close()
    assert not any(v.startswith(b"SSH_AUTH_SOCK=") for environ in found for v in environ)


def list_environments(server: SshServer) -> list[list[bytes]]:
    """Of the processes in the server's home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            environ = path.read_bytes().split(b"\0")
            if f"HOME={server.home}".encode() in environ:
                found.append(environ)
    return found


@pytest.mark.parametrize("passphrase", ["", "secret"])
def test_the_public_half_is_read_from_each_place(tmp_path: Path, passphrase: str) -> None:
    path = tmp_path / "id"
    line = make_key(path, passphrase=passphrase)
    for found in (read_public_key(path), read_public_key(Path(f"{path}.pub"))):
        assert found is not None and found.line == line
    Path(f"{path}.pub").unlink()
    alone = read_public_key(path)
    assert alone is not None and alone.line == line
    path.write_bytes(path.read_bytes()[:150])
    assert read_public_key(path) is None
    assert read_public_key(tmp_path / "none") is None

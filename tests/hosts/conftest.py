"""sshd processes of this machine for the tests of hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import SshServer, make_key

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.hosts.ssh import SshHost

MakeServer = Callable[..., SshServer]


@pytest.fixture(autouse=True)
def no_agent_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    config = tmp_path / "ssh_config"
    config.write_text(f"UserKnownHostsFile {tmp_path}/user_known_hosts\nGlobalKnownHostsFile none\n")
    config.chmod(0o600)
    monkeypatch.setenv("CLOUDSEND_SSH_CONFIG", str(config))


@pytest.fixture
def ssh_config(tmp_path: Path) -> Path:
    """Stands for ~/.ssh/config. Its known hosts are in `user_known_hosts` beside it."""
    return tmp_path / "ssh_config"


@pytest.fixture
def known_hosts(state_dir: Path) -> Path:
    return state_dir / "known_hosts"


@pytest.fixture(scope="session")
def login_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("login") / "id"
    make_key(path)
    return path


@pytest.fixture
def make_server(state_dir: Path, login_key: Path, known_hosts: Path) -> Iterator[MakeServer]:
    """`make_server()`; `make_server(known=False, MaxSessions="1")`: its key is not known, and lines of sshd_config."""
    made: list[SshServer] = []

    def make(*, known: bool = True, **options: object) -> SshServer:
        server = SshServer(state_dir / f"sshd-{len(made)}", login_key, **options)  # type: ignore[arg-type]
        made.append(server)
        if known:
            with known_hosts.open("a") as writer:
                writer.write(f"{server.known_line}\n")
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture
def server(make_server: MakeServer) -> SshServer:
    return make_server()


@pytest.fixture
def open_host(known_hosts: Path) -> Callable[[HostAddress], SshHost]:
    return lambda address: SshHost(address, known_hosts)

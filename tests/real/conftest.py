"""Hosts for the tests of the tier `real`; what cannot be had here is skipped with the reason."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_probes import MakeHosts, MakeLab, OpenSsh, Ssh
from ssh_cluster import Cluster
from sshlab import Lab, LabHost, NotHere
from sshlab.spec import NEEDS_NAMESPACES

from cloudsend_cli import SSH

MakeCluster = Callable[..., Cluster]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/real/"):
            item.add_marker("real")


def skip_what_is_not_here() -> Generator[None, object, object]:
    try:
        return (yield)
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    return (yield from skip_what_is_not_here())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    return (yield from skip_what_is_not_here())


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    """One lab for all tests of a worker: a test takes hosts of its own in it, by `lab_hosts`."""
    with Lab() as made:
        yield made


@pytest.fixture
def namespaces(shared_lab: Lab) -> None:
    """For tests that need more than hosts on loopback addresses."""
    if shared_lab.level != "namespaces":
        raise NotHere(NEEDS_NAMESPACES)


@pytest.fixture
def lab_hosts(shared_lab: Lab) -> Iterator[MakeHosts]:
    """Make hosts for this test: `lab_hosts(3, python="none")`. `shared_lab` has their keys and `ssh_config()`."""
    made: list[LabHost] = []

    def make(count: int = 1, **spec: Any) -> list[LabHost]:
        hosts = shared_lab.add(count, **spec)
        made.extend(hosts)
        return hosts

    yield make
    shared_lab.remove(*made)


@pytest.fixture
def lab() -> Iterator[MakeLab]:
    """Make a lab for this test alone: `lab(3)`."""
    made: list[Lab] = []

    def make(hosts: int = 0, **spec: Any) -> Lab:
        made.append(Lab(hosts, **spec))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def host(lab_hosts: MakeHosts) -> LabHost:
    """One ordinary host."""
    return lab_hosts()[0]


@pytest.fixture
def ssh(shared_lab: Lab) -> Ssh:
    """Run OpenSSH's client: `ssh(host, "echo $HOME").stdout`."""

    def run(host: LabHost, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(shared_lab.ssh(host, *argv), capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def cluster(state_dir: Path, shared_lab: Lab, lab_hosts: MakeHosts) -> Iterator[MakeCluster]:
    """A whole cloudsend over hosts of its own: `cluster(3)`, `cluster(1, settings={"max_load": 2}, python="3.6")`."""
    made: list[Cluster] = []

    def make(count: int = 1, *, settings: dict[str, object] | None = None, **spec: Any) -> Cluster:
        made.append(Cluster(state_dir, shared_lab, lab_hosts(count, **spec), **(settings or {})))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def open_ssh(shared_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenSsh]:
    """`cloudsend_cli.SSH` to a host of the lab: `open_ssh(host, key=None, password=…)`."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "ssh_config").write_text("IdentityFile /nonexistent/id\n")
    (tmp_path / "ssh_config").chmod(0o600)
    opened: list[SSH] = []

    def make(host: LabHost, **options: object) -> SSH:
        given: dict[str, object] = {"key": host.key_path, "stream": io.StringIO(), **options}
        given |= {"known_hosts": shared_lab.known_hosts, "ssh_config": tmp_path / "ssh_config"}
        ssh = SSH(host.address, host.user, port=host.port, **given)  # type: ignore[arg-type]
        opened.append(ssh.set_default_is_raise_err(True))
        return ssh

    yield make
    for ssh in opened:
        ssh.close()

"""`cloudsend_cli.SSH` with hosts of the lab: machines that go away in the middle."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_probes import MakeHosts, OpenSsh
from real_stack import wait_for
from sshlab import LabHost

from cloudsend_cli.errors import CommandFailed, UnreachableError

BIG = 16_000_000

pytestmark = pytest.mark.usefixtures("namespaces")


# ---- commands -----------------------------------------------------------------------------------------------------


def test_a_command_that_takes_too_long_is_ended_there(lab_hosts: MakeHosts, open_ssh: OpenSsh) -> None:
    (host,) = lab_hosts(1)
    ssh = open_ssh(host)
    with pytest.raises(CommandFailed, match="did not end within 1 s, and was told to"):
        ssh.exec_command("sleep 4321; true", timeout=1, cmd_retry_count=1)
    with pytest.raises(CommandFailed):
        ssh.exec_command("trap '' TERM; while :; do sleep 4321; done", timeout=1, cmd_retry_count=0)
    wait_for(lambda: not any("sleep 4321" in line for line in host.processes().values()))
    assert ssh.is_active() and ssh.exec_command("true")[3]


@pytest.mark.parametrize("through", [False, True])
def test_a_partition_ends_a_command_without_a_time_limit(
    lab_hosts: MakeHosts, open_ssh: OpenSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: bool
) -> None:
    """The seed read for ever. Through a bastion no packet of ours goes unanswered."""
    monkeypatch.setattr("cloudsend_cli.hosts.ssh_commands.ASK_AFTER", 3.0)
    monkeypatch.setattr("cloudsend_cli.hosts.ssh_commands.ANSWER_LIMIT", 3.0)
    host, bastion = lab_hosts(2)
    options: dict[str, object] = {}
    if through:
        with (tmp_path / "ssh_config").open("a") as writer:
            writer.write(f"Host {bastion.address}\n IdentityFile {bastion.key_path}\n")
        options = {"jump": f"{bastion.user}@{bastion.address}:{bastion.port}"}
    ssh = open_ssh(host, **options)
    ssh.connect(timeout=2)
    cut = threading.Timer(0.5, host.partition)
    cut.start()
    begun = time.monotonic()
    try:
        with pytest.raises(CommandFailed, match="the connection was lost"):
            ssh.exec_command("sleep 4321", cmd_retry_count=0)
        assert time.monotonic() - begun < 60
        if not through:
            with pytest.raises(UnreachableError):
                ssh.exec_command("true", retry_count=0)
    finally:
        cut.join()
        host.heal()
    assert ssh.exec_command("true")[3]


# ---- files --------------------------------------------------------------------------------------------------------


class At:
    """Does something once, when half of a file has come."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action
        self.told: list[int] = []

    def __call__(self, name: str, done: int, size: int) -> None:
        self.told.append(done)
        action = self.action
        if action is not None and done > size // 2:
            self.action = None
            action()


def digest_there(host: LabHost, path: str) -> str:
    return host.sh("sha256sum <$1", path).split()[0]


@pytest.mark.parametrize("fault", ["reset", "reboot", "pause"])
@pytest.mark.parametrize("way", ["put", "get"])
def test_a_host_that_goes_away_in_the_middle_of_a_file(
    lab_hosts: MakeHosts, open_ssh: OpenSsh, tmp_path: Path, fault: str, way: str
) -> None:
    (host,) = lab_hosts(1)
    ssh = open_ssh(host)
    data = os.urandom(BIG)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "f").write_bytes(data)

    def pause() -> None:
        host.pause()
        threading.Timer(3, host.resume).start()

    at = At({"reset": host.reset_connections, "reboot": host.reboot, "pause": pause}[fault])
    assert ssh.put(tmp_path / "f", "sent", progress=at if way == "put" else None)
    assert digest_there(host, "sent") == digest
    if way == "get":
        assert ssh.get("sent", tmp_path / "back", progress=at)
        assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == digest
    assert at.action is None
    assert host.sh("ls -A | grep -c ^.cloudsend- || true").strip() == "0"
    assert [path.name for path in tmp_path.glob(".cloudsend-*")] == []


def test_a_full_disk_is_told_and_nothing_is_left(lab_hosts: MakeHosts, open_ssh: OpenSsh, tmp_path: Path) -> None:
    (host,) = lab_hosts(1, home_size="20m")
    host.sh("echo old >f")
    (tmp_path / "f").write_bytes(os.urandom(30_000_000))
    ssh = open_ssh(host)
    assert ssh.put(tmp_path / "f", "f", is_raise_err=False) is False
    assert ssh.last_error is not None and ssh.last_error.code == "transfer"
    assert host.sh("cat f; ls -A | grep -c ^.cloudsend- || true").split() == ["old", "0"]


def test_a_tree_over_a_slow_line(lab_hosts: MakeHosts, open_ssh: OpenSsh, tmp_path: Path) -> None:
    (host,) = lab_hosts(1)
    host.throttle("20mbit")
    try:
        for number in range(100):
            (tmp_path / "tree" / str(number % 7)).mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / str(number % 7) / str(number)).write_text(str(number))
        (tmp_path / "tree" / "big").write_bytes(os.urandom(3_000_000))
        (tmp_path / "tree" / "big").chmod(0o400)
        ssh = open_ssh(host)
        assert ssh.put(tmp_path / "tree", ".", recursive=True)
        assert ssh.get("tree", tmp_path / "back", recursive=True)
    finally:
        host.heal()
    for path in (tmp_path / "tree").rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to(tmp_path / "tree")).read_bytes() == path.read_bytes()

"""`cloudsend_cli.SSH` with hosts of the lab: passwords, and machines that go away in the middle."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_probes import MakeHosts
from real_stack import wait_for
from sshlab import Lab, LabHost
from sshlab.sshd import make_key

from cloudsend_cli import SSH
from cloudsend_cli.errors import AuthError, CommandFailed, UnreachableError

PASSWORD = "correct horse"
BIG = 60_000_000
Open = Callable[..., SSH]

pytestmark = pytest.mark.usefixtures("namespaces")


@pytest.fixture
def open_ssh(shared_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
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


@pytest.fixture
def with_password(lab_hosts: MakeHosts) -> Callable[..., LabHost]:
    """A host whose user has a password; with lines of sshd_config."""

    def make(**sshd: str) -> LabHost:
        (host,) = lab_hosts(1, sshd={"PasswordAuthentication": "yes", **sshd})
        script = 'h=$(openssl passwd -6 "$1") && sed -i "s|^$2:[^:]*:|$2:$h:|" /etc/shadow'
        host.sh(script, PASSWORD, host.user, root=True)
        return host

    return make


# ---- passwords ----------------------------------------------------------------------------------------------------


def test_a_password_lets_in(with_password: Callable[..., LabHost], open_ssh: Open) -> None:
    host = with_password()
    ssh = open_ssh(host, key=None, password=PASSWORD)
    assert ssh.exec_command("id -un")[1].read().decode().strip() == host.user
    assert PASSWORD not in host.sshd_log()


def test_a_wrong_password_is_told_and_tried_once(with_password: Callable[..., LabHost], open_ssh: Open) -> None:
    host = with_password()
    ssh = open_ssh(host, key=None, password="wrong")
    with pytest.raises(AuthError, match="does not take the password of") as caught:
        ssh.connect(retry_count=5)
    assert "wrong" not in caught.value.message + caught.value.hint
    assert host.sshd_log().count("Failed password") == 1


def test_a_key_that_is_named_goes_first(with_password: Callable[..., LabHost], open_ssh: Open, tmp_path: Path) -> None:
    host = with_password()
    assert open_ssh(host, password="wrong").connect()
    assert "Failed password" not in host.sshd_log()
    make_key(tmp_path / "other")
    assert open_ssh(host, key=tmp_path / "other", password=PASSWORD).connect()
    with pytest.raises(AuthError, match="password") as caught:
        open_ssh(host, key=tmp_path / "other", password="wrong").connect()
    assert f"keys offered: {tmp_path}/other" in caught.value.hint


def test_a_host_that_takes_keys_only_is_given_those(lab_hosts: MakeHosts, open_ssh: Open, tmp_path: Path) -> None:
    (host,) = lab_hosts(1)
    with pytest.raises(AuthError, match="keys offered: none"):
        open_ssh(host, key=None, password=PASSWORD).connect()
    with (tmp_path / "ssh_config").open("a") as writer:
        writer.write(f"IdentityFile {host.key_path}\n")
    assert open_ssh(host, key=None, password=PASSWORD).connect()


def test_a_host_that_wants_both(with_password: Callable[..., LabHost], open_ssh: Open, tmp_path: Path) -> None:
    host = with_password(AuthenticationMethods="publickey,password password,publickey")
    assert open_ssh(host, password=PASSWORD).connect()
    with (tmp_path / "ssh_config").open("a") as writer:
        writer.write(f"IdentityFile {host.key_path}\n")
    assert open_ssh(host, key=None, password=PASSWORD).connect()
    again = with_password(AuthenticationMethods="password,hostbased", HostbasedAuthentication="yes")
    with pytest.raises(AuthError, match=r"takes the password of .*, and asks for more: hostbased"):
        open_ssh(again, key=None, password=PASSWORD).connect()


def test_a_host_that_asks_for_the_password_in_words(with_password: Callable[..., LabHost], open_ssh: Open) -> None:
    host = with_password(PasswordAuthentication="no", KbdInteractiveAuthentication="yes", UsePAM="yes")
    assert open_ssh(host, key=None, password=PASSWORD).connect()
    assert "keyboard-interactive" in host.sshd_log()
    with pytest.raises(AuthError, match="does not take the password of"):
        open_ssh(host, key=None, password="wrong").connect()


def test_a_password_is_not_given_to_a_host_whose_key_is_another(
    with_password: Callable[..., LabHost], open_ssh: Open, tmp_path: Path
) -> None:
    host = with_password()
    ssh = open_ssh(host, key=None, password=PASSWORD, host_key=make_key(tmp_path / "stranger"))
    assert ssh.connect(is_raise_err=False) is False
    assert "password" not in host.sshd_log().lower()


# ---- commands -----------------------------------------------------------------------------------------------------


def test_a_command_that_takes_too_long_is_ended_there(lab_hosts: MakeHosts, open_ssh: Open) -> None:
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
    lab_hosts: MakeHosts, open_ssh: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: bool
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
    lab_hosts: MakeHosts, open_ssh: Open, tmp_path: Path, fault: str, way: str
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


def test_a_full_disk_is_told_and_nothing_is_left(lab_hosts: MakeHosts, open_ssh: Open, tmp_path: Path) -> None:
    (host,) = lab_hosts(1, home_size="20m")
    host.sh("echo old >f")
    (tmp_path / "f").write_bytes(os.urandom(30_000_000))
    ssh = open_ssh(host)
    assert ssh.put(tmp_path / "f", "f", is_raise_err=False) is False
    assert ssh.last_error is not None and ssh.last_error.code == "transfer"
    assert host.sh("cat f; ls -A | grep -c ^.cloudsend- || true").split() == ["old", "0"]


def test_a_tree_over_a_slow_line(lab_hosts: MakeHosts, open_ssh: Open, tmp_path: Path) -> None:
    (host,) = lab_hosts(1)
    host.throttle("20mbit")
    try:
        for number in range(100):
            (tmp_path / "tree" / str(number % 7)).mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / str(number % 7) / str(number)).write_text(str(number))
        (tmp_path / "tree" / "big").write_bytes(os.urandom(3_000_000))
        ssh = open_ssh(host)
        assert ssh.put(tmp_path / "tree", ".", recursive=True)
        assert ssh.get("tree", tmp_path / "back", recursive=True)
    finally:
        host.heal()
    for path in (tmp_path / "tree").rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to(tmp_path / "tree")).read_bytes() == path.read_bytes()

"""`cloudsend_cli.SSH` with hosts of the lab that let in by password."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lab_probes import MakeHosts, OpenSsh
from real_stack import wait_for
from sshlab import LabHost
from sshlab.sshd import make_key

from cloudsend_cli.errors import AuthError

PASSWORD = "correct horse"

pytestmark = pytest.mark.usefixtures("namespaces")


@pytest.fixture
def with_password(lab_hosts: MakeHosts) -> Callable[..., LabHost]:
    """A host whose user has a password; with lines of sshd_config."""

    def make(**sshd: str) -> LabHost:
        (host,) = lab_hosts(1, sshd={"PasswordAuthentication": "yes", **sshd})
        script = 'h=$(openssl passwd -6 "$1") && sed -i "s|^$2:[^:]*:|$2:$h:|" /etc/shadow'
        host.sh(script, PASSWORD, host.user, root=True)
        return host

    return make


def test_a_password_lets_in(with_password: Callable[..., LabHost], open_ssh: OpenSsh) -> None:
    host = with_password()
    ssh = open_ssh(host, key=None, password=PASSWORD)
    assert ssh.exec_command("id -un")[1].read().decode().strip() == host.user
    assert PASSWORD not in host.sshd_log()


def test_a_wrong_password_is_told_and_tried_once(with_password: Callable[..., LabHost], open_ssh: OpenSsh) -> None:
    host = with_password()
    ssh = open_ssh(host, key=None, password="wrong")
    with pytest.raises(AuthError, match="does not take the password of") as caught:
        ssh.connect(retry_count=5)
    assert "wrong" not in caught.value.message + caught.value.hint
    assert host.sshd_log().count("Failed password") == 1


def test_a_key_that_is_named_goes_first(
    with_password: Callable[..., LabHost], open_ssh: OpenSsh, tmp_path: Path
) -> None:
    host = with_password()
    assert open_ssh(host, password="wrong").connect()
    assert "Failed password" not in host.sshd_log()
    make_key(tmp_path / "other")
    assert open_ssh(host, key=tmp_path / "other", password=PASSWORD).connect()
    with pytest.raises(AuthError, match="password") as caught:
        open_ssh(host, key=tmp_path / "other", password="wrong").connect()
    assert f"keys offered: {tmp_path}/other" in caught.value.hint


def test_a_host_that_takes_keys_only_is_given_those(lab_hosts: MakeHosts, open_ssh: OpenSsh, tmp_path: Path) -> None:
    (host,) = lab_hosts(1)
    with pytest.raises(AuthError, match="keys offered: none"):
        open_ssh(host, key=None, password=PASSWORD).connect()
    with (tmp_path / "ssh_config").open("a") as writer:
        writer.write(f"IdentityFile {host.key_path}\n")
    assert open_ssh(host, key=None, password=PASSWORD).connect()


def test_a_host_that_wants_both(with_password: Callable[..., LabHost], open_ssh: OpenSsh, tmp_path: Path) -> None:
    host = with_password(AuthenticationMethods="publickey,password password,publickey")
    assert open_ssh(host, password=PASSWORD).connect()
    with (tmp_path / "ssh_config").open("a") as writer:
        writer.write(f"IdentityFile {host.key_path}\n")
    assert open_ssh(host, key=None, password=PASSWORD).connect()
    again = with_password(AuthenticationMethods="password,hostbased", HostbasedAuthentication="yes")
    with pytest.raises(AuthError, match=r"takes the password of .*, and asks for more: hostbased"):
        open_ssh(again, key=None, password=PASSWORD).connect()


def test_a_host_that_asks_for_the_password_in_words(with_password: Callable[..., LabHost], open_ssh: OpenSsh) -> None:
    host = with_password(PasswordAuthentication="no", KbdInteractiveAuthentication="yes", UsePAM="yes")
    assert open_ssh(host, key=None, password=PASSWORD).connect()
    wait_for(lambda: "keyboard-interactive" in host.sshd_log())
    with pytest.raises(AuthError, match="does not take the password of"):
        open_ssh(host, key=None, password="wrong").connect()


def test_a_password_is_not_given_to_a_host_whose_key_is_another(
    with_password: Callable[..., LabHost], open_ssh: OpenSsh, tmp_path: Path
) -> None:
    host = with_password()
    ssh = open_ssh(host, key=None, password=PASSWORD, host_key=make_key(tmp_path / "stranger"))
    assert ssh.connect(is_raise_err=False) is False
    assert "password" not in host.sshd_log().lower()

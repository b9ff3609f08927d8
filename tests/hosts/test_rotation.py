"""The host key of the user-data is replaced at the first login: whatever dies in the middle, nobody is locked out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from agent_hello import ask_hello
from campaigns import pick
from real_stack import wait_for
from ssh_server import SshServer, make_key
from ssh_steps import agent_of, greeted, open_agent, run_shell
from sshlab import Lab, LabHost, NotHere

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import HostKeyError, UnreachableError
from cloudsend_cli.hosts.ssh import SshHost
from cloudsend_cli.hosts.ssh_rotation import LOOK_AGAIN

OpenHost = Callable[[HostAddress], SshHost]
MakeServer = Callable[..., SshServer]
ALIAS = "i-0abc"
STEP = pick(3, 1)  # of the effects at which a client is killed
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root replaces host keys")


@pytest.fixture
def server(make_server: MakeServer) -> SshServer:
    return make_server(known=False)


@pytest.fixture
def stubborn(make_server: MakeServer) -> SshServer:
    """It has read its keys once and for all; others read them for each connection."""
    return make_server(known=False, flags=("-r",))


def rotating(server: SshServer, **settings: str) -> HostAddress:
    given = {"alias": ALIAS, "config": "none", "rotate": "true", "host_key": server.lines["ed25519"]}
    return server.address(**{**given, **settings})


def pins(known_hosts: Path) -> list[str]:
    """The keys under the alias."""
    lines = known_hosts.read_text().splitlines() if known_hosts.exists() else []
    return [line.removeprefix(f"{ALIAS} ") for line in lines if line.startswith(f"{ALIAS} ")]


def key_of(server: SshServer) -> str:
    """The public half of what sshd has as its key."""
    command = ["ssh-keygen", "-y", "-f", str(server.host_keys["ed25519"])]
    return " ".join(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[:2])


def beside(server: SshServer) -> list[str]:
    return sorted(path.name for path in server.directory.glob("key-ed25519*"))


def hang_up(server: SshServer) -> None:
    wait_for(lambda: not server.sessions())


@needs_root
def test_the_first_login_replaces_the_key(server: SshServer, open_host: OpenHost, known_hosts: Path) -> None:
    old, address = server.lines["ed25519"], rotating(server)
    known_hosts.write_text(f"other {old}\n")
    host = open_host(address)
    assert greeted(host)["ok"] is True
    new = key_of(server)
    assert new != old
    assert known_hosts.read_text() == f"other {old}\n{ALIAS} {new}\n"
    assert known_hosts.stat().st_mode & 0o777 == 0o600
    path = server.host_keys["ed25519"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("key-ed25519.pub").read_text() == f"{new}\n"
    assert beside(server) == ["key-ed25519", "key-ed25519.pub"]
    assert [p.name for p in known_hosts.parent.glob(".*")] == []
    assert host.warning == ""
    logins = server.logins()
    assert greeted(open_host(address))["ok"] is True
    assert (key_of(server), server.logins()) == (new, logins + 1)


@needs_root
def test_the_old_key_is_not_accepted_any_more(server: SshServer, open_host: OpenHost, tmp_path: Path) -> None:
    """Somebody has read the user-data, and has the address."""
    path = server.host_keys["ed25519"]
    stolen = path.read_bytes()
    address = rotating(server)
    greeted(open_host(address))
    hang_up(server)
    server.stop()
    path.write_bytes(stolen)
    server.start()
    with pytest.raises(HostKeyError, match="has changed"):
        open_agent(open_host(address))
    assert not server.saw_login()


@needs_root
@pytest.mark.parametrize("version", ["3.6", "3.7"])
def test_the_oldest_python_that_machines_have_replaces_it(
    server: SshServer, open_host: OpenHost, known_hosts: Path, version: str
) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    if not found:
        pytest.skip(f"no Python {version} below ~/.pyenv/versions")
    host = open_host(rotating(server, python=str(found[0])))
    assert str(greeted(host)["python"]).startswith(version)
    assert (host.warning, pins(known_hosts)) == ("", [key_of(server)])
    assert key_of(server) != server.lines["ed25519"]


@needs_root
@pytest.mark.parametrize("missing", ["rotate", "alias", "host_key"])
def test_other_machines_keep_their_key(
    server: SshServer, open_host: OpenHost, known_hosts: Path, missing: str
) -> None:
    known_hosts.write_text(f"{server.known_line}\n{ALIAS if missing == 'host_key' else 'x'} {key_of(server)}\n")
    before = key_of(server), known_hosts.read_text()
    assert greeted(open_host(rotating(server, **{missing: ""})))["ok"] is True
    assert (key_of(server), known_hosts.read_text()) == before


@needs_root
def test_a_shell_replaces_it_first(server: SshServer, known_hosts: Path) -> None:
    assert run_shell(rotating(server), known_hosts, ["echo", "in"]) == (0, b"in\n")
    assert pins(known_hosts) == [key_of(server)] != [server.lines["ed25519"]]


@needs_root
def test_many_first_logins_at_once_make_one_key(server: SshServer, open_host: OpenHost, known_hosts: Path) -> None:
    address = rotating(server)
    start = threading.Barrier(5)

    def login(_: int) -> object:
        host = open_host(address)
        start.wait()
        while True:
            try:
                return greeted(host)["ok"]
            except UnreachableError:  # sshd closes its socket for a moment when it reads its key anew
                pass

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(login, range(5))) == [True] * 5
    assert pins(known_hosts) == [key_of(server)]
    assert key_of(server) != server.lines["ed25519"]


# ---- cut off -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dying() -> Iterator[Callable[[int, HostAddress, Path], int]]:
    """`dying(n, address, known_hosts)`: a client that is killed at its n-th effect; -9, or how many it had."""
    program = Path(__file__).with_name("dying_client.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def live(number: int, address: HostAddress, known_hosts: Path) -> int:
            assert process.stdin is not None and process.stdout is not None
            line = json.dumps([number, json.dumps(asdict(address)), str(known_hosts)])
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield live


@needs_root
@pytest.mark.campaign("kills at effects of replacing a host key")
def test_a_client_that_is_killed_at_any_step_is_never_locked_out(
    server: SshServer,
    open_host: OpenHost,
    known_hosts: Path,
    dying: Callable[[int, HostAddress, Path], int],
    summary_line: Callable[[str], None],
) -> None:
    number, killed = 1 - STEP, 0
    status = -9
    while status == -9:
        number += STEP
        known_hosts.unlink(missing_ok=True)
        server.change_key()
        address, old = rotating(server), server.lines["ed25519"]
        status = dying(number, address, known_hosts)
        assert set(pins(known_hosts)) <= {old, *[line for line in pins(known_hosts) if line != old][:1]}
        host = open_host(address)
        while True:
            try:
                assert greeted(host)["ok"] is True
                break
            except UnreachableError:  # its sshd reads the key that the dead client has ordered
                pass
        assert host.warning == ""
        assert pins(known_hosts) == [key_of(server)] != [old], f"effect {number}"
        assert beside(server) == ["key-ed25519", "key-ed25519.pub"], f"effect {number}"
        assert greeted(open_host(address))["ok"] is True
        killed += status == -9
    assert number - STEP <= status < number and status > 20
    summary_line(f"a client was killed at {killed} of {status} effects of replacing a host key")


def pin(known_hosts: Path, *keys: str) -> None:
    known_hosts.write_text("".join(f"{ALIAS} {key}\n" for key in keys))


def put_in_place(server: SshServer) -> str:
    """A new key that sshd has not read."""
    return make_key(server.host_keys["ed25519"])


@needs_root
def test_a_key_in_place_that_sshd_has_not_read_is_read(
    stubborn: SshServer, open_host: OpenHost, known_hosts: Path
) -> None:
    """What was root's there was cut off in the middle."""
    old, new = stubborn.lines["ed25519"], put_in_place(stubborn)
    pin(known_hosts, old, new)
    with pytest.raises(HostKeyError):
        open_agent(open_host(rotating(stubborn, alias="i-other", host_key=new)))  # it shows the old one
    assert greeted(open_host(rotating(stubborn)))["ok"] is True
    assert pins(known_hosts) == [new] == [key_of(stubborn)]


@needs_root
def test_a_machine_that_was_restarted_in_the_middle(server: SshServer, open_host: OpenHost, known_hosts: Path) -> None:
    old, address = server.lines["ed25519"], rotating(server)
    new = put_in_place(server)
    pin(known_hosts, old, new)
    server.stop()
    server.start()
    assert greeted(open_host(address))["ok"] is True
    assert pins(known_hosts) == [new] == [key_of(server)]


@needs_root
def test_what_was_staged_is_used_and_halves_are_not(server: SshServer, open_host: OpenHost, known_hosts: Path) -> None:
    path = server.host_keys["ed25519"]
    staged = make_key(path.with_name("key-ed25519.cloudsend-new"))
    path.with_name("key-ed25519.cloudsend-new.pub").unlink()
    path.with_name("key-ed25519.cloudsend-half").write_text("-----BEGIN")
    path.with_name("key-ed25519.cloudsend-old").write_text("older")
    pin(known_hosts, server.lines["ed25519"], staged)
    assert greeted(open_host(rotating(server)))["ok"] is True
    assert pins(known_hosts) == [staged] == [key_of(server)]
    path.with_name("key-ed25519.cloudsend-half").unlink(missing_ok=True)
    assert beside(server) == ["key-ed25519", "key-ed25519.pub"]


# ---- where it cannot be done ---------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("why", ["its configuration is damaged", "the key is nowhere"])
def test_a_machine_that_cannot_is_used_as_it_is_and_says_why(
    stubborn: SshServer, open_host: OpenHost, known_hosts: Path, why: str
) -> None:
    server, address = stubborn, rotating(stubborn)
    if why == "its configuration is damaged":
        with (server.directory / "config").open("a") as writer:
            writer.write("Nonsense yes\n")
    else:
        make_key(server.host_keys["ed25519"])
    host = open_host(address)
    with agent_of(host) as stream:
        assert ask_hello(stream)["ok"] is True
    assert f"the host key of {ALIAS} stays the one of its user-data" in host.warning
    assert pins(known_hosts) == []
    logins = server.logins()
    assert greeted(host)["ok"] is True
    assert server.logins() == logins + 1  # not tried again by this one
    if why == "the key is nowhere":
        assert "has the key that it shows" in host.warning


# ---- an ordinary user of a machine ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        if made.level != "namespaces":
            pytest.skip("needs hosts in namespaces")
        yield made


@pytest.fixture
def machine(lab: Lab) -> Iterator[LabHost]:
    try:
        (host,) = lab.add(1)
    except NotHere as reason:
        pytest.skip(str(reason))
    if not host.exists("/usr/bin/sudo"):
        lab.remove(host)
        pytest.skip("no sudo here: apt-get install sudo")
    host.write("/etc/sudoers", "Defaults !syslog\nlab ALL=(ALL) NOPASSWD: ALL\n", mode=0o440, root=True)
    yield host
    lab.remove(host)


def address_of(machine: LabHost) -> HostAddress:
    settings = {"alias": ALIAS, "config": "none", "rotate": "true", "host_key": machine.host_key}
    settings |= {"key": str(machine.key_path), "shared": "true"}
    return HostAddress("ssh", f"aws:{ALIAS}", "", machine.address, machine.port, machine.user, tuple(settings.items()))


def test_a_user_who_has_sudo_replaces_it(machine: LabHost, open_host: OpenHost, known_hosts: Path) -> None:
    host = open_host(address_of(machine))
    assert greeted(host)["user"] == machine.user
    assert host.warning == ""
    (new,) = pins(known_hosts)
    assert machine.read("/etc/ssh/ssh_host_ed25519_key.pub", root=True).decode() == f"{new}\n"
    assert new != machine.host_key
    listing = machine.sh("ls /etc/ssh", root=True)
    assert "cloudsend" not in listing
    machine.reboot()
    assert greeted(host)["ok"] is True
    assert pins(known_hosts) == [new]


@pytest.mark.parametrize("shell", ["/bin/tcsh", "/usr/bin/fish", "/bin/zsh"])
def test_any_login_shell_will_do(machine: LabHost, open_host: OpenHost, known_hosts: Path, shell: str) -> None:
    if not machine.exists(shell):
        pytest.skip(f"no {shell} here")
    machine.set_shell(shell)
    host = open_host(address_of(machine))
    assert greeted(host)["ok"] is True
    assert host.warning == ""
    assert len(pins(known_hosts)) == 1


@pytest.mark.parametrize(
    ("hide", "words"),
    [
        ("rm /usr/bin/sudo", "sudo: not found"),
        ("rm /etc/sudoers", "sudo: "),
        ("echo >/etc/sudoers", "password"),
        ("rm /usr/bin/ssh-keygen", "there is no ssh-keygen"),
        ("mount --bind /etc/ssh /etc/ssh && mount -o remount,bind,ro /etc/ssh", "ead-only"),
    ],
)
def test_a_machine_without_the_means_is_used_all_the_same(
    machine: LabHost, open_host: OpenHost, known_hosts: Path, hide: str, words: str
) -> None:
    machine.sh(hide, root=True)
    host = open_host(address_of(machine))
    assert greeted(host)["ok"] is True
    assert words in host.warning and host.warning
    assert pins(known_hosts) == []
    assert greeted(host)["ok"] is True


def test_a_machine_that_restarts_in_the_middle_is_gone_on_with(
    machine: LabHost, open_host: OpenHost, known_hosts: Path
) -> None:
    """The power goes while the client replaces the key, at several moments."""
    address = address_of(machine)
    for wait in (0.2, 0.5, 0.8):
        known_hosts.unlink(missing_ok=True)
        host = open_host(address)
        cut = threading.Timer(wait, machine.reboot)
        cut.start()
        while True:
            try:
                assert greeted(host)["ok"] is True
                break
            except UnreachableError:
                cut.join(LOOK_AGAIN)
        cut.join()
        while True:
            try:
                assert greeted(open_host(address))["ok"] is True
                break
            except UnreachableError:
                pass
        (new,) = pins(known_hosts)
        assert new != machine.host_key
        machine.new_host_key()
        address = address_of(machine)

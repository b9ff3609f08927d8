"""Host keys: what counts as known, refusals before any login, and acceptance into our own file alone."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ssh_server import SshServer, free_port, make_key, user_name

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import CloudsendError, ConfigError, HostKeyError, StateDirError
from cloudsend_cli.hosts.host_keys import (
    HostKey,
    KnownKeys,
    UnknownKey,
    find_known_for,
    judge,
    known_name,
    name_matches,
    parse_known_hosts,
    parse_public_key,
)
from cloudsend_cli.hosts.ssh import SshHost
from cloudsend_cli.hosts.ssh_keys import accept_host_key, drop_keys, fetch_host_keys, remember
from cloudsend_cli.hosts.ssh_transport import preferred_types

OpenHost = Callable[[HostAddress], SshHost]
MakeServer = Callable[..., SshServer]


def made_key(letter: str, kind: str = "ssh-ed25519") -> HostKey:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + bytes(3) + b"\x20" + letter.encode() * 32
    return HostKey(kind, blob)


A, B, R = made_key("a"), made_key("b"), made_key("r", "ssh-rsa")


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "name", "matches"),
    [
        ("gpu", "gpu", True),
        ("gpu", "gpu2", False),
        ("a,gpu,b", "gpu", True),
        ("GPU", "gpu", True),
        ("*.lab", "x.lab", True),
        ("*.lab", "lab", False),
        ("gpu?", "gpu1", True),
        ("gpu?", "gpu", False),
        ("*", "[10.0.0.1]:2222", True),
        ("*,!bad.lab", "bad.lab", False),
        ("!bad.lab,*", "good.lab", True),
        ("!bad.lab", "good.lab", False),
        ("[gpu]:2222", "[gpu]:2222", True),
        ("[gpu]:2222", "gpu", False),
        ("gpu", "[gpu]:2222", False),
        ("[*.lab]:*", "[x.lab]:22022", True),
        ("g*p*u", "gxxpxxu", True),
        ("|1|bad|bad", "gpu", False),
        ("|2|AAAA|AAAA", "gpu", False),
        ("", "gpu", False),
    ],
)
def test_patterns_are_those_of_openssh(patterns: str, name: str, matches: bool) -> None:
    assert name_matches(patterns, name) is matches


@pytest.mark.parametrize("name", ["gpu", "[127.0.0.1]:2222", "gpu.lab", "10.0.0.7"])
def test_what_ssh_keygen_finds_is_found(tmp_path: Path, name: str) -> None:
    """The same file through OpenSSH's own search, in clear and hashed by ssh-keygen."""
    file = tmp_path / "known"
    lines = f"gpu,10.0.0.7 {A.line}\n[127.0.0.1]:2222 {A.line}\n*.lab {A.line}\n# gpu\nother {B.line}\n"
    for hashed in (False, True):
        file.write_text(lines)
        if hashed:
            subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
        done = subprocess.run(["ssh-keygen", "-F", name, "-f", str(file)], capture_output=True, check=False)
        ours = [k for k in parse_known_hosts(file.read_text()) if name_matches(k.patterns, name)]
        assert bool(ours) is (done.returncode == 0) is True
        assert [k.key for k in ours] == [A] * len(ours)


@pytest.mark.parametrize(
    ("hostname", "port", "alias", "name"),
    [
        ("gpu.lab", 22, "", "gpu.lab"),
        ("GPU.lab", 22, "", "gpu.lab"),
        ("gpu.lab", 2222, "", "[gpu.lab]:2222"),
        ("::1", 22, "", "::1"),
        ("::1", 23, "", "[::1]:23"),
        ("10.0.0.1", 2222, "i-123", "i-123"),
    ],
)
def test_the_name_under_which_a_key_is_kept(hostname: str, port: int, alias: str, name: str) -> None:
    assert known_name(hostname, port, alias) == name


# ---- lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        "ssh-rsa " + base64.b64encode(A.blob).decode(),  # another type inside
        "ssh-ed25519 AAAA",
        "ssh-ed25519 é",
    ],
)
def test_what_is_no_key_is_passed_over(text: str) -> None:
    assert parse_public_key(text) is None
    assert parse_known_hosts(f"gpu {text}\ngpu {A.line}\n")[0].key == A


def test_lines_keep_their_place_and_marker() -> None:
    text = f"# comment\n\n@revoked * {B.line} why\n@cert-authority *.lab {R.line}\ngpu {A.line} a comment\n"
    found = [(k.marker, k.patterns, k.key, k.place) for k in parse_known_hosts(text, "f")]
    assert found == [
        ("@revoked", "*", B, "f:3"),
        ("@cert-authority", "*.lab", R, "f:4"),
        ("", "gpu", A, "f:5"),
    ]


def known(text: str, hostname: str = "gpu", port: int = 22, alias: str = "") -> KnownKeys:
    return find_known_for(parse_known_hosts(text, "f"), hostname, port, alias)


def test_a_port_that_nobody_knows_is_looked_for_without_it() -> None:
    assert known(f"gpu {A.line}\n", port=2222).good[0].key == A
    assert known(f"gpu {A.line}\n[gpu]:2222 {B.line}\n", port=2222).good[0].key == B
    assert known(f"gpu {A.line}\n", port=2222, alias="x").good == ()


def test_a_fingerprint_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    for kind in ("ed25519", "rsa", "ecdsa"):
        key = parse_public_key(make_key(tmp_path / "k", kind))
        assert key is not None
        done = subprocess.run(["ssh-keygen", "-lf", tmp_path / "k"], capture_output=True, text=True, check=True)
        assert key.fingerprint == done.stdout.split()[1]


# ---- the judgement -------------------------------------------------------------------------------------------------


def test_any_known_key_will_do() -> None:
    judge(known(f"gpu {A.line}\ngpu {B.line}\n"), B, "gpu")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", f"the host key of gpu is not known: ssh-ed25519 {B.fingerprint}"),
        (f"gpu {A.line}\n", f"has changed: it presents ssh-ed25519 {B.fingerprint}, known is ssh-ed25519 "),
        (f"gpu {A.line}\n", f"{A.fingerprint} (f:1)"),
        (f"gpu {R.line}\ngpu {A.line}\n", "(f:2)"),  # the key of the same type is named
        (f"gpu {R.line}\n", f"known is ssh-rsa {R.fingerprint} (f:1)"),
        (f"gpu {B.line}\n@revoked * {B.line}\n", f"is revoked: {B.fingerprint} (f:2)"),
        (f"@revoked gpu {B.line}\n", "is revoked"),
        (f"@cert-authority * {A.line}\n", "is not known: ssh-ed25519"),
        (f"@cert-authority * {A.line}\n", "f:1 names an authority for it, but cloudsend cannot check"),
        (f"other {B.line}\n", "is not known"),
        (f"@unknown-marker gpu {B.line}\n", "is not known"),
    ],
)
def test_all_other_keys_are_refused(text: str, words: str) -> None:
    with pytest.raises(HostKeyError) as caught:
        judge(known(text), B, "gpu")
    assert words in caught.value.message


def test_an_unknown_key_comes_with_the_command_that_accepts_it() -> None:
    with pytest.raises(HostKeyError) as caught:
        judge(known("", port=2222), A, "gpu")
    assert f"`cloudsend check gpu --accept-host-key {A.fingerprint}`" in caught.value.hint
    assert caught.value.unknown == UnknownKey("[gpu]:2222", A)


def test_known_types_are_asked_for_first() -> None:
    offered = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
    assert preferred_types(["ssh-rsa"], offered) == ("rsa-sha2-512", "rsa-sha2-256", *offered[:2])
    assert preferred_types(["ssh-dss"], offered) == offered
    assert preferred_types(["ssh-rsa"], offered, only=True) == offered[2:]


# ---- real servers --------------------------------------------------------------------------------------------------


def assert_reached(host: SshHost) -> None:
    host.open_agent(agent_source(), agent_sha256()).close()


def refusal(host: SshHost) -> str:
    with pytest.raises(HostKeyError) as caught:
        assert_reached(host)
    return caught.value.message


def assert_untouched(server: SshServer) -> None:
    assert not server.saw_login(), server.log()
    assert not (server.directory / "agent").exists()


def test_an_unknown_machine_is_refused_before_any_login(make_server: MakeServer, open_host: OpenHost) -> None:
    server = make_server(known=False)
    assert server.fingerprint() in refusal(open_host(server.address()))
    assert_untouched(server)


def test_a_changed_key_is_a_hard_stop_before_any_login(
    server: SshServer, open_host: OpenHost, known_hosts: Path
) -> None:
    old = server.fingerprint()
    server.change_key()
    words = refusal(open_host(server.address()))
    assert old in words and server.fingerprint() in words and f"{known_hosts}:1" in words
    assert_untouched(server)


def test_a_revoked_key_is_a_hard_stop_though_it_is_known(
    server: SshServer, open_host: OpenHost, tmp_path: Path
) -> None:
    (tmp_path / "user_known_hosts").write_text(f"@revoked * {server.lines['ed25519']}\n")
    assert "revoked" in refusal(open_host(server.address()))
    assert_untouched(server)


def test_the_users_own_files_count_and_stay_as_they_are(
    make_server: MakeServer, open_host: OpenHost, tmp_path: Path
) -> None:
    server, mine = make_server(known=False), tmp_path / "user_known_hosts"
    mine.write_text(f"{server.known_line}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(mine)], check=True, capture_output=True)
    before = mine.read_bytes()
    assert b"127.0.0.1" not in before
    assert_reached(open_host(server.address()))
    assert mine.read_bytes() == before


def test_an_alias_of_the_configuration_names_the_key(
    make_server: MakeServer, open_host: OpenHost, ssh_config: Path, tmp_path: Path
) -> None:
    server = make_server(known=False)
    with ssh_config.open("a") as writer:
        writer.write(f"Host gpu\n HostName 127.0.0.1\n Port {server.port}\n HostKeyAlias the-gpu\n")
        writer.write(f" IdentityFile {server.login_key}\n")
    (tmp_path / "user_known_hosts").write_text(f"the-gpu {server.lines['ed25519']}\n")
    assert_reached(open_host(HostAddress("ssh", "ssh:gpu", home=str(server.directory / "agent"), host="gpu")))


def test_what_the_configuration_accepts_blindly_is_refused_all_the_same(
    make_server: MakeServer, open_host: OpenHost, ssh_config: Path
) -> None:
    server = make_server(known=False)
    with ssh_config.open("a") as writer:
        writer.write("StrictHostKeyChecking no\n")
    assert "is not known" in refusal(open_host(server.address()))
    assert_untouched(server)


def test_a_pinned_key_is_the_only_one_that_counts(
    server: SshServer, make_server: MakeServer, open_host: OpenHost
) -> None:
    other = make_server(known=False)
    assert "has changed" in refusal(open_host(server.address(host_key=other.lines["ed25519"])))
    assert_untouched(server)
    assert_reached(open_host(other.address(host_key=other.lines["ed25519"])))
    with pytest.raises(ConfigError, match="not a public key"):
        assert_reached(open_host(server.address(host_key="ssh-ed25519 AAAA")))


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_server_with_several_keys_shows_the_one_that_is_known(
    make_server: MakeServer, open_host: OpenHost, known_hosts: Path, kind: str
) -> None:
    server = make_server(known=False, host_keys=("ed25519", "rsa", "ecdsa"))
    known_hosts.write_text(f"{server.name} {server.lines[kind]}\n")
    assert_reached(open_host(server.address()))


def test_another_machine_at_a_recycled_address_gets_nothing(
    server: SshServer, open_host: OpenHost, known_hosts: Path
) -> None:
    """The address is the same, sshd is a stranger's, and it would let us in."""
    host = open_host(server.address())
    assert_reached(host)
    server.change_key()
    assert "has changed" in refusal(host)
    assert not server.saw_login()


# ---- acceptance ----------------------------------------------------------------------------------------------------


def test_a_key_that_was_compared_is_accepted(
    make_server: MakeServer, open_host: OpenHost, known_hosts: Path, tmp_path: Path
) -> None:
    server = make_server(known=False, host_keys=("ed25519", "rsa"))
    address = server.address()
    shown = fetch_host_keys(address, known_hosts)
    assert [(k.type, k.fingerprint, k.line) for k in shown] == [
        ("ssh-ed25519", server.fingerprint("ed25519"), server.lines["ed25519"]),
        ("ssh-rsa", server.fingerprint("rsa"), server.lines["rsa"]),
    ]
    assert not known_hosts.exists()
    assert accept_host_key(known_hosts, address, server.fingerprint("rsa")) == shown[1]
    assert_untouched(server)
    assert known_hosts.read_text() == f"{server.name} {server.lines['rsa']}\n"
    assert known_hosts.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "user_known_hosts").exists()
    assert_reached(open_host(address))


def test_another_fingerprint_accepts_nothing(make_server: MakeServer, known_hosts: Path) -> None:
    server = make_server(known=False)
    with pytest.raises(HostKeyError, match="presents another host key than SHA256:AAAA") as caught:
        accept_host_key(known_hosts, server.address(), "SHA256:AAAA")
    assert server.fingerprint() in caught.value.message
    assert not known_hosts.exists()


def test_a_new_key_takes_the_place_of_the_old_one(server: SshServer, open_host: OpenHost, known_hosts: Path) -> None:
    known_hosts.write_text(f"# ours\nother {A.line}\n{known_hosts.read_text()}")
    server.change_key()
    accept_host_key(known_hosts, server.address(), server.fingerprint())
    assert known_hosts.read_text() == f"# ours\nother {A.line}\n{server.known_line}\n"
    assert_reached(open_host(server.address()))


@pytest.mark.parametrize("how", ["revoked", "pinned"])
def test_what_must_not_be_accepted_is_not(
    make_server: MakeServer, known_hosts: Path, tmp_path: Path, how: str
) -> None:
    server = make_server(known=False)
    settings = {}
    if how == "revoked":
        (tmp_path / "user_known_hosts").write_text(f"@revoked * {server.lines['ed25519']}\n")
    else:
        settings["host_key"] = A.line
    with pytest.raises(HostKeyError, match=how):
        accept_host_key(known_hosts, server.address(**settings), server.fingerprint())
    assert not known_hosts.exists()


def test_the_key_of_a_machine_in_between_is_accepted_by_its_fingerprint(
    make_server: MakeServer, open_host: OpenHost, known_hosts: Path, ssh_config: Path
) -> None:
    hop, goal = make_server(known=False), make_server(known=False)
    with ssh_config.open("a") as writer:
        writer.write(f"IdentityFile {goal.login_key}\n")
    address = goal.address(jump=f"{user_name()}@127.0.0.1:{hop.port}")
    with pytest.raises(HostKeyError, match="is not known"):
        accept_host_key(known_hosts, address, goal.fingerprint())
    accept_host_key(known_hosts, address, hop.fingerprint())
    accept_host_key(known_hosts, address, goal.fingerprint())
    assert known_hosts.read_text() == f"{hop.known_line}\n{goal.known_line}\n"
    assert_reached(open_host(address))


def test_many_that_accept_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state" / "known_hosts"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: remember(path, f"host-{n}", A), range(60)))
    assert sorted(path.read_text().splitlines()) == sorted(f"host-{n} {A.line}" for n in range(60))
    assert os.listdir(path.parent) == ["known_hosts"]


def test_a_link_in_place_of_our_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("gpu\n")
    (tmp_path / "known_hosts").symlink_to(tmp_path / "mine")
    with pytest.raises(StateDirError, match="cannot be written"):
        remember(tmp_path / "known_hosts", "gpu", A)
    assert (tmp_path / "mine").read_text() == "gpu\n"


def test_nobody_there_is_not_a_key_problem(known_hosts: Path) -> None:
    with pytest.raises(CloudsendError, match="cannot be reached"):
        fetch_host_keys(HostAddress("ssh", "x", host="127.0.0.1", port=free_port()), known_hosts)


def test_keys_of_a_machine_that_has_ended_are_dropped_and_no_others(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    drop_keys(file, "i-1")
    assert not file.exists()
    file.write_text(f"i-1 {A.line}\n@revoked i-1 {A.line}\ni-12 {A.line}\n# a note\n")
    before = file.stat().st_ino
    drop_keys(file, "i-3")
    assert file.stat().st_ino == before, "nothing is written where there is nothing to drop"
    drop_keys(file, "i-1")
    assert file.read_text() == f"@revoked i-1 {A.line}\ni-12 {A.line}\n# a note\n"

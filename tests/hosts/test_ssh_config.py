"""Where a name leads: the user's SSH configuration through `ssh -G`, and without it; hostile names."""

from __future__ import annotations

import getpass
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import AuthError, ConfigError
from cloudsend_cli.hosts import ssh_config as module
from cloudsend_cli.hosts.ssh_config import Route, check_host, check_user, parse_options, resolve, resolve_name
from cloudsend_cli.hosts.ssh_config_files import read_without_ssh, with_includes

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here: apt-get install openssh-client")


def test_names_and_repeated_values_of_ssh() -> None:
    text = "host a\nUser bob\nidentityfile ~/x\nidentityfile ~/y z\nproxycommand\nport 22\n"
    assert parse_options(text) == {
        "host": ["a"],
        "user": ["bob"],
        "identityfile": ["~/x", "~/y z"],
        "port": ["22"],
    }


# ---- hostile names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["gpu", "gpu-1.lab.org", "10.0.0.1", "::1", "fe80::1%eth0", "2001:db8::2", "a_b", "x+y"]
)
def test_names_of_machines(host: str) -> None:
    check_host(host)


HOSTILE = [
    "",
    "-oProxyCommand=id",
    "-l",
    " gpu",
    "gpu x",
    "gpu\n",
    "gpu\0",
    "$(id)",
    "`id`",
    "a;b",
    "a|b",
    "a&b",
    "a'b",
    'a"b',
    "a\\b",
    "a/b",
    "a@b",
    "*",
    "~",
    "{a,b}",
    "%h",
    "\u202egpu",
    "gpü",
    ".",
    "a" * 300,
    "[::1]",
    "::1%$(id)",
    ":;id",
]


@pytest.mark.parametrize("host", HOSTILE)
def test_hostile_names_are_refused_before_any_program_sees_them(host: str) -> None:
    with pytest.raises(ConfigError, match="not a host name"):
        resolve(HostAddress("ssh", "x", host=host))


@pytest.mark.parametrize("user", ["-l", "a b", "a;b", "$(id)", "a\n", "a'b", "", "a\\b", "a" * 200])
def test_hostile_users_are_refused(user: str) -> None:
    with pytest.raises(ConfigError, match="not a user name"):
        check_user(user)


@pytest.mark.parametrize("user", ["bob", "b.ob", "bob@example.org", "svc_1", "pc$"])
def test_names_of_users(user: str) -> None:
    check_user(user)


@pytest.mark.parametrize("jump", ["-oX", "a b", "bob@", "bob@-x", "a:b", "a:99999999", "$(id)", "a,,b", "x@y@-z"])
def test_hostile_jumps_are_refused(jump: str) -> None:
    with pytest.raises(ConfigError):
        resolve_name("gpu", jump=jump)


@given(st.text(max_size=40))
def test_what_passes_as_a_name_is_a_plain_word(text: str) -> None:
    try:
        check_host(text)
    except ConfigError:
        return
    assert text and not text.startswith("-") and text.isascii() and text.isprintable()
    assert not set(text) & set(" '\"\\$`;&|<>()*?[]{}~!#/@=,^")


# ---- resolution ----------------------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`write(text)` -> the file; `~` is a directory of the test."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def write(text: str, name: str = "config") -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


CONFIG = """
Host gpu
  HostName gpu.example.org
  User alice
  Port 2222
  IdentityFile ~/.ssh/gpu_key
  IdentitiesOnly yes
  HostKeyAlias the-gpu
  UserKnownHostsFile ~/known_a ~/known_b
  GlobalKnownHostsFile none
  AddressFamily inet
"""


@needs_ssh
def test_the_users_configuration_decides(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    route = resolve(HostAddress("ssh", "x", host="gpu"), write(CONFIG))
    assert route == Route(
        asked="gpu",
        hostname="gpu.example.org",
        port=2222,
        user="alice",
        identity_files=(f"{tmp_path}/.ssh/gpu_key",),
        identities_only=True,
        host_key_alias="the-gpu",
        known_hosts=route.known_hosts,
        address_family="inet",
    )
    assert [Path(f).name for f in route.known_hosts] == ["known_a", "known_b"]


@needs_ssh
def test_what_the_address_says_wins(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    address = HostAddress("ssh", "x", host="gpu", port=33, user="bob", settings=(("key", "~/k"),))
    route = resolve(address, write(CONFIG))
    assert (route.hostname, route.port, route.user) == ("gpu.example.org", 33, "bob")
    assert (route.key, route.identities_only) == (f"{tmp_path}/k", True)


@needs_ssh
def test_nothing_said_is_the_own_name_and_port_22(write) -> None:  # type: ignore[no-untyped-def]
    route = resolve(HostAddress("ssh", "x", host="other.lab"), write(CONFIG))
    assert (route.hostname, route.port, route.user) == ("other.lab", 22, getpass.getuser())
    assert any(f.endswith("/.ssh/id_ed25519") for f in route.identity_files)
    assert not route.hops and not route.proxy_command and not route.identities_only


@needs_ssh
def test_the_machines_in_between_have_their_own_configuration(write) -> None:  # type: ignore[no-untyped-def]
    config = write(
        "Host gpu\n ProxyJump b\nHost b\n HostName b.org\n User bert\n ProxyJump anna@a:44\n"
        "Host a\n HostName a.org\n User nobody\nHost deep\n ProxyJump a,b\n"
    )

    def hops(name: str, jump: str = "") -> list[str]:
        return [f"{h.user}@{h.hostname}:{h.port}" for h in resolve_name(name, jump=jump, config=config).hops]

    assert hops("gpu") == ["anna@a.org:44", "bert@b.org:22"]  # b is itself behind a
    assert hops("deep") == ["nobody@a.org:22", "bert@b.org:22"]  # said in full: b's own jump is not taken
    assert hops("gpu", "c@x:5") == ["c@x:5"]
    assert hops("gpu", "[2001:db8::1]:77")[0].endswith("@2001:db8::1:77")


@needs_ssh
def test_a_loop_of_jumps_is_told(write) -> None:  # type: ignore[no-untyped-def]
    config = write("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(AuthError, match="machines in between"):
        resolve_name("a", config=config)


@needs_ssh
def test_a_proxy_command_gets_its_words_and_yields_to_a_jump(write) -> None:  # type: ignore[no-untyped-def]
    config = write("Host gpu\n HostName gpu.org\n Port 7\n User al\n ProxyCommand relay %h %p %r %n 100%% %q\n")
    assert resolve_name("gpu", config=config).proxy_command == "relay gpu.org 7 al gpu 100% %q"
    through = resolve_name("gpu", jump="x", config=config)
    assert through.proxy_command == "" and [h.hostname for h in through.hops] == ["x"]
    assert resolve_name("gpu", config=write("Host gpu\n ProxyCommand none\n")).proxy_command == ""


@needs_ssh
@pytest.mark.parametrize(
    ("line", "agent"),
    [("", ""), ("IdentityAgent none", "none"), ("IdentityAgent ~/s", "HOME/s"), ("IdentityAgent SSH_AUTH_SOCK", "")],
)
def test_which_agent_is_asked(write, line: str, agent: str) -> None:  # type: ignore[no-untyped-def]
    route = resolve_name("gpu", config=write(f"Host gpu\n User al\n {line}\n"))
    assert Path(route.identity_agent).name == Path(agent).name


@needs_ssh
def test_include_and_match_are_followed(write) -> None:  # type: ignore[no-untyped-def]
    write("Host gpu\n HostName included.org\n", "more.conf")
    config = write(f"Include {write('', 'x').parent}/more.conf\nMatch host included.org user al\n Port 99\n")
    route = resolve_name("gpu", user="al", config=config)
    assert (route.hostname, route.port) == ("included.org", 99)


@needs_ssh
def test_a_configuration_that_ssh_refuses_is_told_in_its_words(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AuthError, match=r"Bad configuration option: nonsense|bad configuration options") as caught:
        resolve_name("gpu", config=write("Nonsense yes\n"))
    assert "ssh -G gpu" in caught.value.hint


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_configuration_that_others_can_write_runs_nothing(write, tmp_path: Path, mode: int) -> None:  # type: ignore[no-untyped-def]
    config = write(f"Match exec 'touch {tmp_path}/ran'\n User x\n")
    config.chmod(mode)
    with pytest.raises(AuthError, match="can be written by others"):
        resolve_name("gpu", config=config)
    with pytest.raises(AuthError, match="can be written by others"):
        read_without_ssh("gpu", "", config)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_configuration_of_another_user_runs_nothing(write) -> None:  # type: ignore[no-untyped-def]
    config = write("User x\n")
    os.chown(config, 12345, 12345)
    with pytest.raises(AuthError, match="belongs to another user"):
        resolve_name("gpu", config=config)


def test_a_configuration_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="cannot be read"):
        resolve_name("gpu", config=tmp_path / "none")


# ---- without the ssh program ---------------------------------------------------------------------------------------

SAME = [
    CONFIG,
    "Host gpu\n ProxyJump alice@hop:22\nHost *\n User bob\n Port 5\n",
    "Host g*\n User first\nHost gpu\n User second\n IdentityFile ~/a\nHost *\n IdentityFile ~/b\n",
    "Host !gpu *\n User not-me\nHost gpu\n User me\n",
    "Include more.conf\nHost gpu\n Port 1\n User x\n",
    "Host gpu\n User x\n Include more.conf\n Port 8\nHost other\n Port 9\n",
    "Host other\n Include more.conf\nHost gpu\n User x\n",
    "Host gpu\n ProxyCommand relay %h:%p\n HostName h.org\n User x\n",
    "Match host gpu\n Port 44\n User x\n",
]


@needs_ssh
@pytest.mark.parametrize("text", SAME)
def test_without_ssh_the_same_is_found(write, monkeypatch: pytest.MonkeyPatch, text: str) -> None:  # type: ignore[no-untyped-def]
    more = write("Port 77\nHost gpu\n User included\nHost zzz\n Port 3\n", "more.conf")
    config = write(text.replace("more.conf", str(more)))
    with_ssh = resolve_name("gpu", config=config)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    without = resolve_name("gpu", config=config)
    for name in ("hostname", "port", "user", "identities_only", "hops", "proxy_command", "host_key_alias"):
        mine, theirs = getattr(without, name), getattr(with_ssh, name)
        if name == "hops":
            mine, theirs = ([(h.hostname, h.port, h.user) for h in x] for x in (mine, theirs))
        assert mine == theirs, name
    if "IdentityFile" in text:
        assert without.identity_files == with_ssh.identity_files


def test_includes_that_include_themselves_end(write) -> None:  # type: ignore[no-untyped-def]
    config = write("")
    config.write_text(f"Include {config}\nPort 5\n")
    assert "Port 5" in with_includes(config, "gpu")

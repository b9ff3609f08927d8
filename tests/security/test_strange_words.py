"""Rows 5 and 24: words that name machines, and configuration files of others, start no program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm_commands
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from cloudsend_cli.api import Client
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.core.submission import SubmitOptions
from cloudsend_cli.errors import AuthError, CloudsendError, ConfigError
from cloudsend_cli.hosts.ssh import SshHost
from cloudsend_cli.hosts.ssh_config import read_options, resolve
from cloudsend_cli.hosts.ssh_config_files import read_without_ssh

OTHER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make what is another user's")
WORDS = (
    "-oProxyCommand=touch owned", "-oProxyCommand=touch${IFS}owned", "-F/tmp/x", "-", "--", "-l root",
    "h -oProxyCommand=x", "h;touch owned", "h|touch owned", "h&touch owned", "$(touch owned)", "`touch owned`",
    "h\ntouch owned", "h\rx", "h\0x", "h'x", 'h"x', "h\\x", "h x", "h\tx", "h>owned", "h<x", "h*", "h?", "!h",
    "h#x", "h%h", "h/../x", "../x", "/etc/passwd", "h\x1b[2J", "h\u202ex", "hé", "@h", "u@", "-oX=y@h",
    "u@-oX=y", "u u@h", "$(id)@h", "u;id@h", "h:", "h:x", "h:22x", "h:99999", "h:-1", "[h", "h]", "[::1",
    "::1%eth0;id", "ssh://-oX", "x" * 300,
)  # fmt: skip


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `ssh`, and a shell, that write down how they were called; first in the PATH."""
    called = tmp_path / "called"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ssh", "sh", "scp", "sftp"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{called}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return called


def surfaces(client: Client, folder: Path, word: str) -> list[str]:
    """Each place that takes the name of a machine, a user or a machine in between; the errors."""
    entries: list[object] = [
        word,
        {"host": word},
        {"host": "h", "user": word},
        {"host": "h", "jump": word},
        {"host": "h", "jump": f"good,{word}"},
        {"host": "h", "name": word},
        {"host": "h", "home": word},
        {"host": "h", "python": word},
        {"host": f"u@{word}"},
    ]
    config = folder / "jobs.json"
    config.write_text(json.dumps({"jobs": "true", "provider": "lab"}))
    problems = []
    for entry in entries:
        provider = {"name": "lab", "type": "ssh", "hosts": [entry]}
        (folder / "providers.yml").write_text(json.dumps({"providers": [provider]}))
        with pytest.raises(CloudsendError) as caught:
            client.validate(str(config))
        problems.append(str(caught.value))
    (folder / "providers.yml").unlink()
    with pytest.raises(CloudsendError) as caught:
        client.validate(str(config), SubmitOptions(provider=f"ssh:{word}"))
    return [*problems, str(caught.value)]


# What is no name of a host can be a path, a program or a user.
GOOD_ELSEWHERE = {"/etc/passwd", "h:", "h:x", "h:22x", "@h", "u@"}


@pytest.mark.parametrize("word", WORDS, ids=lambda word: repr(word)[:40])
def test_a_word_that_is_no_name_starts_nothing(tmp_path: Path, fake_ssh: Path, word: str) -> None:
    client = Client(tmp_path / "state")
    if word not in GOOD_ELSEWHERE:
        for problem in surfaces(client, tmp_path, word):
            assert "\x1b" not in problem and "\0" not in problem
    for address in (
        HostAddress("ssh", "k", host=word),
        HostAddress("ssh", "k", host="h", user=word if word != "h:" else "-x"),
        HostAddress("ssh", "k", host="h", settings=(("jump", word),)),
        HostAddress("ssh", "k", host="h", settings=(("jump", f"good,{word}"),)),
    ):
        if address.host == "h" and word in {"/etc/passwd", "x" * 300, "h:", "h\\x"}:
            continue
        with pytest.raises(CloudsendError):
            SshHost(address, tmp_path / "known_hosts").open_agent(b"", "0" * 64)
    assert not (tmp_path / "owned").exists()
    calls = fake_ssh.read_text().splitlines() if fake_ssh.exists() else []
    assert all(call.startswith("ssh -G ") and call.split(" -- ")[1] in {"h", "good"} for call in calls), calls


@pytest.mark.parametrize(
    "words",
    [
        ["ssh", "-oProxyCommand=touch owned"],
        ["ssh", "--", "-oProxyCommand=touch owned"],
        ["check", "--", "-oProxyCommand=x"],
        ["create", "instance", "-p", "ssh:-oProxyCommand=touch owned"],
        ["run", "-p", "ssh:$(touch owned)", "--", "true"],
    ],
)
def test_no_command_line_starts_anything(tmp_path: Path, fake_ssh: Path, words: list[str]) -> None:
    environ = {**os.environ, "CLOUDSEND_HOME": str(tmp_path / "state")}
    done = warm_commands.run(words, environ=environ, folder=tmp_path)
    assert done.returncode in {2, 3}, done.stderr
    assert not (tmp_path / "owned").exists()
    assert not fake_ssh.exists()


@fuzz(150)
@given(word=st.text(min_size=1, max_size=30) | st.text("-oPX=${} ;|&@:[]%,./\\'\"`\n", min_size=1, max_size=20))
def test_any_word_is_a_plain_name_or_starts_nothing(tmp_path_factory: pytest.TempPathFactory, word: str) -> None:
    """What is handed to ssh stands behind `--`, is one argument, and has no letter that a shell knows."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\\\0" "$@" >{folder}/called\nexit 1\n')
    (folder / "ssh").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        with pytest.raises((ConfigError, AuthError)):
            resolve(HostAddress("ssh", "k", host=word))
    if (folder / "called").exists():
        assert (folder / "called").read_bytes().split(b"\0")[:-1] == [b"-G", b"--", word.encode()]
        assert not set(word) & set(" ;|&$`<>()'\"\\\n\r\t\0*?[]{}!#~%,@/")
        assert not word.startswith("-")


# ---- row 24 --------------------------------------------------------------------------------------------------------


def make_foreign(path: Path) -> None:
    os.chown(path, OTHER, OTHER)


def make_open(path: Path) -> None:
    """Not to a group of the user alone: Debian's ssh takes that for the user."""
    os.chown(path, -1, OTHER)
    path.chmod(0o664)


def make_open_to_all(path: Path) -> None:
    path.chmod(0o646)


FOREIGN = {
    "of another user": make_foreign,
    "that its group may write": make_open,
    "that all may write": make_open_to_all,
}


@needs_root
@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize("with_ssh", [True, False])
def test_an_included_file_of_others_runs_nothing(tmp_path: Path, how: str, with_ssh: bool) -> None:
    evil = tmp_path / "evil.conf"
    evil.write_text(
        f'Match exec "touch {tmp_path}/owned"\n Port 7\nHost *\n ProxyCommand touch {tmp_path}/owned\n HostName evil\n'
    )
    FOREIGN[how](evil)
    config = tmp_path / "config"
    config.write_text(f"Include {evil}\nHost *\n Port 9\n")
    config.chmod(0o600)
    with pytest.raises(AuthError) as caught:
        if with_ssh:
            if shutil.which("ssh") is None:
                pytest.skip("no ssh here")
            read_options("h", 0, "", config)
        else:
            read_without_ssh("h", "", config)
    assert "evil.conf" in caught.value.message
    assert not (tmp_path / "owned").exists()


INSIDE = """
import json, sys
from cloudsend_cli.errors import CloudsendError
from cloudsend_cli.hosts.ssh_config import resolve_name
try:
    route = resolve_name("h")
    print(json.dumps([route.hostname, route.port, route.proxy_command]))
except CloudsendError as problem:
    print(json.dumps(problem.message))
"""


def resolve_at_home(home: Path) -> object:
    """What a name leads to for a user whose home directory is this one, in the password file as well."""
    entry = f"root:x:0:0:root:{home}:/bin/sh\nnobody:x:{OTHER}:{OTHER}:nobody:/nonexistent:/bin/false\n"
    (home / "passwd").write_text(entry)
    script = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(home / "passwd"), sys.executable, "-c", INSIDE],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_root
@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize("which", ["config", "included"])
def test_the_users_own_file_runs_nothing_when_others_can_write_it(tmp_path: Path, how: str, which: str) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "config").write_text(f'Include more\nMatch exec "touch {tmp_path}/ran"\n Port 7\n')
    (folder / "more").write_text(f'Match exec "touch {tmp_path}/ran-too"\n HostName there\n')
    for name in ("config", "more"):
        (folder / name).chmod(0o600)
    assert resolve_at_home(tmp_path) == ["there", 7, ""]
    assert (tmp_path / "ran").exists() and (tmp_path / "ran-too").exists()  # it is the user's own: he may
    (tmp_path / "ran").unlink()
    (tmp_path / "ran-too").unlink()
    FOREIGN[how](folder / ("config" if which == "config" else "more"))
    problem = resolve_at_home(tmp_path)
    assert isinstance(problem, str) and "ad owner or permissions" in problem, problem
    if which == "config":
        assert not (tmp_path / "ran-too").exists()
    assert not (tmp_path / "ran").exists()

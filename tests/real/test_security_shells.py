"""Row 5: whatever stands in arguments and variables reaches the job to the byte, whichever shell the login has."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sshlab import Lab, LabHost

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.engine.direct import Direct
from cloudsend_cli.hosts.ssh import SshHost

MakeHosts = Callable[..., list[LabHost]]
KNOWN = ("/bin/sh", "/bin/dash", "/bin/bash", "/usr/bin/zsh", "/bin/csh", "/bin/tcsh", "/usr/bin/fish")
SHELLS = tuple(shell for shell in KNOWN if os.path.exists(shell))  # hosts have the machine's programs
FUZZ = float(os.environ.get("CLOUDSEND_FUZZ", "1"))
SEED = int(os.environ.get("CLOUDSEND_FUZZ_SEED", "11"))
# Prints each argument, and each variable that was given, as hex.
DUMP = (
    "import os,sys,json;print(json.dumps([[os.fsencode(a).hex() for a in sys.argv[1:]],"
    "{os.fsencode(k).hex():os.fsencode(v).hex() for k,v in os.environ.items()}]))"
)
NASTY = [
    b"", b" ", b"-n", b"--", b"-rf", b"a b", b"\t", b"\n", b"\r\n", b"a\nb", b"\\", b"\\n", b"\\\\", b"'", b'"',
    b"'\"'", b"`id`", b"$(id)", b"$HOME", b"${HOME}", b"$$", b"$", b"~", b"~root", b"*", b"?", b"[a-z]*", b"{a,b}",
    b"{1..3}", b"!", b"!!", b"!-1", b"!echo", b"^a^b", b"#", b"# x", b"a#b", b";", b"; id", b"&", b"&&", b"|", b"||",
    b"<", b">", b">>/tmp/owned", b"<(id)", b"(", b")", b"()", b"(id)", b"%", b"%1", b"%s%n", b"=", b"a=b", b"A=$B",
    b"@", b":", b"\x01\x02\x03", b"\x1b[2J\x1b]0;owned\x07", b"\x7f", b"\x80\xff\xfe", b"caf\xe9", "é日本🦄".encode(),
    "\u202e\u2066\u2028".encode(), b"\xed\xa0\x80", b"\xc0\xaf", b"$'\\x41'", b"$\"x\"", b"\\\n", b"'\n'", b"\"\n\"",
    b"end\\", b"\\'", b"if", b"then", b"exit 3", b"exec", b"set -x", b"x" * 20_000, b"'" * 500, b"!" * 300,
    b"\n" * 100,
]  # fmt: skip
ALPHABET = b"ab $`'\"\\!#*?[]{}()<>|&;~^%=@\n\t\r-,.:/\x1b\x80\xff\xc3\xa9"


def texts(rng: random.Random, count: int) -> list[bytes]:
    """The nasty ones, and random ones of bytes that mean something to some shell, or of any bytes."""
    made = list(NASTY)
    for _ in range(count):
        length = rng.randrange(1, 40)
        pick = ALPHABET if rng.random() < 0.7 else bytes(range(1, 256))
        made.append(bytes(rng.choice(pick) for _ in range(length)))
    return made


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@pytest.fixture
def host(lab_hosts: MakeHosts) -> LabHost:
    return lab_hosts()[0]


def address_of(host: LabHost) -> HostAddress:
    settings = (("key", str(host.key_path)), ("shared", "true"))
    return HostAddress("ssh", f"ssh:{host.name}", host=host.address, port=host.port, user=host.user, settings=settings)


def execute(talk: Direct, ident: str, argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> Any:
    """What a job with these arguments and variables saw."""
    spec = {
        "id": ident,
        "argv": ["/usr/bin/python3", "-c", DUMP, *map(as_text, argv)],
        "env": {as_text(k): as_text(v) for k, v in env.items()},
        "cpus": 0,
    }
    assert talk.ask("start", boot=talk.hello["boot"], attempts=[spec])["results"] == {ident: "queued"}
    until = time.monotonic() + 30
    while (status := talk.ask("report")["attempts"][ident])["state"] in {"queued", "running"}:
        assert time.monotonic() < until, status
        time.sleep(0.01)
    assert status["exit_code"] == 0, (status, talk.ask("read", attempt=ident, stream="stderr").payload)
    out = b"".join(
        talk.ask("read", attempt=ident, stream="stdout", offset=at, length=1 << 20).payload
        for at in range(0, status["stdout_size"], 1 << 20)
    )
    return json.loads(out)


def test_arguments_and_variables_arrive_to_the_byte_through_any_login_shell(
    host: LabHost, shared_lab: Lab, summary_line: Callable[[str], None]
) -> None:
    rng = random.Random(SEED)
    count = 0
    for shell in SHELLS:
        host.set_shell(shell)
        machine = SshHost(address_of(host), shared_lab.known_hosts)
        with Direct(machine, owner="fuzz", epoch=1) as talk:
            for part in range(max(1, round(FUZZ))):
                argv = texts(rng, 400)
                values = texts(rng, 100)
                odd = [b"A-B", b"a b", "é".encode(), b"caf\xe9", b"!", b"$X", b"(", b"\n", b"x" * 300, b"\x1b"]
                names = [b"V%d" % n for n in range(len(values) - len(odd))] + odd
                env = dict(zip(names, values, strict=True))
                ident = f"f{SHELLS.index(shell)}.{part}.1"
                seen_argv, seen_env = execute(talk, ident, argv, env)
                assert [bytes.fromhex(a) for a in seen_argv] == argv, shell
                found = {bytes.fromhex(k): bytes.fromhex(v) for k, v in seen_env.items()}
                assert {k: found.get(k) for k in env} == env, shell
                count += len(argv) + len(env)
    assert not host.exists("/tmp/owned")
    summary_line(f"arguments and variables through {len(SHELLS)} login shells: {count:,}")


def test_arguments_of_a_shell_command_arrive_to_the_byte_through_any_login_shell(
    host: LabHost, shared_lab: Lab, tmp_path: Path, summary_line: Callable[[str], None]
) -> None:
    """`cloudsend ssh HOST -- COMMAND`: the one place where a command goes through the login shell."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "known_hosts").write_bytes(shared_lab.known_hosts.read_bytes())
    entry = {"name": "h", **host.provider_entry()}
    (tmp_path / "providers.yml").write_text(
        json.dumps({"providers": [{"name": "p", "type": "ssh", "hosts": [entry]}]})
    )
    rng = random.Random(SEED)
    count = 0
    for shell in SHELLS:
        host.set_shell(shell)
        for _ in range(max(1, round(FUZZ))):
            argv = [text for text in texts(rng, 120) if len(text) < 1000]
            command = [sys.executable, "-m", "cloudsend_cli", "ssh", "h", "--", "/usr/bin/python3", "-c", DUMP, *argv]
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, "CLOUDSEND_HOME": str(state)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, (shell, done.stderr)
            assert [bytes.fromhex(a) for a in json.loads(done.stdout)[0]] == argv, shell
            count += len(argv)
    assert not host.exists("/tmp/owned")
    summary_line(f"arguments of `cloudsend ssh` through {len(SHELLS)} login shells: {count:,}")

"""Compiled modules beside the agent's file: used if they are what was told, and never needed."""

from __future__ import annotations

import hashlib
import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_hello import ask_hello

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.agent.compiled import COMPILED, agent_compiled
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.hosts.local import LocalHost

from .conftest import Client, sh

OLD = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))
SAYS = "def main(argv):\n    print('compiled')\n"


def keep(agent: Path, main: str = SAYS, tag: str = "", **more: str) -> str:
    """Write a file of which the module `main` can be told from that of the zip; its sha256."""
    own, _, _ = agent_compiled().partition(b"\n")
    modules = {
        f"host.{name}": marshal.dumps(compile(text, name, "exec")) for name, text in {"main": main, **more}.items()
    }
    data = (tag.encode() or own) + b"\n" + marshal.dumps(modules, 2)
    digest = hashlib.sha256(data).hexdigest()
    agent.with_name(f"{agent.stem}-{digest[:16]}.code").write_bytes(data)
    return digest


@pytest.fixture
def agent_here(tmp_path: Path) -> Path:
    path = tmp_path / "agent-0123.pyz"
    path.write_bytes(agent_source())
    return path


def version(agent: Path, digest: str, python: str = sys.executable) -> str:
    command = [python, "-I", "-S", "-B", str(agent), "version"]
    done = subprocess.run(command, env={COMPILED: digest}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return "compiled" if done.stdout == "compiled\n" else "zip" if agent_sha256() in done.stdout else done.stdout


def test_what_was_told_is_used(agent_here: Path) -> None:
    assert version(agent_here, keep(agent_here)) == "compiled"


def test_what_differs_from_what_was_told_is_not(agent_here: Path) -> None:
    digest = keep(agent_here)
    path = agent_here.with_name(f"{agent_here.stem}-{digest[:16]}.code")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole + b"\0", whole.replace(b"compiled", b"compilee")):
        path.write_bytes(damaged)
        assert version(agent_here, digest) == "zip"
    path.unlink()
    for told in (digest, "", "x", "../" * 6):
        assert version(agent_here, told) == "zip"


def test_what_another_python_has_compiled_is_not(agent_here: Path) -> None:
    assert version(agent_here, keep(agent_here, tag="cpython-311 00000000")) == "zip"
    digest = keep(agent_here)
    others = [path for path in OLD if path.parts[-3][:4] != ".".join(map(str, sys.version_info[:2]))]
    for python in others:
        assert version(agent_here, digest, str(python)) == "zip"


def test_modules_that_are_not_in_it_come_from_the_zip(agent_here: Path) -> None:
    text = "import json\nfrom .home import own_sha256\nfrom .protocol import PROTOCOL\n"
    text += "def main(argv):\n    print(json.dumps([PROTOCOL, own_sha256(), __file__, __package__]))\n"
    said = version(agent_here, keep(agent_here, text, protocol="PROTOCOL = 77\n"))
    assert said == "zip"  # its own sha256 is that of the zip
    again = subprocess.check_output(
        [sys.executable, "-I", "-S", str(agent_here), "version"],
        env={COMPILED: keep(agent_here, text, protocol="PROTOCOL = 77\n")},
        text=True,
    )
    assert again == f'[77, "{agent_sha256()}", "{agent_here}/host/main.py", "host"]\n'


def test_all_modules_are_in_it_and_each_process_makes_the_same() -> None:
    _, _, rest = agent_compiled().partition(b"\n")
    names = {f"host.{path.stem}" for path in (Path(__file__).parents[2] / "cloudsend_cli/agent/host").glob("*.py")}
    assert marshal.loads(rest).keys() == names - {"host.__init__", "host.loading"}
    code = "import sys; from cloudsend_cli.agent.compiled import agent_compiled as c; sys.stdout.buffer.write(c())"
    for seed in "12":
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        assert subprocess.check_output([sys.executable, "-c", code], env=environ) == agent_compiled()


def test_an_agent_of_this_machine_gets_it_and_jobs_do_not(state_dir: Path) -> None:
    home = state_dir / "agent"
    (state_dir / "old").mkdir()
    for _ in range(2):
        stream = LocalHost(HostAddress("local", "local", home=str(home))).open_agent(
            agent_source(), agent_sha256(), agent_compiled
        )
        try:
            pid = ask_hello(stream)["pid"]
        finally:
            stream.close()
    digest = hashlib.sha256(agent_compiled()).hexdigest()
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert f"{COMPILED}={digest}".encode() in environ
    (path,) = home.glob("*.code")
    assert (path.name, path.stat().st_mode & 0o777) == (f"agent-{agent_sha256()[:16]}-{digest[:16]}.code", 0o600)
    assert path.read_bytes() == agent_compiled()
    os.kill(pid, 9)


def test_jobs_do_not_get_its_name(agent: Client) -> None:
    agent.run(sh("a.1", "env"))
    assert COMPILED.encode() not in agent.stream("a.1")


def test_a_home_without_room_for_it_is_served(state_dir: Path) -> None:
    home = state_dir / "agent"
    digest = hashlib.sha256(agent_compiled()).hexdigest()
    (home / f"agent-{agent_sha256()[:16]}-{digest[:16]}.code").mkdir(parents=True)  # it cannot be written
    home.chmod(0o700)
    stream = LocalHost(HostAddress("local", "local", home=str(home))).open_agent(
        agent_source(), agent_sha256(), agent_compiled
    )
    try:
        about = ask_hello(stream)
        assert about["ok"] is True
    finally:
        stream.close()
    os.kill(about["pid"], 9)

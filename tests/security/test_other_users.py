"""Rows 10, 13, 14: other users of the machine where cloudsend is called. Needs root to be two users."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fuzzing import FUZZ
from real_stack import Stack, wait_for

from cloudsend_cli.errors import StateDirError
from cloudsend_cli.store.directory import open_state_dir

OTHER = 65534
SET_USER = f"import os, sys; os.setgroups([]); os.setgid({OTHER}); os.setuid({OTHER})\n"
PYTHON = "/usr/bin/python3"  # which the other user may execute
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users"),
    pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason=f"needs {PYTHON} for another user"),
]


@pytest.fixture
def stack(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("CLOUDSEND_AGENT_IDLE", "1")
    monkeypatch.setenv("TOKEN", "secret")
    made = Stack(state_dir)
    yield made
    made.close()


def as_other(code: str, *words: str) -> str:
    """What Python says to this as another user."""
    argv = [PYTHON, "-I", "-c", SET_USER + code, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


TALK = """
import socket
sock = socket.socket(socket.AF_UNIX)
try:
    sock.settimeout(5)
    sock.connect(sys.argv[1])
    sock.sendall(b'{"id":1,"op":"status"}\\n{"id":2,"op":"hello","owner":"x","epoch":1}\\n')
    print("got", sock.recv(1000))
except OSError as problem:
    print(type(problem).__name__)
"""


def test_nobody_else_talks_to_the_maestro_or_the_agent(stack: Stack) -> None:
    """Not by the mode of the directory, nor by that of the socket, nor by its peer's name."""
    go = stack.directory / "go"
    run = stack.submit(jobs=[{"name": "a", "run": f"until [ -e {go} ]; do sleep 0.02; done"}], provider="local")
    wait_for(lambda: stack.jobs(run)["a"].phase == "RUNNING")
    maestro, agent = stack.state / "maestro.sock", stack.home / "agent.sock"
    assert stat.S_IMODE(maestro.stat().st_mode) == 0o600
    for folder in (stack.state, stack.home):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert as_other(TALK, str(maestro)) == "PermissionError"
    assert as_other(TALK, str(agent)) == "PermissionError"
    # As if the user had opened the directory, and then the socket as well.
    stack.directory.chmod(0o755)
    stack.state.chmod(0o755)
    assert as_other(TALK, str(maestro)) == "PermissionError"
    maestro.chmod(0o666)
    assert as_other(TALK, str(maestro)) in {"got b''", "ConnectionResetError", "BrokenPipeError"}
    assert as_other(TALK, str(agent)) == "PermissionError"
    stack.state.chmod(0o700)
    stack.directory.chmod(0o700)
    go.touch()
    stack.settle(run)


def test_nothing_of_the_state_is_open_to_others_whatever_the_umask(stack: Stack) -> None:
    before = os.umask(0)
    try:
        job = {"name": "a", "run": "echo x > out; echo $TOKEN | wc -c", "output": "out", "vars": {"TOKEN": None}}
        stack.settle(stack.submit(jobs=[job, {"name": "b", "run": "exit 3"}], provider="local"))
    finally:
        os.umask(before)
    for folder in (stack.state, stack.home, stack.home / "attempts", stack.state / "secrets"):
        assert not stat.S_IMODE(folder.stat().st_mode) & 0o077, folder
    for path in stack.state.iterdir():
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert not mode & 0o077 or path.suffix == ".pyz", (path, oct(mode))


# ---- places that somebody holds ------------------------------------------------------------------------------------


@pytest.fixture
def shared_folder(state_dir: Path) -> Path:
    """As /tmp: anybody may make something in it, and nobody may take away what is another's."""
    state_dir.chmod(0o755)
    folder = state_dir / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


RACE = r"""
os.chdir(sys.argv[1])
os.mkdir("trap")
os.chmod("trap", 0o777)
print("ready", flush=True)
makers = (
    lambda: os.mkdir("s", 0o700), lambda: os.symlink("trap", "s"), lambda: os.symlink(sys.argv[1] + "/gone", "s"),
    lambda: open("s", "x").close(), lambda: os.mkfifo("s"),
)
while True:
    for call in makers:
        for step in (call, lambda: os.unlink("s"), lambda: os.rmdir("s")):
            try:
                step()
            except OSError:
                pass
"""


def test_nobody_wins_a_race_for_the_state_directory(shared_folder: Path, summary_line: Callable[[str], None]) -> None:
    argv = [PYTHON, "-I", "-c", SET_USER + RACE, str(shared_folder)]
    racer = subprocess.Popen(argv, stdout=subprocess.PIPE)
    wish = shared_folder / "s"
    outcomes: dict[str, int] = {}
    try:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
        for _ in range(round(600 * FUZZ)):
            try:
                real = open_state_dir(wish)
                (real / "mine").write_text("x")
                assert real == wish
                about = wish.lstat()
                assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (os.geteuid(), 0o700)
                outcome = "ours"
                (wish / "mine").unlink()
                wish.rmdir()
            except StateDirError:
                outcome = "refused"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert os.listdir(shared_folder / "trap") == []
        assert not (shared_folder / "gone").exists()
        summary_line(f"race for a state directory in a shared folder: {outcomes}, none lost")
    finally:
        racer.kill()
        racer.communicate()


LISTEN = r"""
import socket, time

sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
sock.listen(9)
print("ready", flush=True)
asking = sock.accept()[0]
print(asking.recv(9999), flush=True)
time.sleep(99)
"""


def test_a_socket_that_another_user_listens_on_is_not_taken_for_the_maestro(stack: Stack) -> None:
    """In a state directory that was open for a moment: what listens there is replaced, and is told nothing."""
    stack.state.mkdir(mode=0o700, exist_ok=True)
    stack.directory.chmod(0o755)
    stack.state.chmod(0o777)
    path = stack.state / "maestro.sock"
    argv = [PYTHON, "-I", "-c", SET_USER + LISTEN, str(path)]
    squatter = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == "ready\n"
        with pytest.raises(StateDirError, match="open to other users"):
            stack.submit(jobs=["true"], provider="local")
        stack.state.chmod(0o700)
        run = stack.submit(jobs=[{"name": "a", "run": "true"}], provider="local")
        stack.settle(run)
        assert path.stat().st_uid == os.geteuid()
        squatter.kill()
        told = squatter.stdout.read()
        assert told in {"", "b''\n"}
    finally:
        squatter.kill()
        squatter.communicate()
        stack.directory.chmod(0o700)


def test_temporary_files_are_made_with_names_that_nobody_knows(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared directory of temporary files, watched while commands run."""
    folder = stack.directory / "temporary"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    environ = {**os.environ, "CLOUDSEND_HOME": str(stack.state), "TMPDIR": str(folder)}
    config = stack.config(jobs=[{"name": "a", "run": "echo x > out", "output": "out"}], provider="local")
    for words in (["run", config], ["list", "jobs"], ["fetch", "a"], ["config", "show", config]):
        command = [sys.executable, "-m", "cloudsend_cli", *words]
        assert subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False).returncode == 0
    assert [path for path in folder.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []

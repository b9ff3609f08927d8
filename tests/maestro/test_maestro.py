"""One maestro for a state directory: started on demand, superseded when it must be, gone when nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from real_stack import Stack, find_processes, is_alive, wait_for

from cloudsend_cli.api.directory import Directory
from cloudsend_cli.core.model import Request
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import Changes
from cloudsend_cli.errors import ConflictError, MaestroError
from cloudsend_cli.maestro.client import ensure_maestro, find_maestro
from cloudsend_cli.maestro.local import LOCK, lock_maestro
from cloudsend_cli.maestro.sockets import SOCKET, connect
from cloudsend_cli.store.directory import open_state_dir
from cloudsend_cli.store.sqlite import SqliteStore


def maestros(stack: Stack) -> list[int]:
    return [p for p, c in find_processes(stack.directory).items() if b"cloudsend_cli.maestro.local" in c]


class Gate:
    """Jobs wait at it until it is opened once for each of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.tokens = os.open(path, os.O_RDWR)  # both ends: neither a job nor the test waits for the other to open it

    def open(self) -> None:
        os.write(self.tokens, b"\n")


@pytest.fixture
def gate(stack: Stack) -> Iterator[Gate]:
    made = Gate(stack.files / "gate")
    yield made
    os.close(made.tokens)


def test_twenty_calls_at_once_start_one(stack: Stack) -> None:
    open_state_dir(stack.state)
    with ThreadPoolExecutor(20) as pool:
        clients = list(pool.map(lambda _: ensure_maestro(stack.state), range(20)))
    pids = {c.ask("status")["pid"] for c in clients}
    for client in clients:
        client.close()
    assert pids == {stack.maestro()}
    wait_for(lambda: maestros(stack) == list(pids))
    with SqliteStore.open(stack.state, readonly=True) as store:
        assert store.epoch() == 1


def test_the_socket_and_the_lock_are_private(stack: Stack) -> None:
    open_state_dir(stack.state)
    ensure_maestro(stack.state).close()
    for name in (SOCKET, LOCK, "maestro.log"):
        assert stat.S_IMODE((stack.state / name).stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_is_refused_even_where_the_files_would_let_it(stack: Stack) -> None:
    open_state_dir(stack.state)
    ensure_maestro(stack.state).close()
    for path in (stack.directory, stack.state, stack.state / SOCKET):
        path.chmod(0o777)
    code = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"id":1,"op":"stop"}\\n\'); s.settimeout(20); sys.stdout.write(repr(s.recv(100)))'
    )
    command = [sys.executable, "-c", code, str(stack.state / SOCKET)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.stdout == "b''" or "ConnectionResetError" in said.stderr or "BrokenPipeError" in said.stderr
    client = find_maestro(stack.state)
    assert client is not None
    client.close()


def test_it_leaves_when_idle_and_the_next_command_starts_another(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSEND_MAESTRO_LINGER", "0")
    run = stack.submit(jobs=["true"])
    stack.settle(run)
    wait_for(lambda: maestros(stack) == [])
    assert stack.client.maestro_status().running is False
    run = stack.submit(jobs=["true"], fresh=True)
    assert stack.settle(run).counts["succeeded"] == 1


def test_stop_leaves_the_jobs_and_the_next_one_reads_their_ends(stack: Stack, gate: Gate) -> None:
    run = stack.submit(jobs=[f"read x < {gate.path}; exit 3"])
    job = f"{run}.1"
    wait_for(lambda: stack.client.find_job(job).started_at)
    assert stack.client.maestro_stop() is True
    assert stack.client.maestro_stop() is False
    wait_for(lambda: maestros(stack) == [])
    assert stack.client.find_job(job).state == "running"
    gate.open()
    wait_for(lambda: not any(b"read x" in c for c in find_processes(stack.directory).values()))
    assert stack.settle(run).counts["failed"] == 1
    assert (stack.client.find_job(job).reason, stack.client.find_job(job).attempt) == ("exit 3", 1)


def test_reading_needs_no_maestro(stack: Stack) -> None:
    assert stack.client.list_runs() == []
    run = stack.submit(jobs=["echo hello"])
    stack.settle(run)
    wait_for(lambda: not stack.client.maestro_status().runs)  # this machine is given back
    stack.client.maestro_stop()
    wait_for(lambda: maestros(stack) == [])
    assert stack.jobs(run).popitem()[1].state == "succeeded"
    assert b"".join(stack.client.read_log(f"{run}.1")) == b"hello\n"
    assert b"".join(stack.client.read_log(f"{run}.1", follow=True)) == b"hello\n"
    assert stack.client.find_run(run).state == "succeeded"
    assert [i.connected for i in stack.client.list_instances(run)] == [None]
    assert [p.settled for p in stack.client.follow(run)] == [True]
    assert stack.client.wait([run])[0].state == "succeeded"
    assert stack.client.maestro_status().running is False
    assert maestros(stack) == []


def test_after_kill_9_the_next_look_takes_over_and_jobs_are_adopted(stack: Stack, gate: Gate) -> None:
    run = stack.submit(jobs=[f"read x < {gate.path}; echo x >> {stack.files}/ledger"])
    wait_for(lambda: stack.client.find_job(f"{run}.1").started_at)
    first = stack.maestro()
    stack.kill_maestro()
    begun = time.monotonic()
    ensure_maestro(stack.state).close()
    took = time.monotonic() - begun
    assert stack.maestro() not in {first, None}
    gate.open()
    assert stack.settle(run).counts["succeeded"] == 1
    assert (stack.files / "ledger").read_text() == "x\n"
    assert took < 30  # in truth 0.3 s; a limit that only a hang can pass


def test_those_who_follow_go_on_with_the_next_maestro(stack: Stack, gate: Gate) -> None:
    run = stack.submit(jobs=[f"read x < {gate.path}"])
    moments = stack.client.follow(run)
    next(moments)
    stack.kill_maestro()
    next(moments)
    stack.kill_maestro()
    gate.open()
    assert list(moments)[-1].counts["succeeded"] == 1


def test_a_stopped_maestro_is_superseded_and_ends_when_it_wakes(stack: Stack, gate: Gate) -> None:
    run = stack.submit(jobs=[f"read x < {gate.path}; echo x >> {stack.files}/ledger"])
    wait_for(lambda: stack.client.find_job(f"{run}.1").started_at)
    old = stack.maestro()
    assert old is not None
    os.kill(old, signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{old}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    assert find_maestro(stack.state) is None
    ensure_maestro(stack.state).close()
    assert stack.maestro() not in {old, None}
    gate.open()
    assert stack.settle(run).counts["succeeded"] == 1
    os.kill(old, signal.SIGCONT)
    wait_for(lambda: not is_alive(old))
    log = stack.client.maestro_log()
    assert "a newer maestro has taken over; this one stops" in log
    assert (stack.files / "ledger").read_text() == "x\n"
    assert len(maestros(stack)) == 1
    client = find_maestro(stack.state)  # the old one's end took nothing from the new one
    assert client is not None
    client.close()


def test_the_commit_of_a_superseded_maestro_is_refused(stack: Stack) -> None:
    from cloudsend_cli.maestro.loop import FencedStore

    run = stack.submit(jobs=["true"])
    stack.settle(run)
    stack.client.maestro_stop()
    with SqliteStore.open(stack.state) as old, SqliteStore.open(stack.state) as new:
        fenced = FencedStore(old, old.take_epoch("old"))
        state = fenced.load(run)
        new.take_epoch("new")
        with pytest.raises(ConflictError, match="fenced"):
            fenced.commit(run, state.run.version, Changes(run=state.run), [Event("x", run)])


def test_the_lock_of_a_takeover_is_another_file(stack: Stack) -> None:
    open_state_dir(stack.state)
    first = lock_maestro(stack.state, takeover=False)
    assert first is not None
    assert lock_maestro(stack.state, takeover=False) is None
    second = lock_maestro(stack.state, takeover=True)
    assert second is not None
    assert lock_maestro(stack.state, takeover=False) is None
    os.close(first)
    assert lock_maestro(stack.state, takeover=False) is None
    os.close(second)


def test_a_request_whose_hint_was_lost_is_carried_out_by_the_next_maestro(stack: Stack) -> None:
    run = stack.submit(jobs=["sleep 600"])
    wait_for(lambda: stack.client.find_job(f"{run}.1").started_at)
    stack.kill_maestro()
    with SqliteStore.open(stack.state) as store:
        store.add_request(run, Request("a" * 32, "cancel", None, time.time()))
    ensure_maestro(stack.state).close()
    assert stack.settle(run).counts["cancelled"] == 1
    assert not any(b"sleep" in c for c in find_processes(stack.directory).values())


def test_a_run_whose_hint_was_lost_is_found_before_the_maestro_leaves(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSEND_MAESTRO_LINGER", "0.5")
    stack.settle(stack.submit(jobs=["true"]))
    pid = stack.maestro()
    monkeypatch.setattr(Directory, "hint", lambda *_: socket.socket())
    run = stack.submit(jobs=[f"touch {stack.files}/ran"], fresh=True)
    monkeypatch.undo()
    if pid is None or not is_alive(pid):
        ensure_maestro(stack.state).close()  # it had left before: the next look finds the run
    wait_for((stack.files / "ran").exists)
    assert stack.settle(run).settled


def test_a_run_that_is_continued_while_it_is_ticked_gets_its_new_jobs(stack: Stack, gate: Gate) -> None:
    first = {"name": "a", "run": f"read x < {gate.path}", "cpus": 0.1}
    run = stack.submit(jobs=[first])
    wait_for(lambda: stack.client.find_job(f"{run}.1").started_at)
    assert stack.submit(jobs=[first, {"name": "b", "run": "true", "cpus": 0.1}]) == run
    wait_for(lambda: stack.jobs(run)["b"].state == "succeeded")
    assert stack.jobs(run)["a"].state == "running"
    gate.open()
    assert stack.settle(run).counts["succeeded"] == 2


def test_two_state_directories_side_by_side(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    import tempfile

    other = Stack(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    try:
        runs = [s.submit(jobs=[{"name": "n", "run": "echo $CLOUDSEND_RUN", "repeat": 5}]) for s in (stack, other)]
        assert [s.settle(r).counts["succeeded"] for s, r in zip((stack, other), runs, strict=True)] == [5, 5]
        assert stack.maestro() != other.maestro()
        assert stack.agent() != other.agent()
        assert [r.id for r in stack.client.list_runs()] == [runs[0]]
    finally:
        other.close()
        other.directory.joinpath("files", "jobs.json").unlink()


def test_a_client_that_talks_nonsense_disturbs_nobody(stack: Stack) -> None:
    open_state_dir(stack.state)
    ensure_maestro(stack.state).close()
    pid = stack.maestro()
    for words in (
        b"x\n", b"[]\n", b"{}\n", b"[" * 100_000 + b"\n", b'{"id":1,"op":"hint","run":"nosuch"}\n',
        b'{"id":1,"op":"read_log","run":[],"node":{}}\n', b'{"id":{},"op":"fetch"}\n', b"\xff\n",
        b"y" * 9_000_000, b'{"id":1,"op":"views","run":"' + b"z" * 100_000 + b'"}\n',
    ):  # fmt: skip
        with connect(stack.state, 5.0) as sock:
            try:
                sock.sendall(words)
                sock.recv(100)
            except OSError:
                pass
    assert stack.maestro() == pid
    client = find_maestro(stack.state)
    assert client is not None
    client.close()


def test_a_follower_that_does_not_read_disturbs_nobody(stack: Stack, gate: Gate) -> None:
    run = stack.submit(jobs=[{"name": "n", "run": "true", "repeat": 300}, f"read x < {gate.path}"])
    with connect(stack.state, 5.0) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.sendall(b'{"id":1,"op":"follow","run":"%s"}\n' % run.encode())
        wait_for(lambda: stack.client.find_run(run).counts.get("succeeded") == 300)
        gate.open()
        assert stack.settle(run).counts["succeeded"] == 301


def test_a_state_directory_that_vanishes_ends_its_maestro(stack: Stack) -> None:
    import shutil

    open_state_dir(stack.state)
    client = ensure_maestro(stack.state)
    pid = stack.maestro()
    assert pid is not None
    shutil.rmtree(stack.state)
    with pytest.raises(Exception, match=r"ended|answer"):
        client.ask("status")
        client.ask("status")
    client.close()
    wait_for(lambda: not is_alive(pid))


def test_an_idle_maestro_has_loaded_little(stack: Stack) -> None:
    code = (
        "import sys; from pathlib import Path; from cloudsend_cli.maestro import local, loop;"
        "from cloudsend_cli.store.sqlite import SqliteStore;"
        "from cloudsend_cli.providers.local import LocalProvider; from cloudsend_cli.hosts.local import LocalHost;"
        "print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"pydantic", "typer", "yaml", "fabric", "boto3", "asyncio", "prompt_toolkit", "tabulate", "rich",
             "logging", "cloudsend_cli.config", "cloudsend_cli.cli", "http", "email", "ssl", "zipfile"}  # fmt: skip
    assert heavy.intersection(said) == set()
    stack.settle(stack.submit(jobs=["true"]))
    status = Path(f"/proc/{stack.maestro()}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    assert resident < 60 * 1024


def test_in_a_directory_that_is_gone_none_is_started(tmp_path: Path) -> None:
    with pytest.raises(MaestroError, match="No such file or directory"):
        ensure_maestro(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()

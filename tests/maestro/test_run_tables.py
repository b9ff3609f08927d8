"""When a maestro writes the tables of a run, and what those who follow the run are told meanwhile."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from real_stack import Stack, wait_for

from cloudsend_cli.core.model import JobSpec
from cloudsend_cli.core.state import JobRecord, RunRecord, RunState
from cloudsend_cli.engine.result_tables import CSV, MARKER
from cloudsend_cli.maestro import tables
from cloudsend_cli.maestro.owed import OwedTables, list_owed
from cloudsend_cli.maestro.progress import RecentFailures, render_progress
from cloudsend_cli.maestro.tables import RunTables
from cloudsend_cli.store.sqlite import SqliteStore

RUN = "abc123"
PARAMS = (("lr", "1"),)


class Setting:
    """A run in a store, and its tables."""

    def __init__(self, directory: Path, params: tuple[tuple[str, str], ...] = PARAMS) -> None:
        self.state_dir = directory / "state"
        self.state_dir.mkdir(mode=0o700)
        self.results = directory / "results"
        job = JobRecord(1, JobSpec("j", ("true",), "true", params=params), "0" * 32, 1.0, state="succeeded", attempt=1)
        run = RunRecord(RUN, "p", "/c.yml", 1.0, results_dir=str(self.results))
        self.state = RunState(run, [job])
        with SqliteStore.open(self.state_dir) as store:
            store.create_run(self.state)
        self.said: list[str] = []
        self.woken = threading.Event()
        self.tables = self.take_up()
        self.tables.expect()

    def take_up(self) -> RunTables:
        """As a maestro does that has started."""
        return RunTables(self.state_dir, RUN, OwedTables(self.state_dir), self.said.append, self.woken.set)

    @property
    def csv(self) -> Path:
        return self.results / RUN / CSV

    def look(self) -> None:
        self.woken.clear()
        self.tables.look(self.state)

    def settled(self) -> bool:
        told = render_progress(self.state, {}, {}, RecentFailures(self.state), 1, self.tables)
        return bool(told["settled"])

    def open_again(self, state: str = "running") -> None:
        self.state.jobs[1] = job = replace(self.state.jobs[1], state=state)  # type: ignore[arg-type]
        self.state = RunState(self.state.run, [job])


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    """The lock under which tables are written, while somebody else has it."""
    folder = tmp_path / "results" / RUN
    folder.mkdir(parents=True)
    fd = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield fd
    os.close(fd)


def test_the_end_is_told_when_the_tables_are_written(tmp_path: Path, held: int) -> None:
    made = Setting(tmp_path)
    made.look()
    assert (made.tables.holds, made.tables.turned(), made.settled()) == (True, False, False)
    fcntl.flock(held, fcntl.LOCK_UN)
    assert made.woken.wait(60)
    assert (made.tables.holds, made.settled()) == (False, True)
    assert [made.tables.turned(), made.tables.turned()] == [True, False]
    assert made.csv.exists()


def test_the_end_is_not_held_back_for_ever(tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "HELD_MOST", 0.0)
    made = Setting(tmp_path)
    made.look()
    assert (made.tables.holds, made.settled(), made.tables.turned()) == (False, True, True)
    fcntl.flock(held, fcntl.LOCK_UN)
    assert made.woken.wait(60)
    assert made.csv.exists()


def test_they_are_written_once_for_each_time_that_the_run_settles(tmp_path: Path) -> None:
    made = Setting(tmp_path)
    made.open_again()
    made.look()
    assert not made.tables.holds
    made.open_again("succeeded")
    made.look()
    assert made.woken.wait(60)
    made.csv.unlink()
    made.look()
    assert not made.woken.wait(0)
    made.state.run = replace(made.state.run, batch=2)
    made.look()
    assert made.woken.wait(60)
    made.csv.unlink()
    made.open_again()
    made.look()
    made.open_again("failed")
    made.look()
    assert made.woken.wait(60)
    assert made.csv.exists()


def test_what_is_written_is_not_written_again_by_the_next_maestro_and_what_is_not_is(
    tmp_path: Path, held: int
) -> None:
    made = Setting(tmp_path)
    made.look()
    made.tables.expect()  # the run is submitted again while the first ones are being written
    fcntl.flock(held, fcntl.LOCK_UN)
    assert made.woken.wait(60)
    assert list_owed(made.state_dir) == [RUN]
    made.look()
    assert made.woken.wait(60)
    assert list_owed(made.state_dir) == []
    made.csv.unlink()
    made.tables = made.take_up()
    made.look()
    assert (made.tables.holds, made.woken.wait(0), made.csv.exists()) == (False, False, False)
    made.tables.expect()
    made.tables = made.take_up()
    made.look()
    assert made.woken.wait(60)
    assert made.csv.exists() and list_owed(made.state_dir) == []


def test_a_run_that_is_gone_is_owed_nothing(tmp_path: Path) -> None:
    made = Setting(tmp_path)
    assert list_owed(made.state_dir) == [RUN]
    made.take_up().forget()
    assert list_owed(made.state_dir) == []


@pytest.mark.parametrize("way", ["follow", "wait"])
def test_after_kill_9_between_the_end_and_the_tables_the_next_maestro_writes_them(stack: Stack, way: str) -> None:
    gate = stack.files / "gate"
    os.mkfifo(gate)
    run = stack.submit(jobs=[{"name": "n", "run": f"read x <{gate}; echo CLOUDSEND_METRIC loss=0.5"}])
    folder = Path(stack.client.find_run(run).results_dir)
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # it cannot write them
        gate.write_text("\n")
        with SqliteStore.open(stack.state, readonly=True) as store:
            wait_for(lambda: run not in store.list_active_runs())
        stack.kill_maestro()
    finally:
        os.close(fd)
    assert not (folder / CSV).exists() and list_owed(stack.state) == [run]
    if way == "follow":
        assert [p.settled for p in stack.client.follow(run)][-1] is True
        assert (folder / CSV).exists()
    else:
        assert stack.client.wait([run])[0].state == "succeeded"
        wait_for((folder / CSV).exists)
    assert "0.5" in (folder / CSV).read_text()
    wait_for(lambda: list_owed(stack.state) == [])


@pytest.mark.parametrize("way", ["wait", "instances"])
def test_after_kill_9_between_the_last_end_and_its_results_the_next_maestro_brings_them(
    stack: Stack, way: str
) -> None:
    results = stack.files / "r"
    results.write_text("in the way")  # nothing can come home
    run = stack.submit(
        results_dir=str(results), jobs=[{"name": "n-{x}", "run": "echo 7 > o", "output": "o", "matrix": {"x": [1]}}]
    )
    wait_for(lambda: stack.client.find_job(f"{run}.1").state == "succeeded")
    stack.kill_maestro()
    assert stack.client.find_job(f"{run}.1").outputs == "wanted"
    assert stack.client.find_run(run).ended_at is None
    results.unlink()
    told: list[str] = []
    if way == "wait":
        assert stack.client.wait([run])[0].state == "succeeded"
    else:
        assert [machine.runs for machine in stack.client.list_instances(note=told.append)] == [(run,)]
        assert told == [f"no maestro was running: one was started, which brings home the results of run {run}"]
    wait_for((results / run / CSV).exists)
    assert (results / run / "n-1" / "o").read_text() == "7\n"
    wait_for(lambda: list_owed(stack.state) == [])


@pytest.mark.parametrize("tells", [False, True])
def test_a_run_with_nothing_to_tell_leaves_nothing_behind(tmp_path: Path, tells: bool) -> None:
    made = Setting(tmp_path, params=())
    if tells:
        (made.results / RUN).mkdir(parents=True)  # results of its jobs have come home
    made.look()
    assert made.woken.wait(60 if tells else 0) is tells
    assert made.csv.exists() is tells


@pytest.mark.parametrize("way", ["file", "store"])
def test_what_cannot_be_written_is_a_note(tmp_path: Path, way: str) -> None:
    made = Setting(tmp_path)
    if way == "file":
        made.results.write_text("mine")
    else:
        (made.state_dir / "state.db").write_bytes(b"no database" * 1000)
    made.look()
    assert made.woken.wait(60)
    wait_for(lambda: made.tables.problem)
    assert made.said == [f"run {RUN}: {made.tables.problem}"]
    told = render_progress(made.state, {}, {}, RecentFailures(made.state), 1, made.tables)
    assert (told["settled"], told["notes"]) == (True, [made.tables.problem])
    assert made.tables.problem.startswith("the table of results was not written: ")

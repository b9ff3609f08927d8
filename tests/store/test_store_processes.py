"""Several processes, and processes that die in the middle: what was acknowledged is there, whole."""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_children import Nursery, open_when_told, write

from cloudsend_cli.core.state import RunState
from cloudsend_cli.store.sqlite import SqliteStore

MakeRun = Callable[..., RunState]
KILLS = 30


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def check_whole(store: SqliteStore) -> int:
    """All rows and events are of one version; return it."""
    state = store.load("abc123")
    version = state.run.version
    expected = version if version > 1 else None
    assert {job.maxrss for job in state.jobs.values()} == {expected}
    events = store.events("abc123", limit=100_000)
    assert [int(e.subject) for e in events] == list(range(2, version + 1))
    return version


def test_two_processes_that_commit_at_once_lose_nothing(directory: Path, make_run: MakeRun, nursery: Nursery) -> None:
    with SqliteStore.open(directory) as store:
        store.create_run(make_run(jobs=40))
    writers = [nursery.start(write, directory, 40, "plain") for _ in range(2)]
    acknowledged: list[int] = []
    for writer in writers:
        acknowledged += [int(line) for line in writer.out.read().split()[1:]]
        assert writer.wait() == 0
    assert sorted(acknowledged) == list(range(2, 82)), "each version was made by exactly one of them"
    with SqliteStore.open(directory) as store:
        assert check_whole(store) == 81


def test_kill_9_in_the_middle_of_commits(
    directory: Path, make_run: MakeRun, nursery: Nursery, summary_line: Callable[[str], None]
) -> None:
    chance = random.Random(20261107)
    with SqliteStore.open(directory) as store:
        store.create_run(make_run(jobs=150))
    unacknowledged = 0
    for _ in range(KILLS):
        writer = nursery.start(write, directory, 10**9, "epoch")
        last = 0
        for _ in range(1 + chance.randrange(4)):
            last = int((line := writer.out.readline()) != "ready\n" and line)
        # Somewhere in the next commit, or in the one after it; an event that comes first ends the wait.
        select.select([writer.out], [], [], chance.random() * 0.004)
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.out.read().split("\n")[:-1]
        assert writer.wait() == -signal.SIGKILL
        last = max([last, *(int(word) for word in rest if word != "ready")])
        with SqliteStore.open(directory) as store:
            version = check_whole(store)
            assert version >= last, "an acknowledged commit is gone"
            assert version <= max(last, 1) + 1 or not last
            unacknowledged += last > 0 and version > last
    with SqliteStore.open(directory) as store:
        assert store.take_epoch("after") == KILLS + 1
    summary_line(f"store: {KILLS} kills in the middle of commits, {unacknowledged} between commit and acknowledgement")


def test_a_reader_rolls_back_what_a_dead_writer_left(directory: Path, make_run: MakeRun, tmp_path: Path) -> None:
    """A journal that is hot, as a crash leaves it, is no obstacle to a reader."""
    with SqliteStore.open(directory) as store:
        store.create_run(make_run(jobs=2000))
    code = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=TRUNCATE")
db.execute("PRAGMA cache_size=2")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE jobs SET reason = 'half done'")
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(directory / "state.db")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (directory / "state.db-journal").stat().st_size > 0
    assert b"half done" in (directory / "state.db").read_bytes()
    with SqliteStore.open(directory, readonly=True) as store:
        assert {job.reason for job in store.load("abc123").jobs.values()} == {""}


@pytest.mark.parametrize("racers", [6])
def test_first_openers_that_race_share_one_database(
    directory: Path, tmp_path: Path, nursery: Nursery, racers: int
) -> None:
    with open(tmp_path / "gate", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        started = [nursery.start(open_when_told, directory, gate.name) for _ in range(racers)]
    ids = {process.out.read() for process in started}
    assert len(ids) == 1 and all(process.wait() == 0 for process in started)
    assert not list(directory.glob("*.new-*"))

"""A damaged file is told as damage, is never deleted or emptied, and never ends in another exception."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from campaigns import pick

from cloudsend_cli.core.model import Request
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import Changes, RunState
from cloudsend_cli.errors import CloudsendError, ConflictError, StateDamagedError, StateDirError
from cloudsend_cli.store.database import translate
from cloudsend_cli.store.sqlite import SqliteStore

MakeRun = Callable[..., RunState]
PAGE = 4096
BITS = 173  # bytes from one bit that is flipped to the next


@pytest.fixture
def healthy(tmp_path: Path, make_run: MakeRun) -> bytes:
    """The bytes of a small database that was not closed by its maestro."""
    path = tmp_path / "healthy"
    store = SqliteStore.open(path)
    store.create_run(make_run(jobs=60), [Event("created", "abc123")])
    store.take_epoch("me")
    state = store.load("abc123")
    job = replace(state.jobs[1], state="running", attempt=1)
    store.commit("abc123", 1, Changes(jobs={1: job}), [Event("k", "s", "t" * 3000)])
    store.add_request("abc123", Request("r1", "cancel", (1,)))
    data = (path / "state.db").read_bytes()
    store.close()
    shutil.rmtree(path)  # else what is written from the data is a copy of it
    return data


def use_all(directory: Path) -> None:
    """What a maestro and every command do."""
    with SqliteStore.open(directory, readonly=True) as store:
        store.list_runs()
        list(store.list_jobs("abc123"))
        store.find_jobs(name="train/*")
        store.find_jobs(content="a")
        store.events("abc123")
        store.history("abc123", 1)
        store.installation_id()
    with SqliteStore.open(directory) as store:
        store.take_epoch("next")
        state = store.load("abc123")
        store.list_requests("abc123")
        store.add_request("abc123", Request("r2", "cancel"))
        changes = Changes(run=state.run, jobs=state.jobs, nodes=state.nodes, builds=state.builds)
        store.commit("abc123", state.run.version, changes, [Event("k", "s")])
        store.write_run("abc123", lambda s: Changes(jobs={1: s.jobs[1]}))


def corpus(data: bytes) -> Iterator[tuple[str, bytes]]:
    for start in range(0, len(data), PAGE):
        yield f"cut at {start}", data[:start]
        yield f"cut in the page at {start}", data[: start + 700]
        for name, offset, length in (("head", 0, 8), ("pointers", 8, 16), ("middle", 1800, 64), ("end", 4000, 96)):
            broken = bytearray(data)
            for i in range(start + offset, start + offset + length):
                broken[i] ^= 0xFF
            yield f"{name} of the page at {start} flipped", bytes(broken)
        for bit in pick(range(start // PAGE % 5 * BITS, PAGE, 5 * BITS), range(0, PAGE, BITS)):
            broken = bytearray(data)
            broken[start + bit] ^= 1 << bit % 8
            yield f"bit at {start + bit} flipped", bytes(broken)
        yield f"page at {start} zeroed", data[:start] + bytes(PAGE) + data[start + PAGE :]


@pytest.mark.campaign("store")
def test_damage_anywhere_is_told_and_nothing_is_lost(
    healthy: bytes, tmp_path: Path, summary_line: Callable[[str], None]
) -> None:
    directory = tmp_path / "state"
    told = harmless = 0
    unnoticed: list[str] = []
    for what, data in corpus(healthy):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        (directory / "state.db").write_bytes(data)
        try:
            use_all(directory)
            harmless += 1
            if not what.startswith(("bit", "pointers", "middle", "end")):  # these may hit text, or what is free
                unnoticed.append(what)
        except StateDamagedError as error:
            told += 1
            copies = list(directory.glob("damaged-*.db"))
            assert copies and error.hint, what
            assert all(copy.stat().st_mode & 0o777 == 0o600 for copy in copies)
        except CloudsendError as error:
            told += 1
            assert not isinstance(error, StateDirError), f"{what}: {error.message} {error.context}"
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        assert (directory / "state.db").exists(), what
        if not data.startswith(b"SQLite format 3\0"):
            assert (directory / "state.db").read_bytes() == data, f"{what}: the file was changed"
    assert unnoticed == []
    summary_line(f"store: {told + harmless} damaged files, {told} told, {harmless} without effect on what is read")


def test_a_damaged_file_is_copied_once(healthy: bytes, directory: Path) -> None:
    (directory / "state.db").write_bytes(b"x" * 5000)
    for _ in range(3):
        with pytest.raises(StateDamagedError):
            SqliteStore.open(directory)
    (copy,) = directory.glob("damaged-*.db")
    assert copy.read_bytes() == b"x" * 5000 == (directory / "state.db").read_bytes()


def test_the_check_runs_after_an_unclean_exit_only(directory: Path, make_run: MakeRun) -> None:
    asked: list[str] = []

    def take(*, close: bool) -> None:
        store = SqliteStore.open(directory)
        store._db.set_trace_callback(asked.append)
        store.take_epoch("me")
        store._db.set_trace_callback(None)
        if close:
            store.close()
        else:
            store._db.close()

    take(close=True)
    take(close=False)
    assert not any("quick_check" in statement for statement in asked)
    take(close=True)
    assert any("quick_check" in statement for statement in asked)
    asked.clear()
    take(close=True)
    assert not any("quick_check" in statement for statement in asked)


def test_a_paused_maestro_that_closes_does_not_vouch_for_its_successor(directory: Path) -> None:
    old, new = SqliteStore.open(directory), SqliteStore.open(directory)
    old.take_epoch("old")
    new.take_epoch("new")
    old.close()
    assert new._db.execute("SELECT dirty FROM maestro").fetchone() == (1,)
    new.close()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (sqlite3.OperationalError("database is locked"), ConflictError, "in use by another process"),
        (sqlite3.OperationalError("database or disk is full"), StateDirError, "no space"),
        (sqlite3.OperationalError("attempt to write a readonly database"), StateDirError, "cannot be written"),
        (sqlite3.OperationalError("unable to open database file"), StateDirError, "cannot be opened"),
        (sqlite3.OperationalError("disk I/O error"), StateDirError, "the disk failed"),
        (sqlite3.DatabaseError("database disk image is malformed"), StateDamagedError, "damaged"),
        (sqlite3.DatabaseError("file is not a database"), StateDamagedError, "damaged"),
        (sqlite3.OperationalError("Could not decode to UTF-8 column 'name'"), StateDamagedError, "damaged"),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), sqlite3.ProgrammingError, "closed"),
    ],
)
def test_what_errors_of_sqlite_mean(directory: Path, error: sqlite3.Error, kind: type, words: str) -> None:
    found = translate(error, directory / "state.db")
    assert type(found) is kind and words in str(found)
    if isinstance(found, CloudsendError):
        assert found.hint and found.context == str(error)


def test_after_a_disk_that_failed_nothing_is_tried_again(store: SqliteStore, run: RunState) -> None:
    with pytest.raises(StateDirError, match="disk failed"), store._transaction("BEGIN IMMEDIATE"):
        raise sqlite3.OperationalError("disk I/O error")
    for attempt in (lambda: store.load("abc123"), lambda: store.commit("abc123", 1, Changes())):
        with pytest.raises(StateDirError, match="failed before"):
            attempt()


def test_c12_a_full_disk_is_told_and_nothing_is_half_written(
    store: SqliteStore, run: RunState, make_run: MakeRun
) -> None:
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StateDirError, match="no space"):
        store.create_run(make_run("big123", jobs=500))
    store._db.execute("PRAGMA max_page_count=100000")
    assert store.find_runs("big") == [] and len(store.load("abc123").jobs) == 3
    assert store.create_run(make_run("big123", jobs=500)) == 1

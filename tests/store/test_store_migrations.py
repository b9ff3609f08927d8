"""Tables go forward only, one transaction each, after a backup; a newer database is left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudsend_cli.core.model import Request
from cloudsend_cli.core.state import RunState
from cloudsend_cli.errors import StateDamagedError
from cloudsend_cli.store import migrations, schema
from cloudsend_cli.store.database import APPLICATION_ID, journal_settings
from cloudsend_cli.store.migrations import MIGRATIONS, back_up, migrate, version_of
from cloudsend_cli.store.sqlite import SqliteStore

GOLDEN = Path(__file__).parent / "golden_v1.sql"
NEWEST = len(MIGRATIONS)
MakeRun = Callable[..., RunState]
Records = Callable[[RunState], tuple[object, ...]]


def test_c20_the_database_of_version_1_opens(directory: Path, make_run: MakeRun, records: Records) -> None:
    db = sqlite3.connect(directory / "state.db", isolation_level=None)
    db.executescript(GOLDEN.read_text())
    db.close()
    with SqliteStore.open(directory) as store:
        expected = make_run()
        expected.set_version(1)
        loaded = store.load("abc123")
        assert records(loaded) == records(expected)
        assert store.list_requests("abc123") == [Request("r1", "cancel", (1, 2), 7.0)]
        assert store.installation_id() == "0123456789abcdef" * 2
        assert [e.text for e in store.events()] == ["the first"]


def test_version_1_stays_as_it_was_released() -> None:
    """The golden file holds what users have: a change of the tables is a new migration."""
    golden = GOLDEN.read_text()
    for statement in schema.version_1(strict=True):
        if not statement.startswith("INSERT"):
            assert " ".join(statement.split()) in " ".join(golden.split()), statement


def test_tables_work_without_strict() -> None:
    db = sqlite3.connect(":memory:")
    for statement in schema.version_1(strict=False):
        assert "STRICT" not in statement and "{" not in statement
        db.execute(statement)
    db.close()


def add_column(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'green'")


def fail_half_way(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE half (x)")
    raise sqlite3.OperationalError("disk on fire")


class TestSteps:
    @pytest.fixture
    def path(self, directory: Path, make_run: MakeRun) -> Path:
        with SqliteStore.open(directory) as store:
            store.create_run(make_run())
        return directory / "state.db"

    def test_c20_a_step_is_taken_after_a_backup(self, path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        migrate(db, path, steps=(*MIGRATIONS, add_column))
        assert version_of(db) == NEWEST + 1
        assert db.execute("SELECT id, colour FROM runs").fetchall() == [("abc123", "green")]
        db.close()
        backup = path.with_name(f"backup.{NEWEST}.db")
        assert backup.stat().st_mode & 0o777 == 0o600
        old = sqlite3.connect(backup)
        assert version_of(old) == NEWEST
        assert old.execute("SELECT id FROM runs").fetchall() == [("abc123",)]
        old.close()

    def test_a_step_that_fails_leaves_the_version_before_it(self, path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="fire"):
            migrate(db, path, steps=(*MIGRATIONS, add_column, fail_half_way))
        assert version_of(db) == NEWEST + 1
        assert not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchall()
        db.close()

    def test_two_processes_take_a_step_once(self, path: Path) -> None:
        first, second = (sqlite3.connect(path, isolation_level=None) for _ in range(2))
        migrate(first, path, steps=(*MIGRATIONS, add_column))
        assert not migrations._step(second, (*MIGRATIONS, add_column))
        first.close()
        second.close()

    def test_three_backups_are_kept(self, path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        for version in (1, 2, 9, 10, 11):
            back_up(db, path, version)
        db.close()
        assert sorted(p.name for p in path.parent.glob("backup.*")) == [
            "backup.10.db", "backup.11.db", "backup.9.db",
        ]  # fmt: skip

    def test_a_newer_database_is_left_alone(self, path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA user_version=99")
        db.close()
        before = path.read_bytes()
        for readonly in (False, True):
            with pytest.raises(StateDamagedError, match="newer cloudsend") as caught:
                SqliteStore.open(path.parent, readonly=readonly)
            assert "upgrade" in caught.value.hint
        assert path.read_bytes() == before
        assert not list(path.parent.glob("damaged-*")), "it is not damaged"


@pytest.mark.parametrize(
    ("version", "settings"),
    [
        ((3, 31, 1), ("truncate", "EXTRA")),
        ((3, 40, 1), ("truncate", "EXTRA")),
        ((3, 51, 2), ("truncate", "EXTRA")),
        ((3, 51, 3), ("wal", "FULL")),
        ((3, 51, 9), ("wal", "FULL")),
        ((3, 52, 0), ("truncate", "EXTRA")),
        ((3, 53, 0), ("wal", "FULL")),
    ],
)
def test_the_journal_follows_the_linked_library(version: tuple[int, int, int], settings: tuple[str, str]) -> None:
    assert journal_settings(version) == settings


def test_the_connection_is_set_as_promised(store: SqliteStore) -> None:
    def pragma(name: str) -> object:
        return store._db.execute(f"PRAGMA {name}").fetchone()[0]

    mode, synchronous = journal_settings(sqlite3.sqlite_version_info)
    assert pragma("journal_mode") == mode
    assert pragma("synchronous") == {"FULL": 2, "EXTRA": 3}[synchronous]
    assert (pragma("foreign_keys"), pragma("trusted_schema"), pragma("busy_timeout")) == (1, 0, 10_000)
    assert pragma("application_id") == APPLICATION_ID

"""Steps from each version of the tables to the next. Forward only; each is one transaction, after a backup."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from cloudsend_cli.errors import StateDamagedError, StateDirError

from .schema import version_1, version_3

BACKUPS_KEPT = 3


def m001_first_tables(db: sqlite3.Connection) -> None:
    for statement in version_1():
        db.execute(statement)
    db.execute("INSERT INTO meta VALUES ('installation_id', ?)", (secrets.token_hex(16),))


def m002_requests_name_nodes(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE requests ADD COLUMN node TEXT NOT NULL DEFAULT ''")


def m003_rented_machines(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE jobs ADD COLUMN resume TEXT NOT NULL DEFAULT ''")
    for statement in version_3():
        db.execute(statement)


def m004_slots_and_metrics(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE jobs ADD COLUMN more TEXT NOT NULL DEFAULT ''")


Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: tuple[Migration, ...] = (
    m001_first_tables,
    m002_requests_name_nodes,
    m003_rented_machines,
    m004_slots_and_metrics,
)


def version_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection, path: Path | None, *, steps: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the tables to the newest version. `path` is None for a database that is being made."""
    version = version_of(db)
    if version > len(steps):
        raise StateDamagedError(
            f"the database {path} was written by a newer cloudsend (tables {version}, this one knows {len(steps)})",
            hint="upgrade cloudsend, or choose another directory with --state-dir; nothing was changed",
        )
    if version == len(steps):
        return
    if path is not None:
        back_up(db, path, version)
    while _step(db, steps):
        pass


def _step(db: sqlite3.Connection, steps: Sequence[Migration]) -> bool:
    db.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(db)  # read again: another process may have done it
        if version >= len(steps):
            db.execute("ROLLBACK")
            return False
        steps[version](db)
        db.execute(f"PRAGMA user_version={version + 1}")
        db.execute("COMMIT")
        return True
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def back_up(db: sqlite3.Connection, path: Path, version: int) -> Path:
    """A copy of the database as `backup.<version>.db`, through SQLite, so that it is whole."""
    target = path.with_name(f"backup.{version}.db")
    new = path.with_name(f"{target.name}.new-{secrets.token_hex(8)}")
    try:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        copy = sqlite3.connect(new, isolation_level=None)
        try:
            copy.execute("PRAGMA journal_mode=MEMORY")
            db.backup(copy)
        finally:
            copy.close()
        sync(new)
        os.replace(new, target)
        sync(path.parent)
    except OSError as error:
        raise StateDirError(
            f"cannot back up {path} before its tables are changed: {error.strerror}", hint="free some space"
        ) from error
    finally:
        new.unlink(missing_ok=True)
    _drop_old_backups(path.parent)
    return target


def _drop_old_backups(directory: Path) -> None:
    numbered = []
    for candidate in directory.iterdir():
        match = re.fullmatch(r"backup\.(\d+)\.db", candidate.name)
        if match:
            numbered.append((int(match[1]), candidate))
    for _, old in sorted(numbered)[:-BACKUPS_KEPT]:
        with contextlib.suppress(FileNotFoundError):
            old.unlink()

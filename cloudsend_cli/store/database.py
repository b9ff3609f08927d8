"""One connection to the database file: how it is opened, and what its errors mean to a user."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
from datetime import datetime, timezone
from pathlib import Path

from cloudsend_cli.errors import CloudsendError, ConflictError, StateDamagedError, StateDirError

from .migrations import migrate, sync
from .origin import claim_origin

FILE_NAME = "state.db"
APPLICATION_ID = 0x436C6F53  # "CloS"
BUSY_MILLISECONDS = 10_000
WAL_SINCE = (3, 51, 3)  # before it, and in 3.52.0, a checkpoint could corrupt the file
WAL_NEVER = (3, 52, 0)
# One dirty journal of a large commit would otherwise keep its size for ever.
JOURNAL_LIMIT = 4 << 20
DAMAGED_COPIES = 3
# The second is how Python tells of an error whose message quotes what is damaged.
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)


def journal_settings(version: tuple[int, ...]) -> tuple[str, str]:
    """(journal mode, synchronous) for a linked SQLite. Pure.

    TRUNCATE ends a commit by cutting the journal to nothing and syncing it, so that it is as safe as DELETE with its
    unlink and the sync of the directory, and costs one fsync less: 0.56 ms a commit against 0.77; PERSIST 0.60.
    """
    if version >= WAL_SINCE and version[:3] != WAL_NEVER:
        return "wal", "FULL"
    return "truncate", "EXTRA"


def connect(path: Path, *, readonly: bool, adopt: bool = False) -> sqlite3.Connection:
    """Open a database that exists and bring its tables up to date, also for a reader: after an upgrade all works.

    A copy of a state directory is for readers only (StateDirError), until it is adopted.
    """
    try:
        if path.stat().st_size == 0:
            raise damaged(path, "the file is empty")
        db = _open(path)
    except OSError as error:
        raise StateDirError(f"cannot open {path}: {error.strerror}", hint="look at its permissions") from error
    except DATABASE_ERRORS as error:
        raise translate(error, path) from error
    try:
        migrate(db, path)
        if readonly:
            db.execute("PRAGMA query_only=ON")
        else:
            claim_origin(db, path, adopt=adopt)
        return db
    except DATABASE_ERRORS as error:
        db.close()
        raise translate(error, path) from error
    except BaseException:
        db.close()
        raise


def _open(path: Path) -> sqlite3.Connection:
    # WHY NOT mode=ro for readers: after a crash the first one to come has to roll the journal back.
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    try:
        db.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        found = db.execute("PRAGMA application_id").fetchone()[0]
        if found != APPLICATION_ID:
            raise damaged(
                path, f"its application id is {found:#x}: this is no database of cloudsend, or its header is"
            )
        mode, synchronous = journal_settings(sqlite3.sqlite_version_info)
        now = db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
        if now != mode:
            raise StateDirError(
                f"{path} is in use in the journal mode {now}, by another version of SQLite",
                hint="stop the other cloudsend, or run both with the same Python",
            )
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute(f"PRAGMA journal_size_limit={JOURNAL_LIMIT}")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute("PRAGMA cell_size_check=ON")
        return db
    except BaseException:
        db.close()
        raise


def create(path: Path) -> None:
    """Make the file in full under another name, then give it its own: an empty `state.db` is always damage."""
    new = path.with_name(f"{path.name}.new-{secrets.token_hex(8)}")
    try:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(new, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=MEMORY")
            db.execute("PRAGMA synchronous=OFF")  # nobody knows the file before it is synced as a whole
            prepare_empty(db)
        finally:
            db.close()
        sync(new)
        with contextlib.suppress(FileExistsError):  # another process was faster: its file stands
            os.link(new, path)
        sync(path.parent)
    except OSError as error:
        raise StateDirError(
            f"cannot create {path}: {error.strerror}", hint="look at the free space and the permissions"
        ) from error
    except DATABASE_ERRORS as error:
        raise translate(error, path) from error
    finally:
        new.unlink(missing_ok=True)


def prepare_empty(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    migrate(db, None)


def quick_check(db: sqlite3.Connection, path: Path) -> None:
    """Raise StateDamagedError if SQLite finds the file inconsistent."""
    try:
        found = [str(row[0]) for row in db.execute("PRAGMA quick_check(5)")]
    except DATABASE_ERRORS as error:
        raise translate(error, path) from error
    if found != ["ok"]:
        raise damaged(path, "; ".join(found))


def damaged(path: Path, what: str) -> StateDamagedError:
    """The error to raise; leaves a copy of the file beside it, once for each state of the file."""
    hint = "every command refuses it until it is mended; nothing was changed or deleted"
    with contextlib.suppress(OSError):
        copy = _copy_aside(path)
        hint = (
            f"it was left as it is, with a copy at {copy}. Try `sqlite3 {copy} .recover`, or move {path.name} away "
            f"and put the newest backup.*.db in its place; machines and hosts still know their jobs"
        )
    return StateDamagedError(f"the database {path} is damaged", hint=hint, context=what)


def _copy_aside(path: Path) -> Path:
    info = path.stat()
    moment = datetime.fromtimestamp(info.st_mtime, timezone.utc).strftime("%Y%m%dT%H%M%S")
    copy = path.with_name(f"damaged-{moment}.{info.st_mtime_ns % 10**9:09d}.db")
    if not copy.exists() and len(list(path.parent.glob("damaged-*.db"))) < DAMAGED_COPIES:
        new = copy.with_name(f"{copy.name}.new-{secrets.token_hex(8)}")
        try:
            shutil.copyfile(path, new)
            os.chmod(new, 0o600)
            os.replace(new, copy)
        finally:
            new.unlink(missing_ok=True)
    return copy


_MEANINGS: tuple[tuple[tuple[str, ...], type[CloudsendError], str, str], ...] = (
    (("locked", "busy"), ConflictError, "the database {} is in use by another process", "try again"),
    (("is full",), StateDirError, "no space is left for {}", "free some space; nothing was written"),
    (("readonly",), StateDirError, "{} cannot be written", "look at its permissions and the mount options"),
    (("unable to open",), StateDirError, "{} cannot be opened", "look at the permissions of its directory"),
    (("disk i/o error",), StateDirError, "the disk failed while {} was written or read", "look at the kernel's log"),
)


def translate(error: Exception, path: Path) -> Exception:
    """What an error of SQLite means to a user. Misuse of the library is a bug of ours and stays what it is."""
    if isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.NotSupportedError)):
        return error
    text = str(error).lower()
    if isinstance(error, sqlite3.OperationalError):
        for words, kind, message, hint in _MEANINGS:
            if any(word in text for word in words):
                return kind(message.format(path), hint=hint, context=str(error))
    return damaged(path, str(error))

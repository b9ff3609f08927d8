"""Where a state directory is at home, so that nobody works with a copy of it while the first one is in use."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path

from cloudsend_cli.errors import StateDirError

_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@dataclass(frozen=True, slots=True)
class Origin:
    machine: str  # "" where the system has no id
    host: str
    path: str  # of the database, without links
    inode: int


def origin_of(path: Path) -> Origin:
    real = os.path.realpath(path)
    return Origin(_machine_id(), os.uname().nodename, real, os.stat(real).st_ino)


def is_copy(known: Origin, here: Origin, *, known_is_there: bool) -> bool:
    """Whether `here` is another file than the one that is at home at `known`, which may still be in use. Pure.

    A directory that was moved, mounted elsewhere, or put back from a backup into its own place is no copy.
    `known_is_there` is what this machine sees at the old place; of another machine nothing is seen.
    """
    same_machine, same_place = known.machine == here.machine, known.path == here.path
    if known.inode == here.inode and (same_machine or same_place):
        return False
    if not same_machine:
        return True
    return not same_place and known_is_there


def claim_origin(db: sqlite3.Connection, path: Path, *, adopt: bool) -> None:
    """Write down that the database is at home here; StateDirError if it is a copy and is not to be adopted."""
    here = origin_of(path)
    row = db.execute("SELECT value FROM meta WHERE name = 'origin'").fetchone()
    known = None if row is None else _parse_origin(row[0])
    if known == here:
        return
    if known is not None and not adopt and is_copy(known, here, known_is_there=_is_there(known)):
        place = os.path.dirname(known.path)
        where = place if known.machine == here.machine else f"{place} on {known.host}"
        words = shlex.join(["cloudsend", "--state-dir", os.path.dirname(here.path), "maestro", "adopt"])
        raise StateDirError(
            f"the state directory {os.path.dirname(here.path)} is a copy of {where}: two that carry on the same runs "
            "would do jobs twice and end each other's machines",
            hint=f"use the first one; if it is gone for good: `{words}`. Commands that only read work here as well",
        )
    db.execute("INSERT OR REPLACE INTO meta VALUES ('origin', ?)", (json.dumps(asdict(here)),))


def _parse_origin(text: object) -> Origin | None:
    try:
        found = json.loads(str(text))
        return Origin(str(found["machine"]), str(found["host"]), str(found["path"]), int(found["inode"]))
    except (ValueError, TypeError, LookupError):
        return None


def _is_there(known: Origin) -> bool:
    try:
        return os.stat(known.path).st_ino == known.inode
    except (OSError, ValueError):
        return False


def _machine_id() -> str:
    for place in _MACHINE_IDS:
        try:
            return Path(place).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
    return ""

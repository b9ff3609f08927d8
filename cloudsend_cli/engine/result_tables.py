"""A row for each job of a run, in `results.csv` and `results.json` of its results directory.

Nothing is overwritten there that is not as we left it: then, and where a job's results have that name, ours is called
otherwise.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from cloudsend_cli.core.metrics import split_ignored
from cloudsend_cli.core.model import FINAL_STATES
from cloudsend_cli.core.naming import job_id
from cloudsend_cli.core.result_rows import Names, plain_cell, printable
from cloudsend_cli.core.views import Slots, iso
from cloudsend_cli.errors import ResultError
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import JobRow

CSV, JSON = "results.csv", "results.json"
MARKER = ".cloudsend-results.json"  # what we left there, by its digest; no job's name becomes one with a dot in front
NAMES_MOST = 100
DIGESTS_MOST = 2  # of one file: the one that is there, and the one that is about to be
FIXED = (
    "id", "name", "state", "reason", "exit_code", "attempt", "instance", "started_at", "ended_at", "duration",
    "section", "group", "slot",
)  # fmt: skip
Row = dict[str, object]
Write = Callable[[str], object]


def write_tables(store: SqliteStore, run: str, folder: Path) -> list[Path]:
    """Both tables of the run into `folder`, each whole or not at all. Returns where they are. OSError, ResultError."""
    params, metrics, taken = Names(), Names(), set[str]()
    slots = Slots(store.run_row(run).run.groups)

    def rows_with_names() -> Iterator[Row]:
        for row in _rows(store, run, slots):
            params.take(_mapping(row, "params"))
            metrics.take(_mapping(row, "metrics"))
            if (top := str(row["name"]).partition("/")[0]) in {CSV, JSON}:
                taken.add(top)
            yield row

    folder.mkdir(parents=True, exist_ok=True)
    with _Folder(folder, taken) as place:
        # ORDER: the first reading finds the columns, and which names are those of jobs' own results.
        last = place.put(JSON, lambda write: _write_json(write, rows_with_names()))
        first = place.put(CSV, lambda write: _write_csv(write, _rows(store, run, slots), params.kept, metrics.kept))
        return [first, last]


# ---- rows ----------------------------------------------------------------------------------------------------------


def _rows(store: SqliteStore, run: str, slots: Slots) -> Iterator[Row]:
    """Jobs that are the newest of their name, by number."""
    return (_render_row(row, slots) for row in store.list_jobs(run, superseded=False))


def _render_row(row: JobRow, slots: Slots) -> Row:
    group = slots.group_of(row.name)
    ended = row.ended_at if row.state in FINAL_STATES else None
    known = row.started_at is not None and ended is not None
    return {
        "id": job_id(row.run, row.number),
        "name": row.name,
        "state": row.state,
        "reason": row.reason or None,
        "exit_code": row.exit_code,
        "attempt": row.attempt,
        "instance": row.node or None,
        "started_at": iso(row.started_at),
        "ended_at": iso(ended),
        "duration": round(max(0.0, ended - row.started_at), 3) if known else None,  # type: ignore[operator]
        "section": slots.section_of(group) or None,
        "group": group or None,
        "slot": slots.text(group, row.more.get("slot", -1)),
        "params": row.params,
        "metrics": split_ignored(row.more.get("metrics", ()))[0],
    }


def _mapping(row: Row, key: str) -> Mapping[str, str]:
    found = row[key]
    return found if isinstance(found, dict) else {}


def _write_csv(write: Write, rows: Iterable[Row], params: Iterable[str], metrics: Iterable[str]) -> None:
    columns = [("params", name) for name in params] + [("metrics", name) for name in metrics]
    writer = csv.writer(_Writer(write), lineterminator="\n")
    heads = [_cell(f"{key.removesuffix('s')}.{name}") for key, name in columns]
    writer.writerow([*FIXED, *heads])
    for row in rows:
        cells = [_cell(row[key]) for key in FIXED]
        writer.writerow([*cells, *(_cell(_mapping(row, key).get(name)) for key, name in columns)])


def _write_json(write: Write, rows: Iterable[Row]) -> None:
    encode = json.JSONEncoder().encode
    before = "[\n"
    for row in rows:
        write(before + encode(row))
        before = ",\n"
    write("[]\n" if before == "[\n" else "\n]\n")


def _cell(value: object) -> object:
    return plain_cell(printable(value)) if isinstance(value, str) else value


class _Writer:
    """What csv.writer writes to."""

    def __init__(self, write: Write) -> None:
        self.write = write


# ---- files ---------------------------------------------------------------------------------------------------------


class _Folder:
    """A results directory, in which one process at a time writes tables."""

    def __init__(self, folder: Path, taken: Collection[str]) -> None:
        self._folder = folder
        self._taken = taken  # by the results of jobs, or to be: known when a table has been rendered
        self._marker = -1
        self._known: dict[str, list[str]] = {}

    def __enter__(self) -> _Folder:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._marker = os.open(self._folder / MARKER, flags, 0o644)
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(self._marker, fcntl.LOCK_EX)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            kept = json.loads(os.read(self._marker, 1 << 20))
            self._known = {k: [d for d in v if isinstance(d, str)] for k, v in kept.items() if isinstance(v, list)}
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._marker)

    def put(self, name: str, render: Callable[[Write], None]) -> Path:
        part = self._folder / f".{name}.partial"
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        try:
            digest = self._write(part, render)
            while True:
                target, there = self._choose(name)
                # ORDER: the marker says what will be there before it is: what a crash leaves is known for ours.
                self._mark(target.name, digest, there)
                if there:
                    part.replace(target)
                    return target
                with contextlib.suppress(FileExistsError):
                    _rename_new(part, target)
                    return target
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()

    def _write(self, part: Path, render: Callable[[Write], None]) -> str:
        digest = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(part, flags, 0o644), "wb", buffering=1 << 18) as file:

            def write(text: str) -> None:
                data = text.encode("utf-8", "replace")
                digest.update(data)
                file.write(data)

            render(write)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _choose(self, name: str) -> tuple[Path, str]:
        """Where it may be put, and the digest of what is there of ours, or ""."""
        stem, dot, ending = name.rpartition(".")
        for candidate in (name, *(f"{stem}~{count}{dot}{ending}" for count in range(1, NAMES_MOST))):
            place = self._folder / candidate
            if candidate in self._taken:
                continue
            digest = _digest(place)
            if digest is None:
                return place, ""
            if digest in self._known.get(candidate, ()):
                return place, digest
        raise ResultError(f"{self._folder} has {NAMES_MOST} files like {name} that were edited", hint="move some away")

    def _mark(self, name: str, new: str, there: str) -> None:
        self._known[name] = list(dict.fromkeys(d for d in (new, there) if d))[:DIGESTS_MOST]
        text = json.dumps(self._known).encode() + b"\n"
        os.ftruncate(self._marker, 0)
        os.pwrite(self._marker, text, 0)


def _rename_new(part: Path, target: Path) -> None:
    """FileExistsError: something has come there meanwhile."""
    try:
        os.link(part, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # no links on this file system
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        part.replace(target)


def _digest(path: Path) -> str | None:
    """Of the regular file there; "" for anything else, None for nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        digest = hashlib.sha256()
        while block := os.read(fd, 1 << 20):
            digest.update(block)
        return digest.hexdigest()
    finally:
        os.close(fd)

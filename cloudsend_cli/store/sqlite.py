"""The store of the local and the remote maestro: one SQLite file, one row per job, compare-and-swap on the run."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from cloudsend_cli.core.model import EnvironmentBuild, JobSpec, Request
from cloudsend_cli.core.ports import Clock, Event
from cloudsend_cli.core.state import Changes, JobRecord, RunState
from cloudsend_cli.errors import ConflictError

from . import writing
from .database import FILE_NAME, connect, create, prepare_empty, quick_check
from .directory import open_state_dir
from .queries import LOAD_SPECS, Queries
from .rows import (
    HOT,
    JobDecoder,
    decode_build,
    decode_environment,
    decode_node,
    decode_rental,
    decode_run,
    encode,
    freeze,
    job_key,
    pack,
    unpack,
)

_LOAD_JOBS = (
    f"SELECT jobs.key, s.hash, {', '.join(f'jobs.{name}' for name in HOT)},"  # noqa: S608 - made of constants
    " s.spec, s.name, s.argv, s.display, s.env, s.params, s.repeat_index"
    " FROM jobs LEFT JOIN job_specs s ON s.key = jobs.key WHERE jobs.key BETWEEN ? AND ? ORDER BY jobs.key"
)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Loading makes objects that all stay: looking for garbage among them would double its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class SqliteStore(Queries):
    """Implements core.ports.Store. Owned by one thread of one process; others open their own.

    A commit that returned is on the disk. A commit that raised wrote nothing, except that a disk that fails leaves
    the last one open; the store then refuses all further work.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, clock: Clock, actor: str) -> None:
        super().__init__(db, path)
        self._clock = clock
        self._actor = actor
        self._owned_epoch: int | None = None
        # The specs that the tables are known to hold: a commit writes only what is new.
        self._stored_specs: dict[str, dict[int, JobSpec]] = {}

    @classmethod
    def open(
        cls,
        state_dir: Path,
        *,
        readonly: bool = False,
        adopt: bool = False,
        clock: Clock = time.time,
        actor: str = "user",
    ) -> SqliteStore:
        """Open, or create, the database of a state directory that is checked first.

        A reader gets an empty database in memory where there is none yet. `actor` signs the audit trail. A copy of a
        state directory is opened for readers only, unless it is to `adopt` what the first one had.
        """
        if readonly and not (state_dir.expanduser() / FILE_NAME).exists():
            if os.path.lexists(state_dir.expanduser()):
                open_state_dir(state_dir, create=False)  # what is there has to be a directory of ours
            db = sqlite3.connect(":memory:", isolation_level=None)
            prepare_empty(db)
            db.execute("PRAGMA query_only=ON")
            return cls(db, state_dir / FILE_NAME, clock, actor)
        path = open_state_dir(state_dir) / FILE_NAME
        if not path.exists():
            create(path)
        return cls(connect(path, readonly=readonly, adopt=adopt), path, clock, actor)

    def close(self) -> None:
        """Give up the maestro's office, if it was taken, and the connection. May be repeated."""
        epoch, self._owned_epoch = self._owned_epoch, None
        if epoch is not None and self._broken is None:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("UPDATE maestro SET dirty = 0 WHERE epoch = ?", (epoch,))
        self._db.close()

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the maestro's office --------------------------------------------------------------------------------------

    def take_epoch(self, owner_facts: str) -> int:
        """Become the maestro: a number higher than all before, with which older ones are fenced off.

        If the last one did not close the store, the whole file is checked first. Raises StateDamagedError.
        """
        with self._transaction("BEGIN IMMEDIATE") as db:
            row = db.execute("SELECT epoch, dirty FROM maestro").fetchone()
            if row is None:
                raise self._damaged("it has no epoch")
            epoch, dirty = row
            if dirty:
                quick_check(db, self._path)
            db.execute("UPDATE maestro SET epoch = ?, owner = ?, dirty = 1", (epoch + 1, pack(owner_facts)))
        self._owned_epoch = int(epoch) + 1
        return self._owned_epoch

    # ---- runs ------------------------------------------------------------------------------------------------------

    def create_run(self, state: RunState, events: Sequence[Event] = (), *, first: bool = False) -> int:
        """Write a whole new run; return its version.

        ConflictError: the id is taken, or, with `first`, its config has a run: another process was faster.
        """
        run = state.run
        with self._transaction("BEGIN IMMEDIATE") as db:
            if db.execute("SELECT 1 FROM runs WHERE id = ?", (run.id,)).fetchone():
                raise ConflictError(f"there is a run {run.id} already", hint="try again: another id will be chosen")
            if first and (other := self._run_of_config(db, run.project, run.config_path)):
                raise ConflictError(f"run {other} of {run.config_path} is there already", hint="continue that one")
            version = run.version + 1
            inserted = db.execute(
                "INSERT INTO runs (id, version, project, config_path, created_at, ended_at) VALUES (?, ?, ?, ?, ?, ?)",
                (run.id, version, pack(run.project), pack(run.config_path), run.created_at, run.ended_at),
            )
            key = inserted.lastrowid or 0  # a row was inserted: it has an id, and none is 0
            db.execute("INSERT INTO run_records VALUES (?, ?)", (key, encode(run)))
            writing.put_environments(db, key, state.environments.values())
            writing.put_nodes(db, key, state.nodes)
            writing.put_builds(db, key, state.builds)
            writing.put_rentals(db, key, state.rentals)
            writing.put_specs(db, key, state.jobs.values())
            writing.insert_jobs(db, key, state.jobs)
            writing.put_events(db, key, events, self._clock(), self._actor)
        self._stored_specs[run.id] = {n: job.spec for n, job in state.jobs.items()}
        return version

    def load(self, run: str) -> RunState:
        with self._transaction() as db, _no_collection():
            state = self._load(db, run)
        self._stored_specs[run] = {n: job.spec for n, job in state.jobs.items()}
        return state

    def load_without_jobs(self, run: str) -> RunState:
        """The run with its machines, builds and environments, for tables: its jobs are left out."""
        with self._transaction() as db:
            return self._load(db, run, with_jobs=False)

    def _load(self, db: sqlite3.Connection, run: str, *, with_jobs: bool = True) -> RunState:
        key = self._key(db, run)
        with self._decoding():
            version, body = db.execute(
                "SELECT version, body FROM runs JOIN run_records ON run = key WHERE key = ?", (key,)
            ).fetchone()
            bounds = (job_key(key, 0), job_key(key + 1, 0) - 1)
            jobs: Iterable[JobRecord] = ()
            if with_jobs:
                decoder = JobDecoder(db.execute(LOAD_SPECS, bounds))
                jobs = map(decoder.job, db.execute(_LOAD_JOBS, bounds))

            def bodies(table: str, decode: Callable[[str], Any]) -> list[Any]:
                rows = db.execute(f"SELECT body FROM {table} WHERE run = ? ORDER BY rowid", (key,))  # noqa: S608
                return [decode(row[0]) for row in rows]

            return RunState(
                decode_run(body, version),
                jobs,
                bodies("nodes", decode_node),
                bodies("builds", decode_build),
                bodies("environments", decode_environment),
                bodies("rentals", decode_rental),
            )

    def commit(
        self, run: str, version: int, changes: Changes, events: Sequence[Event] = (), *, epoch: int | None = None
    ) -> int:
        """See core.ports.Store. With `epoch`, a maestro that was followed by another is refused: `fenced`."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            if epoch is not None and epoch < db.execute("SELECT epoch FROM maestro").fetchone()[0]:
                raise ConflictError("fenced: another maestro has taken over", hint="this one stops acting")
            specs = self._write(db, run, version, changes, events, by_user=False)
        self._stored_specs.setdefault(run, {}).update(specs)
        return version + 1

    def write_run(
        self,
        run: str,
        update: Callable[[RunState], Changes],
        events: Sequence[Event] = (),
        *,
        environments: Iterable[EnvironmentBuild] = (),
    ) -> int:
        """A user's change: load, update and commit with nobody in between; return the version.

        Only here a final job may become pending again without a new attempt number. `environments` are added to the
        run before `update` sees it. A maestro that holds the run gets a ConflictError at its next commit and reloads.
        """
        added = tuple(environments)
        with self._transaction("BEGIN IMMEDIATE") as db:
            with _no_collection():
                state = self._load(db, run)
            stored = {n: job.spec for n, job in state.jobs.items()}
            writing.put_environments(db, self._key(db, run), added)
            state.environments.update({e.key: e for e in added})
            before = state.run.version
            changes = update(state)
            if not changes and not added and not events:
                return before
            self._stored_specs[run] = stored
            specs = self._write(db, run, before, changes, events, by_user=True)
        self._stored_specs[run].update(specs)
        return before + 1

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _write(
        self,
        db: sqlite3.Connection,
        run: str,
        version: int,
        changes: Changes,
        events: Sequence[Event],
        *,
        by_user: bool,
    ) -> dict[int, JobSpec]:
        """All of `changes` in the open transaction; returns the specs that it wrote."""
        key = self._key(db, run)
        swapped = db.execute("UPDATE runs SET version = ?1 + 1 WHERE key = ?2 AND version = ?1", (version, key))
        if swapped.rowcount != 1:
            raise ConflictError(f"run {run} was changed by another command or maestro", hint="load it again")
        if changes.run is not None:
            db.execute("UPDATE runs SET ended_at = ? WHERE key = ?", (changes.run.ended_at, key))
            db.execute("UPDATE run_records SET body = ? WHERE run = ?", (encode(changes.run), key))
            done = [(key, request) for request in changes.run.requests_done]
            db.executemany("DELETE FROM requests WHERE run = ? AND id = ?", done)
        writing.put_nodes(db, key, changes.nodes)
        writing.put_builds(db, key, changes.builds)
        writing.put_rentals(db, key, changes.rentals)
        stored = self._stored_specs.get(run, {})
        fresh = {n: job for n, job in changes.jobs.items() if stored.get(n) is not job.spec}
        writing.put_specs(db, key, fresh.values())
        writing.put_jobs(db, key, changes.jobs, by_user=by_user)
        writing.put_events(db, key, events, self._clock(), self._actor)
        return {n: job.spec for n, job in fresh.items()}

    # ---- requests --------------------------------------------------------------------------------------------------

    def add_request(self, run: str, request: Request) -> bool:
        """Put a user's request; False if it was put before, or carried out. Raises NotFoundError."""
        jobs = None if request.jobs is None else encode(request.jobs)
        with self._transaction("BEGIN IMMEDIATE") as db:
            key = self._key(db, run)
            if request.id in self._requests_done(db, key):
                return False
            put = db.execute(
                "INSERT INTO requests (run, id, kind, jobs, at, node) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (run, id) DO NOTHING",
                (key, request.id, request.kind, jobs, request.at, pack(request.node)),
            )
            return put.rowcount == 1

    def list_requests(self, run: str) -> Sequence[Request]:
        with self._transaction() as db, self._decoding():
            rows = db.execute(
                "SELECT run, id, kind, jobs, at, node FROM requests WHERE run = (SELECT key FROM runs WHERE id = ?)"
                " ORDER BY seq",
                (run,),
            ).fetchall()
            done = self._requests_done(db, rows[0][0]) if rows else ()
            return [
                Request(name, kind, None if jobs is None else freeze(json.loads(jobs)), at, unpack(node))
                for _, name, kind, jobs, at, node in rows
                if name not in done
            ]

    def _requests_done(self, db: sqlite3.Connection, key: int) -> tuple[str, ...]:
        with self._decoding():
            body = db.execute("SELECT body FROM run_records WHERE run = ?", (key,)).fetchone()[0]
            return decode_run(body, 0).requests_done

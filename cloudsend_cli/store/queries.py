"""Reading for tables and look-ups, without loading a run."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from cloudsend_cli.core.costs import clip_waiting
from cloudsend_cli.core.history import History, find_starting
from cloudsend_cli.core.naming import match_names
from cloudsend_cli.core.state import FETCHED, RentalRecord
from cloudsend_cli.errors import NotFoundError, StateDamagedError, StateDirError

from .database import DATABASE_ERRORS, damaged, translate
from .rows import NUMBER_MASK, Row, decode_rental, decode_run, job_key, pack, unpack
from .schema import RUN_SHIFT
from .tables import AttemptRow, EventRow, JobRow, RunRow, job_row, readable

PAGE = 10_000  # rows read at a time: no lock is held while a caller prints them
HISTORY_RUNS = 5
HISTORY_JOBS = 100_000
NAMES_AT_ONCE = 500  # SQLite once took no more than 999 values
_LAST = "\U0010ffff"

_JOB_ROWS = f"""
SELECT r.id, jobs.key & {(1 << RUN_SHIFT) - 1}, s.name, s.hash, s.display, s.params, shared.environment,
    coalesce(n.provider, ''), coalesce(n.instance_id, ''), jobs.created_at, jobs.state, jobs.reason, jobs.exit_code,
    jobs.attempt, jobs.node, jobs.boot, jobs.after, jobs.not_before, jobs.handed_at, jobs.started_at, jobs.ended_at,
    jobs.cancel, jobs.fetch, jobs.superseded_by, jobs.batch, jobs.maxrss, jobs.cpu_seconds, jobs.more
FROM jobs JOIN job_specs s ON s.key = jobs.key JOIN specs shared ON shared.id = s.spec
    JOIN runs r ON r.key = jobs.key >> {RUN_SHIFT}
    LEFT JOIN nodes n ON n.run = r.key AND n.name = jobs.node
"""  # noqa: S608 - made of constants

LOAD_SPECS = "SELECT id, body FROM specs WHERE id IN (SELECT spec FROM job_specs WHERE key BETWEEN ? AND ?)"
_UNFINISHED = (
    "SELECT jobs.key, s.spec FROM jobs JOIN job_specs s ON s.key = jobs.key"
    " WHERE jobs.key BETWEEN ? AND ? AND jobs.state IN ('pending', 'running')"
)
_QUEUED = (
    "SELECT count(*) FROM jobs WHERE key BETWEEN ? AND ? AND state = 'running' AND started_at IS NULL"
    " AND superseded_by = 0"
)
_AWAY = f"""
SELECT key, node FROM jobs WHERE key BETWEEN ? AND ? AND fetch IN ({", ".join(map(repr, sorted(FETCHED)))})
ORDER BY key
"""  # noqa: S608 - made of constants
_HISTORY = """
SELECT s.hash, s.name, jobs.ended_at - jobs.started_at FROM jobs JOIN job_specs s ON s.key = jobs.key
WHERE jobs.key > ? AND jobs.key < ? AND jobs.state = 'succeeded' AND jobs.ended_at > jobs.started_at
ORDER BY jobs.key DESC LIMIT ?
"""
_FIRST_STARTS = "SELECT node, min(started_at) FROM jobs WHERE key > ? AND key < ? AND started_at > 0 GROUP BY node"


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, tuple[float, int]] = {}
    for key, value in pairs:
        total, count = sums.get(key, (0.0, 0))
        sums[key] = (total + value, count + 1)
    return {key: round(total / count, 3) for key, (total, count) in sums.items()}


class Queries:
    """What can be asked of an open database. Owned by one thread of one process."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._pid = os.getpid()
        self._broken: Exception | None = None

    # ---- transactions ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN") -> Iterator[sqlite3.Connection]:
        """One transaction with a consistent view; rolled back on any exception. Speaks in errors for users."""
        if os.getpid() != self._pid:
            raise RuntimeError("a store does not cross a fork: open it again in the child")
        if self._broken is not None:
            raise StateDirError("the disk failed before; the store is closed", context=str(self._broken))
        try:
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except DATABASE_ERRORS as error:
            if str(error).startswith("final: "):
                raise RuntimeError(str(error)) from error  # a bug of ours: the caller's state was the newest
            # REASON: after a failed sync nobody knows what is on the disk; a retry that succeeds proves nothing.
            if "disk i/o error" in str(error).lower():
                self._broken = error
            raise translate(error, self._path) from error

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        """What cannot be decoded was not written by us."""
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from error

    def _damaged(self, what: str) -> StateDamagedError:
        return damaged(self._path, what)

    @staticmethod
    def _key(db: sqlite3.Connection, run: str) -> int:
        row = db.execute("SELECT key FROM runs WHERE id = ?", (run,)).fetchone()
        if row is None:
            raise NotFoundError(f"there is no run {run}", hint="`cloudsend list runs` shows what there is")
        return int(row[0])

    # ---- runs ------------------------------------------------------------------------------------------------------

    def installation_id(self) -> str:
        """Random, made with the database: the owner's mark on what is rented."""
        with self._transaction() as db:
            row = db.execute("SELECT value FROM meta WHERE name = 'installation_id'").fetchone()
        if row is None:
            raise self._damaged("it has no installation id")
        return str(row[0])

    def epoch(self) -> int:
        """The number of the maestro in charge, 0 before the first."""
        with self._transaction() as db:
            row = db.execute("SELECT epoch FROM maestro").fetchone()
        if row is None:
            raise self._damaged("it has no epoch")
        return int(row[0])

    def list_runs(self, limit: int | None = None) -> list[RunRow]:
        """Newest first."""
        with self._transaction() as db, self._decoding():
            found = db.execute(
                "SELECT key, version, body FROM runs JOIN run_records ON run = key ORDER BY key DESC LIMIT ?",
                (-1 if limit is None else limit,),
            ).fetchall()
            return [self._run_row(db, *row) for row in found]

    def find_last_run(self) -> str | None:
        """The run that was submitted last, be it new or continued; None where there is none.

        WHY NOT a field of the run: the audit trail has the order of submissions, also of those before this version.
        """
        with self._transaction() as db:
            row = (
                db.execute(
                    "SELECT runs.id FROM events JOIN runs ON runs.key = events.run"
                    " WHERE kind IN ('submitted', 'rebuilt') ORDER BY seq DESC LIMIT 1"
                ).fetchone()
                or db.execute("SELECT id FROM runs ORDER BY key DESC LIMIT 1").fetchone()
            )
        return None if row is None else str(row[0])

    def run_row(self, run: str) -> RunRow:
        """One run as `list_runs` has it. Raises NotFoundError."""
        with self._transaction() as db, self._decoding():
            key = self._key(db, run)
            version, body = db.execute(
                "SELECT version, body FROM runs JOIN run_records ON run = key WHERE key = ?", (key,)
            ).fetchone()
            return self._run_row(db, key, version, body)

    def _run_row(self, db: sqlite3.Connection, key: int, version: int, body: str) -> RunRow:
        counts = self._counts(db, key)
        bounds = (job_key(key, 0), job_key(key + 1, 0) - 1)
        queued = db.execute(_QUEUED, bounds).fetchone()[0] if counts.get("running") else 0
        return RunRow(decode_run(body, version), counts, queued)

    @staticmethod
    def _counts(db: sqlite3.Connection, key: int, *, superseded: bool = False) -> dict[str, int]:
        return dict(
            db.execute(
                "SELECT state, count(*) FROM jobs WHERE key BETWEEN ? AND ? AND (superseded_by = 0 OR ?)"
                " GROUP BY state",
                (job_key(key, 0), job_key(key + 1, 0) - 1, superseded),
            ).fetchall()
        )

    def count_jobs(self, run: str, *, superseded: bool = False) -> dict[str, int]:
        """Jobs by state; superseded ones only if asked for."""
        with self._transaction() as db:
            return self._counts(db, self._key(db, run), superseded=superseded)

    def list_active_runs(self) -> list[str]:
        """Runs with something left to do: jobs that are open, or machines that are not given back. Oldest first."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT id FROM runs WHERE ended_at IS NULL OR EXISTS (SELECT 1 FROM nodes WHERE nodes.run = runs.key"
                " AND nodes.state NOT IN ('released', 'failed')) ORDER BY key"
            ).fetchall()
        return [str(row[0]) for row in found]

    def find_runs(self, prefix: str) -> list[str]:
        """Ids that begin with `prefix`, newest first; an exact one alone."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT id FROM runs WHERE id >= ? AND id < ? ORDER BY key DESC", (prefix, prefix + _LAST)
            ).fetchall()
        ids = [str(row[0]) for row in found]
        return [prefix] if prefix in ids else ids

    def find_run_of_config(self, project: str, config_path: str) -> str | None:
        """The newest run of this project and config file."""
        with self._transaction() as db, self._decoding():
            return self._run_of_config(db, project, config_path)

    def _run_of_config(self, db: sqlite3.Connection, project: str, config_path: str) -> str | None:
        # REASON for the Python filter: both may hold what SQLite cannot, and are compared as records.
        bodies = db.execute(
            "SELECT version, body FROM runs JOIN run_records ON run = key WHERE config_path = ? ORDER BY key DESC",
            (pack(config_path),),
        ).fetchall()
        for version, body in bodies:
            run = decode_run(body, version)
            if run.project == project and run.config_path == config_path:
                return run.id
        return None

    def read_history(self, project: str) -> History:
        """How long jobs of this project took. Of its newest runs, and of a bounded number of jobs of each."""
        by_hash: dict[str, float] = {}
        by_name: dict[str, float] = {}
        starting: float | None = None
        with self._transaction() as db, self._decoding():
            runs = db.execute(
                "SELECT key FROM runs WHERE project = ? ORDER BY key DESC LIMIT ?", (pack(project), HISTORY_RUNS)
            ).fetchall()
            for (run,) in runs:
                found = db.execute(_HISTORY, (job_key(run, 0), job_key(run + 1, 0), HISTORY_JOBS)).fetchall()
                for column, known in ((0, by_hash), (1, by_name)):
                    for key, seconds in _means((unpack(row[column]), row[2]) for row in found).items():
                        known.setdefault(key, seconds)
                starting = self._starting(db, run) if starting is None else starting
        return History(by_hash, by_name, starting)

    def _starting(self, db: sqlite3.Connection, run: int) -> float | None:
        bodies = db.execute("SELECT body FROM rentals WHERE run = ?", (run,)).fetchall()
        if not bodies:
            return None
        first = db.execute(_FIRST_STARTS, (job_key(run, 0), job_key(run + 1, 0))).fetchall()
        return find_starting((decode_rental(body) for (body,) in bodies), {unpack(node): at for node, at in first})

    def list_rentals(self, run: str | None = None) -> dict[str, list[RentalRecord]]:
        """What was rented, by run; of one run, or of all that ever rented anything."""
        with self._transaction() as db, self._decoding():
            if run is not None:
                self._key(db, run)
            rows = db.execute(
                "SELECT r.id, body FROM rentals JOIN runs r ON r.key = rentals.run ORDER BY rentals.rowid"
            ).fetchall()
            rentals = [(str(name), decode_rental(body)) for name, body in rows]
        clipped = clip_waiting(rental for _, rental in rentals)
        found: dict[str, list[RentalRecord]] = {}
        for name, rental in rentals:
            if run in {None, name}:
                found.setdefault(name, []).append(clipped.get(rental, rental))
        return found

    # ---- jobs ------------------------------------------------------------------------------------------------------

    def list_jobs(
        self,
        run: str,
        states: Collection[str] | None = None,
        limit: int | None = None,
        *,
        newest_first: bool = False,
        superseded: bool = True,
    ) -> Iterator[JobRow]:
        """Rows by number. Read in pages, each a moment of its own: no lock is held between them."""
        with self._transaction() as db:
            key = self._key(db, run)
        return self._pages(key, states, -1 if limit is None else limit, newest_first, superseded)

    def list_gated(self, run: str) -> frozenset[int]:
        """Jobs whose stage has not begun; see core.stages."""
        with self._transaction() as db, self._decoding():
            key = self._key(db, run)
            bounds = (job_key(key, 0), job_key(key + 1, 0))
            stages = {spec: int(json.loads(body).get("stage", 0)) for spec, body in db.execute(LOAD_SPECS, bounds)}
            unfinished = [(number & NUMBER_MASK, stages[spec]) for number, spec in db.execute(_UNFINISHED, bounds)]
        begun = min((stage for _, stage in unfinished if stage), default=0)
        return frozenset(number for number, stage in unfinished if stage > begun)

    def _pages(
        self, key: int, states: Collection[str] | None, left: int, newest_first: bool, superseded: bool
    ) -> Iterator[JobRow]:
        low, high = job_key(key, 0), job_key(key + 1, 0)
        wanted = sorted(states) if states is not None else []
        conditions = "jobs.key > ? AND jobs.key < ?"
        if states is not None:
            conditions += f" AND jobs.state IN ({', '.join('?' * len(wanted))})"
        if not superseded:
            conditions += " AND jobs.superseded_by = 0"
        order = "DESC" if newest_first else "ASC"
        while left:
            size = PAGE if left < 0 else min(left, PAGE)
            rows = self._job_rows(f"{conditions} ORDER BY jobs.key {order} LIMIT {size}", (low, high, *wanted))
            yield from rows
            if len(rows) < size:
                return
            left -= size if left > 0 else 0
            low, high = (low, job_key(key, rows[-1].number)) if newest_first else (job_key(key, rows[-1].number), high)

    def _job_rows(self, conditions: str, arguments: Sequence[object]) -> list[JobRow]:
        with self._transaction() as db:
            rows: list[Row] = db.execute(f"{_JOB_ROWS} WHERE {conditions}", tuple(arguments)).fetchall()
        with self._decoding():
            return [job_row(row) for row in rows]

    def list_away(self, run: str) -> dict[int, str]:
        """Jobs whose results are on their way home: {number: the machine that has them}."""
        with self._transaction() as db, self._decoding():
            key = self._key(db, run)
            found = db.execute(_AWAY, (job_key(key, 0), job_key(key + 1, 0) - 1)).fetchall()
            return {number & NUMBER_MASK: unpack(node) for number, node in found}

    def find_jobs(
        self,
        *,
        run: str | None = None,
        number: int | None = None,
        name: str | None = None,
        content: str | None = None,
        limit: int = 100,
    ) -> list[JobRow]:
        """Newest first, all conditions together: of one run, its number, a name or glob, the beginning of a hash."""
        conditions, arguments = ["1"], list[object]()
        if run is not None:
            with self._transaction() as db:
                key = self._key(db, run)
            conditions.append("jobs.key BETWEEN ? AND ?")
            arguments += [job_key(key, 0), job_key(key + 1, 0) - 1]
            if number is not None:
                conditions.append("jobs.key = ?")
                arguments.append(job_key(key, number) if 0 < number < 1 << RUN_SHIFT else -1)
        if content is not None:
            conditions.append("s.hash >= ? AND s.hash < ?")
            arguments += [content, content + _LAST]
        order = "ORDER BY jobs.created_at DESC, jobs.key DESC LIMIT ?"
        if name is None:
            return self._job_rows(f"{' AND '.join(conditions)} {order}", [*arguments, limit])
        rows: list[JobRow] = []
        names = self._names_like(name)
        for start in range(0, len(names), NAMES_AT_ONCE):
            some = names[start : start + NAMES_AT_ONCE]
            where = " AND ".join([*conditions, f"s.name IN ({', '.join('?' * len(some))})"])
            rows += self._job_rows(f"{where} {order}", [*arguments, *some, limit])
        if len(names) > NAMES_AT_ONCE:
            rows.sort(key=lambda row: (row.created_at, row.number), reverse=True)
        return rows[:limit]

    def _names_like(self, name: str) -> list[str]:
        """Stored names that are `name`, else those that fit it as a glob."""
        with self._transaction() as db:
            packed = pack(name)
            if db.execute("SELECT 1 FROM job_specs WHERE name = ? LIMIT 1", (packed,)).fetchone():
                return [packed]
            if not any(c in name for c in "*?["):
                return []
            found = db.execute("SELECT DISTINCT name FROM job_specs ORDER BY name").fetchall()
        return [pack(n) for n in match_names(name, [unpack(row[0]) for row in found])]

    # ---- what was --------------------------------------------------------------------------------------------------

    def history(self, run: str, number: int) -> list[AttemptRow]:
        """Attempts before the newest one, oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT attempt, state, reason, exit_code, node, handed_at, started_at, ended_at, maxrss, cpu_seconds"
                " FROM attempts WHERE job = ? ORDER BY attempt",
                (job_key(self._key(db, run), number),),
            ).fetchall()
        with self._decoding():
            return [AttemptRow._make(readable(row)) for row in rows]

    def newest_event(self) -> int:
        """The number of the newest line of the audit trail, 0 where there is none."""
        with self._transaction() as db:
            return int(db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])

    def events_after(self, run: str, seq: int, limit: int) -> list[EventRow]:
        """The first lines of the run's audit trail that come after the line `seq`, in order. For display."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT seq, at, actor, kind, subject, text FROM events WHERE seq > ? AND run = ?"
                " ORDER BY seq LIMIT ?",
                (seq, self._key(db, run), limit),
            ).fetchall()
        with self._decoding():
            return [EventRow._make(readable(row)) for row in rows]

    def events(self, run: str | None = None, limit: int = 100) -> list[EventRow]:
        """The newest lines of the audit trail, oldest of them first. For display, never for decisions."""
        with self._transaction() as db:
            key = None if run is None else self._key(db, run)
            rows = db.execute(
                "SELECT seq, at, actor, kind, subject, text FROM events WHERE ?1 IS NULL OR run = ?1"
                " ORDER BY seq DESC LIMIT ?2",
                (key, limit),
            ).fetchall()
        with self._decoding():
            return [EventRow._make(readable(row)) for row in reversed(rows)]

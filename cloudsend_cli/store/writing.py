"""Records into tables, in a transaction that is open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from cloudsend_cli.core.model import EnvironmentBuild
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import BuildRecord, JobRecord, NodeRecord, RentalRecord

from .rows import HOT, Row, encode, hot_row, identity_of_shared, job_key, own_row, pack, shared_part

_SET = ", ".join(f"{name} = ?" for name in HOT)
_UPDATE = f"UPDATE jobs SET {_SET} WHERE key = ?"  # noqa: S608 - made of constants
_UPDATE_BY_USER = (
    f"UPDATE jobs SET {_SET}, opened = opened + (state IN ('succeeded', 'failed', 'cancelled') AND ? = 'pending')"  # noqa: S608
    " WHERE key = ?"
)
_INSERT = (
    f"INSERT INTO jobs ({', '.join(HOT)}, key) VALUES ({', '.join('?' * len(HOT))}, ?) ON CONFLICT (key) DO NOTHING"  # noqa: S608
)
_PUT_SPEC = (
    "INSERT INTO job_specs (name, hash, argv, display, env, params, repeat_index, spec, key)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET name = excluded.name, hash = excluded.hash,"
    " argv = excluded.argv, display = excluded.display, env = excluded.env, params = excluded.params,"
    " repeat_index = excluded.repeat_index, spec = excluded.spec"
)


def put_jobs(db: sqlite3.Connection, key: int, jobs: Mapping[int, JobRecord], *, by_user: bool = False) -> None:
    """Write jobs, known or new. Only a user's change may open a final job again under the same attempt number."""
    rows: list[Row] = [(*hot_row(job), job_key(key, number)) for number, job in jobs.items()]
    if by_user:
        written = db.executemany(_UPDATE_BY_USER, [(*row[:-1], row[1], row[-1]) for row in rows]).rowcount
    else:
        written = db.executemany(_UPDATE, rows).rowcount
    if written < len(rows):
        db.executemany(_INSERT, rows)


def insert_jobs(db: sqlite3.Connection, key: int, jobs: Mapping[int, JobRecord]) -> None:
    db.executemany(_INSERT, [(*hot_row(job), job_key(key, number)) for number, job in jobs.items()])


def put_specs(db: sqlite3.Connection, key: int, jobs: Iterable[JobRecord]) -> None:
    by_identity: dict[tuple[object, ...], int] = {}
    by_digest: dict[str, int] = {}
    rows: list[Row] = []
    for job in jobs:
        identity = identity_of_shared(job.spec)
        shared = by_identity.get(identity)
        if shared is None:
            content, body = shared_part(job.spec)
            if content not in by_digest:
                by_digest[content] = _spec_id(db, content, job.spec.environment, body)
            shared = by_identity[identity] = by_digest[content]
        rows.append((*own_row(job), shared, job_key(key, job.number)))
    db.executemany(_PUT_SPEC, rows)


def _spec_id(db: sqlite3.Connection, content: str, environment: str, body: str) -> int:
    db.execute(
        "INSERT INTO specs (digest, environment, body) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING",
        (content, environment, body),
    )
    return int(db.execute("SELECT id FROM specs WHERE digest = ?", (content,)).fetchone()[0])


def put_nodes(db: sqlite3.Connection, key: int, nodes: Mapping[str, NodeRecord]) -> None:
    db.executemany(
        "INSERT INTO nodes (run, name, provider, instance_id, state, body) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (run, name) DO UPDATE SET provider = excluded.provider, instance_id = excluded.instance_id,"
        " state = excluded.state, body = excluded.body",
        [(key, pack(n.name), pack(n.provider), pack(n.instance_id), n.state, encode(n)) for n in nodes.values()],
    )


def put_builds(db: sqlite3.Connection, key: int, builds: Mapping[tuple[str, str], BuildRecord]) -> None:
    db.executemany(
        "INSERT INTO builds (run, node, environment, body) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (run, node, environment) DO UPDATE SET body = excluded.body",
        [(key, pack(b.node), pack(b.key), encode(b)) for b in builds.values()],
    )


def put_rentals(db: sqlite3.Connection, key: int, rentals: Mapping[str, RentalRecord]) -> None:
    db.executemany(
        "INSERT INTO rentals (run, id, instance_id, body) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (run, id) DO UPDATE SET body = excluded.body",
        [(key, pack(r.id), pack(r.instance_id), encode(r)) for r in rentals.values()],
    )


def put_environments(db: sqlite3.Connection, key: int, environments: Iterable[EnvironmentBuild]) -> None:
    db.executemany(
        "INSERT INTO environments (run, environment, name, body) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (run, environment) DO UPDATE SET name = excluded.name, body = excluded.body",
        [(key, pack(e.key), pack(e.name), encode(e)) for e in environments],
    )


def put_events(db: sqlite3.Connection, key: int | None, events: Sequence[Event], at: float, actor: str) -> None:
    db.executemany(
        "INSERT INTO events (at, actor, run, kind, subject, text) VALUES (?, ?, ?, ?, ?, ?)",
        [(at, actor, key, pack(e.kind), pack(e.subject), pack(e.text)) for e in events],
    )

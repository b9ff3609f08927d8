"""The tables, as SQL text. A released text never changes: a change is a new migration.

A job's key is its run's key times 2**32 plus its number, so that a run's jobs lie side by side. What changes while a
job lives (`jobs`) is apart from what does not (`job_specs`), so that a commit writes few pages; what many jobs have in
common is stored once (`specs`).
"""

from __future__ import annotations

import sqlite3

RUN_SHIFT = 32
STRICT_SINCE = (3, 37, 0)

# INVARIANT: an attempt's end is final. A later attempt, or the user's reopening (which raises `opened`), leaves it
# behind; nothing else does. Tested by tests/store/test_final.py.
_VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) {strict};
CREATE TABLE maestro (
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, owner TEXT NOT NULL, dirty INTEGER NOT NULL
) {strict};
INSERT INTO maestro VALUES (1, 0, '', 0);
CREATE TABLE runs (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, project TEXT NOT NULL,
    config_path TEXT NOT NULL, created_at REAL NOT NULL, ended_at REAL
) {strict};
CREATE INDEX runs_by_config ON runs (config_path);
CREATE TABLE run_records (run INTEGER PRIMARY KEY REFERENCES runs, body TEXT NOT NULL) {strict};
CREATE TABLE specs (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, environment TEXT NOT NULL, body TEXT NOT NULL
) {strict};
CREATE TABLE job_specs (
    key INTEGER PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL, spec INTEGER NOT NULL REFERENCES specs,
    argv TEXT NOT NULL, display TEXT NOT NULL, env TEXT NOT NULL, params TEXT NOT NULL, repeat_index INTEGER NOT NULL
) {strict};
CREATE INDEX job_specs_by_name ON job_specs (name);
CREATE INDEX job_specs_by_hash ON job_specs (hash);
CREATE TABLE jobs (
    key INTEGER PRIMARY KEY,
    created_at REAL NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, exit_code INTEGER, attempt INTEGER NOT NULL,
    failures INTEGER NOT NULL, losses INTEGER NOT NULL, node TEXT NOT NULL, boot TEXT NOT NULL, after TEXT NOT NULL,
    not_before REAL NOT NULL, handed_at REAL, started_at REAL, ended_at REAL, cancel INTEGER NOT NULL,
    fetch TEXT NOT NULL, fetch_tries INTEGER NOT NULL, superseded_by INTEGER NOT NULL, batch INTEGER NOT NULL,
    maxrss INTEGER, cpu_seconds REAL,
    opened INTEGER NOT NULL DEFAULT 0
) {strict};
CREATE TRIGGER final_is_final BEFORE UPDATE ON jobs
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.attempt <= OLD.attempt
    AND (NEW.state <> OLD.state OR NEW.attempt < OLD.attempt)
    AND NOT (NEW.state = 'pending' AND NEW.attempt = OLD.attempt AND NEW.opened > OLD.opened)
BEGIN
    SELECT RAISE (ABORT, 'final: the end of an attempt does not change');
END;
CREATE TABLE attempts (
    job INTEGER NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, exit_code INTEGER,
    node TEXT NOT NULL, handed_at REAL, started_at REAL, ended_at REAL, maxrss INTEGER, cpu_seconds REAL,
    PRIMARY KEY (job, attempt)
) {strict_without_rowid};
CREATE TRIGGER attempt_left AFTER UPDATE ON jobs
WHEN OLD.attempt > 0 AND OLD.state <> 'pending' AND (NEW.state = 'pending' OR NEW.attempt > OLD.attempt)
BEGIN
    INSERT INTO attempts VALUES (
        OLD.key, OLD.attempt,
        CASE OLD.state WHEN 'running' THEN 'failed' ELSE OLD.state END,
        CASE
            WHEN OLD.state <> 'running' THEN OLD.reason
            WHEN NEW.reason LIKE 'retry after %' THEN substr(NEW.reason, 13)
            WHEN coalesce(OLD.started_at, NEW.started_at) IS NULL THEN 'never started'
            ELSE 'preempted'
        END,
        CASE WHEN OLD.state = 'running' AND NEW.state = 'pending' THEN NEW.exit_code ELSE OLD.exit_code END,
        OLD.node, OLD.handed_at,
        CASE WHEN NEW.attempt = OLD.attempt THEN coalesce(NEW.started_at, OLD.started_at) ELSE OLD.started_at END,
        CASE WHEN NEW.attempt = OLD.attempt THEN coalesce(NEW.ended_at, OLD.ended_at) ELSE OLD.ended_at END,
        CASE WHEN NEW.attempt = OLD.attempt THEN coalesce(NEW.maxrss, OLD.maxrss) ELSE OLD.maxrss END,
        CASE WHEN NEW.attempt = OLD.attempt THEN coalesce(NEW.cpu_seconds, OLD.cpu_seconds) ELSE OLD.cpu_seconds END
    ) ON CONFLICT (job, attempt) DO NOTHING;
END;
CREATE TABLE nodes (
    run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, provider TEXT NOT NULL, instance_id TEXT NOT NULL,
    state TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run, name)
) {strict};
CREATE TABLE builds (
    run INTEGER NOT NULL REFERENCES runs, node TEXT NOT NULL, environment TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (run, node, environment)
) {strict};
CREATE TABLE environments (
    run INTEGER NOT NULL REFERENCES runs, environment TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (run, environment)
) {strict};
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, id TEXT NOT NULL, kind TEXT NOT NULL, jobs TEXT,
    at REAL NOT NULL, UNIQUE (run, id)
) {strict};
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, actor TEXT NOT NULL, run INTEGER, kind TEXT NOT NULL,
    subject TEXT NOT NULL, text TEXT NOT NULL
) {strict};
CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT RAISE (ABORT, 'events are only ever added'); END;
CREATE TRIGGER events_stand BEFORE UPDATE ON events BEGIN SELECT RAISE (ABORT, 'events are only ever added'); END;
"""


_VERSION_3 = """
CREATE TABLE rentals (
    run INTEGER NOT NULL REFERENCES runs, id TEXT NOT NULL, instance_id TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (run, id)
) {strict};
"""


def statements(text: str, *, strict: bool | None = None) -> list[str]:
    """One SQL statement each: `executescript` would commit on its own."""
    if strict is None:
        strict = sqlite3.sqlite_version_info >= STRICT_SINCE
    text = text.replace("{strict}", "STRICT" if strict else "")
    text = text.replace("{strict_without_rowid}", "STRICT, WITHOUT ROWID" if strict else "WITHOUT ROWID")
    found, pending = [], ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    return found


def version_1(*, strict: bool | None = None) -> list[str]:
    return statements(_VERSION_1, strict=strict)


def version_3(*, strict: bool | None = None) -> list[str]:
    return statements(_VERSION_3, strict=strict)

"""An end is final; only a later attempt, or the user, leaves it behind. The trigger is tested by itself, too."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudsend_cli.core.model import FINAL_STATES, JOB_STATES
from cloudsend_cli.core.state import Changes, JobRecord, RunState
from cloudsend_cli.errors import CloudsendError
from cloudsend_cli.store.sqlite import SqliteStore

MakeRun = Callable[..., RunState]


def put(store: SqliteStore, job: JobRecord, *, by_user: bool = False, run: str = "abc123") -> JobRecord:
    changes = Changes(jobs={job.number: job})
    if by_user:
        store.write_run(run, lambda state: changes)
    else:
        store.commit(run, store.load(run).run.version, changes)
    return store.load(run).jobs[job.number]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """One for a whole table, of which each row has a run of its own."""
    path = tmp_path_factory.mktemp("shared") / "state"
    path.mkdir(mode=0o700)
    with SqliteStore.open(path) as opened:
        yield opened


@pytest.mark.parametrize("old", sorted(FINAL_STATES))
@pytest.mark.parametrize("new", JOB_STATES)
@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("by_user", [False, True])
def test_what_may_follow_an_end(
    shared: SqliteStore, make_run: MakeRun, old: str, new: str, step: int, by_user: bool
) -> None:
    run = f"{old} {new} {step} {by_user}"
    shared.create_run(make_run(run))
    ended = put(shared, replace(shared.load(run).jobs[1], state=old, attempt=3, node="local-0"), run=run)
    allowed = step == 1 or (step == 0 and (new == old or (by_user and new == "pending")))
    wanted = replace(ended, state=new, attempt=3 + step)
    if allowed:
        assert put(shared, wanted, by_user=by_user, run=run) == wanted
    else:
        with pytest.raises(RuntimeError, match="final"):
            put(shared, wanted, by_user=by_user, run=run)
        assert shared.load(run).jobs[1] == ended


def test_a_final_job_takes_what_does_not_touch_its_end(store: SqliteStore, run: RunState) -> None:
    ended = put(store, replace(run.jobs[1], state="succeeded", attempt=1, fetch="wanted"))
    for changed in (replace(ended, fetch="home"), replace(ended, superseded_by=7)):
        assert put(store, changed) == changed


def test_the_table_itself_refuses(store: SqliteStore, run: RunState, directory: Path) -> None:
    put(store, replace(run.jobs[1], state="failed", attempt=1))
    with sqlite3.connect(directory / "state.db") as db:
        with pytest.raises(sqlite3.IntegrityError, match="final"):
            db.execute("UPDATE jobs SET state = 'running' WHERE state = 'failed'")
        for statement in ("UPDATE events SET text = 'x'", "DELETE FROM events"):
            db.execute("INSERT INTO events (at, actor, kind, subject, text) VALUES (1, 'a', 'k', 's', 't')")
            with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
                db.execute(statement)
    db.close()


def test_history_keeps_every_attempt_that_was_left(store: SqliteStore, run: RunState) -> None:
    job = put(store, replace(run.jobs[1], state="running", attempt=1, node="n1", handed_at=1.0))
    job = put(store, replace(job, started_at=2.0))
    # It failed and is tried again by policy.
    job = put(store, replace(job, state="pending", reason="retry after exit 3", exit_code=3, ended_at=3.0, failures=1))
    job = put(store, replace(job, state="running", reason="", exit_code=None, attempt=2, node="n2", handed_at=4.0,
                             started_at=None, ended_at=None))  # fmt: skip
    # It was taken back before it started.
    job = put(store, replace(job, state="pending"))
    job = put(store, replace(job, state="running", attempt=3, node="n1", handed_at=5.0))
    job = put(store, replace(job, state="succeeded", exit_code=0, started_at=6.0, ended_at=7.0))
    # The user asks for it once more.
    job = put(store, replace(job, state="pending", reason=""), by_user=True)
    put(store, replace(job, state="running", attempt=4, exit_code=None, started_at=None, ended_at=None))
    rows = [(a.attempt, a.state, a.reason, a.exit_code, a.node, a.started_at, a.ended_at)
            for a in store.history("abc123", 1)]  # fmt: skip
    assert rows == [
        (1, "failed", "exit 3", 3, "n1", 2.0, 3.0),
        (2, "failed", "never started", None, "n2", None, None),
        (3, "succeeded", "", 0, "n1", 6.0, 7.0),
    ]


def test_a_loss_is_in_the_history_with_its_start(store: SqliteStore, run: RunState) -> None:
    job = put(store, replace(run.jobs[1], state="running", attempt=1, node="n1", started_at=2.0))
    put(store, replace(job, state="pending", losses=1, reason="retry after lost: restarted", started_at=None))
    (row,) = store.history("abc123", 1)
    assert (row.reason, row.started_at, row.ended_at) == ("lost: restarted", 2.0, None)


def test_two_attempts_in_one_commit(store: SqliteStore, run: RunState) -> None:
    put(store, replace(run.jobs[1], state="running", attempt=1, node="n1", started_at=2.0))
    put(store, replace(run.jobs[1], state="running", attempt=2, node="n2"))
    assert [(a.attempt, a.node) for a in store.history("abc123", 1)] == [(1, "n1")]


def test_a_broken_rule_is_not_told_as_damage(store: SqliteStore, run: RunState) -> None:
    put(store, replace(run.jobs[1], state="failed", attempt=1))
    with pytest.raises(RuntimeError) as caught:
        put(store, replace(run.jobs[1], state="running", attempt=1))
    assert not isinstance(caught.value, CloudsendError)

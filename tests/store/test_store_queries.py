"""Tables and look-ups read rows, not runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cloudsend_cli.core.history import NO_HISTORY
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import Changes, JobRecord, RentalRecord, RunState
from cloudsend_cli.store import queries
from cloudsend_cli.store.sqlite import SqliteStore

MakeRun = Callable[..., RunState]


@pytest.fixture
def filled(store: SqliteStore, make_run: MakeRun) -> SqliteStore:
    store.create_run(make_run("abc123", jobs=10))
    store.create_run(make_run("abd456", jobs=2, ended_at=9.0))
    state = store.load("abc123")
    jobs: dict[int, JobRecord] = {
        1: replace(state.jobs[1], state="succeeded", attempt=1, node="local-0", exit_code=0),
        2: replace(state.jobs[2], state="failed", attempt=1, node="gone", superseded_by=3),
        3: replace(state.jobs[3], state="running", attempt=1, node="local-0"),
    }
    store.commit("abc123", 1, Changes(jobs=jobs))
    return store


def test_runs_are_listed_with_counts_newest_first(filled: SqliteStore) -> None:
    runs = filled.list_runs()
    assert [(r.run.id, r.counts) for r in runs] == [
        ("abd456", {"pending": 2}),
        ("abc123", {"pending": 7, "running": 1, "succeeded": 1}),
    ]
    assert runs[1].run == filled.load("abc123").run
    assert [r.run.id for r in filled.list_runs(limit=1)] == ["abd456"]
    assert filled.run_row("abc123") == runs[1]
    assert filled.count_jobs("abc123", superseded=True)["failed"] == 1


def test_active_runs_have_open_jobs_or_machines(filled: SqliteStore) -> None:
    assert filled.list_active_runs() == ["abc123", "abd456"]  # abd456 has a node that is not released
    state = filled.load("abd456")
    node = replace(state.nodes["local-0"], state="released")
    filled.commit("abd456", 1, Changes(nodes={node.name: node}))
    assert filled.list_active_runs() == ["abc123"]


@pytest.mark.parametrize("page", [1, 3, 10, 10_000])
def test_jobs_are_listed_in_pages(filled: SqliteStore, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(queries, "PAGE", page)
    assert [r.number for r in filled.list_jobs("abc123")] == list(range(1, 11))
    assert [r.number for r in filled.list_jobs("abc123", newest_first=True)] == list(range(10, 0, -1))
    assert [r.number for r in filled.list_jobs("abc123", limit=4)] == [1, 2, 3, 4]
    assert [r.number for r in filled.list_jobs("abc123", limit=4, newest_first=True)] == [10, 9, 8, 7]
    assert [r.number for r in filled.list_jobs("abc123", limit=0)] == []
    assert [r.number for r in filled.list_jobs("abc123", ["failed", "running"])] == [2, 3]
    assert [r.number for r in filled.list_jobs("abc123", ["failed"], superseded=False)] == []
    assert [r.number for r in filled.list_jobs("abc123", [])] == []


def test_a_row_says_what_the_record_says(filled: SqliteStore) -> None:
    state = filled.load("abc123")
    for row in filled.list_jobs("abc123"):
        job = state.jobs[row.number]
        assert (row.run, row.name, row.hash, row.display) == ("abc123", job.spec.name, job.hash, job.spec.display)
        assert (row.params, row.after, row.environment) == (dict(job.spec.params), job.after, job.spec.environment)
        for name in ("state", "reason", "exit_code", "attempt", "node", "boot", "created_at", "not_before",
                     "handed_at", "started_at", "ended_at", "cancel", "fetch", "superseded_by", "batch", "maxrss",
                     "cpu_seconds"):  # fmt: skip
            assert getattr(row, name) == getattr(job, name), name
        assert row.provider == ("local" if job.node == "local-0" else "")


def test_jobs_are_found_by_name_glob_hash_and_number(filled: SqliteStore) -> None:
    def ids(**conditions: object) -> list[tuple[str, int]]:
        return [(r.run, r.number) for r in filled.find_jobs(**conditions)]  # type: ignore[arg-type]

    assert ids(name="train/1") == [("abd456", 1), ("abc123", 1)]
    assert ids(name="train/1", limit=1) == [("abd456", 1)]
    assert ids(run="abc123", name="train/1*") == [("abc123", 10), ("abc123", 1)]
    assert ids(name="train/[!1-9]*") == []
    assert ids(name="nothing") == [] and ids(name="") == []
    assert ids(run="abc123", number=7) == [("abc123", 7)]
    assert ids(run="abc123", number=0) == [] and ids(run="abc123", number=2**40) == []
    content = filled.load("abc123").jobs[4].hash
    assert ids(content=content[:12]) == [("abc123", 4)]
    assert ids(content="zz") == []


def test_runs_are_found_by_prefix_and_by_config(filled: SqliteStore) -> None:
    assert filled.find_runs("ab") == ["abd456", "abc123"]
    assert filled.find_runs("abc123") == ["abc123"]
    assert filled.find_runs("x") == [] and len(filled.find_runs("")) == 2
    assert filled.find_run_of_config("project", "/home/u/config.yml") == "abd456"
    assert filled.find_run_of_config("another", "/home/u/config.yml") is None


def test_a_listing_holds_no_lock_between_pages(filled: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGE", 2)
    rows = filled.list_jobs("abc123")
    next(rows)
    assert filled.commit("abc123", 2, Changes()) == 3
    assert len(list(rows)) == 9


def test_a_glob_finds_all_that_it_fits(filled: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    found = filled.find_jobs(run="abc123", name="train/*")
    assert [r.number for r in found] == list(range(10, 0, -1))
    monkeypatch.setattr(queries, "NAMES_AT_ONCE", 3)
    assert filled.find_jobs(run="abc123", name="train/*") == found
    assert filled.find_jobs(run="abc123", name="train/*", limit=4) == found[:4]


def test_all_but_the_jobs_is_loaded_alone(filled: SqliteStore) -> None:
    frame, whole = filled.load_without_jobs("abc123"), filled.load("abc123")
    assert not frame.jobs
    assert (frame.run, frame.nodes, frame.builds, frame.environments) == (
        whole.run, whole.nodes, whole.builds, whole.environments,
    )  # fmt: skip


def test_rows_tell_slots_and_metrics_without_loading_a_run(filled: SqliteStore) -> None:
    state = filled.load("abc123")
    metrics = (("loss", "0.50"), ("größe", "\0"))
    filled.commit("abc123", state.run.version, Changes(jobs={1: replace(state.jobs[1], slot=3, metrics=metrics)}))
    (row,) = filled.find_jobs(run="abc123", number=1)
    assert row.more == {"slot": 3, "metrics": metrics}
    assert [r.more for r in filled.list_jobs("abc123", limit=2)] == [row.more, {}]


def test_the_last_run_is_the_one_that_was_submitted_last(store: SqliteStore, make_run: MakeRun) -> None:
    assert store.find_last_run() is None
    for run in ("aaaaaa", "bbbbbb"):
        store.create_run(make_run(run))
    assert store.find_last_run() == "bbbbbb", "the newest, where nothing tells of submissions"
    store.create_run(make_run("cccccc"), [Event("submitted", "cccccc", "")])
    assert store.find_last_run() == "cccccc"
    store.write_run("aaaaaa", lambda _: Changes(), [Event("submitted", "aaaaaa", "")])
    store.write_run("bbbbbb", lambda _: Changes(), [Event("node", "bbbbbb", "")])
    assert store.find_last_run() == "aaaaaa"


def test_history_is_of_the_newest_run_that_has_any(store: SqliteStore, make_run: MakeRun) -> None:
    assert store.read_history("p") == NO_HISTORY
    for run, seconds in (("aaaaaa", 10.0), ("bbbbbb", 30.0), ("cccccc", None)):
        state = make_run(run, jobs=3)
        store.create_run(state)
        if seconds is None:
            continue
        ended = {
            n: replace(job, state="succeeded", attempt=1, started_at=100.0, ended_at=100.0 + seconds * n)
            for n, job in state.jobs.items()
            if n < 3
        }
        ended[3] = replace(state.jobs[3], state="failed", attempt=1, started_at=100.0, ended_at=101.0)
        store.commit(run, 1, Changes(jobs=ended))
    first, second, third = (store.load("aaaaaa").jobs[n] for n in (1, 2, 3))
    history = store.read_history(store.load("aaaaaa").run.project)
    assert history.by_name == {first.spec.name: 30.0, second.spec.name: 60.0}
    assert history.expect(first.hash, replace(first.spec, name="another")) == 30.0, (
        "the same content under another name"
    )
    assert history.expect("another", second.spec) == 60.0
    assert history.expect(third.hash, third.spec) == 0.0, "it failed"
    assert store.read_history("another project") == NO_HISTORY


def test_history_tells_how_long_machines_took_to_start(store: SqliteStore, make_run: MakeRun) -> None:
    assert store.read_history("p").starting is None
    for run, launched in (("aaaaaa", 40.0), ("bbbbbb", 70.0), ("cccccc", None)):
        state = make_run(run, jobs=2)
        store.create_run(state)
        node = next(iter(state.nodes))
        started = {n: replace(job, state="running", attempt=1, node=node, started_at=100.0 + n)
                   for n, job in state.jobs.items()}  # fmt: skip
        rentals = {}
        if launched is not None:
            rentals["r"] = RentalRecord("r", "i-1", node, "fake", None, launched)
        store.commit(run, 1, Changes(jobs=started, rentals=rentals))
    assert store.read_history(state.run.project).starting == 31.0, "of the newest run that rented anything"

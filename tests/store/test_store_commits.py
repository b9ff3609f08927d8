"""The contract of a store: what was committed is there, what lost its comparison wrote nothing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudsend_cli.core.model import EnvironmentBuild, JobSpec, Request
from cloudsend_cli.core.ports import Event, Store
from cloudsend_cli.core.state import Changes, JobRecord, RunRecord, RunState
from cloudsend_cli.errors import ConflictError, NotFoundError, StateDirError
from cloudsend_cli.store.rows import HOT, MORE
from cloudsend_cli.store.sqlite import SqliteStore

MakeRun = Callable[..., RunState]
Records = Callable[[RunState], tuple[object, ...]]


def test_is_a_store(store: SqliteStore) -> None:
    port: Store = store
    assert port.list_requests("nobody") == []


def test_every_field_of_a_job_has_its_place() -> None:
    stored = {*HOT, *MORE, "number", "spec", "hash"} - {"more"}
    missing = {f.name for f in dataclasses.fields(JobRecord)} ^ stored
    assert not missing, f"{missing}: a new field of JobRecord needs a column, by a migration, and a place in HOT"


def test_a_created_run_is_loaded_as_it_was(store: SqliteStore, make_run: MakeRun, records: Records) -> None:
    state = make_run(max_parallel=7, settings=(("debug", "1"),), requests_done=("r1",))
    assert store.create_run(state) == 1
    state.set_version(1)
    assert records(store.load("abc123")) == records(state)


def test_order_of_jobs_nodes_and_environments_is_kept(store: SqliteStore, make_run: MakeRun) -> None:
    state = make_run(jobs=20)
    for name in ("z", "a", "m"):
        state.nodes[name] = replace(state.nodes["local-0"], name=name)
        state.environments[name] = EnvironmentBuild(name, name, "")
    store.create_run(state)
    loaded = store.load("abc123")
    assert list(loaded.nodes) == list(state.nodes)
    assert list(loaded.environments) == list(state.environments)
    assert list(loaded.jobs) == list(state.jobs)


def test_an_id_that_is_taken_is_a_conflict(store: SqliteStore, run: RunState, make_run: MakeRun) -> None:
    with pytest.raises(ConflictError):
        store.create_run(make_run(jobs=1))
    assert len(store.load("abc123").jobs) == 3


def test_the_first_run_of_a_config_is_the_first(store: SqliteStore, run: RunState, make_run: MakeRun) -> None:
    with pytest.raises(ConflictError, match="run abc123 of"):
        store.create_run(make_run("abc124"), first=True)
    store.create_run(make_run("abc124"))
    elsewhere = make_run("abc125")
    elsewhere.run = replace(elsewhere.run, config_path="/other.yml")
    store.create_run(elsewhere, first=True)
    assert store.find_run_of_config(run.run.project, run.run.config_path) == "abc124"


def test_what_is_not_there_is_not_found(store: SqliteStore, run: RunState) -> None:
    for ask in (
        lambda: store.load("nobody"),
        lambda: store.commit("nobody", 1, Changes()),
        lambda: store.write_run("nobody", lambda state: Changes()),
        lambda: store.add_request("nobody", Request("r", "cancel")),
        lambda: store.count_jobs("nobody"),
        lambda: store.list_jobs("nobody"),
        lambda: store.history("nobody", 1),
    ):
        with pytest.raises(NotFoundError):
            ask()


def test_a_commit_equals_the_applied_changes(store: SqliteStore, run: RunState, records: Records) -> None:
    changes = Changes(
        run=replace(run.run, cancelled=True, ended_at=5.5),
        jobs={2: replace(run.jobs[2], state="running", attempt=1, node="local-0", boot="b", handed_at=1.25)},
        nodes={
            "local-0": replace(run.nodes["local-0"], state="releasing"),
            "new": replace(run.nodes["local-0"], name="new"),
        },
        builds={k: replace(b, state="wanted") for k, b in run.builds.items()},
    )
    version = store.commit("abc123", run.run.version, changes)
    run.apply(changes)
    run.set_version(version)
    assert records(store.load("abc123")) == records(run)


def test_a_commit_may_add_jobs_and_change_specs(store: SqliteStore, run: RunState, records: Records) -> None:
    spec = replace(run.jobs[1].spec, timeout=None, resources=replace(run.jobs[1].spec.resources, cpus=9.0))
    changes = Changes(jobs={
        1: replace(run.jobs[1], spec=spec),
        4: JobRecord(4, replace(spec, name="more"), "h" * 32, 2000.0, batch=2),
    })  # fmt: skip
    run.set_version(store.commit("abc123", run.run.version, changes))
    run.apply(changes)
    assert records(store.load("abc123")) == records(run)


def test_the_loser_of_a_comparison_writes_nothing(store: SqliteStore, run: RunState, records: Records) -> None:
    first = Changes(jobs={1: replace(run.jobs[1], reason="first")})
    store.commit("abc123", run.run.version, first)
    before = records(store.load("abc123"))
    late = Changes(
        run=replace(run.run, cancelled=True), jobs={1: replace(run.jobs[1], reason="late")}, nodes=run.nodes
    )
    with pytest.raises(ConflictError):
        store.commit("abc123", run.run.version, late, [Event("k", "s")])
    assert records(store.load("abc123")) == before
    assert store.events() == []


def test_an_empty_commit_still_compares_and_swaps(store: SqliteStore, run: RunState) -> None:
    assert store.commit("abc123", 1, Changes()) == 2
    with pytest.raises(ConflictError):
        store.commit("abc123", 1, Changes())


def test_a_maestro_that_was_followed_is_fenced(store: SqliteStore, run: RunState, directory: Path) -> None:
    assert store.epoch() == 0
    old = store.take_epoch('{"pid": 1}')
    store.commit("abc123", 1, Changes(), epoch=old)
    with SqliteStore.open(directory) as other:
        assert other.take_epoch('{"pid": 2}') == old + 1
        with pytest.raises(ConflictError, match="fenced"):
            store.commit("abc123", 2, Changes(run=replace(run.run, cancelled=True)), epoch=old)
        assert not other.load("abc123").run.cancelled
        other.commit("abc123", 2, Changes(), epoch=old + 1)


def test_a_users_write_extends_a_run_that_a_maestro_holds(store: SqliteStore, run: RunState) -> None:
    def extend(state: RunState) -> Changes:
        assert state.environments["new"].script == "s"
        job = replace(state.jobs[1], number=4, spec=replace(state.jobs[1].spec, name="added"))
        return Changes(run=replace(state.run, batch=2), jobs={4: job})

    version = store.write_run("abc123", extend, environments=[EnvironmentBuild("new", "new", "s")])
    assert version == run.run.version + 1
    with pytest.raises(ConflictError):
        store.commit("abc123", run.run.version, Changes())
    again = store.load("abc123")
    assert again.run.batch == 2 and again.jobs[4].spec.name == "added" and "new" in again.environments


def test_a_write_that_changes_nothing_leaves_the_version(store: SqliteStore, run: RunState) -> None:
    assert store.write_run("abc123", lambda state: Changes()) == run.run.version


def test_a_write_whose_update_raises_changes_nothing(store: SqliteStore, run: RunState, records: Records) -> None:
    def fail(state: RunState) -> Changes:
        raise KeyError("a mistake of the caller's")

    before = records(store.load("abc123"))
    with pytest.raises(KeyError, match="caller"):
        store.write_run("abc123", fail, environments=[EnvironmentBuild("new", "new", "s")])
    assert records(store.load("abc123")) == before


class TestRequests:
    def test_one_request_however_often_it_is_put(self, store: SqliteStore, run: RunState) -> None:
        request = Request("r1", "cancel", (1, 2), 7.0)
        assert store.add_request("abc123", request)
        assert not store.add_request("abc123", request)
        assert store.add_request("abc123", Request("r2", "cancel", None, 8.0))
        assert store.list_requests("abc123") == [request, Request("r2", "cancel", None, 8.0)]

    def test_a_request_is_gone_with_the_commit_that_carried_it_out(self, store: SqliteStore, run: RunState) -> None:
        store.add_request("abc123", Request("r1", "cancel"))
        store.add_request("abc123", Request("r2", "cancel"))
        store.commit("abc123", 1, Changes(run=replace(run.run, requests_done=("r1",))))
        assert [r.id for r in store.list_requests("abc123")] == ["r2"]
        assert not store.add_request("abc123", Request("r1", "cancel")), "it was carried out"

    def test_requests_do_not_disturb_the_maestro(self, store: SqliteStore, run: RunState) -> None:
        store.add_request("abc123", Request("r1", "cancel"))
        store.commit("abc123", run.run.version, Changes())

    def test_runs_do_not_see_each_others(self, store: SqliteStore, run: RunState, make_run: MakeRun) -> None:
        store.create_run(make_run("other1"))
        store.add_request("abc123", Request("r1", "cancel"))
        assert store.list_requests("other1") == []
        assert store.add_request("other1", Request("r1", "cancel"))


def test_events_are_signed_and_dated(store: SqliteStore, run: RunState) -> None:
    store.commit("abc123", 1, Changes(), [Event("job-ended", "abc123.1", "exit 3"), Event("node", "abc123/n")])
    found = store.events("abc123")
    assert [(e.at, e.actor, e.kind, e.subject, e.text) for e in found] == [
        (1234.5, "user", "job-ended", "abc123.1", "exit 3"),
        (1234.5, "user", "node", "abc123/n", ""),
    ]
    assert [e.kind for e in store.events(limit=1)] == ["node"]


def test_a_reader_needs_nothing_and_writes_nothing(directory: Path, tmp_path: Path, make_run: MakeRun) -> None:
    with SqliteStore.open(tmp_path / "absent", readonly=True) as empty:
        assert empty.list_runs() == [] and list(empty.find_jobs(name="x")) == []
    assert not (tmp_path / "absent").exists()
    with SqliteStore.open(directory) as writer, SqliteStore.open(directory) as _:
        writer.create_run(make_run())
        with SqliteStore.open(directory, readonly=True) as reader:
            assert len(reader.load("abc123").jobs) == 3
            with pytest.raises(StateDirError):
                reader.commit("abc123", 1, Changes())


def test_a_store_does_not_cross_a_fork(store: SqliteStore, run: RunState) -> None:
    child = os.fork()
    if not child:
        try:
            store.load("abc123")
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_files_are_private_and_the_id_stays(directory: Path) -> None:
    old = os.umask(0)
    try:
        with SqliteStore.open(directory) as store:
            first = store.installation_id()
            store.take_epoch("")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    with SqliteStore.open(directory) as store:
        assert store.installation_id() == first and len(first) == 32


TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates and NULs as well


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spec=st.builds(
        JobSpec,
        name=TEXT,
        argv=st.lists(TEXT, max_size=3).map(tuple),
        display=TEXT,
        env=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
        workdir=TEXT,
        after=st.lists(TEXT, max_size=2).map(tuple),
        params=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
        timeout=st.none() | st.floats(0, 1e6),
        repeat_index=st.integers(0, 10**9),
    ),
    words=st.tuples(TEXT, TEXT, TEXT, TEXT),
    numbers=st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1), st.floats(0, 1e12), st.none() | st.floats(0, 1e12)
    ),
)
def test_any_text_and_number_comes_back(
    store: SqliteStore, make_run: MakeRun, records: Records,
    spec: JobSpec, words: tuple[str, str, str, str], numbers: tuple[int | None, float, float | None],
) -> None:  # fmt: skip
    job = JobRecord(
        1, spec, "h", numbers[1], "failed", words[0], numbers[0], 1, node=words[1], boot=words[2],
        fetch=words[3], ended_at=numbers[2],
    )  # fmt: skip
    run = f"r{len(store.list_runs())}"
    state = RunState(RunRecord(run, words[0], words[1], 1.0, results_dir=words[2]), [job])
    state.set_version(store.create_run(state))
    assert records(store.load(run)) == records(state)
    row = next(iter(store.list_jobs(run)))
    assert (row.name, row.display, row.reason, row.fetch) == (spec.name, spec.display, words[0], words[3])
    assert [r.number for r in store.find_jobs(run=run, name=spec.name)] == [1]
    assert store.find_run_of_config(words[0], words[1]) is not None

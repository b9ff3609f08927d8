"""Indices are derived: a state that changes were applied to equals one that is built from its records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from campaigns import pick
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudsend_cli.core.model import JOB_STATES, NOTHING, EnvironmentBuild, JobSpec, Resources
from cloudsend_cli.core.state import BuildRecord, Changes, JobRecord, Load, NodeRecord, RunRecord, RunState

RUN = RunRecord("rtest1", "p", "/c.yml", 0.0)
NUMBERS = range(1, 7)


def spec(name: str, **values: Any) -> JobSpec:
    return replace(JobSpec(name, ("true",), name), **values)


def rebuilt(state: RunState) -> RunState:
    return RunState(
        state.run, state.jobs.values(), state.nodes.values(), state.builds.values(), state.environments.values()
    )


def indices(state: RunState) -> dict[str, Any]:
    """All that is derived, without the order of arrival and without what is empty."""
    return {
        "counts": {s: n for s, n in state.counts.items() if n},
        "ready": {c: sorted(members) for c, members in state.ready.items() if members},
        "dependents": {n: sorted(d) for n, d in state.dependents.items() if d},
        "dependents_any": {n: sorted(d) for n, d in state.dependents_any.items() if d},
        "stages": (state.stages.begun, {s: n for s, n in state.stages.unfinished.items() if n}),
        "pending": {s: sorted(numbers) for s, numbers in state.stages.pending.items() if numbers},
        "pools": {g: (p.taken, p.running, sum(p.shared.values())) for g, p in state.pools.items() if p.running},
        "idle pools": {(p.taken, sum(p.shared.values())) for p in state.pools.values() if not p.running} - {(0, 0)},
        "waiting_for": state.waiting_for,
        "broken": state.broken,
        "on_node": {n: sorted(members) for n, members in state.on_node.items() if members},
        "load": {n: (load.resources, load.held, load.light) for n, load in state.load.items() if _holds(load)},
        "idle load": {load.resources for load in state.load.values() if not _holds(load)} - {NOTHING},
        "to_fetch": sorted(state.to_fetch),
        "doomed": sorted(state.doomed),
        "superseded": sorted(state.superseded),
        "durations": (round(state.duration_sum, 6), state.duration_count),
        "unfinished": (state.unfinished, state.settled),
        "nodes": state.nodes,
        "builds": state.builds,
    }


def _holds(load: Load) -> bool:
    return load.held + load.light > 0


records = st.builds(
    lambda number, state, cpus, environment, node, after, not_before, fetch, ended, superseded, stage, more: JobRecord(
        number,
        spec(f"j{number}", resources=Resources(cpus), environment=environment, stage=stage, group=more[0]),
        "hash",
        0.0,
        state=state,
        node=node,
        after=tuple(a for a in after if a != number),
        after_any=tuple(a for a in more[1] if a != number),
        slot=more[2],
        memory=more[3],
        not_before=not_before,
        fetch=fetch,
        started_at=1.0,
        ended_at=ended,
        superseded_by=superseded,
    ),
    st.sampled_from(NUMBERS),
    st.sampled_from(JOB_STATES),
    st.sampled_from((0.0, 0.5, 1.0)),
    st.sampled_from(("", "e1")),
    st.sampled_from(("n-0", "n-1")),
    st.lists(st.sampled_from(NUMBERS), max_size=3, unique=True),
    st.sampled_from((0.0, 0.0, 5.0, 50.0)),
    st.sampled_from(("", "wanted", "home")),
    st.sampled_from((None, 0.5, 3.0)),
    st.sampled_from((0, 0, 9)),
    st.sampled_from((0, 0, 1, 2, 3)),
    st.tuples(
        st.sampled_from(("", "g", "h")),
        st.lists(st.sampled_from(NUMBERS), max_size=2, unique=True),
        st.sampled_from((-1, 0, 1, 5)),
        st.sampled_from((0, 0, 1 << 20)),
    ),
)


@pytest.mark.campaign("properties")
@settings(max_examples=pick(150, 400), deadline=None)
@given(st.lists(records, max_size=6), st.lists(st.lists(records, max_size=4), max_size=6))
def test_applied_changes_equal_a_rebuild(first: list[JobRecord], steps: list[list[JobRecord]]) -> None:
    state = RunState(RUN, {r.number: r for r in first}.values())
    for now, step in enumerate(steps):
        state.apply(Changes(jobs={r.number: r for r in step}))
        fresh = rebuilt(state)
        # What is due is in one index or the other, by when it was looked at: compare when both have looked.
        for either in (state, fresh):
            either.pop_delayed(float(now * 10))
        due = {n for _, n in state.delayed}
        assert {n for _, n in fresh.delayed} <= due
        assert indices(state) == indices(fresh)


def test_nodes_builds_and_environments_are_kept() -> None:
    state = RunState(RUN, (), [NodeRecord("n-0", "fake", NOTHING, "{}")], (), [EnvironmentBuild("e1", "e", "true")])
    node, build = NodeRecord("n-1", "fake", NOTHING, "{}"), BuildRecord("n-0", "e1")
    state.apply(Changes(replace(RUN, ended_at=1.0), nodes={"n-1": node}, builds={("n-0", "e1"): build}))
    assert (list(state.nodes), state.builds, state.run.ended_at) == (["n-0", "n-1"], {("n-0", "e1"): build}, 1.0)
    state.set_version(7)
    assert state.run.version == 7
    assert list(state.environments) == ["e1"]
    assert not Changes() and Changes(RUN)


def test_job_reopened_after_its_dependency_succeeded_is_ready() -> None:
    """Seen: a cancelled job that was run again waited for ever for what had succeeded meanwhile."""
    first, second = JobRecord(1, spec("a"), "", 0.0), JobRecord(2, spec("b"), "", 0.0, after=(1,))
    state = RunState(RUN, [first, second])
    assert list(state.ready.values()) == [{1: None}]
    state.apply(Changes(jobs={2: replace(second, state="cancelled")}))
    state.apply(Changes(jobs={1: replace(first, state="succeeded")}))
    state.apply(Changes(jobs={2: second}))
    assert list(state.ready.values()) == [{2: None}]


@pytest.mark.parametrize("many", [2000])
def test_job_that_waits_for_many_is_not_scanned_at_each_end(many: int) -> None:
    """Counts what is read of the dependent's own list."""

    class Counted(tuple[int, ...]):
        read = 0

        def __iter__(self) -> Any:
            Counted.read += 1
            return super().__iter__()

    jobs = [JobRecord(n, spec(f"j{n}"), "", 0.0) for n in range(1, many)]
    last = JobRecord(many, spec("last"), "", 0.0, after=Counted(range(1, many)))
    state = RunState(RUN, [*jobs, last])
    read = Counted.read
    for job in jobs:
        state.apply(Changes(jobs={job.number: replace(job, state="failed")}))
    assert Counted.read == read
    assert (state.broken[many], state.waiting_for[many], list(state.doomed)) == (many - 1, many - 1, [many])


def test_delayed_job_becomes_ready_in_time_and_not_twice() -> None:
    job = JobRecord(1, spec("a"), "", 0.0, not_before=5.0)
    state = RunState(RUN, [job])
    state.apply(Changes(jobs={1: replace(job, not_before=9.0)}))
    state.pop_delayed(6.0)
    assert not state.ready
    state.pop_delayed(9.0)
    assert list(state.ready.values()) == [{1: None}]
    state.apply(Changes(jobs={1: replace(job, state="succeeded")}))
    state.pop_delayed(100.0)
    assert not state.ready


def test_mean_duration_and_live_jobs() -> None:
    done = JobRecord(1, spec("a"), "", 0.0, state="succeeded", started_at=1.0, ended_at=4.0)
    old = replace(done, number=2, ended_at=6.0, superseded_by=1)
    state = RunState(RUN, [done, old])
    assert state.mean_duration == 4.0
    assert [j.number for j in state.live_jobs()] == [1]
    assert RunState(RUN).mean_duration is None
    assert state.attempt_of(replace(done, attempt=3)) == "rtest1.1.3"

"""Sections begin in turn, and jobs of a group share its places: decided from counts, run-wide, at each hand-out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudsend_cli.core.actions import AttemptStart, CancelAttempts, RevokeAttempts, StartAttempts
from cloudsend_cli.core.decide import Decision, decide
from cloudsend_cli.core.model import FINAL_STATES, JobGroup, JobSpec, Observation, Offer, Resources, RunSpec, Slot
from cloudsend_cli.core.naming import job_hash
from cloudsend_cli.core.plan import NodePlan, plan_continue, plan_run
from cloudsend_cli.core.state import Changes, JobRecord, Pool, RunRecord, RunState

from .deciding import NOW, POLICY, UP, change_job, change_node, news, seeing

LIGHT = Resources(cpus=0.0)


def task(stage: int, group: str, n: int, **values: Any) -> JobSpec:
    name = f"{group}/{n}"
    return replace(JobSpec(name, ("t",), "t", stage=stage, group=group, resources=LIGHT, slot_args=True), **values)


def tasks(stage: int, group: str, count: int, **values: Any) -> list[JobSpec]:
    return [task(stage, group, n, **values) for n in range(count)]


def gpus(*values: str) -> tuple[Slot, ...]:
    return tuple((("--gpu", value),) for value in values)


def make_spec(specs: Sequence[JobSpec], *groups: JobGroup) -> RunSpec:
    return RunSpec("p", "/c.yml", tuple(specs), groups=groups)


def make(specs: Sequence[JobSpec], *groups: JobGroup, nodes: int = 1) -> RunState:
    plans = [NodePlan(f"n-{i}", "fake", (Offer("{}", Resources(2.0)),)) for i in range(nodes)]
    state = plan_run(make_spec(specs, *groups), plans, "rtest1", 0.0)
    for i in range(nodes):
        change_node(state, f"n-{i}", state="running", generation=1, instance_id=f"i-{i}", token="t")
    return state


def starts(decision: Decision) -> list[AttemptStart]:
    return [s for a in decision.actions if isinstance(a, StartAttempts) for s in a.attempts]


IDLE = seeing(UP)


def step(state: RunState, seen: Observation = IDLE) -> list[tuple[str, int]]:
    """(job, place) of what was handed out."""
    decision = decide(state, seen, POLICY)
    state.apply(decision.changes)
    return [(s.spec.name, s.slot) for s in starts(decision)]


def end(number: int, attempt: int = 1, **values: Any) -> Observation:
    values = values or {"exit_code": 0}
    return seeing(UP, attempts=news(f"rtest1.{number}.{attempt}", "exited", **values))


# ---- places --------------------------------------------------------------------------------------------------------


def test_each_place_has_one_job_and_the_lowest_free_one_is_given() -> None:
    state = make(tasks(1, "s/g", 6), JobGroup("s/g", gpus("0", "1", "1")))
    assert step(state) == [("s/g/0", 0), ("s/g/1", 1), ("s/g/2", 2)]
    assert step(state) == []
    assert step(state, end(2)) == [("s/g/3", 1)]
    both = {"n-0": {**end(3).attempts["n-0"], **end(1).attempts["n-0"]}}
    assert step(state, seeing(UP, attempts=both)) == [("s/g/4", 0), ("s/g/5", 2)]
    assert [state.jobs[n].slot for n in range(1, 7)] == [0, 1, 2, 1, 0, 2]


def test_attempt_is_told_its_place() -> None:
    state = make(tasks(1, "s/g", 2), JobGroup("s/g", gpus("7", "8")))
    told = starts(decide(state, seeing(UP), POLICY))
    assert [(s.slot, s.pairs) for s in told] == [(0, (("--gpu", "7"),)), (1, (("--gpu", "8"),))]


def test_place_is_kept_while_the_request_is_repeated() -> None:
    state = make(tasks(1, "s/g", 1), JobGroup("s/g", gpus("7")))
    step(state)
    told = decide(state, seeing(replace(UP, reported=frozenset())), POLICY)
    assert [(s.attempt, s.slot, s.pairs) for s in starts(told)] == [("rtest1.1.1", 0, (("--gpu", "7"),))]


@pytest.mark.parametrize(
    "ended",
    [
        end(1, exit_code=3),
        end(1, cause="cancelled"),
        seeing(UP, attempts=news("rtest1.1.1", "cancelled", cause="revoked")),
        seeing(UP, attempts=news("rtest1.1.1", "lost", cause="rebooted")),
        seeing(UP, attempts=news("rtest1.1.1", "refused", cause="wrong-boot")),
    ],
)
def test_place_is_free_again_however_its_attempt_ended(ended: Observation) -> None:
    state = make(tasks(1, "s/g", 2, retries=1), JobGroup("s/g", gpus("7")))
    assert step(state) == [("s/g/0", 0)]
    assert step(state, ended) == [("s/g/1", 0)]


def test_group_without_pairs_does_one_after_another() -> None:
    state = make(tasks(1, "s/g", 2), JobGroup("s/g", ((),)))
    assert step(state) == [("s/g/0", 0)]
    assert step(state, end(1)) == [("s/g/1", 0)]


def test_limit_of_a_group_and_of_the_run_hold_together() -> None:
    state = make(
        [*tasks(1, "s/a", 4), *tasks(1, "s/b", 4)],
        JobGroup("s/a", gpus("0", "1", "2"), max_parallel=2),
        JobGroup("s/b", max_parallel=3),
    )
    state.apply(Changes(replace(state.run, max_parallel=4)))
    assert step(state) == [("s/a/0", 0), ("s/a/1", 1), ("s/b/0", -1), ("s/b/1", -1)]
    assert step(state, end(1)) == [("s/a/2", 0)]
    state.apply(Changes(replace(state.run, max_parallel=None)))
    assert step(state) == [("s/b/2", -1)]


def test_group_of_a_rebuilt_run_is_not_known_and_limits_nothing() -> None:
    assert step(make(tasks(1, "s/g", 3))) == [("s/g/0", -1), ("s/g/1", -1), ("s/g/2", -1)]


def test_jobs_without_cpus_are_spread_and_leave_room_for_others() -> None:
    """Seen: a pool of eight on a machine of two CPUs was given six jobs, and then it took no others."""
    pool = JobGroup("s/g", gpus(*map(str, range(24))))
    state = make([*tasks(1, "s/g", 24), JobSpec("plain", ("p",), "p")], pool, nodes=3)
    seen = Observation(NOW, hosts={f"n-{i}": UP for i in range(3)})
    assert len(step(state, seen)) == 25
    on = [state.jobs[n].node for n in range(1, 25)]
    assert [on.count(f"n-{i}") for i in range(3)] == [8, 8, 8]
    load = state.load[state.jobs[25].node]
    assert (load.held, load.light, load.resources.cpus) == (1, 8, 1.0)


def test_job_without_cpus_waits_for_memory_and_not_behind_a_queue() -> None:
    light = tasks(1, "s/g", 3, resources=Resources(0.0, 3 << 30))
    state = make([*(JobSpec(f"j{n}", ("p",), "p") for n in range(9)), *light], JobGroup("s/g", gpus("0", "1", "2")))
    up = replace(UP, resources=Resources(2.0, 8 << 30))
    change_node(state, capacity=Resources(2.0, 8 << 30))
    given = step(state, seeing(up))
    assert [name for name, slot in given if slot >= 0] == ["s/g/0", "s/g/1"]
    assert state.load["n-0"].resources.cpus > 2.0, "others wait in the machine's queue"
    ended = news("rtest1.10.1", "exited", exit_code=0)
    assert ("s/g/2", 0) in step(state, seeing(up, attempts=ended))


def test_job_without_cpus_is_not_taken_back_to_make_room_for_others() -> None:
    heavy = [JobSpec(f"j{n}", ("p",), "p", resources=Resources(2.0)) for n in range(3)]
    state = make([*heavy, task(1, "s/g", 0)], JobGroup("s/g", ((),)), nodes=2)
    for number in range(1, 5):
        change_job(state, number, state="running", attempt=1, node="n-0", boot="b1", handed_at=NOW - 2.0, slot=0)
    change_job(state, 1, started_at=NOW - 2.0)
    decision = decide(state, Observation(NOW, hosts={"n-0": UP, "n-1": UP}), POLICY)
    assert [a.attempts for a in decision.actions if isinstance(a, RevokeAttempts)] == [("rtest1.3.1",)]


def test_full_group_is_looked_at_no_further() -> None:
    state = make(tasks(1, "s/g", 5000), JobGroup("s/g", gpus("0")))
    step(state)
    (waiting,) = state.ready.values()

    class Unread(dict[int, None]):
        def __iter__(self) -> Any:
            raise AssertionError("what waits was read")

    state.ready[next(iter(state.ready))] = Unread(waiting)
    assert not decide(state, seeing(UP), POLICY).changes


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-1, 9)), max_size=40))
def test_pool_is_a_count_of_what_holds_each_place(moves: list[tuple[bool, int]]) -> None:
    pool, held = Pool(), list[int]()
    for gives, slot in moves:
        if not gives:
            pool.take(slot)
            held.append(slot)
        elif slot in held:
            pool.give_back(slot)
            held.remove(slot)
        taken = {s for s in held if s >= 0}
        assert pool.running == len(held)
        assert {s for s in range(12) if pool.taken >> s & 1} == taken
        assert pool.lowest_free == min(set(range(12)) - taken)


# ---- stages --------------------------------------------------------------------------------------------------------


def staged(*stages: int) -> RunState:
    return RunState(
        RunRecord("rtest1", "p", "/c.yml", 0.0),
        [JobRecord(n, JobSpec(f"j{n}", ("t",), "t", stage=s), "", 0.0) for n, s in enumerate(stages, 1)],
    )


def ready(state: RunState) -> list[int]:
    return sorted(n for members in state.ready.values() for n in members)


def test_stage_begins_when_all_before_it_have_ended_in_whatever_way() -> None:
    state = staged(0, 1, 1, 1, 3, 3, 4)
    assert ready(state) == [1, 2, 3, 4]
    for number, word in ((2, "succeeded"), (3, "failed")):
        change_job(state, number, state=word)
    change_job(state, 4, state="running", node="n-0")
    assert ready(state) == [1]
    change_job(state, 4, state="cancelled")
    assert ready(state) == [1, 5, 6]
    state.apply(Changes(jobs={n: replace(state.jobs[n], state="failed") for n in (5, 6)}))
    assert ready(state) == [1, 7]


def test_superseded_job_that_still_runs_holds_the_next_stage() -> None:
    state = staged(1, 2)
    change_job(state, 1, state="running", node="n-0", superseded_by=9)
    assert ready(state) == []
    change_job(state, 1, state="cancelled")
    assert ready(state) == [2]


def test_stage_waits_again_when_an_earlier_one_is_opened_again() -> None:
    state = staged(1, 2, 3, 3)
    for number in (1, 2):
        change_job(state, number, state="failed")
    assert ready(state) == [3, 4]
    change_job(state, 4, state="running", node="n-0")
    state.apply(Changes(jobs={n: replace(state.jobs[n], state="pending") for n in (1, 2)}))
    assert (ready(state), [n for n in (2, 3) if state.is_gated(state.jobs[n])]) == ([1], [2, 3])
    change_job(state, 4, state="pending")
    assert ready(state) == [1]
    change_job(state, 1, state="succeeded")
    assert ready(state) == [2]
    change_job(state, 2, state="succeeded")
    assert ready(state) == [3, 4]


def test_delayed_job_of_a_later_stage_waits_for_both() -> None:
    state = staged(1, 2)
    change_job(state, 2, not_before=50.0)
    state.pop_delayed(60.0)
    assert ready(state) == [1]
    change_job(state, 1, state="succeeded")
    assert ready(state) == []
    state.pop_delayed(60.0)
    assert ready(state) == [2]


def test_end_within_a_stage_moves_nobody() -> None:
    """The work is in proportion to the news: only the end of a stage touches the next one, each job once."""
    state = staged(*[1] * 300, *[2] * 3000)
    entered = []
    real = state._enter
    state._enter = lambda job: (entered.append(job.number), real(job))[1]  # type: ignore[method-assign,func-returns-value]
    for number in range(1, 300):
        change_job(state, number, state="succeeded")
    assert entered == list(range(1, 300))
    change_job(state, 300, state="failed")
    assert entered[299:] == [300, *range(301, 3301)]


def test_sections_of_a_run_follow_each_other() -> None:
    state = make([*tasks(1, "s/g", 2), task(2, "t/g", 0)], JobGroup("s/g", gpus("0", "1")), JobGroup("t/g", ((),)))
    assert step(state) == [("s/g/0", 0), ("s/g/1", 1)]
    assert step(state, end(1)) == []
    assert step(state, end(2, exit_code=1)) == []
    assert step(state) == [("t/g/0", 0)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["s/a", "s/b"])), min_size=1, max_size=14),
    st.integers(1, 3),
    st.sampled_from([None, 1, 2]),
    st.lists(st.integers(0, 30), max_size=40),
)
def test_no_place_is_held_twice_and_no_stage_is_overtaken(
    kinds: list[tuple[int, str]], places: int, limit: int | None, order: list[int]
) -> None:
    specs = [task(stage, group, n) for n, (stage, group) in enumerate(kinds)]
    groups = (JobGroup("s/a", gpus(*"012"[:places])), JobGroup("s/b", ((), ()), max_parallel=limit))
    state = make(specs, *groups, nodes=2)
    seen = Observation(NOW, hosts={"n-0": UP, "n-1": UP})
    picks = iter(order)
    for _ in range(200):
        before = {j.number for j in state.jobs.values() if j.state == "running"}
        step(state, seen)
        running = [j for j in state.jobs.values() if j.state == "running"]
        held = [(j.spec.group, j.slot) for j in running]
        assert len(set(held)) == len(held)
        assert all(slot < (places if group == "s/a" else 2) for group, slot in held)
        assert limit is None or sum(1 for group, _ in held if group == "s/b") <= limit
        for job in running:
            if job.number not in before:
                earlier = [j for j in state.jobs.values() if 0 < j.spec.stage < job.spec.stage]
                assert all(j.state in FINAL_STATES for j in earlier)
        if running:
            job = running[next(picks, 0) % len(running)]
            ended = {job.node: end(job.number, job.attempt).attempts["n-0"]}
            seen = Observation(NOW, hosts=seen.hosts, attempts=ended)
        else:
            seen = Observation(NOW, hosts=seen.hosts)
    assert all(j.state == "succeeded" for j in state.jobs.values()), "something was starved"


# ---- a config that is run again ------------------------------------------------------------------------------------


def again(state: RunState, specs: Sequence[JobSpec], *groups: JobGroup) -> None:
    plans = [NodePlan(n.name, "fake", (Offer("{}", Resources(2.0)),)) for n in state.nodes.values()]
    state.apply(plan_continue(state, make_spec(specs, *groups), plans, NOW)[0])


def test_attempts_keep_their_places_in_a_pool_that_was_changed() -> None:
    state = make(tasks(1, "s/g", 9), JobGroup("s/g", gpus("0", "1", "1", "2", "3")))
    step(state)
    again(state, tasks(1, "s/g", 9), JobGroup("s/g", gpus("9", "2", "1", "0")))
    assert [state.jobs[n].slot for n in range(1, 6)] == [3, 2, 2, 1, 4]
    assert step(state) == [("s/g/5", 0)]
    assert step(state, end(2)) == [], "the other that has GPU 1 still runs"
    assert step(state, end(3)) == [("s/g/6", 2)]
    assert step(state, end(5)) == [], "it was beyond the pool"
    again(state, tasks(1, "s/g", 9), JobGroup("s/g", gpus("5")))
    assert [state.jobs[n].slot for n in (1, 4, 6, 7)] == [1, 2, 3, 4]
    assert step(state) == [("s/g/7", 0)]
    again(state, tasks(1, "s/g", 9), JobGroup("s/g", gpus("5", "0")))
    assert [state.jobs[n].slot for n in (1, 4, 6, 7, 8)] == [2, 3, 4, 5, 0], "what is beyond a pool stays so"


def test_request_that_was_lost_is_not_repeated_with_a_place_that_is_gone() -> None:
    state = make(tasks(1, "s/g", 1), JobGroup("s/g", gpus("7")))
    step(state)
    again(state, tasks(1, "s/g", 1), JobGroup("s/g", gpus("8")))
    seen = seeing(replace(UP, reported=frozenset()))
    decision = decide(state, seen, POLICY)
    assert starts(decision) == []
    assert [a.attempts for a in decision.actions if isinstance(a, CancelAttempts)] == [("rtest1.1.1",)]
    assert step(state, seeing(UP, attempts=news("rtest1.1.1", "cancelled", cause="cancelled"))) == []
    assert step(state) == [("s/g/0", 0)]
    assert (state.jobs[1].attempt, state.jobs[1].failures) == (2, 0)


def test_request_of_a_rebuilt_run_is_not_repeated_without_its_place() -> None:
    state = make(tasks(1, "s/g", 1))
    change_job(state, 1, state="running", attempt=1, node="n-0", boot="b1", handed_at=1.0, slot=2)
    decision = decide(state, seeing(replace(UP, reported=frozenset())), POLICY)
    assert starts(decision) == []
    assert [a.attempts for a in decision.actions if isinstance(a, CancelAttempts)] == [("rtest1.1.1",)]


def test_pools_of_edited_and_dropped_groups() -> None:
    state = make([*tasks(1, "s/g", 2), task(1, "s/old", 0)], JobGroup("s/g", gpus("0", "1")), JobGroup("s/old", ((),)))
    step(state)
    edited = [task(1, "s/g", 0, argv=("new",)), task(1, "s/g", 1)]
    again(state, edited, JobGroup("s/g", gpus("1", "0")))
    assert [(j.slot, bool(j.superseded_by)) for j in state.jobs.values()] == [
        (1, True),
        (0, False),
        (0, True),
        (-1, False),
    ]
    assert step(state) == []


def test_places_of_a_group_that_is_called_otherwise_are_still_in_use() -> None:
    state = make(
        [*tasks(1, "s/old", 3), *tasks(1, "s/g", 1)], JobGroup("s/old", gpus("0", "1")), JobGroup("s/g", ((),))
    )
    assert step(state) == [("s/old/0", 0), ("s/old/1", 1), ("s/g/0", 0)]
    specs = [*tasks(1, "s/new", 3, argv=("n",)), *tasks(1, "s/g", 1, argv=("g",))]
    renamed = [replace(spec, argv=("t",), display="t") for spec in specs]
    distinct = [replace(spec, params=(("n", str(n)),)) for n, spec in enumerate(renamed)]
    for number, spec in enumerate(distinct, 1):
        change_job(state, number, spec=replace(state.jobs[number].spec, params=spec.params), hash=job_hash(spec))
    again(state, distinct, JobGroup("s/new", gpus("2", "1", "0")), JobGroup("s/g", ((),)))
    assert [(j.spec.group, j.slot) for j in state.jobs.values() if j.state == "running"] == [
        ("s/new", 2), ("s/new", 1), ("s/g", 0),
    ]  # fmt: skip
    assert step(state) == [("s/new/2", 0)]


def test_stage_of_what_runs_follows_the_config() -> None:
    """Its section has become an earlier one: the next must not begin before it has ended."""
    state = make([task(1, "a/g", 0), task(2, "b/g", 0), task(3, "c/g", 0)])
    step(state)
    step(state, end(1))
    assert step(state) == [("b/g/0", -1)]
    again(state, [task(1, "b/g", 0), task(2, "c/g", 0)])
    assert (state.jobs[2].state, state.jobs[2].spec.stage) == ("running", 1)
    assert step(state) == []
    assert step(state, end(2)) == []
    assert step(state) == [("c/g/0", -1)]

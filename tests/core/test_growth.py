"""An attempt that ran out of memory is tried again with more, as far as machines have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.actions import StartAttempts
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.model import UNBOUNDED, JobSpec, Observation, Resources, RunSpec
from cloudsend_cli.core.plan import plan_continue
from cloudsend_cli.core.state import JobRecord, RunState

from .deciding import NOW, POLICY, UP, change_job, change_node, news, seeing, serving, state_with

GIB = 1 << 30
BIG = Resources(2.0, 6 * GIB)


def hungry(capacity: Resources = BIG, **job: Any) -> RunState:
    given = {"retries": 3, "memory_factor": 2.0, "resources": Resources(1.0, 2 * GIB), **job}
    state = change_node(serving(state_with(**given)), capacity=capacity)
    return change_job(state, 1, state="running", attempt=1, node="n-0", boot="b1", handed_at=1.0)


def after_oom(state: RunState, cause: str = "oom", view_has: Resources | None = None) -> JobRecord:
    up = replace(UP, resources=view_has)
    seen = seeing(up, attempts=news(f"rtest1.1.{state.jobs[1].attempt}", "exited", signal=9, cause=cause))
    state.apply(decide(state, seen, POLICY).changes)
    return state.jobs[1]


def begin_again(state: RunState, view_has: Resources | None = None) -> JobSpec:
    later = replace(seeing(replace(UP, resources=view_has)), now=NOW + 100.0)
    state.pop_delayed(later.now)
    decision = decide(state, later, POLICY)
    state.apply(decision.changes)
    (start,) = [s for a in decision.actions if isinstance(a, StartAttempts) for s in a.attempts]
    return start.spec


def test_memory_grows_until_no_machine_has_more() -> None:
    state = hungry()
    job = after_oom(state)
    assert (job.memory, job.spec.resources.memory) == (4 * GIB, 2 * GIB)
    assert job.reason == "retry after oom with 2.0 GiB; the next attempt is given 4.0 GiB"
    assert begin_again(state).resources == Resources(1.0, 4 * GIB)
    assert state.load["n-0"].resources.memory == 4 * GIB
    job = after_oom(state)
    assert (job.memory, job.reason) == (6 * GIB, "retry after oom with 4.0 GiB; the next attempt is given 6.0 GiB")
    assert begin_again(state).resources.memory == 6 * GIB
    job = after_oom(state)
    assert (job.state, job.memory) == ("pending", 6 * GIB)
    assert job.reason == "retry after oom with 6.0 GiB, and no machine has more"
    assert begin_again(state).resources.memory == 6 * GIB
    job = after_oom(state)
    assert (job.state, job.reason, job.failures) == ("failed", "oom", 4)


@pytest.mark.parametrize(
    ("job", "cause"),
    [
        ({"memory_factor": 1.0}, "oom"),
        ({"resources": Resources(1.0)}, "oom"),
        ({}, "timeout"),
    ],
)
def test_memory_does_not_grow_unasked(job: dict[str, Any], cause: str) -> None:
    state = hungry(**job)
    told = after_oom(state, cause)
    assert (told.state, told.memory, told.reason) == ("pending", 0, f"retry after {cause}")


def test_machine_that_has_not_told_its_memory_sets_no_bound() -> None:
    assert after_oom(hungry(UNBOUNDED)).memory == 4 * GIB


def test_machine_on_which_it_cannot_run_for_other_reasons_does_not_count() -> None:
    state = hungry(Resources(2.0, 3 * GIB, 1), resources=Resources(1.0, 2 * GIB, 1))
    state.nodes["n-1"] = replace(state.nodes["n-0"], name="n-1", capacity=Resources(64.0, 512 * GIB))
    assert after_oom(state).memory == 3 * GIB


def test_last_machine_that_is_going_leaves_it_as_it_is() -> None:
    state = hungry()
    change_node(state, retired=True)
    assert after_oom(state).memory == 0


def test_job_that_grew_beyond_what_is_left_is_given_what_there_is() -> None:
    """Seen: the machine with more memory was taken, and the job that had grown failed with no-capacity."""
    state = hungry()
    after_oom(state)
    small = Resources(2.0, 3 * GIB)
    later = replace(seeing(replace(UP, resources=small)), now=NOW + 100.0)
    state.pop_delayed(later.now)
    state.apply(decide(state, later, POLICY).changes)
    assert (state.jobs[1].state, state.jobs[1].memory) == ("pending", 3 * GIB)
    assert begin_again(state, small).resources.memory == 3 * GIB


def test_job_that_never_fits_fails_all_the_same() -> None:
    state = hungry()
    after_oom(state)
    tiny = Resources(2.0, GIB)
    later = replace(seeing(replace(UP, resources=tiny)), now=NOW + 100.0)
    state.pop_delayed(later.now)
    state.apply(decide(state, later, POLICY).changes)
    assert state.jobs[1].reason.startswith("no-capacity: 1 CPU, 4.0 GiB asked")


def test_grown_and_not_grown_jobs_are_looked_at_apart() -> None:
    state = change_node(serving(state_with(2, resources=Resources(1.0, 2 * GIB))), capacity=BIG)
    change_job(state, 1, memory=5 * GIB)
    up = replace(UP, resources=BIG)
    decision = decide(state, Observation(NOW, hosts={"n-0": up}), POLICY)
    given = [s.spec.resources.memory for a in decision.actions if isinstance(a, StartAttempts) for s in a.attempts]
    assert given == [5 * GIB, 2 * GIB]


@pytest.mark.parametrize(
    ("edit", "state", "memory"),
    [
        ({}, "failed", 4 * GIB),
        ({}, "pending", 4 * GIB),
        ({"retries": 1}, "pending", 4 * GIB),
        ({"resources": Resources(1.0, 3 * GIB)}, "failed", 0),
        ({"resources": Resources(1.0, 3 * GIB)}, "pending", 0),
        ({"memory_factor": 1.5}, "failed", 0),
        ({"resources": Resources(1.0, 3 * GIB)}, "running", 4 * GIB),
    ],
)
def test_config_that_is_run_again_keeps_what_was_learnt_unless_it_was_edited(
    edit: dict[str, Any], state: str, memory: int
) -> None:
    run = change_job(hungry(), 1, state=state, memory=4 * GIB, reason="oom")
    spec = replace(run.jobs[1].spec, **edit)
    run.apply(plan_continue(run, RunSpec("p", "/c.yml", (spec,)), [], NOW)[0])
    assert run.jobs[1].memory == memory


def test_it_is_told_what_it_asks_for_and_why() -> None:
    state = hungry()
    after_oom(state)
    told = explain(state, state.jobs[1], {"n-0": UP}, NOW)
    assert told.asks == "1 CPU, 4.0 GiB (grown from 2.0 GiB, which was too little)"
    assert told.reasons == (
        "retry after oom with 2.0 GiB; the next attempt is given 4.0 GiB: not before 1 s from now",
    )
    change_node(state, capacity=Resources(2.0, 3 * GIB))
    ((*_, remark),) = explain(state, state.jobs[1], {}, NOW).nodes
    assert remark == "too small"

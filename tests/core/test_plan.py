"""New runs, and what running a config again means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.history import History
from cloudsend_cli.core.model import EnvironmentBuild, JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.naming import job_hash
from cloudsend_cli.core.plan import (
    UNBOUNDED,
    NodePlan,
    plan_continue,
    plan_run,
)
from cloudsend_cli.core.state import RESULTS_GONE, BuildRecord, Changes, RunState

NODE = NodePlan("n-0", "fake", (Offer("{}", Resources(4.0)),))

# ---- a new run -----------------------------------------------------------------------------------------------------


def job(name: str, **values: Any) -> JobSpec:
    return replace(JobSpec(name, ("run", name), name), **values)


def run(*jobs: JobSpec, nodes: tuple[NodePlan, ...] = (NODE,), **values: Any) -> RunState:
    return plan_run(RunSpec("p", "/c.yml", jobs, **values), nodes, "rtest1", 1.0)


def test_new_run_has_its_jobs_in_order_with_dependencies_as_numbers() -> None:
    state = run(
        job("a/0"), job("a/1"), job("b", after=("a/*",)), job("c", after=("a/*",)), job("d", after=("d", "a/0"))
    )
    assert [j.after for j in state.jobs.values()] == [(), (), (1, 2), (1, 2), (1,)]
    assert (state.run.version, state.run.batch, state.counts) == (0, 1, {"pending": 5})
    assert run(job("a"), nodes=(replace(NODE, offers=(Offer("{}"),)),)).nodes["n-0"].capacity == UNBOUNDED


def test_new_jobs_are_expected_to_take_what_they_took_before() -> None:
    known = job("known")
    history = History({job_hash(known): 5.0}, {"known": 6.0, "edited": 7.0})
    specs = (known, job("edited"), job("new"))
    state = plan_run(RunSpec("p", "/c.yml", specs), [NODE], "rtest1", 1.0, history)
    assert [j.expected for j in state.jobs.values()] == [5.0, 7.0, 0.0]
    changed = RunSpec("p", "/c.yml", (known, job("edited", argv=("other",)), job("new")))
    changes, _ = plan_continue(state, changed, [NODE], 2.0, history)
    assert changes.jobs[4].expected == 7.0


# ---- a run continued -----------------------------------------------------------------------------------------------

ENDS = {
    "pending": {},
    "running": {"attempt": 1, "node": "n-0"},
    "ending": {"state": "running", "attempt": 1, "node": "n-0", "cancel": True},
    "succeeded": {"attempt": 1},
    "failed": {"attempt": 2, "failures": 3, "losses": 1, "reason": "exit 3", "fetch": "home"},
    "cancelled": {"attempt": 1, "cancel": True, "reason": "cancelled by the user"},
}


def earlier(state: str, **values: Any) -> RunState:
    planned = run(job("a", **values), job("other"))
    old = replace(planned.jobs[1], **{"state": state, **ENDS[state]})
    planned.apply(Changes(jobs={1: old}))
    return planned


def again(state: RunState, *jobs: JobSpec, **values: Any) -> tuple[RunState, dict[str, tuple[int, ...]]]:
    before = dict(state.jobs)
    changes, continued = plan_continue(state, RunSpec("p", "/c.yml", jobs, **values), (NODE,), 9.0)
    assert state.jobs == before
    state.apply(changes)
    assert set(before) <= set(state.jobs)
    groups = {g: getattr(continued, g) for g in ("kept", "attached", "reopened", "added", "superseded", "dropped")}
    return state, {g: n for g, n in groups.items() if n}


SAME, EDITED = job("a"), job("a", argv=("run", "edited"))
OTHER = {"attached": (2,)}


@pytest.mark.parametrize(
    ("old", "new", "groups", "states"),
    [
        ("pending", SAME, {"attached": (1, 2)}, {1: "pending"}),
        ("running", SAME, {"attached": (1, 2)}, {1: "running"}),
        ("ending", SAME, {"added": (3,), **OTHER}, {1: "running", 3: "pending"}),
        ("succeeded", SAME, {"kept": (1,), **OTHER}, {1: "succeeded"}),
        ("failed", SAME, {"reopened": (1,), **OTHER}, {1: "pending"}),
        ("cancelled", SAME, {"reopened": (1,), **OTHER}, {1: "pending"}),
        ("pending", EDITED, {"superseded": (1,), "added": (3,), **OTHER}, {1: "cancelled", 3: "pending"}),
        ("running", EDITED, {"superseded": (1,), "added": (3,), **OTHER}, {1: "running", 3: "pending"}),
        ("succeeded", EDITED, {"superseded": (1,), "added": (3,), **OTHER}, {1: "succeeded", 3: "pending"}),
        ("failed", EDITED, {"superseded": (1,), "added": (3,), **OTHER}, {1: "failed", 3: "pending"}),
        ("pending", None, {"dropped": (1,), **OTHER}, {1: "cancelled"}),
        ("running", None, {"dropped": (1,), **OTHER}, {1: "running"}),
        ("succeeded", None, {"dropped": (1,), **OTHER}, {1: "succeeded"}),
        ("pending", job("z", argv=SAME.argv), {"attached": (1, 2)}, {1: "pending"}),
        ("succeeded", job("z", argv=SAME.argv), {"kept": (1,), **OTHER}, {1: "succeeded"}),
        ("failed", job("z", argv=SAME.argv), {"reopened": (1,), **OTHER}, {1: "pending"}),
    ],
)
def test_config_run_again(
    old: str, new: JobSpec | None, groups: dict[str, tuple[int, ...]], states: dict[int, str]
) -> None:
    state, found = again(earlier(old), *([new] if new is not None else []), job("other"))
    assert found == groups
    assert {n: state.jobs[n].state for n in states} == states
    assert state.run.batch == 2
    live = [j.spec.name for j in state.live_jobs()]
    assert len(live) == len(set(live)) == (2 if new is not None else 1)
    for number, record in state.jobs.items():
        if record.superseded_by and record.state == "running":
            assert record.cancel, f"job {number} goes on although nobody wants it"


def test_job_whose_results_went_with_its_machine_is_done_again() -> None:
    """Seen: a machine died between the end of a job and the fetch, and no run of the config brought the results."""
    state = earlier("succeeded")
    state.apply(Changes(jobs={1: replace(state.jobs[1], fetch=f"{RESULTS_GONE}, which was preempted")}))
    changes, continued = plan_continue(state, RunSpec("p", "/c.yml", (job("a"), job("other"))), (NODE,), 5.0)
    assert continued.reopened == (1,)
    assert (changes.jobs[1].state, changes.jobs[1].fetch) == ("pending", "")


def test_reopened_job_counts_its_retries_anew_and_keeps_its_attempt_number() -> None:
    state, _ = again(earlier("failed"), replace(SAME, retries=5), job("other"))
    record = state.jobs[1]
    assert (record.attempt, record.failures, record.losses, record.fetch, record.reason) == (2, 0, 0, "", "")
    assert (record.spec.retries, record.cancel, record.batch) == (5, False, 2)


def test_c19_attached_attempt_keeps_the_spec_it_was_started_with() -> None:
    state, _ = again(earlier("running"), replace(SAME, retries=5), job("other"))
    assert state.jobs[1].spec.retries == 0
    state, _ = again(earlier("pending"), replace(SAME, retries=5), job("other"))
    assert state.jobs[1].spec.retries == 5


@pytest.mark.parametrize("old", ["pending", "running", "succeeded"])
def test_dependency_on_a_renamed_job_holds(old: str) -> None:
    """Seen: what came after a running job that was renamed started at once."""
    state, _ = again(earlier(old), job("z", argv=SAME.argv), job("other", after=("z",)))
    assert state.jobs[2].after == (1,)
    assert state.waiting_for[2] == (0 if old == "succeeded" else 1)


def test_dependency_that_is_gone_is_gone() -> None:
    state = run(job("a"), job("b", after=("a",)))
    state, _ = again(state, job("b"))
    assert state.jobs[2].after == ()
    assert not state.doomed


def test_run_that_ended_is_open_again_with_its_machines_and_environments() -> None:
    state = run(job("a", environment="e1"), environments=(EnvironmentBuild("e1", "e", "true"),))
    state.apply(
        Changes(
            replace(state.run, ended_at=5.0, cancelled=True),
            nodes={"n-0": replace(state.nodes["n-0"], state="failed", reason="quota", generation=2)},
            builds={
                ("n-0", "e1"): BuildRecord("n-0", "e1", 2, "failed", reason="exit 1", losses=1),
                ("n-0", "e2"): BuildRecord("n-0", "e2", 1, "succeeded"),
            },
        )
    )
    state, _ = again(state, job("a", environment="e1"), max_parallel=3, results_dir="/r")
    assert (state.run.ended_at, state.run.cancelled, state.run.max_parallel) == (None, False, 3)
    node = state.nodes["n-0"]
    assert (node.state, node.generation, node.reason) == ("wanted", 2, "")
    assert state.builds["n-0", "e1"] == BuildRecord("n-0", "e1", 3, "wanted")
    assert state.builds["n-0", "e2"].state == "succeeded"
    state.apply(Changes(nodes={"n-0": replace(node, state="running")}))
    state, _ = again(state, job("a", environment="e1"))
    assert state.nodes["n-0"].state == "running"


def test_jobs_that_waited_for_what_failed_wait_again() -> None:
    state = run(job("a"), job("b", after=("a",)))
    failed = {n: replace(j, state="failed", reason="exit 1") for n, j in state.jobs.items()}
    state.apply(Changes(jobs=failed))
    state, found = again(state, job("a"), job("b", after=("a",)))
    assert found == {"reopened": (1, 2)}
    assert (state.waiting_for[2], state.broken[2], dict(state.doomed)) == (1, 0, {})


def point(name: str, value: str) -> JobSpec:
    return job(name, argv=("run", value))


def test_sweep_that_grows_keeps_its_points_although_they_are_numbered_anew() -> None:
    state = run(*(point(f"g/{n}", x) for n, x in enumerate("ace")))
    state.apply(Changes(jobs={n: replace(j, state="succeeded", attempt=1) for n, j in state.jobs.items()}))
    state, found = again(state, *(point(f"g/{n}", x) for n, x in enumerate("abcde")))
    assert found == {"kept": (1, 2, 3), "added": (4, 5)}
    assert [state.jobs[n].spec.name for n in range(1, 6)] == ["g/0", "g/2", "g/4", "g/1", "g/3"]
    state, found = again(state, *(point(f"g/{n}", x) for n, x in enumerate("eac")))
    assert found == {"kept": (3, 1, 2), "dropped": (4, 5)}
    assert [state.jobs[n].spec.name for n in range(1, 4)] == ["g/1", "g/2", "g/0"]


def test_running_job_keeps_its_name_and_is_ended_where_another_one_is_to_have_it() -> None:
    state = run(point("g/0", "a"), point("g/1", "b"))
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="running", attempt=1)}))
    state, found = again(state, point("g/0", "b"), point("g/1", "a"))
    assert found == {"attached": (2,), "dropped": (1,), "added": (3,)}
    assert state.jobs[1].cancel and state.jobs[2].spec.name == "g/0" and state.jobs[3].spec.name == "g/1"


def test_jobs_of_equal_content_go_on_each_by_its_name() -> None:
    state = run(point("a", "x"), point("b", "x"))
    state.apply(Changes(jobs={n: replace(j, state="succeeded", attempt=1) for n, j in state.jobs.items()}))
    state, found = again(state, point("b", "x"), point("c", "y"), point("a", "z"))
    assert found == {"kept": (2,), "superseded": (1,), "added": (3, 4)}
    assert (state.jobs[1].superseded_by, state.jobs[4].spec.name) == (4, "a")


def test_names_of_the_config_stand_for_the_jobs_that_it_goes_on_with() -> None:
    state = run(point("g/0", "a"), point("g/1", "b"), point("g/2", "c"))
    running = replace(state.jobs[2], state="running", attempt=1)
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="succeeded", attempt=1), 2: running}))
    spec = RunSpec("p", "/c.yml", (point("g/0", "a"), point("g/3", "b"), point("g/2", "e")))
    changes, continued = plan_continue(state, spec, (NODE,), 9.0)
    assert continued.numbers == {"g/0": 1, "g/3": 2, "g/2": 4}
    assert 2 not in changes.jobs and state.jobs[2].spec.name == "g/1"  # by which it was started

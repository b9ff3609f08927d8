"""Which jobs `decide` hands out, to whom, and what it takes back again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.actions import (
    AckAttempts,
    RevokeAttempts,
    StartAttempts,
)
from cloudsend_cli.core.decide import Decision, decide
from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.model import (
    JobSpec,
    Observation,
    Output,
    Request,
    Resources,
    RunSpec,
    Upload,
)
from cloudsend_cli.core.plan import plan_run
from cloudsend_cli.core.state import BuildRecord, Changes, RunState

from .deciding import NOW, POLICY, UP, change_job, change_node, news, running, seeing, serving, state_with


def handed(decision: Decision) -> list[int]:
    starts = [a for a in decision.actions if isinstance(a, StartAttempts)]
    return [int(s.attempt.split(".")[1]) for a in starts for s in a.attempts]


def test_hosts_are_given_more_than_they_run_but_not_everything() -> None:
    decision = decide(serving(state_with(50)), seeing(UP), POLICY)
    assert handed(decision) == list(range(1, 2 + POLICY.ahead + 1))
    assert decision.wake_at == NOW


def test_quick_jobs_are_handed_out_in_larger_numbers() -> None:
    state = serving(state_with(4000))
    ends = {n: replace(state.jobs[n], state="succeeded", started_at=1.0, ended_at=1.0078125) for n in range(1, 50)}
    state.apply(Changes(jobs=ends))
    assert len(handed(decide(state, seeing(UP), POLICY))) == 128
    assert len(handed(decide(state, seeing(UP), replace(POLICY, hand_out_most=7)))) == 7


def test_place_of_a_job_that_ends_now_is_given_away_now() -> None:
    """Seen: with max_parallel 1 the second job was never started, as nothing happened any more."""
    state = running(state_with(2))
    state.apply(Changes(replace(state.run, max_parallel=1)))
    assert handed(decide(state, seeing(UP), POLICY)) == []
    decision = decide(state, seeing(UP, attempts=news("rtest1.1.2", "exited", exit_code=0)), POLICY)
    assert handed(decision) == [2]


def test_full_disk_holds_back_what_its_machine_would_be_given_and_says_so() -> None:
    """Seen: a machine with a full disk took job after job from the others and failed each at once."""
    state = change_node(serving(state_with(nodes=2)), "n-1", state="running", generation=1, instance_id="i-2")
    full, well = replace(UP, full=True), replace(UP)
    decision = decide(state, seeing(full, hosts={"n-0": full, "n-1": well}), POLICY)
    assert [a.node for a in decision.actions if isinstance(a, StartAttempts)] == ["n-1"]
    alone = serving(state_with())
    decision = decide(alone, seeing(full), POLICY)
    assert not handed(decision) and 1 not in decision.changes.jobs
    told = explain(alone, alone.jobs[1], {"n-0": full}, NOW)
    assert told.reasons == ("n-0: its disk is full, and nothing is handed to it for a while",)
    assert [remark for *_, remark in told.nodes] == ["its disk is full"]


def test_job_that_fits_nowhere_fails_although_a_machine_was_refused() -> None:
    state = change_node(serving(state_with(nodes=2, resources=Resources(3.0))), "n-1", state="failed", reason="quota")
    job = decide(state, seeing(UP), POLICY).changes.jobs[1]
    assert (job.state, job.reason) == ("failed", "no-capacity: 3 CPUs asked, the largest has 2 CPUs")


def test_environment_that_failed_on_all_large_machines_fails_its_jobs() -> None:
    state = serving(state_with(nodes=2, environment="e1", resources=Resources(2.0)))
    change_node(state, "n-1", state="running", capacity=Resources(1.0))
    state.apply(Changes(builds={("n-0", "e1"): BuildRecord("n-0", "e1", state="failed", reason="exit 1")}))
    seen = Observation(NOW, hosts={"n-0": UP, "n-1": replace(UP, resources=Resources(1.0))})
    job = decide(state, seen, POLICY).changes.jobs[1]
    assert (job.state, job.reason) == ("failed", "environment-failed: exit 1")


def test_nothing_planned_fails_what_waits() -> None:
    job = decide(state_with(nodes=0), seeing(), POLICY).changes.jobs[1]
    assert job.reason == "no-capacity: no machine is planned"


def test_full_place_beside_an_idle_one_does_not_busy_the_maestro() -> None:
    """Seen: a large job waited for a large machine, a small machine was idle, and the maestro ticked without end."""
    state = serving(state_with(12, nodes=2, resources=Resources(2.0)))
    change_node(state, "n-1", state="running", capacity=Resources(1.0))
    seen = Observation(NOW, hosts={"n-0": UP, "n-1": replace(UP, resources=Resources(1.0))})
    state.apply(decide(state, seen, POLICY).changes)
    rest = decide(state, seen, POLICY)
    assert not rest.changes
    assert rest.wake_at == NOW + POLICY.look_idle


def test_job_that_is_cancelled_now_is_not_handed_out_now() -> None:
    decision = decide(serving(state_with(2)), seeing(UP, requests=(Request("r", "cancel", (1,)),)), POLICY)
    assert handed(decision) == [2]
    misfits = serving(state_with(2, resources=Resources(9.0)))
    ended = decide(misfits, seeing(UP, requests=(Request("r", "cancel", (1,)),)), POLICY).changes.jobs
    assert [j.state for j in ended.values()] == ["cancelled", "failed"]


def test_job_that_is_cancelled_while_its_dependency_fails_is_cancelled() -> None:
    state = plan_run(
        RunSpec("p", "/c.yml", (JobSpec("a", (), "a"), JobSpec("b", (), "b", after=("a",)))), [], "rtest1", 0.0
    )
    change_job(state, 1, state="failed", reason="exit 1")
    decision = decide(state, seeing(requests=(Request("r", "cancel", (2,)),)), POLICY)
    assert decision.changes.jobs[2].state == "cancelled"
    assert decide(state, seeing(), POLICY).changes.jobs[2].reason == "dependency-failed: a"


def test_results_of_an_earlier_life_are_no_news() -> None:
    for attempt in ("rtest1.1.1", "rtest1.9.1", "rtest1.env-k.1"):
        assert not decide(running(state_with()), seeing(UP, fetched={attempt: ""}), POLICY).changes


def test_results_that_come_a_second_time_change_nothing_and_are_acknowledged() -> None:
    state = change_job(serving(state_with()), state="succeeded", node="n-0", attempt=1, fetch="home")
    decision = decide(state, seeing(UP, fetched={"rtest1.1.1": ""}), POLICY)
    assert not decision.changes.jobs
    assert [action.attempts for action in decision.actions if isinstance(action, AckAttempts)] == [("rtest1.1.1",)]


def test_results_of_an_earlier_attempt_do_not_count_for_the_newest() -> None:
    output = (Output("out"),)
    state = running(state_with(outputs=output))
    change_job(state, 1, attempt=2, state="succeeded", fetch="wanted")
    late, own = (state.run.id + f".1.{a}" for a in (1, 2))
    assert not decide(state, seeing(UP, fetched={late: ""}), POLICY).changes.jobs
    assert decide(state, seeing(UP, fetched={own: ""}), POLICY).changes.jobs[1].fetch == "home"


def test_files_of_several_attempts_are_sent_once() -> None:
    upload = Upload("data", "ab" * 32, 3, 0o644, "/data")
    decision = decide(serving(state_with(3, uploads=(upload,))), seeing(UP), POLICY)
    (start,) = [a for a in decision.actions if isinstance(a, StartAttempts)]
    assert (len(start.attempts), start.files) == (3, (upload,))


# ---- balance -------------------------------------------------------------------------------------------------------


def crowded(**late: Any) -> tuple[RunState, Observation]:
    """n-0 holds three jobs of two CPUs, of which it can run one; n-1 is idle."""
    state = serving(state_with(jobs=3, nodes=2, resources=Resources(2.0)))
    change_node(state, "n-1", state="running", instance_id="i-2")
    for number in (1, 2, 3):
        change_job(state, number, state="running", attempt=1, node="n-0", boot="b1", handed_at=NOW - 2.0)
    change_job(state, 1, started_at=NOW - 2.0)
    change_job(state, 3, **late)
    return state, Observation(NOW, hosts={"n-0": UP, "n-1": UP})


def revoked(decision: Decision) -> list[str]:
    return [a for action in decision.actions if isinstance(action, RevokeAttempts) for a in action.attempts]


def test_what_waits_behind_others_is_taken_back_for_an_idle_machine() -> None:
    """Seen: the machine that answered first was given all jobs of an hour each, and the others watched."""
    state, seen = crowded()
    decision = decide(state, seen, POLICY)
    assert revoked(decision) == ["rtest1.3.1"]
    assert decision.changes.jobs[3].not_before == NOW + POLICY.take_back_again
    state.apply(decision.changes)
    assert not revoked(decide(state, seen, POLICY)), "asked for twice"
    back = replace(seen, attempts=news("rtest1.3.1", "cancelled", cause="revoked"))
    state.apply(decide(state, back, POLICY).changes)
    again = decide(state, seen, POLICY).changes.jobs[3]
    assert (again.state, again.node, again.attempt) == ("running", "n-1", 2)


@pytest.mark.parametrize("scarce", [{"gpus": 1}, {"memory": 6 << 30}], ids=["gpus", "memory"])
def test_what_waits_for_a_gpu_or_for_memory_is_taken_back_as_well(scarce: dict[str, int]) -> None:
    """Seen: the machine that answered first was given all jobs with a GPU, as they asked for few CPUs."""
    state, seen = crowded()
    for number in (1, 2, 3):
        light = Resources(0.1, **scarce) if number != 2 else Resources(0.1)
        change_job(state, number, spec=replace(state.jobs[number].spec, resources=light))
    has = Resources(8.0, 8 << 30, 1)
    for name in ("n-0", "n-1"):
        change_node(state, name, capacity=has)
    seen = replace(seen, hosts=dict.fromkeys(("n-0", "n-1"), replace(UP, resources=has)))
    assert revoked(decide(state, seen, POLICY)) == ["rtest1.3.1"], "job 2 waits for nothing that is scarce"


@pytest.mark.parametrize("late", [{"handed_at": NOW}, {"started_at": NOW}, {"cancel": True}])
def test_what_may_start_where_it_is_is_left_there(late: dict[str, Any]) -> None:
    state, seen = crowded(**late)
    change_job(state, 2, **late)
    decision = decide(state, seen, POLICY)
    assert not revoked(decision)
    assert decision.wake_at == (NOW + POLICY.take_back_after if "handed_at" in late else NOW + POLICY.look_idle)

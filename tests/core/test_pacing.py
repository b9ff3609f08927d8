"""`delay`: places of pools that are given for the first time begin one after another."""

from __future__ import annotations

from dataclasses import replace

from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.model import JobGroup, JobSpec, Offer, Resources, RunSpec, Slot
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.pools import read_delay
from cloudsend_cli.core.state import Changes, RunState

from .deciding import NOW, POLICY, UP, change_job, change_node, seeing

PLACES: tuple[Slot, ...] = tuple((("--gpu", str(n)),) for n in range(3))


def make(*settings: tuple[str, str]) -> RunState:
    """A group of three places with six tasks, beside a job of no group."""
    light = Resources(cpus=0.0)
    jobs = [JobSpec(f"s/g/{n}", ("t",), "t", stage=1, group="s/g", resources=light) for n in range(6)]
    plan = NodePlan("n-0", "fake", (Offer("{}", Resources(2.0)),))
    spec = RunSpec("p", "/c.yml", (*jobs, JobSpec("other", ("t",), "t")), settings=settings)
    state = plan_run(replace(spec, groups=(JobGroup("s/g", PLACES),)), [plan], "rtest1", 0.0)
    change_node(state, "n-0", state="running", generation=1, instance_id="i-0", token="t")
    return state


def hand_out(state: RunState, now: float) -> tuple[list[int], float | None]:
    """Numbers of the jobs that were handed out, and when it is looked at again."""
    seen = replace(seeing(UP), now=now)
    decision = decide(state, seen, POLICY)
    state.apply(decision.changes)
    return sorted(decision.changes.jobs), decision.wake_at


def test_places_are_opened_one_after_another() -> None:
    state = make(("delay", "5"))
    assert hand_out(state, NOW)[0] == [1, 7]
    assert hand_out(state, NOW) == ([], NOW + 5)
    assert hand_out(state, NOW + 4.9) == ([], NOW + 5)
    assert hand_out(state, NOW + 5)[0] == [2]
    assert hand_out(state, NOW + 12)[0] == [3]


def test_a_place_that_was_open_is_given_again_at_once() -> None:
    state = make(("delay", "5"))
    hand_out(state, NOW)
    change_job(state, 1, state="succeeded", started_at=NOW, ended_at=NOW + 1)
    assert hand_out(state, NOW + 1)[0] == [2], "the first place, again"
    assert state.jobs[2].slot == 0
    assert hand_out(state, NOW + 1) == ([], NOW + 5)


def test_what_was_opened_is_known_to_the_next_maestro() -> None:
    state = make(("delay", "5"))
    hand_out(state, NOW)
    again = RunState(state.run, state.jobs.values(), state.nodes.values())
    assert hand_out(again, NOW + 1) == ([], NOW + 5)


def test_what_waits_for_its_place_to_begin_is_told_so() -> None:
    state = make(("delay", "5"))
    hand_out(state, NOW)
    said = "a place of group s/g begins `delay` after the one before it: 3 s from now"
    assert said in explain(state, state.jobs[2], {"n-0": UP}, NOW + 2).reasons
    assert said not in explain(state, state.jobs[2], {"n-0": UP}, NOW + 5).reasons


def test_without_a_delay_all_begin_at_once() -> None:
    assert hand_out(make(), NOW)[0] == [1, 2, 3, 7]
    assert hand_out(make(("delay", "0")), NOW)[0] == [1, 2, 3, 7]
    assert (read_delay(()), read_delay((("delay", "1.5"),))) == (0.0, 1.5)


def test_tasks_of_a_pool_keep_their_order_however_long_they_take() -> None:
    first = make()
    jobs = [replace(j, expected=1000.0 if j.number in {2, 5} else 1.0) for j in first.jobs.values()]
    state = RunState(first.run, jobs, first.nodes.values())
    assert hand_out(state, NOW)[0] == [1, 2, 3, 7]
    state = RunState(first.run, jobs, first.nodes.values())
    state.apply(Changes(run=replace(state.run, groups=(JobGroup("s/g", max_parallel=2),), max_parallel=2)))
    assert hand_out(state, NOW)[0] == [2, 5], "without a pool the longest comes first"


def test_what_would_wait_in_a_queue_takes_no_place_of_what_could_start() -> None:
    """Seen: with `max_parallel: 2` a second job of two CPUs waited behind the first, and a task behind both."""
    light = Resources(cpus=0.0)
    jobs = [JobSpec(f"wide{n}", ("t",), "t", resources=Resources(2.0)) for n in range(3)]
    jobs.append(JobSpec("s/g/0", ("t",), "t", group="s/g", resources=light))
    plan = NodePlan("n-0", "fake", (Offer("{}", Resources(2.0)),))
    spec = RunSpec("p", "/c.yml", tuple(jobs), max_parallel=2, groups=(JobGroup("s/g", PLACES),))
    state = plan_run(spec, [plan], "rtest1", 0.0)
    change_node(state, "n-0", state="running", generation=1, instance_id="i-0", token="t")
    assert hand_out(state, NOW)[0] == [1, 4]
    change_job(state, 4, state="succeeded", started_at=NOW, ended_at=NOW + 1)
    assert hand_out(state, NOW + 1)[0] == [2], "nothing else could start: it waits on the machine"


def test_a_named_slot_that_is_in_use_is_told() -> None:
    one, two = (JobSpec(name, ("t",), "t", slots=("licence",)) for name in ("first", "second"))
    plan = NodePlan("n-0", "fake", (Offer("{}", Resources(2.0)),))
    state = plan_run(RunSpec("p", "/c.yml", (one, two)), [plan], "rtest1", 0.0)
    change_node(state, "n-0", state="running", generation=1, instance_id="i-0", token="t")
    hand_out(state, NOW)
    told = "its slot 'licence' of n-0 is in use by first"
    assert told not in explain(state, state.jobs[2], {"n-0": UP}, NOW).reasons
    change_job(state, 1, started_at=NOW)
    assert told in explain(state, state.jobs[2], {"n-0": UP}, NOW).reasons

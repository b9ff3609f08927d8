"""The number of rented machines follows the queue: as many as hold what is executed and what is ready, no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudsend_cli.core.actions import CreateInstance
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.demand import Demand, plan_demand
from cloudsend_cli.core.draft import Draft
from cloudsend_cli.core.model import (
    EnvironmentBuild,
    HostView,
    JobGroup,
    JobSpec,
    Observation,
    Offer,
    Policy,
    Resources,
    RunSpec,
)
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import BuildRecord, Changes, RentalRecord, RunState

NOW = 1000.0
POLICY = Policy()
TWO = Resources(2.0)
SMALL = (Offer('"small"', TWO, 0.1, "small", "limit"),)
LARGE = (Offer('"large"', Resources(16.0), 1.0, "large", "limit"),)
UP = HostView(True, "b1", 0.0, TWO, armed=True)


def jobs(count: int, name: str = "j", **values: Any) -> list[JobSpec]:
    return [replace(JobSpec(f"{name}{n}", ("true",), "true"), **values) for n in range(1, count + 1)]


def plan(
    specs: list[JobSpec], machines: int = 10, *, offers: tuple[Offer, ...] = SMALL, more: int = 0, **run: Any
) -> RunState:
    plans = [NodePlan(f"n-{n}", "aws", offers) for n in range(machines)]
    plans += [NodePlan(f"m-{n}", "aws", LARGE) for n in range(more)]
    return plan_run(RunSpec("p", "/c.yml", tuple(specs), **run), plans, "rtest1", 0.0)


def change(state: RunState, name: str, /, **values: Any) -> RunState:
    state.apply(Changes(nodes={name: replace(state.nodes[name], **values)}))
    return state


def up(state: RunState, *names: str) -> RunState:
    for name in names:
        change(state, name, state="running", generation=1, instance_id=f"i-{name}", token="t", created_at=1.0)
    return state


def run_on(state: RunState, node: str, *numbers: int, **values: Any) -> RunState:
    told: dict[str, Any] = {"state": "running", "attempt": 1, "node": node, "boot": "b1", "started_at": 1.0} | values
    state.apply(Changes(jobs={n: replace(state.jobs[n], **told) for n in numbers}))
    return state


def end(state: RunState, *numbers: int) -> RunState:
    state.apply(Changes(jobs={n: replace(state.jobs[n], state="succeeded") for n in numbers}))
    return state


def see(state: RunState, **views: HostView) -> Observation:
    running = {name: UP for name, node in state.nodes.items() if node.state == "running"}
    return Observation(NOW, hosts=running | {name.replace("_", "-"): view for name, view in views.items()})


def demand(state: RunState, seen: Observation | None = None) -> Demand:
    return plan_demand(Draft(state, seen or see(state), POLICY))


def asked(state: RunState, seen: Observation | None = None) -> list[str]:
    return sorted(demand(state, seen).ask)


def settle(state: RunState, seen: Observation | None = None) -> list[str]:
    """The machines that are asked for until nothing changes any more. A repeated call asks for the same one."""
    created: set[str] = set()
    for _ in range(20):
        decision = decide(state, seen or see(state), POLICY)
        created |= {action.node for action in decision.actions if isinstance(action, CreateInstance)}
        if not decision.changes:
            return sorted(created)
        state.apply(decision.changes)
    raise AssertionError("it never comes to rest")


# ---- growing -------------------------------------------------------------------------------------------------------


def test_run_of_few_jobs_rents_few_of_its_machines() -> None:
    """Seen: three jobs of one CPU each rented ten machines of two."""
    assert settle(plan(jobs(3))) == ["n-0", "n-1"]
    assert len(settle(plan(jobs(100)))) == 10


def test_more_machines_are_asked_for_when_more_becomes_ready() -> None:
    state = plan([*jobs(1, "first"), *jobs(8, "then", after=("first1",))])
    assert settle(state) == ["n-0"]
    run_on(up(state, "n-0"), "n-0", 1)
    assert asked(state) == []
    assert asked(end(state, 1)) == ["n-1", "n-2", "n-3"]


def test_what_waits_for_an_earlier_stage_does_not_count() -> None:
    state = plan([*jobs(2, "a", stage=1), *jobs(9, "b", stage=2)])
    assert asked(state) == ["n-0"]
    assert len(asked(end(state, 1, 2))) == 5


@pytest.mark.parametrize(
    ("group", "machines"),
    [(JobGroup("g", slots=((), (), ())), 2), (JobGroup("g", max_parallel=5), 3), (JobGroup("g"), 10)],
)
def test_what_waits_for_a_place_of_its_group_does_not_count(group: JobGroup, machines: int) -> None:
    state = plan(jobs(30, group="g"), groups=(group,))
    assert len(asked(state)) == machines


def test_places_that_are_taken_do_not_count_again() -> None:
    state = plan(jobs(30, group="g"), groups=(JobGroup("g", slots=((),) * 4),))
    run_on(up(state, "n-0"), "n-0", 1, 2, slot=0)
    assert asked(state) == ["n-1"]
    run_on(state, "n-0", 3, 4, slot=2)
    assert asked(state) == []


def test_what_asks_for_no_cpus_counts_as_one() -> None:
    none = Resources(0.0)
    assert len(asked(plan(jobs(4, group="g", resources=none), groups=(JobGroup("g"),)))) == 2
    half = (Offer('"half"', Resources(0.5), 0.1),)
    assert len(asked(plan(jobs(4, resources=none), offers=half))) == 4


def test_max_parallel_of_the_run_limits_its_machines() -> None:
    state = plan(jobs(30), max_parallel=3)
    assert asked(state) == ["n-0", "n-1"]
    run_on(up(state, "n-0"), "n-0", 1, 2)
    assert asked(state) == ["n-1"]
    assert asked(plan(jobs(30), max_parallel=0)) == []


def test_what_a_machine_has_in_its_queue_and_cannot_start_asks_for_another() -> None:
    state = run_on(up(plan(jobs(4)), "n-0"), "n-0", 1, 2)
    run_on(state, "n-0", 3, 4, started_at=None)
    assert asked(state) == ["n-1"]
    run_on(state, "n-0", 4, started_at=None, cancel=True)
    assert asked(state) == ["n-1"]
    assert asked(state, see(state, n_0=replace(UP, connected=False, since=NOW - 1))) == []


def test_what_is_cancelled_now_asks_for_nothing() -> None:
    state = plan(jobs(8))
    draft = Draft(state, see(state), POLICY)
    for number in range(1, 7):
        draft.put_job(replace(state.jobs[number], state="cancelled"))
    assert plan_demand(draft).ask == {"n-0"}


@given(
    st.lists(st.tuples(st.sampled_from((0.0, 0.5, 1.0, 2.0, 3.0, 8.0, 16.0)), st.integers(1, 9)), max_size=5),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_machines_that_were_asked_for_are_enough_in_the_next_look(
    needs: list[tuple[float, int]], small: int, large: int
) -> None:
    """Whatever is asked for, a second look asks for no more, until all of it is there."""
    specs = [
        spec for n, (cpus, count) in enumerate(needs) for spec in jobs(count, f"k{n}-", resources=Resources(cpus))
    ]
    state = plan(specs, small, more=large)
    first = asked(state)
    for name in first:
        change(state, name, state="creating")
    assert asked(state) == []
    assert demand(state) == demand(state)


# ---- which ---------------------------------------------------------------------------------------------------------


def test_cheapest_machines_that_hold_it_are_asked_for() -> None:
    assert asked(plan(jobs(6), more=3)) == ["n-0", "n-1", "n-2"]
    assert asked(plan([*jobs(1), *jobs(1, "l", resources=Resources(12.0))], more=3)) == ["m-0"]
    dear = (Offer('"dear"', TWO, 0.3),)
    assert asked(plan(jobs(16), offers=dear, more=3)) == ["m-0"]


def test_fewest_machines_are_asked_for_where_a_price_is_not_known() -> None:
    unknown = (Offer('"unknown"', TWO, None, "pool"),)
    assert asked(plan(jobs(16), offers=unknown, more=3)) == ["m-0"]


def test_machine_whose_size_is_not_known_is_trusted_with_one_job() -> None:
    unknown = (Offer('"?"', None, 0.1),)
    state = plan(jobs(3), offers=unknown)
    assert asked(state) == ["n-0", "n-1", "n-2"]
    up(state, "n-0")
    change(state, "n-1", state="creating")
    wide = see(state, n_0=replace(UP, resources=Resources(8.0)))
    assert asked(state, wide) == [], "it has told how large it is"
    run_on(state, "n-0", 1)
    assert asked(state, see(state, n_0=HostView(False, "b1", NOW))) == ["n-2"], "it has one, and may be full"


def test_own_machines_are_always_connected() -> None:
    own = (Offer("{}", TWO),)
    state = plan(jobs(1), 3, offers=own)
    assert demand(state) == Demand()
    assert settle(state) == ["n-0", "n-1", "n-2"]


def test_own_machines_go_before_rented_ones() -> None:
    state = plan(jobs(4))
    own = replace(state.nodes["n-0"], name="own", price=None, offers=(Offer("{}", Resources(4.0)),))
    state.apply(Changes(nodes={"own": replace(own, state="running", capacity=Resources(4.0))}))
    assert settle(state, see(state, own=replace(UP, resources=Resources(4.0)))) == []


def test_failed_machine_is_replaced_by_another_of_the_plan() -> None:
    state = change(plan(jobs(2)), "n-0", state="failed")
    assert asked(state) == ["n-1"]


def test_machine_that_is_short_is_asked_for_after_the_others() -> None:
    state = plan([*jobs(2), *jobs(1, "l", resources=Resources(12.0))], 2, more=1)
    state.apply(Changes(run=replace(state.run, shortages=(("small", NOW + 60),))))
    assert asked(state) == ["m-0"]
    state.apply(Changes(run=replace(state.run, shortages=(("small", NOW + 60), ("large", NOW + 30)))))
    decision = decide(state, see(state), POLICY)
    assert (decision.actions, decision.wake_at) == ((), NOW + 30)


def test_what_only_a_machine_that_is_short_could_hold_is_waited_for() -> None:
    """Its next offer is a smaller machine, which would be rented for nothing."""
    state = plan(jobs(1, resources=Resources(12.0)), 1, offers=(*LARGE, *SMALL))
    state.apply(Changes(run=replace(state.run, shortages=(("large", NOW + 30),))))
    decision = decide(state, see(state), POLICY)
    assert (decision.changes.jobs, decision.actions, decision.wake_at) == ({}, (), NOW + 30)


def test_what_no_machine_of_the_plan_could_hold_fails_before_one_is_rented() -> None:
    state = plan(jobs(1, resources=Resources(12.0)))
    decision = decide(state, see(state), POLICY)
    assert decision.actions == ()
    assert decision.changes.jobs[1].reason == "no-capacity: 12 CPUs asked, the largest has 2 CPUs"


def test_machine_that_answers_no_more_is_not_counted_on_for_long() -> None:
    state = run_on(up(plan(jobs(2)), "n-0"), "n-0", 1)
    silent = HostView(False, "b1", NOW - POLICY.silence_limit + 1)
    assert asked(state, see(state, n_0=silent)) == []
    assert asked(state, see(state, n_0=replace(silent, since=NOW - POLICY.silence_limit))) == ["n-1"]
    assert asked(state, see(state, n_0=HostView(False, "", 0.0))) == [], "it comes up"
    assert asked(state, Observation(NOW)) == []


@pytest.mark.parametrize("view", [replace(UP, full=True), replace(UP, leaving=True)])
def test_machine_that_gets_nothing_more_is_not_counted_on(view: HostView) -> None:
    state = run_on(up(plan(jobs(2)), "n-0"), "n-0", 1)
    assert asked(state, see(state, n_0=view)) == ["n-1"]


def test_machine_that_takes_the_place_of_one_that_leaves_is_asked_for_first() -> None:
    state = run_on(up(plan(jobs(1)), "n-3"), "n-3", 1)
    heir = replace(state.nodes["n-9"], name="n-3b", stands_in_for="n-3")
    change(state, "n-3", retired=True)
    state.apply(Changes(nodes={"n-3b": heir}))
    assert asked(state) == ["n-3b"]
    assert asked(run_on(state, "n-3", 1, cancel=True)) == []


def test_environment_that_fails_on_two_machines_is_not_tried_on_a_third() -> None:
    build = EnvironmentBuild("e1", "tools", "false")
    state = up(plan(jobs(1, environment="e1"), environments=(build,)), "n-0")
    failed = BuildRecord("n-0", "e1", state="failed", reason="exit 1")
    state.apply(Changes(builds={("n-0", "e1"): failed}))
    assert settle(state) == ["n-1"]
    up(state, "n-1")
    state.apply(Changes(builds={("n-1", "e1"): replace(failed, node="n-1")}))
    decision = decide(state, see(state), POLICY)
    assert not any(isinstance(action, CreateInstance) for action in decision.actions)
    assert decision.changes.jobs[1].reason == "environment-failed: exit 1"


def test_no_further_machine_is_rented_that_the_budget_does_not_pay_for() -> None:
    least = (replace(SMALL[0], price=3600.0, least=60.0),)
    state = run_on(up(plan(jobs(4), offers=least, budget=130.0), "n-0"), "n-0", 1, 2)
    state.apply(Changes(rentals={"r": RentalRecord("r", "i-n-0", "n-0", "aws", 3600.0, NOW - 50.0)}))
    assert asked(state) == ["n-1"]
    state.apply(Changes(rentals={"r": RentalRecord("r", "i-n-0", "n-0", "aws", 3600.0, NOW - 80.0)}))
    assert asked(state) == []


def test_results_that_are_still_to_be_fetched_ask_for_their_machine() -> None:
    """Its machine waits, and is taken again; whether it once had nothing to do does not matter."""
    state = change(plan(jobs(1)), "n-4", idle_since=5.0)
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="succeeded", node="n-4", fetch="wanted")}))
    assert asked(state) == ["n-4"]


def test_attempts_that_are_still_to_be_heard_of_ask_for_their_machine() -> None:
    """As after `rebuild`: the run had let go of a machine that was found to execute its job."""
    assert asked(run_on(plan(jobs(1)), "n-4", 1)) == ["n-4"]


def test_thousands_of_machines_and_hundreds_of_kinds_are_counted_in_one_way() -> None:
    specs = [spec for n in range(60) for spec in jobs(40, f"k{n}-", resources=Resources(1.0, n))]
    offers = (replace(SMALL[0], capacity=Resources(2.0, 1000)),)
    assert len(asked(plan(specs, 1000, offers=offers))) == 1000


# ---- shrinking -----------------------------------------------------------------------------------------------------


def test_machines_beyond_a_short_queue_are_spare() -> None:
    state = up(plan(jobs(4)), "n-0", "n-1", "n-2")
    run_on(state, "n-1", 1)
    assert demand(state).spare == {"n-2"}, "one goes beside job 1, two to the next machine"
    end(state, 2, 3, 4)
    assert demand(state).spare == {"n-0", "n-1", "n-2"}, "n-1 works, and nothing waits for it"


def test_chain_of_short_jobs_keeps_one_machine_and_rents_none_anew() -> None:
    """Seen: machines that were let go as idle beside work were rented again at once, 314 instead of 52."""
    chain = [replace(spec, after=(f"j{n}",) if n else ()) for n, spec in enumerate(jobs(40))]
    state = up(plan(chain, 4), "n-0", "n-1", "n-2", "n-3")
    created = []
    for number in range(1, 41):
        seen = replace(see(state), now=NOW + 10 * number)
        for _ in range(3):
            decision = decide(state, seen, POLICY)
            created += [action for action in decision.actions if isinstance(action, CreateInstance)]
            state.apply(decision.changes)
        assert state.jobs[number].node == "n-0"
        end(state, number)
        gone = {name: replace(n, state="wanted") for name, n in state.nodes.items() if n.state == "releasing"}
        state.apply(Changes(nodes=gone))
    assert created == []
    assert {name for name, node in state.nodes.items() if node.state == "running"} == {"n-0"}


def test_what_is_tried_again_soon_keeps_its_machine_and_asks_for_none() -> None:
    state = up(plan(jobs(3)), "n-0")
    end(state, 1, 2)
    state.apply(Changes(jobs={3: replace(state.jobs[3], not_before=NOW + 30)}))
    assert demand(state) == Demand()
    change(state, "n-0", state="wanted")
    assert demand(state) == Demand()

"""Who pays for a machine's first minute, which is charged whole, where runs follow one another within it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudsend_cli.core.costs import clip_waiting, rental_cost, run_cost
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.model import (
    HostView,
    InstanceStatus,
    JobSpec,
    Observation,
    Offer,
    Policy,
    Resources,
    RunSpec,
)
from cloudsend_cli.core.naming import keep_call
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import Changes, RentalRecord, RunState

TWO = Resources(2.0)
LAUNCHED = 1000.0
UP = HostView(True, "b1", 0.0, TWO, armed=True)
POLICY = Policy()


def run_of(name: str, asked_at: float) -> RunState:
    """A run that asked for its machine then, and has it."""
    offer = Offer("{}", TWO, 3600.0, "pool", "limit", keep=600.0)
    spec = RunSpec("p", "/c.yml", (JobSpec("j", ("true",), "true"),))
    state = plan_run(spec, [NodePlan("n-0", "aws", (offer,))], name, asked_at)
    node = replace(state.nodes["n-0"], state="running", generation=1, instance_id="i-1", created_at=asked_at)
    state.apply(Changes(nodes={"n-0": node}))
    return state


def look(run: RunState, now: float, *, taken: bool = False, **status: Any) -> None:
    machine = InstanceStatus("i-1", "n-0", 1, "running", launched_at=LAUNCHED, least_seconds=60.0, taken=taken)
    seen = Observation(now, hosts={"n-0": UP}, instances={"aws": (replace(machine, **status),)})
    run.apply(decide(run, seen, POLICY).changes)


def keep(state: RunState, now: float) -> None:
    """Its jobs have ended, and its machine waits for the next run."""
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="succeeded")}))
    for _ in range(3):
        seen = Observation(now, hosts={"n-0": UP}, calls_done=frozenset({keep_call("i-1", 1)}))
        state.apply(decide(state, seen, POLICY).changes)
    assert state.nodes["n-0"].kept == "i-1"


def rentals_of(*runs: RunState) -> list[RentalRecord]:
    """As cost tells them: waiting ends when another run takes the machine."""
    found = [rental for run in runs for rental in run.rentals.values()]
    clipped = clip_waiting(found)
    return [clipped.get(rental, rental) for rental in found]


def test_machine_that_two_runs_use_within_its_first_minute_is_paid_for_once() -> None:
    """Seen: both were charged a minute from the launch, as the second came within the time clocks may be apart."""
    first = run_of("rone01", LAUNCHED - 1)
    look(first, LAUNCHED + 5)
    keep(first, LAUNCHED + 12)
    second = run_of("rtwo01", LAUNCHED + 15)
    look(second, LAUNCHED + 16, taken=True)
    both = rentals_of(first, second)
    assert run_cost(both, LAUNCHED + 50).total == 60.0  # a dollar a second, and the first minute whole
    assert run_cost(both, LAUNCHED + 100).total == 100.0
    own = [r for r in both if r in second.rentals.values()]
    assert run_cost(own, LAUNCHED + 100).total == 40.0


def test_three_runs_within_the_first_minute_pay_for_what_the_machine_costs() -> None:
    first = run_of("rone01", LAUNCHED - 1)
    look(first, LAUNCHED + 5)
    keep(first, LAUNCHED + 12)
    second = run_of("rtwo01", LAUNCHED + 15)
    look(second, LAUNCHED + 16, taken=True)
    keep(second, LAUNCHED + 20)
    third = run_of("rthr01", LAUNCHED + 30)
    look(third, LAUNCHED + 31, taken=True)
    assert run_cost(rentals_of(first, second, third), LAUNCHED + 200).total == 200.0


def test_machine_that_waits_after_a_run_within_its_first_minute_costs_that_run() -> None:
    """Seen: `run: $0.00`, and no cost of the waiting either, as the run's own time was taken for another run's."""
    state = run_of("rone01", LAUNCHED + 35)
    look(state, LAUNCHED + 36, taken=True)
    keep(state, LAUNCHED + 40)
    cost = run_cost(rentals_of(state), LAUNCHED + 90)
    assert (cost.total, cost.per_hour) == (30.0, 3600.0)


def test_clock_of_the_provider_that_is_behind_makes_no_taken_machine_of_a_launched_one() -> None:
    state = run_of("rone01", LAUNCHED + 20)
    look(state, LAUNCHED + 21)
    (rental,) = state.rentals.values()
    assert (rental.since, rental.least, rental.taken_at) == (LAUNCHED, 60.0, 0.0)


def test_machine_that_was_taken_and_started_again_since_is_paid_for_from_that_start() -> None:
    state = run_of("rone01", LAUNCHED - 500)
    look(state, LAUNCHED + 1, taken=True)
    (rental,) = state.rentals.values()
    assert (rental.since, rental.least) == (LAUNCHED, 60.0)


def test_launch_that_never_began_costs_nothing() -> None:
    """AWS charges nothing for what goes from pending to terminated; seen: a minute each."""
    state = run_of("rone01", LAUNCHED - 1)
    state.apply(Changes(nodes={"n-0": replace(state.nodes["n-0"], state="creating", instance_id="")}))
    look(state, LAUNCHED + 1, state="pending")
    look(state, LAUNCHED + 3, state="terminated", reason="capacity", ended_at=LAUNCHED, least_seconds=0.0)
    (rental,) = state.rentals.values()
    assert rental_cost(rental, LAUNCHED + 100).total == 0.0

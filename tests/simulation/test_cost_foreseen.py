"""What a plan says that a run would cost, against what it has cost when it is over: whole runs in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from cloudsend_cli.core.costs import run_cost
from cloudsend_cli.core.forecast import plan_forecast
from cloudsend_cli.core.history import History
from cloudsend_cli.core.model import JobGroup, JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.naming import job_hash
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.testing.fake_cloud import PRICE
from cloudsend_cli.testing.fake_machine import JobPlan
from cloudsend_cli.testing.scenarios import RUN_ID, make_job
from cloudsend_cli.testing.world import Scenario, World

HOST = Resources(4.0, 16 << 30, 0)
Make = Callable[[random.Random], tuple[JobSpec, ...]]
KEEP = 40.0
STARTING = 10.0  # seconds from a launch to the first job
NODES = [NodePlan(f"fake-{n}", "fake", (Offer("{}", HOST, PRICE, keep=KEEP),)) for n in range(6)]


def flat(rng: random.Random) -> tuple[JobSpec, ...]:
    return tuple(make_job(f"j{n}", resources=Resources(rng.choice((1.0, 2.0)))) for n in range(60))


def growing(rng: random.Random) -> tuple[JobSpec, ...]:
    """One, then many, then one that is long."""
    many = tuple(make_job(f"m{n}", after=("first",)) for n in range(30))
    return make_job("first"), *many, make_job("last", after=("m*",))


def pooled(rng: random.Random) -> tuple[JobSpec, ...]:
    return tuple(make_job(f"S/g/{n}", group="S/g", stage=1, resources=Resources(0.0)) for n in range(40))


def history_of(jobs: tuple[JobSpec, ...], times: dict[str, float]) -> History:
    """By content, as numbered tasks are known."""
    return History({job_hash(job): times[job.name] for job in jobs}, starting=STARTING)


def cost_of(spec: RunSpec, times: dict[str, float]) -> float:
    plans: dict[str, tuple[JobPlan, ...]] = {name: (JobPlan(seconds),) for name, seconds in times.items()}
    history = history_of(spec.jobs, times)
    scenario = Scenario(
        "cost", lambda: plan_run(spec, NODES, RUN_ID, 0.0, history), jobs=plans, resources=HOST, deadline=40_000.0
    )
    world = World(scenario, scenario.plan())
    assert world.run() == []
    state = world.store.runs[world.run_id]
    assert {job.state for job in state.jobs.values()} == {"succeeded"}
    return run_cost(state.rentals.values(), 1e9).total


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("make", "off"), [(flat, 0.15), (growing, 0.15), (pooled, 0.002)])
def test_a_run_costs_about_what_its_plan_says(make: Make, off: float, seed: int) -> None:
    """Without the queues of hosts, which are given work ahead and may have the last of it, nearly to the cent."""
    rng = random.Random(seed)
    jobs = make(rng)
    times = {job.name: round(min(2400.0, rng.lognormvariate(5.0, 0.8)), 1) for job in jobs}
    groups = (JobGroup("S/g", slots=((),) * 10),) if jobs[0].group else ()
    spec = RunSpec("project", "/config.yml", jobs, groups=groups)
    foreseen = plan_forecast(spec, NODES, history_of(jobs, times)).cost
    assert foreseen is not None and not foreseen.at_least
    assert foreseen.total == pytest.approx(cost_of(spec, times), rel=off)

"""How many machines whole runs rent, against the least number: jobs that all run at once, in virtual time."""

from __future__ import annotations

import random

import pytest
from campaigns import pick
from cut_machines import MACHINE, allowed, cut

from cloudsend_cli.core.model import Offer, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import RunState
from cloudsend_cli.testing.fake_machine import JobPlan
from cloudsend_cli.testing.scenarios import RUN_ID, make_job
from cloudsend_cli.testing.world import Scenario, World

SECONDS = 3000.0


def rented(machines: int, pieces: int, full: float, seed: int, spread: float) -> tuple[int, float]:
    """Machines, and when the last job began after the first."""
    needs = cut(random.Random(f"{machines}-{pieces}-{full}-{seed}"), machines, pieces, full)
    jobs = tuple(
        make_job(f"j{kind}-{number}", resources=need)
        for kind, (need, count) in enumerate(needs.items())
        for number in range(count)
    )

    def plan() -> RunState:
        nodes = [NodePlan(f"fake-{n}", "fake", (Offer("{}", MACHINE, 1.0),)) for n in range(2 * machines + 2)]
        return plan_run(RunSpec("p", "/c.yml", jobs), nodes, RUN_ID, 0.0)

    plans: dict[str, tuple[JobPlan, ...]] = {job.name: (JobPlan(SECONDS),) for job in jobs}
    world = World(
        Scenario(
            "packed",
            plan,
            lambda w: setattr(w.provider, "boot_spread", spread),
            jobs=plans,
            resources=MACHINE,
            deadline=40_000.0,
        ),
        plan(),
    )
    assert world.run() == []
    ended = world.store.runs[world.run_id].jobs.values()
    assert {job.state for job in ended} == {"succeeded"}
    return len(world.provider.instances), max(job.started_at or 0.0 for job in ended)


@pytest.mark.campaign("machines of packed runs")
@pytest.mark.parametrize("spread", [0.0, 9.0], ids=["up at once", "up one after another"])
@pytest.mark.parametrize("full", [1.0, 0.8])
@pytest.mark.parametrize("pieces", [3, 5, 10])
@pytest.mark.parametrize("machines", [4, 12, 25])
def test_run_rents_no_more_machines_than_it_needs(machines: int, pieces: int, full: float, spread: float) -> None:
    """Those that come up late are looked at anew each time: one more may be found to be needed then."""
    for seed in range(pick(2, 6)):
        count, began = rented(machines, pieces, full, seed, spread)
        assert machines <= count <= allowed(machines) + (spread > 0)
        assert began < SECONDS, "all at once"

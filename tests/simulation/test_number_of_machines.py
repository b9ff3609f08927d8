"""Machines follow the queue in whole runs: how many are rented, whoever dies meanwhile."""

from __future__ import annotations

import pytest
from campaigns import pick

from cloudsend_cli.testing.rented_scenarios import ALL_SCENARIOS

from .sweeps import Case, count_points

SCENARIO = next(s for s in ALL_SCENARIOS if s.name == "machines follow the queue")


def test_machines_come_with_the_jobs_that_need_them_and_go_before_the_end() -> None:
    world = Case(SCENARIO).live()
    assert world.judge.violations == []
    jobs = {job.spec.name: job for job in world.store.runs[world.run_id].jobs.values()}
    machines = {instance.node: instance for instance in world.provider.instances.values()}
    assert len(machines) == len(world.provider.instances) == 3, "none is rented twice, although one was taken away"
    assert all((jobs[f"w{n}"].started_at or 0.0) > (jobs["first"].ended_at or 0.0) for n in range(4))
    assert (machines["fake-2"].ended_at or 0.0) < (jobs["last"].ended_at or 0.0), "it had nothing to do any more"


@pytest.mark.campaign("crash world")
@pytest.mark.parametrize("start", pick([0], [0, 1, 2]))
def test_crash_rents_no_machine_more(start: int) -> None:
    for point in range(start, count_points(SCENARIO), 3):
        world = Case(SCENARIO, (point,)).live()
        assert world.judge.violations == []
        assert len(world.provider.instances) == 3, f"a crash at {point}"

"""Machines that run and never answer: how many are paid for, whoever dies meanwhile."""

from __future__ import annotations

import pytest
from campaigns import pick

from cloudsend_cli.core.model import Policy
from cloudsend_cli.core.silence import UNANSWERED
from cloudsend_cli.testing.rented_scenarios import ALL_SCENARIOS

from .sweeps import Case, count_points

SCENARIO = next(s for s in ALL_SCENARIOS if s.name == "never answers")


@pytest.mark.campaign("crash world")
@pytest.mark.parametrize("start", pick([0], [0, 1, 2]))
def test_machines_that_never_answer_are_few_and_the_jobs_say_where_to_look(start: int) -> None:
    """The count is in the record: no crash begins it anew."""
    most = Policy().unanswered_most
    for point in range(start, count_points(SCENARIO), 3):
        world = Case(SCENARIO, (point,)).live()
        assert world.judge.violations == []
        assert len(world.provider.instances) == most, f"a crash at {point}"
        jobs = world.store.runs[world.run_id].jobs.values()
        assert all(f"fake-0: {UNANSWERED}{most} machines in a row" in job.reason for job in jobs)

"""A maestro that sleeps at an effect's edge while another takes over; worlds by seed, in which all happens at once."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from campaigns import FULL, pick

from cloudsend_cli.testing.rented_scenarios import ALL_SCENARIOS
from cloudsend_cli.testing.swarm import make_scenario
from cloudsend_cli.testing.world import Scenario

from .sweeps import Case, count_points, findings, sleeps

SWARM = pick(250, 500) + int(os.environ.get("CLOUDSEND_SIMULATION_SEEDS", "0"))
PARTS = 4
CAMPAIGN = pytest.mark.campaign("crash world")
Say = Callable[[str], None]


@CAMPAIGN
@pytest.mark.parametrize("scenario", ALL_SCENARIOS, ids=lambda s: s.name)
def test_maestro_that_slept_anywhere_wakes_beside_another(scenario: Scenario) -> None:
    _, found = findings(sleeps(scenario, count_points(scenario), (5, 10_000), each=FULL))
    assert not found, "\n".join(found)


@CAMPAIGN
@pytest.mark.parametrize("part", range(PARTS))
def test_worlds_by_seed(part: int) -> None:
    """Each seed switches on a random subset of all faults; the name of a bad world tells which."""
    _, found = findings(Case(make_scenario(seed)) for seed in range(part, SWARM, PARTS))
    assert not found, "\n".join(found)


def test_a_world_is_the_same_whenever_it_is_run() -> None:
    first, second = (Case(make_scenario(3)).live() for _ in range(2))
    assert [(e.attempt, e.t0, e.t1) for e in first.ledger] == [(e.attempt, e.t0, e.t1) for e in second.ledger]
    assert first.labels == second.labels


def test_how_many_worlds_there_were(summary_line: Say) -> None:
    """The counts are printed, so that they do not drop unseen."""
    worlds = sum(1 for s in ALL_SCENARIOS for _ in sleeps(s, count_points(s), (5, 10_000), each=FULL))
    summary_line(f"crash points: worlds with a sleeper {worlds}, by seed {SWARM}")
    assert worlds >= pick(1000, 5000)

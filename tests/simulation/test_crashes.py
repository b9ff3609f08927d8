"""A crash at every effect's edge of every scenario, single and in pairs; a sleep at every edge; worlds by seed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import FULL, pick

from cloudsend_cli.core.actions import Action
from cloudsend_cli.testing.rented_scenarios import ALL_SCENARIOS
from cloudsend_cli.testing.swarm import make_scenario
from cloudsend_cli.testing.world import Scenario

from .sweeps import Case, count_points, doubles, findings, singles, sleeps

POINTS = Path(__file__).with_name("points.json")
SEEDS = int(os.environ.get("CLOUDSEND_SIMULATION_SEEDS", "0"))
DOUBLES = pick(75, 150) + SEEDS // 10  # of each scenario
KINDS = pick(1, 2)  # of absences and of sleeps at each point
SWARM = 500 + SEEDS
CAMPAIGN = pytest.mark.campaign("crash world")
BY_NAME = pytest.mark.parametrize("scenario", ALL_SCENARIOS, ids=lambda s: s.name)
Say = Callable[[str], None]


def recorded() -> dict[str, int]:
    points: dict[str, int] = json.loads(POINTS.read_text())
    return points


def test_names_are_unique() -> None:
    assert len({s.name for s in ALL_SCENARIOS}) == len(ALL_SCENARIOS) >= 12


def test_crash_points_do_not_silently_drop(summary_line: Say) -> None:
    """`points.json` is what was enumerated when it was committed. Fewer need a look, and then a new file."""
    now = {s.name: count_points(s) for s in ALL_SCENARIOS}
    if os.environ.get("CLOUDSEND_WRITE_POINTS"):
        POINTS.write_text(json.dumps(now, indent=1) + "\n")
    then = recorded()
    dropped = {name: (points, now.get(name, 0)) for name, points in then.items() if now.get(name, 0) < points}
    assert not dropped, f"crash points dropped (then, now): {dropped}"
    assert now.keys() == then.keys(), "a new scenario: CLOUDSEND_WRITE_POINTS=1 writes points.json anew"
    summary_line("crash points: " + ", ".join(f"{name} {count}" for name, count in now.items()))
    points = sum(now.values())
    summary_line(
        f"crash points: {points} in {len(now)} scenarios; worlds with a crash {KINDS * points}, "
        f"with two {DOUBLES * len(now)}, with a sleeper {2 * points if FULL else points // 2}, by seed {SWARM}"
    )
    assert KINDS * points >= 2000
    assert DOUBLES * len(now) >= 5000


def test_every_kind_of_effect_has_its_edges() -> None:
    """A new kind of action needs a scenario in which it is met."""
    met = {label.split()[0] for s in ALL_SCENARIOS for label in Case(s).live().labels}
    assert met == {
        "commit",
        "create",
        "terminate",
        "connect",
        "disconnect",
        "start",
        "cancel",
        "revoke",
        "ack",
        "fetch",
        "keep",
        "lease",
        "resume",
    }
    assert len(met) - 1 == len(Action.__args__)  # type: ignore[attr-defined]


@BY_NAME
def test_undisturbed(scenario: Scenario) -> None:
    assert Case(scenario).live().judge.violations == []


@CAMPAIGN
@BY_NAME
def test_one_crash_anywhere(scenario: Scenario) -> None:
    count, found = findings(singles(scenario, points := count_points(scenario), each=FULL))
    assert not found, "\n".join(found)
    assert count == KINDS * points


@CAMPAIGN
@BY_NAME
def test_two_crashes_anywhere(scenario: Scenario) -> None:
    count, found = findings(doubles(scenario, count_points(scenario), DOUBLES, seed=SEEDS))
    assert not found, "\n".join(found)
    assert count == DOUBLES


@CAMPAIGN
@BY_NAME
def test_maestro_that_slept_anywhere_wakes_beside_another(scenario: Scenario) -> None:
    _, found = findings(sleeps(scenario, count_points(scenario), (5, 10_000), each=FULL))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("part", range(4))
def test_worlds_by_seed(part: int) -> None:
    """Each seed switches on a random subset of all faults; the name of a bad world tells which."""
    _, found = findings(Case(make_scenario(seed)) for seed in range(part, SWARM, 4))
    assert not found, "\n".join(found)


def test_a_world_is_the_same_whenever_it_is_run() -> None:
    first, second = (Case(make_scenario(3)).live() for _ in range(2))
    assert [(e.attempt, e.t0, e.t1) for e in first.ledger] == [(e.attempt, e.t0, e.t1) for e in second.ledger]
    assert first.labels == second.labels

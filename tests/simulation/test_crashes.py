"""A crash at every effect's edge of every scenario, single and in pairs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import FULL, pick

from cloudsend_cli.core.actions import Action
from cloudsend_cli.testing.rented_scenarios import ALL_SCENARIOS
from cloudsend_cli.testing.world import Scenario, World

from .sweeps import Case, count_points, doubles, findings, play, singles

POINTS = Path(__file__).with_name("points.json")
SEEDS = int(os.environ.get("CLOUDSEND_SIMULATION_SEEDS", "0"))
DOUBLES = pick(75, 150) + SEEDS // 10  # of each scenario
KINDS = pick(1, 2)  # of absences at each point
CAMPAIGN = pytest.mark.campaign("crash world")
BY_NAME = pytest.mark.parametrize("scenario", ALL_SCENARIOS, ids=lambda s: s.name)
Say = Callable[[str], None]


def recorded() -> dict[str, int]:
    points: dict[str, int] = json.loads(POINTS.read_text())
    return points


def test_names_are_unique() -> None:
    assert len({s.name for s in ALL_SCENARIOS}) == len(ALL_SCENARIOS) >= 12


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, World]:
    return {s.name: play(Case(s)) for s in ALL_SCENARIOS}


def test_crash_points_do_not_silently_drop(undisturbed: dict[str, World], summary_line: Say) -> None:
    """`points.json` is what was enumerated when it was committed. Fewer need a look, and then a new file."""
    now = {name: world.edges for name, world in undisturbed.items()}
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
        f"with two {DOUBLES * len(now)}"
    )
    assert KINDS * points >= 2000
    assert DOUBLES * len(now) >= 5000


def test_every_kind_of_effect_has_its_edges(undisturbed: dict[str, World]) -> None:
    """A new kind of action needs a scenario in which it is met."""
    met = {label.split()[0] for world in undisturbed.values() for label in world.labels}
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
def test_undisturbed(scenario: Scenario, undisturbed: dict[str, World]) -> None:
    assert undisturbed[scenario.name].judge.violations == []


@CAMPAIGN
@BY_NAME
def test_one_crash_anywhere(scenario: Scenario) -> None:
    count, found = findings(singles(scenario, points := count_points(scenario), each=FULL))
    assert not found, "\n".join(found)
    assert count == KINDS * points


@CAMPAIGN
@BY_NAME
def test_two_crashes_anywhere(scenario: Scenario) -> None:
    count, found = findings(doubles(scenario, count_points(scenario), DOUBLES, seed=SEEDS, each=FULL))
    assert not found, "\n".join(found)
    assert count == DOUBLES

"""Which worlds are run: every crash point, samples of pairs, every point of a long sleep, seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from cloudsend_cli.testing.rented_scenarios import ALL_SCENARIOS
from cloudsend_cli.testing.world import Scenario, World

ABSENCES = (None, 25.0)  # seconds until the successor comes; None: the scenario's own
SLEEPS = (1, 5, 10_000)  # ticks of another maestro while one sleeps in the middle of a tick
LATEST = 10**9
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One world, named so that it can be run again."""

    scenario: Scenario
    crashes: tuple[int, ...] = ()
    sleep_at: int | None = None
    sleep_ticks: int = 0

    def live(self) -> World:
        world = World(self.scenario, self.scenario.plan(), self.crashes)
        world.pause_at, world.pause_ticks = self.sleep_at, self.sleep_ticks
        world.run()
        return world

    def __str__(self) -> str:
        sleep = f", asleep at {self.sleep_at} for {self.sleep_ticks} ticks" if self.sleep_at is not None else ""
        after = f", successor after {self.scenario.restart_after:g} s" if self.crashes else ""
        return f"{self.scenario.name}: crashes at {list(self.crashes)}{after}{sleep}"


def count_points(scenario: Scenario) -> int:
    return Case(scenario).live().edges


def singles(scenario: Scenario, points: int, *, each: bool = True) -> Iterator[Case]:
    """A crash at every point; `each`: with every absence, else with one after the other."""
    stories = [scenario if one is None else replace(scenario, restart_after=one) for one in ABSENCES]
    for k in range(points):
        yield from (Case(story, (k,)) for story in in_turn(stories, k, each))


def sleeps(scenario: Scenario, points: int, ticks: tuple[int, ...] = SLEEPS, *, each: bool = True) -> Iterator[Case]:
    """A sleep at every point; `each`: of every length, else at every second one and of one after the other."""
    for number, k in enumerate(range(0, points, 1 if each else 2)):
        yield from (Case(scenario, (), k, count) for count in in_turn(ticks, number, each))


def in_turn(kinds: Sequence[T], number: int, each: bool) -> Sequence[T]:
    return kinds if each else [kinds[number % len(kinds)]]


def doubles(scenario: Scenario, points: int, number: int, seed: int) -> Iterator[Case]:
    """Pairs whose second crash falls into the recovery from the first."""
    random = Random(f"{scenario.name} {seed}")
    lengths: dict[int, int] = {}
    for _ in range(number):
        first = random.randrange(points)
        if first not in lengths:
            lengths[first] = Case(scenario, (first,)).live().edges
        yield Case(scenario, (first, random.randrange(first + 1, max(lengths[first], first + 2))))


def findings(cases: Iterator[Case], stop_after: int = 5) -> tuple[int, list[str]]:
    """(worlds run, what went wrong in the first bad ones)."""
    count, found = 0, []
    for case in cases:
        world = case.live()
        count += 1
        if world.judge.violations:
            found.append(f"{case}: {'; '.join(world.judge.violations[:3])}")
            if len(found) >= stop_after:
                break
    return count, found


def hunt(rounds: int) -> Iterator[Case]:
    """The worlds that a mutant has to be caught in: each scenario undisturbed, then random points of each in turn."""
    random = Random(7)
    points = {s.name: max(2, count_points(s)) for s in ALL_SCENARIOS}
    yield from (Case(s) for s in ALL_SCENARIOS)
    for _ in range(rounds):
        for scenario in ALL_SCENARIOS:
            k = random.randrange(points[scenario.name])
            yield Case(scenario, (k,))
            yield Case(scenario, (), k, random.choice(SLEEPS))


def hunt_in(name: str) -> Iterator[Case]:
    """Every point of one scenario."""
    scenario = next(s for s in ALL_SCENARIOS if s.name == name)
    points = count_points(scenario)
    yield from singles(scenario, points)
    yield from sleeps(scenario, points)

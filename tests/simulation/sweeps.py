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
T = TypeVar("T")
_edges: dict[tuple[str, float, tuple[int, ...]], int] = {}  # of worlds that were played, by story and crashes


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


def play(case: Case) -> World:
    """Live, and remember how many edges were met. Not while a mutant is in place: its edges are not the code's."""
    world = case.live()
    if case.sleep_at is None:
        _edges[_key(case)] = world.edges
    return world


def count_edges(case: Case) -> int:
    """Equal cases give equal worlds: one that was played before is not played again."""
    return _edges[_key(case)] if _key(case) in _edges else play(case).edges


def _key(case: Case) -> tuple[str, float, tuple[int, ...]]:
    return case.scenario.name, case.scenario.restart_after, case.crashes


def count_points(scenario: Scenario) -> int:
    return count_edges(Case(scenario))


def singles(scenario: Scenario, points: int, *, each: bool = True) -> Iterator[Case]:
    """A crash at every point; `each`: with every absence, else with one after the other, before and after effects."""
    stories = [scenario if one is None else replace(scenario, restart_after=one) for one in ABSENCES]
    for k in range(points):
        yield from (Case(story, (k,)) for story in in_turn(stories, k // 2, each))


def sleeps(scenario: Scenario, points: int, ticks: tuple[int, ...] = SLEEPS, *, each: bool = True) -> Iterator[Case]:
    """A sleep at every point; `each`: of every length, else at every third one, with each length before and after
    effects: their edges take turns."""
    for number, k in enumerate(range(0, points, 1 if each else 3)):
        yield from (Case(scenario, (), k, count) for count in in_turn(ticks, number // 2, each))


def in_turn(kinds: Sequence[T], number: int, each: bool) -> Sequence[T]:
    return kinds if each else [kinds[number % len(kinds)]]


def doubles(scenario: Scenario, points: int, number: int, seed: int, *, each: bool = True) -> Iterator[Case]:
    """Pairs whose second crash falls into the recovery from the first; the first ones are spread over all points.

    Not `each`: over those at which `singles` has played the scenario's own absence, so that none is played for this.
    """
    random = Random(f"{scenario.name} {seed}")
    for turn in range(number):
        first = int((turn + random.random()) * points / number)
        if not each:
            first -= first & 2
        edges = count_edges(Case(scenario, (first,)))
        yield Case(scenario, (first, random.randrange(first + 1, max(edges, first + 2))))


def findings(cases: Iterator[Case], stop_after: int = 5) -> tuple[int, list[str]]:
    """(worlds run, what went wrong in the first bad ones)."""
    count, found = 0, []
    for case in cases:
        world = play(case)
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

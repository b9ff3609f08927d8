"""What each job has of the cost of its machines, while it ran there. Pure.

At each moment jobs have the part of their machine that they ask for. Those that ask for nothing that is counted, as
the tasks of a pool do, have equal parts of what the others leave, and each no less than one of one CPU. Where that is
more than the machine together, all have less in proportion. So the sum over jobs is never more than what is paid, and
is that exactly while any of them asks for nothing. Time in which no job runs is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .costs import HOUR, NO_COST, Cost
from .model import Resources, list_known
from .state import RentalRecord


@dataclass(frozen=True, slots=True)
class Execution:
    """The time that one attempt of a job took on its node; `ended` None: it still runs."""

    job: int
    node: str
    started: float
    ended: float | None = None
    share: float = 1.0  # of its machine, that it asks for
    least: float = 1.0  # ... and what it has at least where that is 0


def share_of(asked: Resources, capacity: Resources) -> float:
    """The part of a machine that a job keeps others from: its largest one of CPUs, memory and GPUs.

    All of a machine of which nothing is known.
    """
    known = list_known(capacity)
    wanted = list_known(asked)
    parts = [wanted.get(name, has) / has for name, has in known.items() if has > 0]
    return min(1.0, max(parts, default=1.0))


def plan_execution(
    job: int, asked: Resources, capacity: Resources, node: str, started: float, ended: float | None
) -> Execution:
    return Execution(job, node, started, ended, share_of(asked, capacity), share_of(Resources(1.0), capacity))


def divide_costs(executions: Iterable[Execution], rentals: Iterable[RentalRecord], now: float) -> dict[int, Cost]:
    """By job. Of all executions on these machines: what one has depends on those that ran beside it."""
    on_node: dict[str, list[Execution]] = {}
    for execution in executions:
        on_node.setdefault(execution.node, []).append(execution)
    paid: dict[str, list[RentalRecord]] = {}
    for rental in rentals:
        paid.setdefault(rental.node, []).append(rental)
    costs: dict[int, Cost] = {}
    for node, found in on_node.items():
        dollars = _Dollars(found, paid.get(node, ()), now)
        for execution in found:
            costs[execution.job] = costs.get(execution.job, NO_COST).plus(dollars.of(execution))
    return costs


@dataclass(slots=True)
class _Rates:
    """What an hour costs now: of a whole machine to those that ask for a part, and to each that asks for nothing."""

    price: float = 0.0
    paid: int = 0
    asked: float = 0.0
    asking: int = 0
    light: int = 0
    least: float = 0.0

    def turn(self, change: int, thing: Execution | RentalRecord) -> None:
        if isinstance(thing, RentalRecord):
            self.paid += change
            self.price = self.price + change * (thing.price or 0.0) if self.paid else 0.0
        elif thing.share:
            self.asking += change
            self.asked = self.asked + change * thing.share if self.asking else 0.0
        else:
            self.light += change
            self.least = thing.least

    @property
    def of_share(self) -> float:
        return self.price / max(1.0, self.asked + self.light * self._light)

    @property
    def of_light(self) -> float:
        return self.of_share * self._light

    @property
    def _light(self) -> float:
        return max(self.least, (1.0 - self.asked) / self.light) if self.light else 0.0


class _Dollars:
    """One machine, from its first job on: dollar seconds up to each moment at which anything began or ended."""

    def __init__(self, executions: Sequence[Execution], rentals: Sequence[RentalRecord], now: float) -> None:
        self._now = now
        self._unpriced = [rental for rental in rentals if rental.price is None]
        self._marks: dict[float, tuple[float, float]] = {}
        turns: dict[float, list[tuple[int, Execution | RentalRecord]]] = {now: []}
        for execution in executions:
            self._add(turns, execution, execution.started, execution.ended)
        for rental in rentals:
            self._add(turns, rental, rental.since, rental.until)
        self._rates, before, of_share, of_light = _Rates(), min(turns), 0.0, 0.0
        for at in sorted(turns):
            of_share += (at - before) * self._rates.of_share
            of_light += (at - before) * self._rates.of_light
            self._marks[at] = (of_share, of_light)
            for change, thing in turns[at]:
                self._rates.turn(change, thing)
            before = at

    def _add(
        self,
        turns: dict[float, list[tuple[int, Execution | RentalRecord]]],
        thing: Execution | RentalRecord,
        since: float,
        until: float | None,
    ) -> None:
        if since < (self._now if until is None else min(until, self._now)):
            turns.setdefault(since, []).append((1, thing))
            if until is not None and until <= self._now:
                turns.setdefault(until, []).append((-1, thing))

    def of(self, execution: Execution) -> Cost:
        ended = self._now if execution.ended is None else min(execution.ended, self._now)
        if ended <= execution.started:
            return NO_COST
        (share_before, light_before), (share_after, light_after) = self._marks[execution.started], self._marks[ended]
        paid = execution.share * (share_after - share_before) if execution.share else light_after - light_before
        per_hour = execution.share * self._rates.of_share if execution.share else self._rates.of_light
        unknown = sum(
            min(ended, ended if rental.until is None else rental.until) > max(execution.started, rental.since)
            for rental in self._unpriced
        )
        return Cost(paid / HOUR, per_hour if execution.ended is None else 0.0, unknown)

"""Which needs go onto which machines, and how many machines of which kinds hold them all. Pure.

This is bin packing with three dimensions: GPUs, CPUs and memory. Known heuristics are tried beside each other and the
best result is kept: best fit decreasing by several measures of size; machines that are filled one after another, each
time with what is most alike to what is free there (Panigrahy, Talwar, Uyeda and Wieder, "Heuristics for vector bin
packing", 2011), or as full as a short search can (after Gupta and Ho, "A new heuristic algorithm for the
one-dimensional bin-packing problem", 1999). At last the emptiest machines are emptied into the others where they can
be.

Bounds on the number of machines of one kind, where OPT is the least:
- in one dimension first fit decreasing needs at most 11/9 OPT + 6/9 (Dosa, "The tight bound of first fit decreasing
  bin-packing algorithm is FFD(I) <= 11/9 OPT(I) + 6/9", 2007), and best fit decreasing at most 11/9 OPT + 4 (Johnson,
  Demers, Ullman, Garey and Graham, "Worst-case performance bounds for simple one-dimensional packing algorithms",
  1974);
- in d dimensions first fit needs at most d + 7/10 times OPT, and d + 1/3 times by the largest component, both
  asymptotically (Garey, Graham, Johnson and Yao, "Resource constrained scheduling as generalized bin packing", 1976).
What is found in practice is far closer: tests/core/test_packing.py asserts at most one machine, or 5 %, above OPT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .model import Resources
from .packing_bins import Bins, Counts, Vector, empty_some, fill_by_likeness, fill_by_search, fits, minus

MICRO: Final = 1_000_000
ROUNDING: Final = 1e-3  # of a millionth: by how much floating-point CPUs may be off
MANY: Final = 20_000  # from so many different needs on, one measure has to do
EMPTY: Final = (0, 0, 0)

Weights = tuple[float, float, float]
Rule = Callable[[int], tuple[float, ...]]  # of a kind: the least is taken


@dataclass(frozen=True, slots=True)
class Kind:
    """Machines that could be had."""

    capacity: Resources
    count: int
    price: float | None = None  # dollars per hour; where one is not known, the fewest machines are looked for


@dataclass(frozen=True, slots=True)
class Packing:
    """What each machine holds, and what fits nowhere."""

    contents: tuple[Mapping[Resources, int], ...]
    left: Mapping[Resources, int]
    kinds: tuple[int, ...] = ()  # of each machine the number of its kind, where kinds were asked for


def plan_packing(needs: Mapping[Resources, int], machines: Sequence[Resources]) -> Packing:
    """Needs, with how often each is there, onto machines that are given.

    No machine is ever given more than it has; nothing is left that fits somewhere; equal input gives equal output,
    whatever the order of `needs`.
    """
    problem = _Problem.of(needs, machines)
    best: Bins | None = None
    for measure in problem.measures():
        bins = Bins()
        for index, capacity in enumerate(problem.capacities):
            bins.open(capacity, index)
        bins.pour(problem.ordered(measure))
        if best is None or problem.sum_sizes(bins.left) < problem.sum_sizes(best.left):
            best = bins
        if not best.left:
            break
    return problem.result(best or Bins())


def count_machines(needs: Mapping[Resources, int], machine: Resources) -> int:
    """How many machines of one kind hold all that fits in one. What asks for nothing takes no room."""
    return len(plan_machines(needs, [Kind(machine, sum(needs.values()))]).contents)


def plan_machines(needs: Mapping[Resources, int], kinds: Sequence[Kind]) -> Packing:
    """The cheapest machines, or the fewest where a price is not known, that hold all needs at once."""
    problem = _Problem.of(needs, [kind.capacity for kind in kinds])
    problem.counts.pop(EMPTY, None)
    stock = _Stock(problem, kinds)
    best: Bins | None = None
    for bins in _candidates(problem, stock):
        if len(problem.counts) < MANY:
            empty_some(bins, problem.sizes)
        stock.settle(bins)
        if best is None or stock.rank(bins) < stock.rank(best):
            best = bins
        if not best.left and len(best.free) <= stock.least:
            break
    return problem.result(best or Bins(), kinds=True)


def _candidates(problem: _Problem, stock: _Stock) -> Iterator[Bins]:
    for rule in stock.rules():
        for measure in problem.measures():
            bins = Bins()
            bins.pour(problem.ordered(measure), stock.opener(rule))
            yield bins
    if len(problem.capacities) == 1:
        capacity = problem.capacities[0]
        counts = {need: count for need, count in problem.counts.items() if fits(need, capacity)}
        for filled in (
            fill_by_likeness(counts, capacity, problem.scarcity()),
            fill_by_search(counts, capacity, problem.sizes),
        ):
            if filled is not None and len(filled) <= stock.counts[0]:
                yield _bins_of(filled, capacity, {n: c for n, c in problem.counts.items() if n not in counts})


def _bins_of(filled: Sequence[Counts], capacity: Vector, left: Counts) -> Bins:
    bins = Bins(left=left)
    for content in filled:
        index = bins.open(capacity, 0)
        for need, count in content.items():
            bins.put(index, need, count)
    return bins


def vector(need: Resources) -> Vector:
    return (need.gpus, round(need.cpus * MICRO), need.memory)


def room(machine: Resources) -> Vector:
    return (max(0, machine.gpus), max(0, math.floor(machine.cpus * MICRO + ROUNDING)), max(0, machine.memory))


@dataclass(slots=True)
class _Problem:
    counts: Counts
    capacities: list[Vector]
    names: dict[Vector, dict[Resources, int]]  # the needs of one vector, which may differ in what rounding takes
    sizes: dict[Vector, float] = field(default_factory=dict)

    @staticmethod
    def of(needs: Mapping[Resources, int], machines: Sequence[Resources]) -> _Problem:
        counts: Counts = {}
        names: dict[Vector, dict[Resources, int]] = {}
        for need in sorted(needs, key=lambda n: (n.gpus, n.cpus, n.memory)):
            if needs[need] > 0:
                at = vector(need)
                counts[at] = counts.get(at, 0) + needs[need]
                names.setdefault(at, {})[need] = needs[need]
        problem = _Problem(counts, [room(machine) for machine in machines], names)
        weights = problem.weights()[0]
        problem.sizes = {need: _dot(need, weights) for need in counts}
        return problem

    def largest(self) -> Vector:
        tallest = [max(column) for column in zip(*self.capacities, strict=True)] or [0, 0, 0]
        return (tallest[0], tallest[1], tallest[2])

    def weights(self) -> list[Weights]:
        """Of each dimension, by how scarce it is in all, and alike."""
        largest = self.largest()
        totals = [sum(need[d] * count for need, count in self.counts.items()) for d in range(3)]
        shares = [total / most if most else 0.0 for total, most in zip(totals, largest, strict=True)]
        whole = max(shares, default=0.0) or 1.0
        plain = [1.0 / most if most else 0.0 for most in largest]
        scarce = [share / whole * each for share, each in zip(shares, plain, strict=True)]
        return [(scarce[0], scarce[1], scarce[2]), (plain[0], plain[1], plain[2])]

    def scarcity(self) -> Weights:
        """Of a product of two vectors: each is a share of what there is."""
        scarce, plain = self.weights()
        return (scarce[0] * plain[0], scarce[1] * plain[1], scarce[2] * plain[2])

    def measures(self) -> list[Callable[[Vector], float]]:
        scarce, plain = self.weights()
        found: list[Callable[[Vector], float]] = [
            lambda v: _dot(v, scarce),
            lambda v: max(v[0] * plain[0], v[1] * plain[1], v[2] * plain[2]),
            lambda v: _dot(v, plain),
        ]
        return found[:1] if len(self.counts) >= MANY else found

    def ordered(self, measure: Callable[[Vector], float]) -> list[tuple[Vector, int]]:
        return sorted(self.counts.items(), key=lambda item: (-measure(item[0]), item[0]))

    def sum_sizes(self, counts: Mapping[Vector, int]) -> float:
        return sum(self.sizes[need] * count for need, count in counts.items())

    def result(self, bins: Bins, *, kinds: bool = False) -> Packing:
        """In the words of the caller: machines that are alike hold alike, whatever was found for them first."""
        order = list(range(len(bins.free)))
        if kinds:
            order.sort(key=lambda i: (bins.kinds[i], sorted(bins.contents[i].items())))
        names = {need: list(found.items()) for need, found in self.names.items()}
        contents = tuple(self._name(bins.contents[i], names) for i in order)
        return Packing(contents, self._name(bins.left, names), tuple(bins.kinds[i] for i in order) if kinds else ())

    def _name(self, counts: Counts, names: dict[Vector, list[tuple[Resources, int]]]) -> dict[Resources, int]:
        named: dict[Resources, int] = {}
        for need, count in counts.items():
            to_name = count
            while to_name:
                original, there = names[need][-1]
                taken = min(to_name, there)
                named[original] = named.get(original, 0) + taken
                to_name -= taken
                names[need][-1] = (original, there - taken)
                if taken == there:
                    names[need].pop()
        return named


def _dot(v: Vector, weights: Weights) -> float:
    return v[0] * weights[0] + v[1] * weights[1] + v[2] * weights[2]


class _Stock:
    """What could be had, and what it costs."""

    def __init__(self, problem: _Problem, kinds: Sequence[Kind]) -> None:
        prices = [kind.price for kind in kinds]
        known = [price for price in prices if price is not None]
        self.costs = known if len(known) == len(prices) else [1.0] * len(prices)
        self.counts = [kind.count for kind in kinds]
        self.capacities = problem.capacities
        self._problem = problem
        self.least = self._count_least()

    def _count_least(self) -> int:
        """No fewer machines hold all, whatever their kind; with several kinds fewer are not always cheaper."""
        if len(self.capacities) != 1:
            return 0
        counts = {n: c for n, c in self._problem.counts.items() if fits(n, self.capacities[0])}
        totals = [sum(need[d] * count for need, count in counts.items()) for d in range(3)]
        return max((-(-t // most) for t, most in zip(totals, self.capacities[0], strict=True) if most), default=0)

    def rules(self) -> list[Rule]:
        """Which kind is opened for what fits in no open machine."""
        if len(self.capacities) == 1:
            return [lambda kind: (0.0,)]
        weights = self._problem.weights()
        worth = [[_dot(capacity, w) or 1.0 for capacity in self.capacities] for w in weights]
        return [
            lambda kind: (self.costs[kind] / worth[0][kind], self.costs[kind], kind),
            lambda kind: (self.costs[kind], -worth[0][kind], kind),
            lambda kind: (self.costs[kind] / worth[1][kind], self.costs[kind], kind),
            lambda kind: (-worth[0][kind], self.costs[kind], kind),
        ]

    def opener(self, rule: Rule, bins: Bins | None = None) -> Callable[[Vector], tuple[Vector, int] | None]:
        """Of what is not open in `bins`."""
        left = self._spare(bins or Bins())
        order = sorted(range(len(left)), key=rule)

        def open_one(need: Vector) -> tuple[Vector, int] | None:
            for kind in order:
                if left[kind] > 0 and fits(need, self.capacities[kind]):
                    left[kind] -= 1
                    return self.capacities[kind], kind
            return None

        return open_one

    def _spare(self, bins: Bins) -> list[int]:
        return [count - bins.kinds.count(kind) for kind, count in enumerate(self.counts)]

    def settle(self, bins: Bins) -> None:
        """Shrunk, and with nothing left that fits into what emptying and shrinking have made free."""
        self._shrink(bins)
        while bins.left:
            left, bins.left = bins.left, {}
            order = [
                (need, left[need]) for need, _ in self._problem.ordered(self._problem.measures()[0]) if need in left
            ]
            bins.pour(order, self.opener(self.rules()[0], bins))
            if bins.left == left:
                return
            self._shrink(bins)

    def _shrink(self, bins: Bins) -> None:
        """Machines of the cheapest kind that holds what they were given."""
        if len(self.capacities) == 1:
            return
        left = self._spare(bins)
        for index in sorted(range(len(bins.free)), key=lambda i: (bins.free[i], i), reverse=True):
            own = bins.kinds[index]
            used = minus(self.capacities[own], bins.free[index])
            cheaper = [
                (self.costs[kind], kind)
                for kind in range(len(left))
                if left[kind] > 0 and self.costs[kind] < self.costs[own] and fits(used, self.capacities[kind])
            ]
            if cheaper:
                _, kind = min(cheaper)
                left[own] += 1
                left[kind] -= 1
                bins.resize(index, kind, minus(self.capacities[kind], used))

    def rank(self, bins: Bins) -> tuple[float, float, int]:
        """What is left over is worst, then what it costs."""
        cost = math.fsum(self.costs[kind] for kind in bins.kinds)
        return (self._problem.sum_sizes(bins.left), cost, len(bins.free))

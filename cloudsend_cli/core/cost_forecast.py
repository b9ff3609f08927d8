"""What the machines of a plan would cost in all, where it is known when they are used. Pure.

Counted is what `cost` counts: a machine from its launch until it has ended, its waiting for the next run included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .costs import HOUR
from .decide_nodes import LEAST_IDLE
from .plan import NodePlan
from .renting import is_rented

Span = tuple[float, float]  # seconds from the beginning of the run


@dataclass(frozen=True, slots=True)
class ExpectedCost:
    """Dollars from now on. What is not in them, as it is not known, is counted: then they are the least."""

    total: float
    machines: int  # that are rented, or were
    keep: float  # for how many seconds each waits for the next run, at the most
    jobs: int = 0  # of which no time is known
    homeless: int = 0  # jobs that were never begun
    unpriced: int = 0  # machines
    starting: float | None = None  # seconds from a launch to the first job, which are in it

    @property
    def at_least(self) -> bool:
        return bool(self.jobs or self.homeless or self.unpriced) or self.starting is None


def expect_cost(
    nodes: Iterable[NodePlan],
    spans: Mapping[str, Sequence[Span]],
    starting: float | None,
    *,
    jobs: int = 0,
    homeless: int = 0,
) -> ExpectedCost | None:
    """`spans`: of the jobs of each machine. None: nothing that has a price is used."""
    end = max((until for used in spans.values() for _, until in used), default=0.0)
    rented = [node for node in nodes if is_rented(node.offers[0]) and (spans.get(node.name) or node.at_hand)]
    total, launches, unpriced = 0.0, 0, 0
    for node in rented:
        seconds, launched = paid_time(node, spans.get(node.name, ()), end, starting or 0.0)
        price = node.offers[0].price
        total += (price or 0.0) * seconds / HOUR
        unpriced += price is None
        launches += launched
    if unpriced == len(rented):
        return None
    keep = max(node.offers[0].keep for node in rented)
    return ExpectedCost(total, len(rented), keep, jobs, homeless, unpriced, starting if launches else 0.0)


def paid_time(node: NodePlan, spans: Sequence[Span], end: float, starting: float) -> tuple[float, int]:
    """Seconds for which it is paid, and how often it is launched. `end`: of the run. A machine without work is let go
    after its time, or then, and waits for the next run."""
    offer = node.offers[0]
    waits = max(LEAST_IDLE, offer.keep)
    there = node.at_hand or node.waiting
    seconds, launched = 0.0, 0
    for since, until in _join(spans or [(0.0, 0.0)], waits + offer.keep):
        used = until - since + min(waits, end - until) + offer.keep
        seconds += used if there else max(used + starting, offer.least)
        launched += not there
        there = False
    return seconds, launched


def _join(spans: Iterable[Span], gap: float) -> list[Span]:
    """As one what is not further apart: a machine that waits is taken again."""
    joined: list[Span] = []
    for since, until in sorted(spans):
        if joined and since <= joined[-1][1] + gap:
            begin, reached = joined.pop()
            joined.append((begin, max(reached, until)))
        else:
            joined.append((since, until))
    return joined

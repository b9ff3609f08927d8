"""What is paid, from the times and prices of rentals: of a machine, a run, a plan; of jobs see cost_shares. Pure.

Amounts are dollars. A rental without a known price counts as nothing and is counted, so that no sum hides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .model import Offer
from .state import RentalRecord

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Cost:
    """An amount up to a moment, and how fast it grows. `unknown`: how many rentals or machines are not in it."""

    total: float = 0.0
    per_hour: float = 0.0
    unknown: int = 0

    def plus(self, other: Cost) -> Cost:
        return Cost(self.total + other.total, self.per_hour + other.per_hour, self.unknown + other.unknown)


NO_COST = Cost()


def paid_seconds(rental: RentalRecord, now: float) -> float:
    """What is charged up to `now`: a provider may ask for a least time, and one that has not begun costs nothing."""
    if now < rental.since:
        return 0.0
    until = now if rental.until is None else min(now, rental.until)
    return max(until - rental.since, rental.least)


def clip_waiting(rentals: Iterable[RentalRecord]) -> dict[RentalRecord, RentalRecord]:
    """The waiting of machines that were taken again meanwhile: until then. Of the rentals of all runs, whose ids are
    each run's own."""
    used: dict[str, list[float]] = {}
    waits = []
    for rental in rentals:
        if rental.waiting:
            waits.append(rental)
        else:
            used.setdefault(rental.instance_id, []).append(rental.taken_at or rental.since)
    clipped = {}
    for wait in waits:
        taken = min((since for since in used.get(wait.instance_id, ()) if since > wait.kept_at), default=None)
        if taken is not None and wait.until is not None and taken < wait.until:
            clipped[wait] = replace(wait, until=max(wait.since, taken))
    return clipped


def rental_cost(rental: RentalRecord, now: float) -> Cost:
    # One that was ended before its least time was over is not begun any more.
    open_now = rental.until is None or max(now, rental.since) < rental.until
    if rental.price is None:
        return Cost(unknown=1)
    return Cost(rental.price * paid_seconds(rental, now) / HOUR, rental.price if open_now else 0.0)


def run_cost(rentals: Iterable[RentalRecord], now: float) -> Cost:
    cost = NO_COST
    for rental in rentals:
        cost = cost.plus(rental_cost(rental, now))
    return cost


# ---- before anything is rented -------------------------------------------------------------------------------------


def plan_cost(machines: Iterable[Sequence[Offer]]) -> Cost:
    """What the first offers of these rented machines cost an hour, all at once."""
    cost = NO_COST
    for offers in machines:
        price = offers[0].price
        cost = cost.plus(Cost(unknown=1) if price is None else Cost(per_hour=price))
    return cost


def hours_of(budget: float, per_hour: float) -> float | None:
    """How long a budget lasts; None: for ever."""
    return budget / per_hour if per_hour > 0 else None


def is_cheaper(offer: Offer, first: Offer) -> bool:
    return offer.price is not None and first.price is not None and offer.price < first.price


# ---- in words ------------------------------------------------------------------------------------------------------


def describe_dollars(amount: float) -> str:
    """Such as `$12.34`; small amounts keep two digits that say something: `$0.0042`."""
    if amount == 0 or abs(amount) >= 0.1:
        return f"${amount:.2f}"
    return f"${amount:.4f}" if abs(amount) >= 0.0001 else "<$0.0001"


def describe_rate(price: float | None) -> str:
    return "unknown price" if price is None else f"{describe_dollars(price)}/h"


def describe_cost(cost: Cost) -> str:
    """Such as `$1.20, $0.42/h now, and 1 machine of unknown price`."""
    parts = [describe_dollars(cost.total)]
    if cost.per_hour:
        parts.append(f"{describe_rate(cost.per_hour)} now")
    if cost.unknown:
        parts.append(f"and {cost.unknown} machine{'' if cost.unknown == 1 else 's'} of unknown price")
    return ", ".join(parts)

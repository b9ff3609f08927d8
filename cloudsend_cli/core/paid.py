"""What is paid for machines that belong to no run: since when each has power, how often, and who else pays. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .costs import HOUR, NO_COST, Cost
from .model import Rented
from .renting import SWITCH_SECONDS
from .state import RentalRecord

WITHOUT_POWER = frozenset({"stopping", "stopped", "ending", "terminated"})
SAME = 1.0  # seconds by which two notes of one launch may differ


@dataclass(frozen=True, slots=True)
class Period:
    """From a launch or a start until the machine was ended or stopped; None: it goes on."""

    since: float
    until: float | None = None
    price: float | None = None  # dollars per hour


@dataclass(frozen=True, slots=True)
class Paid:
    """One machine that was rented, or started again, by hand."""

    instance_id: str
    provider: str
    node: str
    project: str = ""
    type: str = ""
    place: str = ""
    market: str = ""
    least: float = 0.0  # seconds that are charged for each period at least
    idle: float | None = None  # seconds after which it ends itself
    expires: float | None = None
    seen: float = 0.0
    periods: tuple[Period, ...] = ()

    @property
    def since(self) -> float | None:
        return self.periods[0].since if self.periods else None

    @property
    def until(self) -> float | None:
        return self.periods[-1].until if self.periods else None


def see_machine(paid: Paid, machine: Rented, now: float) -> Paid:
    """With what its provider says of it now."""
    about = replace(
        paid,
        type=machine.type or paid.type,
        place=paid.place or machine.region,
        market=machine.market or paid.market,
        project=machine.project or paid.project,
        expires=machine.expires if machine.expires is not None else paid.expires,
        idle=machine.idle if machine.idle is not None else paid.idle,
        least=machine.least_seconds or paid.least,
        seen=now,
    )
    if machine.launched_at is None:
        return about
    last = paid.periods[-1] if paid.periods else None
    if last is None or machine.launched_at > last.since + SAME:
        # It was stopped and started unseen: until then it had power for as long as it was seen to have some.
        before = tuple(p if p.until is not None else replace(p, until=max(p.since, paid.seen)) for p in paid.periods)
        return replace(about, periods=(*before, _end(Period(machine.launched_at, None, machine.price), machine, now)))
    price = last.price if last.price is not None else machine.price
    return replace(about, periods=(*paid.periods[:-1], _end(replace(last, price=price), machine, now)))


def _end(period: Period, machine: Rented, now: float) -> Period:
    if machine.state not in WITHOUT_POWER:
        return replace(period, until=None)
    until = machine.ended_at if machine.ended_at is not None else now if period.until is None else period.until
    return replace(period, until=max(period.since, until))


def lose_machine(paid: Paid) -> Paid:
    """Its provider shows it no more. It ended when it had been idle, or at the end of its life, at the latest."""
    if not paid.periods or paid.until is not None:
        return paid
    last = paid.periods[-1]
    limits = [paid.seen + paid.idle + SWITCH_SECONDS if paid.idle is not None else None, paid.expires]
    until = min((limit for limit in limits if limit is not None), default=paid.seen)
    return replace(paid, periods=(*paid.periods[:-1], replace(last, until=max(last.since, until))))


def total_cost(paid: Paid, now: float) -> Cost:
    """Whoever used it."""
    return _cost(paid, [], now)[1]


def own_cost(paid: Paid, rentals: Iterable[RentalRecord], now: float) -> tuple[float, Cost]:
    """(seconds, what they cost) for which no run pays. `rentals`: of all runs."""
    return _cost(paid, [r for r in rentals if r.instance_id == paid.instance_id], now)


def _cost(paid: Paid, rentals: Iterable[RentalRecord], now: float) -> tuple[float, Cost]:
    taken = sorted((r.since, now if r.until is None else min(r.until, now)) for r in rentals)
    total, cost = 0.0, NO_COST
    for period in paid.periods:
        until = now if period.until is None else min(period.until, now)
        seconds = max(until - period.since, paid.least) - _covered(taken, period.since, until)
        total += seconds
        if period.price is None:
            cost = cost.plus(Cost(unknown=1))
            continue
        runs_on = period.until is None and not any(since <= now <= end for since, end in taken)
        cost = cost.plus(Cost(period.price * seconds / HOUR, period.price if runs_on else 0.0))
    return total, cost


def _covered(intervals: Iterable[tuple[float, float]], since: float, until: float) -> float:
    """How much of the time lies in any of the intervals, which are sorted."""
    covered, reached = 0.0, since
    for first, last in intervals:
        begin, end = max(first, reached), min(last, until)
        if end > begin:
            covered += end - begin
            reached = end
    return covered

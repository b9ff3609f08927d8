"""What machines cost that belong to no run: each time that they have power, without what runs pay for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudsend_cli.core.model import Rented
from cloudsend_cli.core.paid import Paid, Period, lose_machine, own_cost, see_machine, total_cost
from cloudsend_cli.core.state import RentalRecord

HOUR = 3600.0
MACHINE = Rented(
    "aws", "i-1", "here", "running", "kept", "aws-abc", "p", "small", "spot", 0.1, launched_at=0.0, expires=24 * HOUR,
    idle=600.0, least_seconds=60.0,
)  # fmt: skip
NEW = Paid("i-1", "aws", "aws-abc")


def rental(since: float, until: float | None, instance: str = "i-1") -> RentalRecord:
    return RentalRecord(f"{instance} {since}", instance, "aws-0", "aws", 0.1, since, until)


def test_each_time_that_it_is_started_is_a_period() -> None:
    """Seen: age and cost began anew after a stop and a start."""
    bill = see_machine(NEW, MACHINE, HOUR)
    assert (bill.periods, bill.since, bill.until) == ((Period(0.0, None, 0.1),), 0.0, None)
    stopping = replace(MACHINE, state="stopping")
    bill = see_machine(bill, stopping, 2 * HOUR)
    assert bill.until == 2 * HOUR
    bill = see_machine(bill, replace(stopping, state="stopped", ended_at=1.9 * HOUR), 3 * HOUR)
    assert bill.until == 1.9 * HOUR
    assert see_machine(bill, replace(stopping, state="stopped"), 4 * HOUR).until == 1.9 * HOUR
    bill = see_machine(bill, replace(MACHINE, launched_at=5 * HOUR), 6 * HOUR)
    assert [(p.since, p.until) for p in bill.periods] == [(0.0, 1.9 * HOUR), (5 * HOUR, None)]
    assert (bill.since, total_cost(bill, 6 * HOUR).total) == (0.0, pytest.approx(0.29))
    assert total_cost(bill, 6 * HOUR).per_hour == 0.1


def test_a_restart_that_nobody_saw_ends_what_was_seen_last() -> None:
    bill = see_machine(see_machine(NEW, MACHINE, HOUR), replace(MACHINE, launched_at=5 * HOUR), 5.5 * HOUR)
    assert [(p.since, p.until) for p in bill.periods] == [(0.0, HOUR), (5 * HOUR, None)]


@pytest.mark.parametrize(
    ("changes", "until"),
    [({}, HOUR + 660), ({"expires": 1.1 * HOUR}, 1.1 * HOUR), ({"idle": None, "expires": None}, HOUR)],
)
def test_one_that_vanished_ended_when_it_had_been_idle_or_its_life_was_over(
    changes: dict[str, float | None], until: float
) -> None:
    bill = replace(see_machine(NEW, MACHINE, HOUR), **changes)  # type: ignore[arg-type]
    gone = lose_machine(bill)
    assert gone.until == pytest.approx(until)
    assert lose_machine(gone) == gone and lose_machine(NEW) == NEW
    assert see_machine(gone, MACHINE, 2 * HOUR).until is None, "a list that lagged proves nothing"


def test_runs_pay_for_their_time_and_nobody_pays_twice() -> None:
    bill = see_machine(NEW, MACHINE, 10 * HOUR)
    of_runs = [(2.0, 5.0), (2.5, 4.0), (4.5, 5.0), (8.0, None)]
    rentals = [rental(a * HOUR, None if b is None else b * HOUR) for a, b in of_runs]
    rentals.append(rental(0.0, None, "i-2"))
    seconds, cost = own_cost(bill, rentals, 10 * HOUR)
    assert (seconds, cost.total, cost.per_hour) == (5 * HOUR, pytest.approx(0.5), 0.0)
    assert own_cost(bill, [], 10 * HOUR)[1].per_hour == 0.1


def test_the_first_minute_is_charged_whole_and_an_unknown_price_is_counted() -> None:
    bill = see_machine(NEW, replace(MACHINE, state="terminated", ended_at=6.0), 100.0)
    assert own_cost(bill, [], 100.0)[0] == 60.0
    assert own_cost(see_machine(NEW, replace(MACHINE, price=None), HOUR), [], HOUR)[1].unknown == 1
    later = see_machine(see_machine(NEW, replace(MACHINE, price=None), HOUR), MACHINE, 2 * HOUR)
    assert later.periods[0].price == 0.1
    assert see_machine(NEW, replace(MACHINE, launched_at=None), HOUR).since is None

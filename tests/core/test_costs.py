"""Money is data: what is charged, to whom it is counted, and what is not known is never hidden in a sum."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudsend_cli.core.costs import (
    Cost,
    describe_cost,
    describe_dollars,
    describe_rate,
    hours_of,
    is_cheaper,
    paid_seconds,
    plan_cost,
    rental_cost,
    run_cost,
)
from cloudsend_cli.core.model import Offer
from cloudsend_cli.core.state import RentalRecord

RENTAL = RentalRecord("i-1@1000", "i-1", "aws-1", "aws", 3.6, 1000.0)


def test_an_open_rental_runs_on() -> None:
    assert rental_cost(RENTAL, 1100.0) == Cost(0.1, 3.6)
    assert rental_cost(RENTAL, 2000.0) == Cost(1.0, 3.6)


def test_an_ended_rental_stays_as_it_is() -> None:
    ended = replace(RENTAL, until=1500.0)
    assert rental_cost(ended, 9000.0) == Cost(0.5, 0.0)
    assert rental_cost(ended, 1200.0) == Cost(0.2, 3.6)


def test_a_least_time_is_paid_for() -> None:
    assert paid_seconds(replace(RENTAL, until=1010.0, least=60.0), 5000.0) == 60.0
    assert paid_seconds(replace(RENTAL, least=60.0), 1001.0) == 60.0
    assert paid_seconds(replace(RENTAL, least=60.0), 1100.0) == 100.0


def test_a_rental_of_the_future_costs_nothing_yet() -> None:
    assert paid_seconds(replace(RENTAL, least=60.0), 900.0) == 0.0
    assert rental_cost(replace(RENTAL, until=1100.0), 900.0).total == 0.0


def test_waiting_that_was_ended_before_it_began_costs_nothing() -> None:
    wait = replace(RENTAL, until=1000.0, waiting=True)
    assert rental_cost(wait, 950.0) == Cost()
    assert rental_cost(replace(wait, until=1600.0), 950.0) == Cost(0.0, 3.6)


def test_what_has_no_price_is_counted() -> None:
    unknown = replace(RENTAL, price=None)
    assert rental_cost(unknown, 2000.0) == Cost(0.0, 0.0, 1)
    assert run_cost([RENTAL, unknown, unknown], 2000.0) == Cost(1.0, 3.6, 2)


def test_a_run_pays_for_all_its_machines() -> None:
    rentals = [replace(RENTAL, until=1500.0), replace(RENTAL, id="i-2@1600", since=1600.0)]
    rentals.append(replace(RENTAL, node="aws-2", until=1100.0))
    cost = run_cost(rentals, 2000.0)
    assert (cost.total, cost.per_hour) == (pytest.approx(0.9 + 0.1), 3.6)
    assert run_cost([], 2000.0) == Cost()


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.none() | st.floats(0, 1e6), st.floats(0, 100), st.floats(0, 3600)), max_size=6
    ),
    st.floats(0, 2e6),
    st.floats(0, 1e5),
)
def test_a_cost_never_falls(parts: list[tuple[float, float | None, float, float]], now: float, later: float) -> None:
    rentals = [
        replace(RENTAL, since=since, until=None if length is None else since + length, price=price, least=least)
        for since, length, price, least in parts
    ]
    assert run_cost(rentals, now).total <= run_cost(rentals, now + later).total + 1e-9


def test_a_plan_costs_what_its_first_offers_cost() -> None:
    cheap, dear, free = Offer("{}", price=0.1), Offer("{}", price=0.4), Offer("{}")
    assert plan_cost([(cheap, dear), (dear, cheap), (free,)]) == Cost(0.0, 0.5, 1)
    assert is_cheaper(cheap, dear)
    assert not is_cheaper(dear, cheap)
    assert not is_cheaper(free, dear)
    assert not is_cheaper(cheap, free)


def test_how_long_a_budget_lasts() -> None:
    assert hours_of(20.0, 0.5) == 40.0
    assert hours_of(20.0, 0.0) is None


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0.0, "$0.00"), (12.345, "$12.35"), (0.1, "$0.10"), (0.0042, "$0.0042"), (0.00001, "<$0.0001")],
)
def test_dollars_in_words(amount: float, text: str) -> None:
    assert describe_dollars(amount) == text


def test_costs_in_words() -> None:
    assert describe_rate(None) == "unknown price"
    assert describe_cost(Cost(1.2)) == "$1.20"
    assert describe_cost(Cost(1.2, 0.42, 1)) == "$1.20, $0.42/h now, and 1 machine of unknown price"
    assert describe_cost(Cost(0.0, 0.0, 2)) == "$0.00, and 2 machines of unknown price"

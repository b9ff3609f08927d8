"""What each job has of the cost of its machines: no more in all than is paid, and never nothing for its work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudsend_cli.core.cost_shares import Execution, divide_costs, plan_execution, share_of
from cloudsend_cli.core.costs import HOUR, NO_COST, Cost, run_cost
from cloudsend_cli.core.model import UNBOUNDED, Resources
from cloudsend_cli.core.state import RentalRecord

RENTAL = RentalRecord("i-1@1000", "i-1", "aws-1", "aws", 3.6, 1000.0)


@pytest.mark.parametrize(
    ("asked", "capacity", "share"),
    [
        (Resources(2.0), Resources(8.0), 0.25),
        (Resources(2.0, 8 << 30), Resources(8.0, 16 << 30), 0.5),
        (Resources(1.0, 0, 1), Resources(8.0, 16 << 30, 2), 0.5),
        (Resources(16.0), Resources(8.0), 1.0),
        (Resources(0.0), Resources(8.0), 0.0),
        (Resources(2.0), UNBOUNDED, 1.0),
        (Resources(2.0), Resources(8.0, UNBOUNDED.memory, UNBOUNDED.gpus), 0.25),
        (UNBOUNDED, Resources(8.0), 1.0),
    ],
)
def test_the_share_of_a_job(asked: Resources, capacity: Resources, share: float) -> None:
    assert share_of(asked, capacity) == share
    planned = plan_execution(3, asked, capacity, "aws-1", 1.0, None)
    assert (planned.job, planned.share, planned.least) == (3, share, 1.0 if capacity == UNBOUNDED else 0.125)


def job_cost(executions: list[Execution], rentals: list[RentalRecord], now: float) -> Cost:
    return divide_costs(executions, rentals, now).get(1, NO_COST)


def test_a_job_pays_its_share_while_it_runs() -> None:
    ended = [Execution(1, "aws-1", 1000.0, 2000.0, 0.25)]
    assert job_cost(ended, [RENTAL], 5000.0) == Cost(0.25)
    running = [Execution(1, "aws-1", 1000.0, share=0.5)]
    assert job_cost(running, [RENTAL], 2000.0) == Cost(0.5, 1.8)
    assert job_cost([], [RENTAL], 2000.0) == Cost()


def test_a_job_pays_for_all_its_attempts() -> None:
    rentals = [replace(RENTAL, until=1500.0), replace(RENTAL, id="i-2@1600", node="aws-2", since=1600.0)]
    attempts = [Execution(1, "aws-1", 1400.0, 1500.0), Execution(1, "aws-2", 1700.0)]
    assert job_cost(attempts, rentals, 2000.0) == Cost(0.4, 3.6)


def test_a_job_pays_only_while_its_machine_is_paid_for() -> None:
    rentals = [replace(RENTAL, until=1500.0)]
    assert job_cost([Execution(1, "aws-1", 500.0, 1800.0)], rentals, 2000.0) == Cost(0.5)
    assert job_cost([Execution(1, "aws-1", 1400.0)], rentals, 2000.0) == Cost(0.1)
    assert job_cost([Execution(1, "aws-1", 1600.0)], rentals, 2000.0) == Cost()
    assert job_cost([Execution(1, "aws-1", 1200.0, 1200.0)], rentals, 2000.0) == Cost()
    assert job_cost([Execution(1, "aws-2", 1200.0, 1300.0)], rentals, 2000.0) == Cost()


def test_a_job_on_a_machine_without_a_price() -> None:
    unpriced = replace(RENTAL, price=None)
    assert job_cost([Execution(1, "aws-1", 1000.0)], [unpriced], 2000.0) == Cost(unknown=1)
    assert job_cost([Execution(1, "aws-1", 1000.0)], [replace(unpriced, until=1000.0)], 2000.0) == Cost()


# ---- beside each other ---------------------------------------------------------------------------------------------


def divide(*executions: tuple[float, float, float], cpus: float = 8.0) -> list[float]:
    """Dollars of each (CPUs, since, until), on a machine of one dollar for each 1000 s from 1000 on."""
    found = [
        plan_execution(n, Resources(asked), Resources(cpus), "aws-1", since, until)
        for n, (asked, since, until) in enumerate(executions)
    ]
    costs = divide_costs(found, [RENTAL], 9000.0)
    return [round(costs[n].total, 9) for n in range(len(found))]


def test_jobs_that_ask_for_no_cpus_have_the_machine_among_them() -> None:
    """Seen: jobs of a pool cost $0 each, and the whole machine counted as time in which no job ran."""
    assert divide((0.0, 1000.0, 2000.0)) == [1.0]
    assert divide((0.0, 1000.0, 2000.0), (0.0, 1000.0, 2000.0)) == [0.5, 0.5]
    assert divide((0.0, 1000.0, 3000.0), (0.0, 2000.0, 3000.0)) == [1.5, 0.5]


def test_jobs_that_ask_for_no_cpus_have_what_the_others_leave() -> None:
    assert divide((4.0, 1000.0, 2000.0), (0.0, 1000.0, 2000.0), (0.0, 1000.0, 2000.0)) == [0.5, 0.25, 0.25]
    assert divide((4.0, 1000.0, 2000.0), (2.0, 1000.0, 2000.0)) == [0.5, 0.25], "what nobody asks for is nobody's"


def test_jobs_that_ask_for_no_cpus_have_no_less_than_one_on_a_full_machine() -> None:
    eight = [(1.0, 1000.0, 2000.0)] * 8
    assert divide(*eight) == [0.125] * 8
    assert divide(*eight, (0.0, 1000.0, 2000.0)) == [round(1 / 9, 9)] * 9


def test_jobs_that_ask_for_more_than_there_is_have_less_in_proportion() -> None:
    assert divide((8.0, 1000.0, 2000.0), (8.0, 1000.0, 2000.0)) == [0.5, 0.5]


def test_what_a_running_job_costs_an_hour_depends_on_those_beside_it() -> None:
    light = [Execution(n, "aws-1", 1500.0, share=0.0, least=0.125) for n in (1, 2)]
    gone = Execution(3, "aws-1", 1000.0, 1900.0, 0.5)
    costs = divide_costs([*light, gone], [RENTAL], 2000.0)
    assert [costs[n].per_hour for n in (1, 2, 3)] == [1.8, 1.8, 0.0]
    assert sum(cost.total for cost in costs.values()) == pytest.approx(0.5 * 0.5 + 0.5)


TIMES = st.integers(0, 60)
EXECUTIONS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), TIMES, st.none() | TIMES, st.sampled_from([0.0, 0.0, 1.0, 3.0, 4.0])),
    max_size=12,
)
RENTALS = st.lists(st.tuples(st.sampled_from(["a", "b"]), TIMES, st.none() | TIMES, st.integers(0, 3)), max_size=4)


@given(EXECUTIONS, RENTALS)
def test_no_more_is_divided_than_is_paid_and_all_of_it_while_anything_asks_for_nothing(
    made: list[tuple[str, int, int | None, float]], rented: list[tuple[str, int, int | None, int]]
) -> None:
    now = 50.0
    executions = [
        plan_execution(n, Resources(cpus), Resources(4.0), node, since, None if length is None else since + length)
        for n, (node, since, length, cpus) in enumerate(made)
    ]
    rentals = [
        RentalRecord(f"r{n}", f"i-{n}", node, "aws", price * HOUR, since, None if length is None else since + length)
        for n, (node, since, length, price) in enumerate(rented)
    ]
    costs = divide_costs(executions, rentals, now)
    total = sum(cost.total for cost in costs.values())
    assert total <= run_cost(rentals, now).total + 1e-6
    assert all(cost.total >= 0 and cost.per_hour >= 0 for cost in costs.values())

    def runs(execution: Execution, second: int) -> bool:
        return execution.started <= second and (execution.ended is None or second < execution.ended)

    wanted = 0.0
    for second in range(int(now)):
        for node in "ab":
            beside = [e for e in executions if e.node == node and runs(e, second)]
            price = sum(
                p for at, since, length, p in rented
                if at == node and since <= second and (length is None or second < since + length)
            )  # fmt: skip
            asked = sum(e.share for e in beside)
            wanted += price * (1.0 if any(not e.share for e in beside) else min(1.0, asked))
    assert total == pytest.approx(wanted, abs=1e-6)

"""What is printed of money: the json forms are stable, and what is not known is null."""

from __future__ import annotations

from cloudsend_cli.core.cost_views import ExcessView, JobCost, MachineCost, RunCost
from cloudsend_cli.core.costs import Cost
from cloudsend_cli.core.machine_views import InstanceView, RentalView
from cloudsend_cli.core.renting import Kind
from cloudsend_cli.core.views import RunView, cost_json

MACHINE = MachineCost("aws-0", "i-1", "aws", Kind("t3.small", "z", "spot"), 0.36, 0.0, 100.0, 100.0, Cost(0.01))
JOB = JobCost("rtest1.1", "train", "succeeded", 1, 50.0, Cost(0.004))


def test_a_run_in_json() -> None:
    run = RunCost("rtest1", "p", "running", Cost(0.01, 0.36), 1.0, 0.0, (MACHINE,), (JOB,))
    value = run.as_json()
    assert (value["cost"], value["cost_per_hour"], value["unknown"]) == (0.01, 0.36, 0)
    assert (value["budget"], value["budget_left"], value["unused"]) == (1.0, 0.99, 0.006)
    assert value["machines"] == [MACHINE.as_json()]
    assert value["jobs"] == [JOB.as_json()]
    assert RunCost("rtest1", "p", "running", Cost(2.0), 1.0).left == 0.0


def test_jobs_that_were_not_asked_for_are_not_there() -> None:
    run = RunCost("rtest1", "p", "succeeded", Cost())
    assert run.unused is None
    assert not {"jobs", "unused"} & set(run.as_json())
    assert run.as_json()["budget_left"] is None


def test_what_has_no_price_costs_null() -> None:
    unknown = MachineCost("aws-0", "i-1", "aws", Kind(), None, 0.0, None, 100.0, Cost(unknown=1))
    value = unknown.as_json()
    assert (value["cost"], value["price_per_hour"], value["until"], value["type"]) == (None, None, None, None)
    assert JobCost("rtest1.1", "train", "failed", 1, 5.0, Cost(unknown=1)).as_json()["cost"] is None
    assert cost_json(None) == {"cost": None, "cost_per_hour": None, "unknown": 0}


def test_runs_that_rent_nothing_cost_null() -> None:
    run = RunView("rtest1", "p", "", "succeeded", {}, 1, "", 0.0, None)
    assert run.as_json()["cost"] is None


def test_what_is_left_over_in_json() -> None:
    value = ExcessView("volume", "vol-1", "", "aws", "eu-west-3", "no machine has it").as_json()
    assert (value["name"], value["since"], value["outcome"], value["code"]) == (None, None, "left", None)


def test_a_rented_machine_in_json() -> None:
    rental = RentalView(Kind("t3.small", "z", "spot"), 0.1, 0.0, Cost(0.5, 0.1), 100.0, "p", kept=True)
    value = InstanceView("aws-0", "aws", "i-1", "kept", rental=rental).as_json()
    assert (value["rented"], value["type"], value["cost"], value["kept"]) == (True, "t3.small", 0.5, True)
    assert value["expires_at"] == "1970-01-01T00:01:40.000Z"
    plain = InstanceView("local-0", "local", "", "running").as_json()
    assert (plain["rented"], plain["type"], plain["cost"], plain["kept"]) == (False, None, None, False)
    assert RentalView(cost=Cost(unknown=1)).as_json()["cost"] is None

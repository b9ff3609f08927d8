"""What a run would do, as it is told before it is begun."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.forecast import (
    JOBS_MOST,
    Forecast,
    GroupForecast,
    MachineForecast,
    foresee_places,
    list_first,
    plan_forecast,
)
from cloudsend_cli.core.history import History
from cloudsend_cli.core.model import JobGroup, JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan

HISTORY = History({}, {"long": 600.0, "short": 60.0})


def job(name: str, **values: Any) -> JobSpec:
    return replace(JobSpec(name, ("true",), "true"), **values)


def nodes(count: int, cpus: float = 2.0, price: float | None = None) -> list[NodePlan]:
    return [NodePlan(f"n-{n}", "fake", (Offer("{}", Resources(cpus), price),)) for n in range(count)]


def spec(*jobs: JobSpec, **values: Any) -> RunSpec:
    return RunSpec("p", "/c.yml", jobs, **values)


def test_forecast_says_what_runs_where_and_for_how_long() -> None:
    found = plan_forecast(spec(job("long"), job("short"), job("later", after=("short",))), nodes(2, 1.0), HISTORY)
    assert found == Forecast(
        3, 1, (MachineForecast("n-0", 1, ("long",)), MachineForecast("n-1", 2, ("short", "later"))), 600.0
    )


def test_every_job_has_the_place_that_is_foreseen_for_it() -> None:
    jobs = [job("long"), job("short"), job("later", after=("short",)), job("huge", resources=Resources(9.0))]
    assert foresee_places(spec(*jobs), nodes(2, 1.0), HISTORY) == {"n-0": ["long"], "n-1": ["short", "later"]}
    unsized = [NodePlan("n", "fake", (Offer("{}", None),))]
    assert foresee_places(spec(*jobs), unsized) == {}
    assert plan_forecast(spec(*jobs), unsized).why_not


def test_jobs_without_history_are_taken_for_average_ones() -> None:
    found = plan_forecast(spec(job("new"), job("short")), nodes(1, 1.0), HISTORY)
    assert (found.seconds, found.unknown) == (120.0, 1)
    assert plan_forecast(spec(job("new")), nodes(1), HISTORY).seconds is None


def test_groups_take_their_places_and_stages_their_turns() -> None:
    two = tuple(job(f"a{n}", group="S/g", stage=1, resources=Resources(0.0)) for n in range(4))
    groups = (JobGroup("S/g", slots=((), ())), JobGroup("T/h"))
    last = job("short", group="T/h", stage=2)
    history = History({}, {f"a{n}": 10.0 for n in range(4)} | {"short": 60.0})
    found = plan_forecast(spec(*two, last, groups=groups), nodes(1, 64.0), history)
    assert found.seconds == 80.0
    assert found.groups == (GroupForecast("S/g", 4, 2), GroupForecast("T/h", 1, None))
    limited = plan_forecast(spec(*two, groups=groups, max_parallel=1), nodes(1), history)
    assert (limited.seconds, limited.groups[0].at_once) == (40.0, 1)


@pytest.mark.parametrize(
    ("assign", "used"), [("", {"n-0": 2}), ("fastest", {"n-0": 1, "n-1": 1}), ("random", {"n-0": 1, "n-1": 1})]
)
def test_machines_are_chosen_as_the_config_says(assign: str, used: dict[str, int]) -> None:
    found = plan_forecast(spec(job("long"), job("short"), settings=(("assign", assign), ("seed", "5"))), nodes(2))
    assert {machine.name: machine.jobs for machine in found.machines} == used


def test_what_is_kept_is_not_counted() -> None:
    found = plan_forecast(spec(job("long"), job("short", after=("long",))), nodes(1), HISTORY, {"long"})
    assert (found.jobs, found.seconds) == (1, 60.0)
    assert plan_forecast(spec(job("long")), nodes(1), HISTORY, {"long"}).machines == ()


def test_nothing_is_foreseen_of_machines_whose_size_is_not_known() -> None:
    found = plan_forecast(spec(job("long")), [NodePlan("n-0", "fake", (Offer("{}"),))], HISTORY)
    assert found == Forecast(1, 0, why_not="how large the machines are will be known when they are there")


def test_nothing_is_foreseen_of_very_many_jobs() -> None:
    found = plan_forecast(spec(*(job(f"j{n}") for n in range(JOBS_MOST + 1))), nodes(1), HISTORY)
    assert found.why_not == "of more than 20,000 jobs it is not foreseen"


def test_first_machines_are_those_that_the_first_jobs_need() -> None:
    jobs = (job("a"), job("b"), job("c"), *(job(f"d{n}", after=("a",)) for n in range(9)))
    assert list_first(spec(*jobs), nodes(8, price=0.1)) == {"n-0", "n-1"}
    assert list_first(spec(*jobs), nodes(8, price=0.1), {"b", "c"}) == {"n-0"}
    assert list_first(spec(*jobs), nodes(8)) == frozenset()

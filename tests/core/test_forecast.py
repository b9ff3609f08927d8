"""What a run would do, as it is told before it is begun."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.cost_forecast import ExpectedCost, Span, paid_time
from cloudsend_cli.core.forecast import (
    JOBS_MOST,
    Forecast,
    GroupForecast,
    MachineForecast,
    foresee_places,
    list_first,
    plan_forecast,
)
from cloudsend_cli.core.history import NO_HISTORY, History, find_starting, sweep_of
from cloudsend_cli.core.model import JobGroup, JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.naming import job_hash
from cloudsend_cli.core.plan import NodePlan
from cloudsend_cli.core.state import RentalRecord

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


def test_places_begin_after_their_delay() -> None:
    four = tuple(job(f"a{n}", group="S/g", resources=Resources(0.0)) for n in range(4))
    group = JobGroup("S/g", slots=((), ()))
    history = History({}, {f"a{n}": 10.0 for n in range(4)})
    found = plan_forecast(spec(*four, groups=(group,), settings=(("delay", "4"),)), nodes(1), history)
    assert found.seconds == 24.0, "the second place begins at 4, and ends its second job at 24"


# ---- points of a sweep that no run has timed -----------------------------------------------------------------------


def points(*rates: str) -> list[JobSpec]:
    return [job(f"fit-{rate}", argv=("fit", rate), params=(("rate", rate),)) for rate in rates]


def test_new_points_of_a_sweep_are_taken_for_the_mean_of_the_others() -> None:
    history = History({}, {"fit-0.1": 10.0, "fit-0.2": 30.0, "long": 600.0})
    found = plan_forecast(spec(*points("0.1", "0.2", "0.4"), job("long")), nodes(1, 1.0), history)
    assert (found.seconds, found.unknown, found.estimated) == (10.0 + 30.0 + 20.0 + 600.0, 1, 1)


def test_points_that_are_kept_tell_of_new_ones() -> None:
    history = History({job_hash(points("0.1")[0]): 10.0}, {"fit-0.2": 30.0})
    kept = {"fit-0.1", "fit-0.2"}
    found = plan_forecast(spec(*points("0.1", "0.2", "0.4", "0.8")), nodes(1, 1.0), history, kept)
    assert (found.jobs, found.seconds, found.unknown, found.estimated) == (2, 40.0, 2, 2)


def test_nothing_is_said_of_a_sweep_of_which_nothing_is_known() -> None:
    found = plan_forecast(spec(*points("0.1", "0.2")), nodes(1, 1.0), HISTORY)
    assert (found.seconds, found.unknown, found.estimated) == (None, 2, 0)


def tasks(*values: str) -> list[JobSpec]:
    return [job(f"A/g/{n}", argv=("sleep", x), params=(("", x),), group="A/g") for n, x in enumerate(values)]


def timed(*values: str) -> History:
    """What a run of these leaves, each of which took as many seconds as it says."""
    return History(
        {job_hash(task): float(x) for task, x in zip(tasks(*values), values, strict=True)},
        {task.name: float(x) for task, x in zip(tasks(*values), values, strict=True)},
    )


def test_a_task_is_not_taken_for_what_had_its_number_before() -> None:
    grown = spec(*tasks("1", "2", "4"))
    found = plan_forecast(grown, nodes(1, 1.0), timed("1", "4"), {"A/g/0", "A/g/2"})
    assert (found.jobs, found.seconds, found.unknown, found.estimated) == (1, 2.5, 1, 1), "the second was 4 s before"
    found = plan_forecast(grown, nodes(1, 1.0), timed("1", "4"))
    assert (found.jobs, found.seconds, found.unknown, found.estimated) == (3, 7.5, 1, 1)


def test_tasks_that_were_all_edited_are_estimated_by_those_of_their_group_before() -> None:
    found = plan_forecast(spec(*tasks("7", "8", "9")), nodes(1, 1.0), timed("1", "4"))
    assert (found.seconds, found.unknown, found.estimated) == (7.5, 3, 3)
    numbered = job("A/g/0", group="A/h")
    assert timed("1").expect("", numbered) == 1.0, "it is called so by its user"


@pytest.mark.parametrize(
    ("point", "sweep"),
    [
        (job("train"), ""),
        (job("Search/GTX 2080/12", group="Search/GTX 2080", params=(("--lr", "1"),)), "Search/GTX 2080/*"),
        (job("fit-0.1-7", params=(("rate", "0.1"), ("seed", "7"))), "fit-* rate,seed"),
        (job("fit-a_b-7", params=(("text", "a=b"), ("seed", "7"))), "fit-* text,seed"),
        (job("fit-0.1-2", params=(("rate", "0.1"),)), "fit-* rate"),
        (job("s1/fit", params=(("size", "1"),)), "s1/fit size"),
        (job("train-3", env=(("CLOUDSEND_REPEAT", "3"),)), "train-* "),
        (job("train-3", env=(("OTHER", "3"),)), ""),
    ],
)
def test_points_of_a_sweep_are_known_by_what_is_the_same_of_their_names(point: JobSpec, sweep: str) -> None:
    assert sweep_of(point) == sweep


# ---- rented machines -----------------------------------------------------------------------------------------------


def rented(count: int, **values: Any) -> list[NodePlan]:
    """Of two CPUs, for a dollar for each 1000 s."""
    offer = replace(Offer("{}", Resources(2.0), 3.6, keep=600.0, least=60.0), **values)
    return [NodePlan(f"n-{n}", "fake", (offer,)) for n in range(count)]


def known(*jobs: JobSpec, starting: float | None = 100.0) -> History:
    return History({}, {one.name: 1000.0 for one in jobs}, starting)


def test_the_cost_is_that_of_machines_from_launch_to_end() -> None:
    one = job("a")
    found = plan_forecast(spec(one), rented(3), known(one))
    assert found.cost == ExpectedCost(1.7, 1, 600.0, starting=100.0)
    assert found.seconds == 1000.0
    assert not found.cost.at_least


def test_no_more_machines_are_counted_than_are_asked_for() -> None:
    jobs = [job(f"a{n}") for n in range(3)]
    found = plan_forecast(spec(*jobs, settings=(("assign", "fastest"),)), rented(9), known(*jobs))
    assert [(machine.name, machine.jobs) for machine in found.machines] == [("n-0", 2), ("n-1", 1)]
    assert found.cost is not None and found.cost.machines == 2
    later = [job(f"b{n}", after=("a0",)) for n in range(4)]
    grown = plan_forecast(spec(*jobs, *later), rented(9), known(*jobs, *later))
    assert grown.cost is not None and grown.cost.machines == 2
    assert len(plan_forecast(spec(jobs[0], *later), rented(9), known(jobs[0], *later)).machines) == 2


def test_a_cost_of_which_a_part_is_not_known_is_the_least() -> None:
    one, new = job("a"), job("new")
    unmeasured = plan_forecast(spec(one), rented(1), known(one, starting=None)).cost
    assert unmeasured == ExpectedCost(1.6, 1, 600.0) and unmeasured.at_least
    untimed = plan_forecast(spec(one, new), rented(1), known(one))
    assert untimed.cost == ExpectedCost(1.7, 1, 600.0, jobs=1, starting=100.0) and untimed.cost.at_least
    huge = job("huge", resources=Resources(64.0))
    homeless = plan_forecast(spec(one, huge), rented(1), known(one, huge)).cost
    assert homeless == ExpectedCost(1.7, 1, 600.0, homeless=1, starting=100.0) and homeless.at_least
    two = [*rented(1), *[replace(node, name="n-1") for node in rented(1, price=None, pool="p")]]
    pair = [job(name, resources=Resources(2.0)) for name in ("a", "b")]
    unpriced = plan_forecast(spec(*pair), two, known(*pair)).cost
    assert unpriced == ExpectedCost(1.7, 2, 600.0, unpriced=1, starting=100.0) and unpriced.at_least


def test_nothing_is_said_of_a_cost_of_which_nothing_is_known() -> None:
    one = job("a")
    assert plan_forecast(spec(one), rented(1), NO_HISTORY).cost is None
    assert plan_forecast(spec(one), rented(1, price=None, pool="p"), known(one)).cost is None
    assert plan_forecast(spec(one), nodes(1), known(one)).cost is None
    assert plan_forecast(spec(one), rented(1), known(one), under_way=True).cost is None


@pytest.mark.parametrize(
    ("plan", "spans", "end", "paid"),
    [
        (rented(1)[0], [(0.0, 10.0)], 10.0, (100.0 + 10.0 + 600.0, 1)),
        (rented(1, keep=0.0)[0], [(0.0, 10.0)], 10.0, (110.0, 1)),
        (rented(1, keep=0.0, least=500.0)[0], [(0.0, 10.0)], 10.0, (500.0, 1)),
        (rented(1)[0], [(0.0, 10.0)], 100.0, (100.0 + 100.0 + 600.0, 1)),
        (rented(1)[0], [(0.0, 10.0)], 9999.0, (100.0 + 10.0 + 1200.0, 1)),
        (rented(1)[0], [(900.0, 1000.0), (0.0, 10.0), (5.0, 8.0)], 1000.0, (100.0 + 1000.0 + 600.0, 1)),
        (rented(1)[0], [(0.0, 10.0), (5000.0, 5010.0)], 5010.0, (2 * 110.0 + 1200.0 + 600.0, 2)),
        (
            replace(rented(1)[0], at_hand=True),
            [(0.0, 10.0), (5000.0, 5010.0)],
            5010.0,
            (10.0 + 1200.0 + 110.0 + 600.0, 1),
        ),
        (replace(rented(1)[0], waiting=True), [(0.0, 10.0)], 10.0, (10.0 + 600.0, 0)),
        (replace(rented(1)[0], at_hand=True), [], 300.0, (300.0 + 600.0, 0)),
    ],
)
def test_the_time_for_which_a_machine_is_paid(
    plan: NodePlan, spans: list[Span], end: float, paid: tuple[float, int]
) -> None:
    assert paid_time(plan, spans, end, 100.0) == paid


def test_a_machine_that_the_run_has_is_used_first_and_paid_for_without_work() -> None:
    one = job("a")
    has = replace(rented(2)[1], at_hand=True)
    found = plan_forecast(spec(one), [rented(1)[0], has], known(one, starting=None))
    assert [machine.name for machine in found.machines] == ["n-1"]
    assert found.cost == ExpectedCost(1.6, 1, 600.0, starting=0.0) and not found.cost.at_least
    idle = plan_forecast(spec(one), [*nodes(1), has], known(one))
    assert idle.cost is not None and idle.cost.total == pytest.approx(1.2)


# ---- from a launch to the first job --------------------------------------------------------------------------------

RENTAL = RentalRecord("i-1@100", "i-1", "n-0", "fake", 1.0, 100.0)


@pytest.mark.parametrize(
    ("rentals", "first", "seconds"),
    [
        ([], {}, None),
        ([RENTAL], {}, None),
        ([RENTAL], {"n-0": 160.0}, 60.0),
        ([replace(RENTAL, until=150.0)], {"n-0": 160.0}, None),
        ([replace(RENTAL, until=250.0)], {"n-0": 160.0}, 60.0),
        ([replace(RENTAL, since=200.0)], {"n-0": 160.0}, None),
        ([replace(RENTAL, taken_at=90.0)], {"n-0": 160.0}, None),
        ([replace(RENTAL, waiting=True)], {"n-0": 160.0}, None),
        ([replace(RENTAL, since=150.0), RENTAL, replace(RENTAL, since=155.0)], {"n-0": 160.0}, 60.0),
        ([replace(RENTAL, node=f"n-{n}") for n in range(3)], {"n-0": 110.0, "n-1": 130.0, "n-2": 900.0}, 30.0),
    ],
)
def test_how_long_machines_took_to_start(
    rentals: list[RentalRecord], first: dict[str, float], seconds: float | None
) -> None:
    assert find_starting(rentals, first) == seconds

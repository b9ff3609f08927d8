"""What `run --dry-run` says of machines, groups and time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Command
from json_schema import check
from rented_machines import Ask, Line, put_run

from cloudsend_cli.cli.foreseen import MACHINES, cost_lines, forecast_lines, used_rows
from cloudsend_cli.cli.plan import VERBS, announcement, more_later
from cloudsend_cli.core.cost_forecast import ExpectedCost
from cloudsend_cli.core.forecast import Forecast, GroupForecast, MachineForecast
from cloudsend_cli.core.model import InstanceSpec, JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.plan import Continued, NodePlan
from cloudsend_cli.testing.fake_renter import ASIDE, REGION, FakeRenter


def test_time_and_what_is_not_known_of_it() -> None:
    assert list(forecast_lines(Forecast(40, 3, seconds=720.0))) == ["about 12m00s; 3 of 40 jobs have no history"]
    assert list(forecast_lines(Forecast(40, 0, seconds=720.0))) == ["about 12m00s"]
    assert list(forecast_lines(Forecast(40, 3, seconds=720.0, estimated=2))) == [
        "about 12m00s; 3 of 40 jobs have no history, "
        "and 2 of these are estimated: as long as others of their sweep took"
    ]
    (all_of_them,) = forecast_lines(Forecast(40, 3, seconds=720.0, estimated=3))
    assert ", and these are estimated:" in all_of_them
    (one,) = forecast_lines(Forecast(1, 1, seconds=9.0, estimated=1))
    assert one == "about 9.0s; 1 of 1 job has no history, and this is estimated: as long as others of its sweep took"
    (one,) = forecast_lines(Forecast(3, 2, seconds=9.0, estimated=1))
    assert one.endswith(
        "; 2 of 3 jobs have no history, and 1 of these is estimated: as long as others of its sweep took"
    )
    unknown = "how long it takes is not known: {} succeeded in an earlier run of this project"
    assert list(forecast_lines(Forecast(1, 1))) == [unknown.format("this job has not")]
    assert list(forecast_lines(Forecast(3, 3))) == [unknown.format("none of these jobs has")]
    assert list(forecast_lines(Forecast(0, 0))) == []
    assert list(forecast_lines(Forecast(1, 0, why_not="so"))) == ["what runs where is not foreseen: so"]


def test_groups_say_how_many_tasks_they_have_and_how_many_at_once() -> None:
    groups = (GroupForecast("Search/GTX 2080", 27, 4), GroupForecast("Search/CPU", 1, None))
    assert list(forecast_lines(Forecast(28, 0, seconds=5.0, groups=groups)))[:2] == [
        "Search/GTX 2080: 27 jobs, 4 at once",
        "Search/CPU: 1 job, as many at once as there is room for",
    ]
    many = tuple(GroupForecast(f"g{n}", 1, 1) for n in range(MACHINES + 3))
    assert list(forecast_lines(Forecast(0, 0, groups=many)))[-1] == "and 3 more groups"


def test_machines_are_shown_with_some_of_their_jobs() -> None:
    machines = tuple(MachineForecast(f"n-{n}", 5, ("a", "b", "c")) for n in range(MACHINES + 2))
    rows = list(used_rows(Forecast(50, 0, machines)))
    assert rows[0] == ("n-0", "5", "a, b, c and 2 more")
    assert rows[MACHINES:] == [("and 2 more machines", "10", "")]
    assert list(used_rows(Forecast(3, 0, (MachineForecast("n-0", 3, ("a", "b", "c")),)))) == [("n-0", "3", "a, b, c")]


def test_machines_that_are_rented_later_are_told() -> None:
    nodes = [NodePlan(f"aws-{n}", "aws", (Offer("{}", Resources(2.0), 0.1),)) for n in range(10)]

    def said(jobs: int, count: int, continued: Continued | None = None) -> str:
        specs = tuple(JobSpec(f"j{n}", ("true",), "true") for n in range(jobs))
        return more_later(RunSpec("p", "", specs), nodes[:count], continued)

    assert said(3, 10) == "; 2 machines at first, the others when more jobs are ready than that can take"
    assert said(20, 10) == said(1, 1) == ""
    assert said(3, 10, Continued()) == "; no more than the open jobs need"


def test_what_costs_less_and_is_not_taken_is_shown(line: Line, data: Ask, renter: FakeRenter, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("provider: aws\njobs: echo\ninstances: {region: eu-west-3}\n")
    plan = data("run", "c.yml", "--dry-run")
    check(plan, "plan")
    assert plan["nodes"][0]["not_taken"] == [
        {"type": "slow", "place": REGION, "market": "on-demand", "price_per_hour": 0.005, "why": ASIDE.why}
    ]
    assert re.search(
        r"aws-0 +- +slow +on-demand +here-1 +about \$0\.0050/h +cheaper; slowed down",
        line("run", "c.yml", "--dry-run")[1],
    )
    said = line("create", "instance", "-p", "aws", "--set", "region=eu-west-3")[2]
    assert "it ends itself when it is idle for 10 min, at the latest 20" in said
    assert "slow would fit for about $0.0050/h; it is slowed down now and then" in said


def test_what_is_rented_is_told_from_what_is_there(renter: FakeRenter) -> None:
    """Seen: `renting 2 machines` where a run was attached to, and where one that waited was taken."""
    (plan,) = renter.plan_machines([InstanceSpec("aws")])
    node = NodePlan("aws-0", "aws", plan.offers)
    has, waits = replace(node, at_hand=True), replace(node, waiting=True)

    def said(*nodes: NodePlan) -> str:
        return announcement(RunSpec("p", "", ()), nodes, VERBS).partition(":")[0]

    assert said(node) == "renting 1 machine for $0.0200/h"
    assert said(has, has) == "using 2 machines that the run has for $0.0400/h"
    assert said(waits, node, node) == "taking 1 machine that waits, renting 2 machines for $0.0600/h"
    assert said(replace(waits, at_hand=True), node, waits) == (
        "using 1 machine that the run has, taking 2 machines that wait for $0.0600/h"
    )


# ---- what it would cost in all -------------------------------------------------------------------------------------


def said_of(budget: float | None = None, **values: Any) -> list[str]:
    cost = replace(ExpectedCost(0.42, 2, 600.0, starting=50.0), **values)
    return list(cost_lines(Forecast(3, 0, seconds=5.0, cost=cost), budget))


def test_the_expected_cost_says_what_is_counted_and_what_is_not() -> None:
    counted = "2 machines from launch to end, 10m00s of waiting for another run included"
    assert said_of() == [f"about $0.42 from now on: {counted}"]
    assert said_of(keep=0.0) == ["about $0.42 from now on: 2 machines from launch to end"]
    assert said_of(starting=None) == [
        f"at least $0.42 from now on: {counted}; not in it: the start of machines, which no run has timed"
    ]
    assert said_of(jobs=3, homeless=1, unpriced=1) == [
        f"at least $0.42 from now on: {counted}; not in it: 3 jobs without history, "
        "1 job that no machine could begin, 1 machine of unknown price"
    ]
    assert said_of(0.4)[0].endswith("included; the budget of $0.40 ends it before")
    assert said_of(0.5) == said_of()
    assert list(cost_lines(Forecast(3, 0, seconds=5.0), 1.0)) == []


def test_the_time_counts_from_when_machines_are_ready() -> None:
    def said(starting: float | None) -> list[str]:
        cost = ExpectedCost(0.42, 2, 600.0, starting=starting)
        return list(forecast_lines(Forecast(3, 0, seconds=720.0, cost=cost)))

    assert said(90.0) == ["about 12m00s once machines are ready, which takes about 1m30s"]
    assert said(None) == ["about 12m00s once machines are ready"]
    assert said(0.0) == ["about 12m00s"], "the run has them"


def test_a_plan_tells_what_it_costs_in_all_where_earlier_runs_tell_how_long_it_takes(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path, tmp_path: Path
) -> None:
    config = "project: p\nprovider: aws\njobs: {name: train, run: echo}\ninstances: {region: eu-west-3}\n"
    (tmp_path / "c.yml").write_text(config)
    plan = data("run", "c.yml", "--dry-run")
    assert (plan["cost"]["expected"], plan["forecast"]["seconds"]) == (None, None)
    assert "from now on" not in line("run", "c.yml", "--dry-run")[2]
    put_run(state_dir, renter, ended=True, hours=2.0)  # `train` took an hour, and began with its machine
    plan = data("run", "c.yml", "--dry-run")
    check(plan, "plan")
    assert plan["cost"]["expected"] == {
        "total": pytest.approx(0.02 * (3600 + 600) / 3600, rel=1e-3),
        "at_least": False,
        "machines": 1,
        "starting_seconds": pytest.approx(0.0, abs=1e-3),
        "waiting_seconds": 600.0,
        "jobs_left_out": 0,
        "machines_left_out": 0,
    }
    said = line("run", "c.yml", "--dry-run")[2]
    assert "about 1h00m\nabout $0.0233 from now on: 1 machine from launch to end, 10m00s of waiting" in said


# ---- what is kept although it waits for what is not -----------------------------------------------------------------


def test_a_report_that_is_kept_while_its_trainings_are_done_again_is_told(cloudsend: Command) -> None:
    config = "jobs:\n- {name: train, run: exit 1}\n- {name: report, run: 'true', after_any: train}\n"
    (cloudsend.folder / "c.yml").write_text(config)
    cloudsend("run", "c.yml", status=1)
    said = (
        "warning: kept, although what it waits for is done again, or was since: report; "
        "edit it (a variable will do) or run all with --fresh\n"
    )
    assert said in cloudsend("run", "c.yml", "--dry-run").stderr
    plan = cloudsend.json("run", "c.yml", "--dry-run")
    check(plan, "plan")
    assert (plan["continued"]["overtaken"], len(plan["warnings"])) == ([2], 1)
    assert said in cloudsend("run", "c.yml", status=1).stderr
    (cloudsend.folder / "c.yml").write_text(config.replace("after_any", "vars: {again: 1}, after_any"))
    assert "warning" not in cloudsend("run", "c.yml", status=1).stderr

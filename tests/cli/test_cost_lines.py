"""What rented machines, runs and jobs cost, as commands tell it, on a provider that rents without a cloud."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from json_schema import check
from rented_machines import Ask, Line, put_run

from cloudsend_cli.core.model import RunSpec
from cloudsend_cli.core.plan import plan_run
from cloudsend_cli.core.renting import KEPT
from cloudsend_cli.core.state import Changes, RentalRecord
from cloudsend_cli.errors import UnreachableError
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.testing.fake_renter import REQUESTS, FakeRenter


def test_a_machine_of_a_run_with_its_price_age_and_cost(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    machine = put_run(state_dir, renter)
    (view,) = data("list", "instances")
    check(view, "instance")
    assert (view["name"], view["instance_id"], view["runs"]) == ("aws-0", machine, ["rtest1"])
    assert (view["type"], view["place"], view["market"], view["price_per_hour"]) == ("small", "here-1a", "spot", 0.02)
    assert view["cost"] == pytest.approx(0.02, rel=0.01)
    _, out, err = line("list", "instances")
    assert "$0.0200/h" in out and "1h00m" in out
    assert "1 rented machine costs $0.0200/h" in err
    assert line("info", "instance", "aws-0")[1].count("small, spot, here-1a") == 1


def test_machines_that_wait_and_that_nobody_knows(line: Line, data: Ask, renter: FakeRenter, state_dir: Path) -> None:
    put_run(state_dir, renter, ended=True)
    renter.machines["i-1"].run = KEPT
    renter.create_instance("rlost1", "aws-0", 1, "t", REQUESTS[2])
    renter.machines["i-2"].launched_at -= 3600
    views = {view["name"]: view for view in data("list", "instances")}
    assert views["i-1"]["state"] == "kept" and views["i-1"]["kept"] and views["i-1"]["leftover"] is None
    assert views["i-2"]["leftover"] == "run rlost1 is not known here"
    assert "see `cloudsend gc`" in line("list", "instances")[1]


def test_the_cost_of_a_run_by_machine_and_job(line: Line, data: Ask, renter: FakeRenter, state_dir: Path) -> None:
    put_run(state_dir, renter, ended=True, hours=2.0)
    cost = data("cost", "rtest1", "--jobs")
    check(cost, "run_cost")
    assert cost["cost"] == pytest.approx(0.04, rel=0.01)
    assert (cost["cost_per_hour"], cost["budget"]) == (0, 10.0)
    (job,) = cost["jobs"]  # what never started costs nothing, and is not told
    assert job["cost"] == pytest.approx(0.01, rel=0.01)  # one of two CPUs for half the time
    assert cost["unused"] == pytest.approx(0.03, rel=0.01)
    _, out, err = line("cost", "rtest1", "--jobs")
    assert "small" in out and "train" in out
    assert "of a budget of $10.00; $0.0300 of it while machines started, were set up or waited" in err
    assert "$0.0400" in line("list", "runs", "-o", "wide")[1]
    assert "$0.0400" in line("info", "run", "rtest1")[1]
    assert "its share of its machine" in line("info", "job", "rtest1.1")[1]
    assert line("cost", "--jobs")[0] == 2
    everything = data("cost")
    check(everything, "costs")
    assert [run["run"] for run in everything["runs"]] == ["rtest1"]


def test_a_job_that_asks_for_no_cpus_costs_what_no_other_asked_for(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    """Seen: $0.00 for each task of a pool, and the whole machine as time in which no job ran."""
    put_run(state_dir, renter, ended=True, hours=2.0, cpus=0.0)
    cost = data("cost", "rtest1", "--jobs")
    (job,) = cost["jobs"]
    assert job["cost"] == pytest.approx(0.02, rel=0.01), "it ran alone for half the time"
    assert job["cost"] + cost["unused"] == pytest.approx(cost["cost"], abs=1e-5)
    assert "$0.0200: its share of its machine" in line("info", "job", "rtest1.1")[1]


def test_the_machines_that_a_run_has_had(data: Ask, renter: FakeRenter, state_dir: Path) -> None:
    put_run(state_dir, renter, ended=True)
    (view,) = data("list", "instances", "--run", "rtest1")
    assert (view["name"], view["state"], view["instance_id"]) == ("aws-0", "released", None)
    assert view["cost"] == pytest.approx(0.02, rel=0.01)


def test_a_run_that_rented_nothing(line: Line, renter: FakeRenter, state_dir: Path) -> None:
    with SqliteStore.open(state_dir) as store:
        store.create_run(plan_run(RunSpec("p", "", ()), [], "rtest2", 0.0))
    assert line("cost", "rtest2") == (0, "", "run rtest2 has rented nothing\n")


def test_a_provider_that_does_not_answer_is_a_remark(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    put_run(state_dir, renter)
    renter.refusals["list"] = [UnreachableError("no route")] * 4
    status, out, err = line("list", "instances")
    assert status == 0 and "aws-0" in out
    assert "warning: aws could not be asked for its machines: no route" in err
    assert data("cost")["remarks"] == ["aws could not be asked for its machines: no route"]
    assert line("terminate", "instance", "--all", "--yes")[0] == 6
    assert line("gc")[0] == 6


def test_waiting_is_paid_for_until_the_machine_is_given_back(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    machine = put_run(state_dir, renter, ended=True)
    renter.machines[machine].run = KEPT
    now = time.time()
    with SqliteStore.open(state_dir) as store:
        (paid,) = store.list_rentals("rtest1")["rtest1"]
        wait = replace(paid, id="wait", since=now - 60, until=now + 540, waiting=True, kept_at=now - 60)
        store.write_run("rtest1", lambda state: Changes(rentals={"wait": wait}))
    cost = data("cost", "rtest1")
    check(cost, "run_cost")
    waits = cost["machines"][1]
    assert (cost["cost_per_hour"], waits["waiting"], waits["until"]) == (0.02, True, None)
    ends = datetime.fromisoformat(waits["waits_until"]).timestamp()
    assert ends == pytest.approx(now + 540, abs=1)  # seen: as `until`, ten minutes from now
    assert "aws-0, waiting" in line("cost", "rtest1")[1]
    left = re.compile(
        r"1 machine waits 9m00s, until \d\d:\d\d, for the next run of this project; "
        r"`cloudsend terminate instance --all` ends it now\n"
    )
    for words in ("wait rtest1", "kill run rtest1"):  # seen: neither said that machines go on costing money
        assert left.fullmatch(line(*words.split())[2])
    assert re.search(r"\$10\.00 +1 +\d{4}-", line("cost")[1]), "one machine, which is paid for in two pieces"
    data("terminate", "instance", machine)
    assert line("wait", "rtest1")[2] == ""
    after = data("cost", "rtest1")
    assert (after["cost_per_hour"], after["machines"][1]["waits_until"]) == (0, None)
    assert after["machines"][1]["seconds"] == pytest.approx(60, abs=5)


def test_what_is_paid_for_later_began_not_later_than_now_and_nothing_is_told_of_no_waiting(
    data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    """Seen: `since` up to a minute ahead, and a row of 0.0 s for each machine that was taken at once."""
    put_run(state_dir, renter, ended=True)
    now = time.time()
    with SqliteStore.open(state_dir) as store:
        (paid,) = store.list_rentals("rtest1")["rtest1"]
        taken = replace(paid, id="taken", since=now + 50, until=None, taken_at=now - 5)
        never = replace(paid, id="never", since=now - 9, until=now - 9, waiting=True, kept_at=now - 9)
        store.write_run("rtest1", lambda state: Changes(rentals={"taken": taken, "never": never}))
    machines = data("cost", "rtest1")["machines"]
    assert [machine["waiting"] for machine in machines] == [False, False]
    since = [datetime.fromisoformat(machine["since"]).timestamp() for machine in machines]
    assert max(since) < now + 40


def test_a_machine_that_is_asked_for_costs_nothing_until_it_is_there_and_is_listed_once(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    """Seen: three planned machines as three rented ones; one that was launched as two lines."""
    put_run(state_dir, renter)
    with SqliteStore.open(state_dir) as store:
        store.write_run(
            "rtest1",
            lambda state: Changes(
                nodes={"aws-0": replace(state.nodes["aws-0"], state="creating", instance_id="")},
                rentals={},
            ),
        )
    (view,) = data("list", "instances")
    check(view, "instance")
    assert (view["name"], view["instance_id"], view["state"]) == ("aws-0", "i-1", "creating")
    assert view["cost"] == pytest.approx(0.02, rel=0.01)
    assert line("list", "instances")[2] == "1 rented machine costs $0.0200/h\n"
    renter.machines.clear()
    assert line("list", "instances")[2] == "nothing that is rented runs now\n"
    assert data("cost")["cost_per_hour"] == 0


def test_what_is_rented_alone_costs_something_too_and_goes_on_costing_after_a_stop(
    line: Line, data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    """Seen: `cost` said nothing of machines of `create instance`; age and cost began anew after a stop and a start."""
    now = time.time()
    renter.clock = lambda: now - 7200
    name = data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")["name"]
    renter.clock = lambda: now - 3600
    data("stop", "instance", name)
    renter.clock = time.time
    everything = data("cost")
    check(everything, "costs")
    (alone,) = everything["alone"]
    assert (alone["instance"], alone["cost"]) == (name, pytest.approx(0.02, rel=0.01))
    data("start", "instance", name)
    (view,) = data("list", "instances")
    assert view["cost"] == pytest.approx(0.02, rel=0.01)
    assert time.time() - datetime.fromisoformat(view["rented_at"]).timestamp() == pytest.approx(7200, abs=60)
    data("terminate", "instance", name)
    del renter.machines["i-1"]  # its provider forgets it soon
    _, out, err = line("cost")
    assert "RENTED ALONE" in out and name in out
    assert "machines of no run: $0.02" in err


def test_a_run_that_takes_what_was_rented_alone_pays_for_it_from_then_on(
    data: Ask, renter: FakeRenter, state_dir: Path
) -> None:
    now = time.time()
    renter.clock = lambda: now - 7200
    created = data("create", "instance", "-p", "aws", "--set", "region=eu-west-3")["instance_id"]
    put_run(state_dir, renter, ended=True)
    taken = RentalRecord("taken", created, "aws-0", "aws", 0.02, now - 1800)
    with SqliteStore.open(state_dir) as store:
        store.write_run("rtest1", lambda state: Changes(rentals={"taken": taken}))
    (alone,) = data("cost")["alone"]
    assert alone["seconds"] == pytest.approx(5400, abs=60)

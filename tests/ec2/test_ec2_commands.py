"""Commands about rented machines, by the real command on the lab: what they say, what they cost, what they leave."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_command import CLOUDSEND, Desk, desk_of, until
from ec2lab import Cloud
from json_schema import check

PROVIDERS = "providers:\n  - {name: aws, type: aws, region: eu-west-3}\n"
CONFIG = """
project: demo
provider: aws
budget: 5
instances:
  - {type: t3.small, spot: true}
jobs:
  - {name: held, run: "WORK held", upload: work.py}
"""
WAITS = r"1 machine waits 1?[0-9]m[0-5]0s, until \d\d:\d\d, for the next run of this project"


@pytest.fixture
def desk(ec2: Cloud, state_dir: Path, tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "providers.yml").write_text(PROVIDERS)
    with desk_of(ec2, state_dir, tmp_path) as made:
        yield made


@pytest.fixture
def held(desk: Desk) -> str:
    """The id of a run whose job executes until it is let go."""
    run = desk.submit(desk.config(CONFIG))
    desk.witness.until(desk.witness.begun)
    return run


def paid(ec2: Cloud) -> float:
    return sum(row.dollars for row in ec2.ledger())


# ---- one machine ---------------------------------------------------------------------------------------------------


def test_a_machine_is_rented_alone_used_and_given_back(ec2: Cloud, desk: Desk) -> None:
    machine = desk.json("create", "instance", "-p", "aws", "--set", "type=t3.small")
    check(machine, "instance")
    assert (machine["state"], machine["kept"], machine["type"]) == ("kept", True, "t3.small")
    assert machine["price_per_hour"] == ec2.ledger()[0].price
    (listed,) = desk.json("list", "instances")
    check(listed, "instance")
    assert (listed["name"], listed["instance_id"]) == (machine["name"], machine["instance_id"])
    assert desk("ssh", machine["name"], "--", "cat", "/run/cloudsend/armed").stdout.startswith("idle=600")
    assert "1 rented machine costs" in desk("list", "instances").stderr
    pins = desk.state_dir / "known_hosts"
    assert machine["instance_id"] in pins.read_text()
    (done,) = desk.json("terminate", "instance", machine["name"])
    assert (done["released"], done["rented"], done["instance_id"]) == (True, True, machine["instance_id"])
    ec2.wait(machine["instance_id"], "terminated")
    assert desk.json("list", "instances") == []
    assert machine["instance_id"] not in pins.read_text(), "seen: pins of all machines that there ever were"
    assert "has ended already" in desk("terminate", "instance", machine["instance_id"]).stdout


def test_the_next_run_of_the_project_takes_it(ec2: Cloud, desk: Desk) -> None:
    words = ("--set", "type=t3.small", "--set", "project=demo", "--set", "spot=true", "--set", "budget=5")
    created = desk.json("create", "instance", "-p", "aws", *words)["instance_id"]
    desk.submit(desk.config(CONFIG))
    desk.witness.until(desk.witness.begun)
    (machine,) = desk.json("list", "instances")
    assert (machine["instance_id"], machine["name"]) == (created, "aws-0")
    assert [one.id for one in ec2.instances] == [created]


def test_two_are_two(ec2: Cloud, desk: Desk) -> None:
    first, second = (desk.json("create", "instance", "-p", "aws")["instance_id"] for _ in range(2))
    assert first != second
    assert "nothing was ended" in desk("terminate", "instance", "--all", status=2).stderr
    assert len(ec2.alive) == 2
    assert len(desk.json("terminate", "instance", "--all", "--yes")) == 2
    until(lambda: not ec2.alive)
    assert "nothing is rented" in desk("terminate", "instance", "--all").stderr


def test_an_interrupted_create_is_gone_on_with(ec2: Cloud, desk: Desk) -> None:
    gate = ec2.hold("RunInstances", after=True)
    words = [*CLOUDSEND, "create", "instance", "-p", "aws", "--set", "type=t3.small"]
    first = subprocess.Popen(words, env=desk.environ, cwd=desk.folder, stderr=subprocess.PIPE, text=True)
    assert gate.reached.wait(60)
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 130
    assert "the same command waits for it" in said
    gate.release()
    done = desk("create", "instance", "-p", "aws", "--set", "type=t3.small", "-o", "json")
    assert "which an interrupted command has asked for" in done.stderr
    assert [one.id for one in ec2.instances] == [json.loads(done.stdout)["instance_id"]]


def test_a_lost_reply_makes_no_second_machine(ec2: Cloud, desk: Desk) -> None:
    ec2.lose_reply("RunInstances", times=10)
    lost = subprocess.Popen(
        [*CLOUDSEND, "create", "instance", "-p", "aws"], env=desk.environ, cwd=desk.folder, stderr=subprocess.PIPE
    )
    until(lambda: ec2.instances)
    ec2.lift()
    lost.communicate(timeout=120)
    assert lost.returncode == 0
    assert len(ec2.instances) == 1


def test_what_is_short_is_told_and_the_next_is_taken(ec2: Cloud, desk: Desk) -> None:
    short = {"Placement.AvailabilityZone": "eu-west-3a"}
    ec2.inject("RunInstances", "InsufficientInstanceCapacity", times=None, when=short)
    done = desk("create", "instance", "-p", "aws", "--set", "type=t3.small")
    assert "InsufficientInstanceCapacity" in done.stderr
    assert list(dict.fromkeys(zone for zone, *_ in desk.launches())) == ["eu-west-3a", "eu-west-3b"]


def test_a_limit_of_the_account_is_not_asked_again(ec2: Cloud, desk: Desk) -> None:
    ec2.inject("RunInstances", "VcpuLimitExceeded", times=None)
    done = desk("create", "instance", "-p", "aws", "--set", "type=t3.small", status=5)
    assert "VcpuLimitExceeded" in done.stderr
    assert "help: " in done.stderr
    assert len(desk.launches()) == 1
    assert desk.json("list", "instances") == []


def test_a_stopped_machine_costs_nothing_and_comes_back(ec2: Cloud, desk: Desk) -> None:
    name = desk.json("create", "instance", "-p", "aws", "--set", "type=t3.small")["name"]
    (stopped,) = desk.json("stop", "instance", name)
    assert stopped["state"] in {"stopping", "stopped"}
    assert stopped["remark"] == "its disk is kept, and costs a little"
    ec2.wait(stopped["instance_id"], "stopped")
    assert [one["state"] for one in desk.json("list", "instances")] == ["stopped"]
    assert desk.json("cost")["cost_per_hour"] == 0
    desk("start", "instance", name)
    ec2.wait(stopped["instance_id"], "running")
    assert desk("ssh", name, "--", "true").returncode == 0


def test_the_console_of_what_never_came_up(ec2: Cloud, desk: Desk) -> None:
    desk.submit(desk.config(CONFIG))
    until(lambda: ec2.alive)
    assert "console" in desk("info", "instance", "aws-0", "--console").stdout
    value = desk.json("info", "instance", "aws-0", "--console")
    check(value, "instance")
    assert isinstance(value["console"], str)
    assert desk.json("info", "instance", "aws-0")["console"] is None


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_a_plan_has_prices_and_alternatives(ec2: Cloud, desk: Desk) -> None:
    plan = desk.json("run", desk.config(CONFIG), "--dry-run")
    check(plan, "plan")
    (node,) = plan["nodes"]
    first = node["offers"][0]
    assert (first["type"], first["market"], first["price_per_hour"]) == ("t3.small", "spot", node["price_per_hour"])
    assert plan["cost"]["per_hour"] == node["price_per_hour"]
    assert plan["cost"]["budget_hours"] == pytest.approx(5 / node["price_per_hour"], rel=1e-3)
    said = desk("run", "run.yml", "--dry-run")
    assert "OR ELSE" in said.stdout
    assert "it would rent 1 machine for $" in said.stderr
    assert ec2.instances == [] and desk.launches() == []


def test_a_run_costs_what_is_paid_for_it(ec2: Cloud, desk: Desk, held: str) -> None:
    (machine,) = desk.json("list", "instances")
    check(machine, "instance")
    assert (machine["state"], machine["market"], machine["runs"]) == ("running", "spot", [held])
    now = desk.json("cost", held, "--jobs")
    check(now, "run_cost")
    assert now["cost_per_hour"] == machine["price_per_hour"] == ec2.ledger()[0].price
    assert [job["name"] for job in now["jobs"]] == ["held"]
    desk.witness.let(lambda words: True)
    assert desk.wait(held)["cost"] > 0
    until(lambda: desk.json("list", "instances")[0]["state"] == "kept")
    waiting = desk.json("cost", held)
    check(waiting, "run_cost")
    assert [one["waiting"] for one in waiting["machines"]] == [False, True]
    assert waiting["cost_per_hour"] == machine["price_per_hour"]
    assert len(desk.json("terminate", "instance", "--all", "--yes")) == 1
    until(lambda: not ec2.alive)
    final = desk.json("cost", held)
    assert (final["state"], final["cost_per_hour"]) == ("succeeded", 0)
    assert final["cost"] <= paid(ec2) + 1e-6
    everything = desk.json("cost")
    check(everything, "costs")
    assert [one["run"] for one in everything["runs"]] == [held]
    (job,) = desk.json("list", "jobs")
    assert desk.json("info", "job", job["id"])["cost"] <= final["cost"]
    assert [run["cost"] for run in desk.json("list", "runs")] == [final["cost"]]


def test_a_run_says_what_it_rents_costs_and_keeps(ec2: Cloud, desk: Desk) -> None:
    desk.witness.let(lambda words: True)
    done = desk("run", desk.config(CONFIG))
    assert "renting 1 machine for $" in done.stderr
    assert "the budget is $5.00" in done.stderr
    assert re.search(WAITS, done.stderr)
    again = desk("run", "run.yml")
    assert "renting" not in again.stderr  # everything is kept
    assert "it would" not in desk("run", "run.yml", "--dry-run").stderr
    assert "it would take 1 machine that waits for $" in desk("run", "run.yml", "--fresh", "--dry-run").stderr
    fresh = desk("run", "run.yml", "--fresh", "-o", "json")
    assert json.loads(fresh.stdout)["kept"] == 1
    assert "taking 1 machine that waits for $" in fresh.stderr and "renting" not in fresh.stderr


def test_a_run_that_is_killed_says_until_when_its_machine_waits(ec2: Cloud, desk: Desk, held: str) -> None:
    """Seen: three machines were paid for ten minutes more, and nobody had said so."""
    assert "using 1 machine that the run has for $" in desk("run", "run.yml", "--detach").stderr
    assert re.search(WAITS, desk("kill", "run", held).stderr)
    assert re.search(WAITS, desk("wait", held, status=1).stderr)


def test_a_machine_that_a_run_uses_is_not_ended_by_mistake(ec2: Cloud, desk: Desk, held: str) -> None:
    for words in (("terminate", "instance", "aws-0"), ("stop", "instance", "aws-0")):
        assert f"in use by run {held}" in desk(*words, status=2).stderr
    assert desk.json("terminate", "instance", "--all", "--yes") == []
    assert len(ec2.alive) == 1
    first = ec2.alive[0].id
    assert desk.json("terminate", "instance", "aws-0", "--force")[0]["instance_id"] == first
    ec2.wait(first, "terminated")
    desk.witness.let(lambda words: True)
    desk.wait(held)  # on another machine, as a job that was lost is tried again
    assert len(ec2.instances) == 2


# ---- what is left over ---------------------------------------------------------------------------------------------


def test_what_runs_and_waiting_machines_need_is_not_left_over(ec2: Cloud, desk: Desk, held: str) -> None:
    found = desk("gc", "-o", "json")
    assert json.loads(found.stdout) == []
    assert "nothing is left over" in desk("gc").stderr
    desk.witness.let(lambda words: True)
    desk.wait(held)
    until(lambda: [m["state"] for m in desk.json("list", "instances")] == ["kept"])
    assert "1 machine waits for a run" in desk("gc", "--yes").stderr
    assert len(ec2.alive) == 1


def test_a_lost_database_leaves_machines_that_gc_finds_after_ten_minutes(
    ec2: Cloud, desk: Desk, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.kill_maestro()
    for name in ("state.db", "state.db-wal", "state.db-shm", "state.db-journal"):
        (desk.state_dir / name).unlink(missing_ok=True)
    (machine,) = desk.json("list", "instances")
    assert machine["state"] == "running"
    early = desk("gc", "-o", "json")
    assert json.loads(early.stdout) == []
    assert "younger than 10 minutes" in early.stderr
    ec2.retag(machine["instance_id"], {"cloudsend:expires": "1000000000"})  # as one that is long past its time
    found = desk.json("gc")
    check(found, "leftovers")
    assert [(one["kind"], one["id"]) for one in found] == [("machine", machine["instance_id"])]
    assert "past its time" in found[0]["why"]
    assert len(ec2.alive) == 1
    removed = desk.json("gc", "--yes")
    assert [one["outcome"] for one in removed] == ["removed"]
    ec2.wait(machine["instance_id"], "terminated")
    assert [one["kind"] for one in desk.json("gc", "--yes")] == ["group"]
    assert ec2.leaks() == []


def test_a_run_that_is_over_leaves_nothing_it_could_not_end(ec2: Cloud, desk: Desk, held: str) -> None:
    """As if the maestro had noted the end of a machine that went on."""
    desk.kill_maestro()
    with sqlite3.connect(desk.state_dir / "state.db") as db:
        db.execute("UPDATE nodes SET state = 'released', body = json_set(body, '$.state', 'released')")
        body = db.execute("SELECT body FROM run_records").fetchone()[0]
        ended = json.dumps({**json.loads(body), "ended_at": 1.0})
        db.execute("UPDATE run_records SET body = ?", (ended,))
        db.execute("UPDATE runs SET ended_at = 1.0")
    (desk.state_dir / "tables" / held).unlink(missing_ok=True)
    (found,) = desk.json("gc")
    assert found["why"] == f"run {held} has ended"
    (listed,) = desk.json("list", "instances")
    assert listed["leftover"] == f"run {held} has ended"


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_provider_that_does_not_answer_is_a_remark(ec2: Cloud, desk: Desk, held: str) -> None:
    ec2.inject("DescribeInstances", "UnauthorizedOperation", times=None)
    done = desk("list", "instances")
    assert "aws could not be asked for its machines" in done.stderr
    assert "aws-0" in done.stdout
    assert desk.json("cost")["remarks"]
    assert desk("gc", status=4).stderr.startswith("nothing is left over, as far as is known")
    assert "help: " in desk("terminate", "instance", "--all", "--yes", status=4).stderr


def test_a_machine_that_may_not_be_ended_is_loud(ec2: Cloud, desk: Desk) -> None:
    ids = [desk.json("create", "instance", "-p", "aws", "--set", "type=t3.small")["instance_id"] for _ in range(2)]
    ec2.deny("TerminateInstances")
    said = desk("terminate", "instance", "--all", "--yes", status=4).stderr
    assert all(f"{one} (t3.small in eu-west-3) goes on costing $0.0208 per hour" in said for one in ids)


def test_the_account_is_checked_a_line_each(ec2: Cloud, desk: Desk) -> None:
    views = desk.json("check", "-p", "aws")
    check(views, "checks")
    assert {view["provider"] for view in views} == {"aws"}
    assert all(view["ok"] for view in views)
    assert "aws credentials" in {view["name"] for view in desk.json("check")}
    ec2.deny("CreateSecurityGroup")
    views = desk.json("check", "-p", "aws", "--fix", status=4)
    assert [view["code"] for view in views if not view["ok"]] == ["auth"]


def test_the_policy_is_json(desk: Desk) -> None:
    assert json.loads(desk("aws", "policy").stdout)["Version"] == "2012-10-17"

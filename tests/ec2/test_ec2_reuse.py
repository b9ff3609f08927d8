"""Machines that wait for the next run of their project: who takes them, with what is on them, and when they end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_command import Desk, desk_of, dollars, until
from ec2lab import Cloud

IDLE = 20
TICK = 5  # seconds between two looks of the switch
SECONDS = 12  # between two looks of the switch, and of ours
CONFIG = f"""
project: again
provider: aws
instances: {{type: t3.small, disk: 10GB, idle: {IDLE}s}}
environments:
  - {{name: tools, setup: "echo built; touch tool"}}
jobs:
  - name: job
    env: tools
    run: test -f "$CLOUDSEND_ENV/tool" && WORK job
    upload: [work.py, big.bin]
"""


@pytest.fixture
def desk(ec2: Cloud, state_dir: Path, tmp_path: Path) -> Iterator[Desk]:
    with desk_of(ec2, state_dir, tmp_path) as made:
        (tmp_path / "big.bin").write_bytes(bytes(range(256)) * 20_000)
        yield made
    assert ec2.failures == []


def _files(ec2: Cloud, instance: str) -> str:
    """The agent's uploads and environments, with the inodes that sending or building them again would change."""
    found = "find /home -path '*/files/*' -o -path '*/envs/*/.ready' -o -path '*/attempts/*.env-*' -prune"
    return ec2.host(instance).sh(f"{found} | sort | xargs ls -di", root=True)


def test_next_run_of_the_project_takes_what_is_there(ec2: Cloud, desk: Desk) -> None:
    desk.witness.let(lambda words: words[0] != "held")
    first, machine = desk.submit_aged(desk.config(CONFIG))
    assert desk.wait(first)["state"] == "succeeded"
    files = _files(ec2, machine.id)
    assert files.count("/files/") == 2 and ".ready" in files and ".env-" in files

    # A run that takes it works longer than the machine would have waited for it.
    taken = len(ec2.calls)
    second = desk.submit(desk.config(CONFIG.replace("WORK job", "WORK held"), "next.yml"), "--fresh")
    desk.witness.until(lambda: desk.witness.begun("held"))
    held = time.monotonic()
    assert [call.action for call in ec2.calls[taken:] if call.action == "RunInstances"] == []
    assert _files(ec2, machine.id) == files, "nothing is sent or built again"

    # What another project asks for is another machine; `dev` has it wait for an hour.
    words = ("--set", "project=other", "--set", "dev=true", "--set", "instances[0].idle=1h")
    third, other = desk.submit_aged("run.yml", *words)
    desk.witness.until(lambda: len(desk.witness.begun("job")) == 2)
    assert desk.wait(third)["state"] == "succeeded"
    assert "idle=3600 " in ec2.host(other.id).sh("cat /run/cloudsend/armed", root=True)

    ec2.host(machine.id).sh(f"sleep {max(0.0, held + IDLE + TICK - time.monotonic())}")
    assert machine.state == "running", "it is in use, whatever it was told when it waited"
    desk.witness.let(lambda words: True)
    assert desk.wait(second)["state"] == "succeeded"
    ec2.wait(machine.id, "terminated", timeout=IDLE * 3)
    assert f"it has been idle for {IDLE} seconds" in machine.console
    assert other.state == "running"
    assert len(ec2.calls_of("RunInstances")) == 2

    # What the runs have paid is what the cloud asks for, the waiting too. A switch looks every five seconds.
    desk("terminate", "instance", "--all", "--yes")
    ec2.wait(other.id, "terminated")
    rows = {row.instance_id: row for row in ec2.ledger()}
    costs = [desk.json("cost", run) for run in (first, second, third)]
    for one in (machine, other):
        told = [m["seconds"] for cost in costs for m in cost["machines"] if m["instance_id"] == one.id]
        assert sum(told) == pytest.approx((rows[one.id].end or 0.0) - rows[one.id].start, abs=SECONDS)
    for run in (first, second, third):
        until(lambda run=run: desk.json("cost", run)["cost_per_hour"] == 0)  # waiting counts from when it was kept
    assert sum(cost["cost"] for cost in costs) == pytest.approx(dollars(list(rows.values())), abs=0.005)
    desk("gc", "--yes")
    assert ec2.leaks() == []


def test_run_that_begins_while_another_lets_go_of_its_machine_waits_for_it(ec2: Cloud, desk: Desk) -> None:
    desk.witness.let(lambda words: True)
    config = desk.config(CONFIG)
    run = desk.submit(config)
    desk.witness.until(desk.witness.done)
    ec2.delay("CreateTags", 4)
    desk.wait(run)
    assert desk.wait(desk.submit(config, "--fresh"))["state"] == "succeeded"
    assert len(ec2.instances) == 1


def await_next_second() -> None:
    """The cloud tells its times in whole seconds: no machine of it stops and starts within one, as they do here."""
    now = int(time.time())
    until(lambda: int(time.time()) > now)


def test_runs_within_the_first_minute_of_a_machine_that_was_stopped_and_started_pay_for_it_once(
    ec2: Cloud, desk: Desk
) -> None:
    """Seen: `run: $0.00`, no cost of the waiting after it, and a first minute that two runs paid."""
    desk.witness.let(lambda words: True)
    words = ("--set", "project=again", "--set", "type=t3.small", "--set", "disk=10GB", "--set", "idle=10m")
    machine = desk.json("create", "instance", "-p", "aws", *words)["instance_id"]
    await_next_second()
    desk("stop", "instance", machine)
    ec2.wait(machine, "stopped")
    await_next_second()
    desk("start", "instance", machine)
    ec2.wait(machine, "running")
    config = desk.config(CONFIG.replace(f"{IDLE}s", "10m"))
    runs = []
    for _ in range(2):
        runs.append(desk.submit(config, "--fresh"))
        assert desk.wait(runs[-1])["state"] == "succeeded"
    waits = desk.json("cost", runs[-1])
    assert waits["cost_per_hour"] == waits["machines"][0]["price_per_hour"] > 0
    assert len(ec2.calls_of("RunInstances")) == 1
    desk("terminate", "instance", machine)
    ec2.wait(machine, "terminated")
    told = desk.json("cost")
    rows = ec2.ledger()
    assert [row.instance_id for row in rows] == [machine, machine]
    assert sum(one["cost"] for one in (*told["runs"], *told["alone"])) == pytest.approx(
        dollars(rows), abs=SECONDS * rows[0].price / 3600
    )
    assert told["cost_per_hour"] == 0

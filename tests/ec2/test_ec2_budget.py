"""A run whose budget is spent: what is ended, by whom, and how it goes on with more money."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_command import Desk, desk_of, until
from ec2lab import Cloud

PRICE = 3600.0  # a dollar for a second
BUDGET = 66  # more than the first minute, which is charged whole: a run that cannot pay for that is refused
AGE = 25  # seconds; one that is older was there before it was asked for, by the clocks
SPENT = f"the budget of ${BUDGET:.2f} is spent"
CONFIG = """
project: dear
provider: aws
instances: {type: t3.medium, disk: 10GB}
jobs:
  - {name: "long-{n}", run: "WORK long-{n}", upload: work.py, matrix: {n: [1, 2]}, grace: 1}
  - {name: "later-{n}", run: "WORK later-{n}", upload: work.py, matrix: {n: [1, 2]}}
"""


@pytest.fixture
def desks(ec2: Cloud, state_dir: Path, tmp_path: Path) -> Iterator[tuple[Desk, Desk]]:
    """Two installations."""
    ec2.market.on_demand["t3.medium"] = PRICE
    other = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with desk_of(ec2, state_dir, folders[0]) as one, desk_of(ec2, other, folders[1]) as two:
        yield one, two
    shutil.rmtree(other, ignore_errors=True)
    assert ec2.failures == []


def test_end_of_the_money(ec2: Cloud, desks: tuple[Desk, Desk]) -> None:
    desk, left = desks
    run, machine = desk.submit_aged(desk.config(CONFIG), "--set", f"budget={BUDGET}", age=AGE)
    _, orphan = left.submit_aged(left.config(CONFIG), "--set", f"budget={BUDGET}", age=AGE)
    for one in desks:
        one.witness.until(lambda one=one: len(one.witness.begun()) == 2)
    host = ec2.host(orphan.id)
    host.sh("until test -s /run/cloudsend/lease; do sleep 0.1; done", root=True)
    assert 0 < float(host.sh("cat /run/cloudsend/lease", root=True)) <= BUDGET
    left.kill_maestro()

    # What ran is ended when the money is, what waited was not begun, and all of it says why.
    assert desk.wait(run, status=1)["state"] == "cancelled"
    jobs = desk.jobs(run)
    assert {(job["state"], job["reason"]) for job in jobs.values()} == {("cancelled", SPENT)}
    assert len(desk.witness.begun()) == 2
    ec2.wait(machine.id, "terminated")
    until(lambda: desk.json("cost", run)["cost_per_hour"] == 0)
    cost = desk.json("cost", run)
    assert BUDGET - 20 <= cost["cost"] <= BUDGET + 10  # its machine was told of the end fifteen seconds before

    # Nobody is left to end this one.
    ec2.wait(orphan.id, "terminated", timeout=BUDGET + 30)
    assert "its lease is over" in orphan.console or "it has lived for" in orphan.console

    desk.witness.let(lambda words: True)
    assert desk.submit("run.yml", "--set", "budget=100000") == run
    assert desk.wait(run)["counts"]["succeeded"] == 4
    assert len(ec2.calls_of("RunInstances")) == 3

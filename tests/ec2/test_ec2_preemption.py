"""Spot machines that are taken back under a run: with a notice, without one, and with one that is withdrawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_command import Desk, desk_of, until
from ec2lab import Cloud, Instance

STORM = """
project: storm
provider: aws
instances: {type: t3.small, spot: true, number: 6, disk: 10GB}
jobs:
  - name: job-{n}
    run: WORK job-{n}
    matrix: {n: {range: [1, 18]}}
    upload: work.py
    output: out
    persist: kept/
    on_preempt: echo "hook-$CLOUDSEND_PREEMPT_AT" >> kept/steps; echo hooked
    retries: 0
    retries_lost: 0
"""
ONE = """
project: one
provider: aws
instances: {type: t3.small, spot: true, disk: 10GB}
jobs:
  - {name: job, run: WORK job, upload: work.py, persist: kept/, retries: 0, retries_lost: 0}
"""
PREFER = """
project: prefer
provider: aws
instances: {type: t3.small, spot: prefer, number: 2, disk: 10GB, zone: [eu-west-3a, eu-west-3b]}
jobs:
  - {name: "job-{n}", run: "WORK job-{n}", upload: work.py, cpus: 2, matrix: {n: [1, 2]}, retries_lost: 0}
"""


@pytest.fixture
def desk(ec2: Cloud, state_dir: Path, tmp_path: Path) -> Iterator[Desk]:
    with desk_of(ec2, state_dir, tmp_path) as made:
        yield made
    assert ec2.failures == []


def _jobs_on(desk: Desk, machines: list[Instance], run: str) -> set[str]:
    """Names of the jobs that are executed there."""
    nodes = {one["instance_id"]: one["name"] for one in desk.json("list", "instances")}
    wanted = {nodes[machine.id] for machine in machines}
    return {name for name, job in desk.jobs(run).items() if job["instance"] in wanted and job["phase"] == "RUNNING"}


def test_p7_three_of_six_machines_are_taken_back_and_one_without_notice(ec2: Cloud, desk: Desk) -> None:
    run = desk.submit(desk.config(STORM))
    desk.witness.until(lambda: len(desk.witness.begun()) == 12)  # two on each
    first = {words[0] for words in desk.witness.begun()[:6]}
    desk.witness.let(lambda words: words[0] in first)
    desk.witness.until(lambda: len(desk.witness.begun()) == 18)
    until(lambda: {name for name, job in desk.jobs(run).items() if job["phase"] == "DONE"} == first)
    machines = desk.machines()
    assert len(machines) == 6
    noticed, lost = machines[:3], machines[3]
    preempted, vanished = _jobs_on(desk, noticed, run), _jobs_on(desk, [lost], run)
    assert (len(preempted), len(vanished)) == (6, 2)

    for one in noticed:
        ec2.notice(one.id, seconds=120)
    ec2.reclaim(lost.id)
    again = preempted | vanished
    until(lambda: len(list(desk.state_dir.glob(f"resume/{run}/*/kept/steps"))) == len(preempted))
    for one in noticed:
        ec2.notice(one.id, seconds=0.1)
    desk.witness.until(lambda: len(desk.witness.begun()) == 18 + len(again))
    desk.witness.let(lambda words: True)
    found = desk.wait(run)

    assert found["state"] == "succeeded" and found["counts"]["succeeded"] == 18
    jobs = desk.jobs(run)
    assert Counter(desk.witness.done()) == Counter(list(jobs)), "each is finished once"
    begun: dict[str, list[list[str]]] = {name: desk.witness.begun(name) for name in jobs}
    assert {name for name, lines in begun.items() if len(lines) == 2} == again
    assert all(len(begun[name]) == 1 for name in jobs.keys() - again), "what was finished is not executed again"
    for name, (before, *after) in begun.items():
        assert before[3:] == []
        newest = (after or [before])[-1]
        # Attempts that were taken back from a machine's queue have numbers too.
        assert int(newest[1]) == jobs[name]["attempt"] and (not after or int(newest[1]) > int(before[1]))
        out = (desk.folder / "results" / run / name / "out").read_text()
        assert out.startswith(f"{name} by attempt {newest[1]}\n")
        if name in preempted:
            worked, hooked = newest[3:]
            assert worked == f"worked-{before[1]}" and hooked.startswith("hook-20")
        elif name in vanished:
            assert newest[3:] == [], "who had no notice has nothing to go on from"
    # Nothing was given to them after the notice, and they are replaced by machines of other pools.
    launches = desk.launches()
    assert [launch[-1] for launch in launches] == ["ok"] * 10
    assert {zone for zone, *_ in launches[6:]}.isdisjoint({one.zone for one in noticed})
    assert all(one.state == "terminated" for one in [*noticed, lost])


def test_p7_notice_that_is_withdrawn_leaves_its_job_to_the_machine_that_was_asked_for(ec2: Cloud, desk: Desk) -> None:
    run = desk.submit(desk.config(ONE))
    desk.witness.until(lambda: desk.witness.begun("job"))
    (machine,) = desk.machines()
    ec2.notice(machine.id, seconds=300)
    until(lambda: desk.jobs(run)["job"]["phase"] != "RUNNING")
    until(lambda: len(desk.machines()) == 2)
    ec2.notice(machine.id, withdrawn=True)
    desk.witness.until(lambda: len(desk.witness.begun("job")) == 2)
    desk.witness.let(lambda words: True)
    assert desk.wait(run)["state"] == "succeeded"
    assert desk.witness.begun("job")[1][2:] == ["from", "worked-1"]
    assert desk.jobs(run)["job"]["instance"] == "aws-0b"
    first, second = ec2.instances
    assert (first.id, second.zone == first.zone) == (machine.id, False)


def test_on_demand_machines_where_there_are_no_spot_ones(ec2: Cloud, desk: Desk) -> None:
    ec2.market.capacity["*", "t3.small", "spot"] = 0
    ec2.market.capacity["eu-west-3b", "t3.small", "spot"] = 1
    run = desk.submit(desk.config(PREFER))
    desk.witness.until(lambda: len(desk.witness.begun()) == 2)
    assert sorted(one.market for one in desk.machines()) == ["on-demand", "spot"]
    (spot,) = desk.machines(market="spot")
    assert spot.zone == "eu-west-3b"
    before = desk.launches()
    short = {launch[:3] for launch in before if launch[3] != "ok"}
    assert {"eu-west-3a", "eu-west-3b"} == {zone for zone, _, market in short if market == "spot"}

    ec2.reclaim(spot.id)
    desk.witness.until(lambda: len(desk.witness.begun()) == 3)
    desk.witness.let(lambda words: True)
    assert desk.wait(run)["state"] == "succeeded"
    later = desk.launches()[len(before) :]
    assert [launch[2:] for launch in later] == [("on-demand", "ok")], "pools that were short are not asked again"
    assert not any(launch[2] == "on-demand" and launch[3] != "ok" for launch in before)

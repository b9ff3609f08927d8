"""What many jobs ask of the provider: as much as few."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from campaigns import pick
from cloud_command import Desk, desk_of, until
from ec2lab import Cloud

MACHINES = pick(6, 20)
FEW, MANY = pick((60, 300), (200, 1000))  # jobs
CONFIG = f"""
project: many
provider: aws
instances: {{type: t3.small, number: {MACHINES}, disk: 10GB}}
jobs: {{run: ":", repeat: JOBS}}
"""
FULL = (
    CONFIG.partition("jobs:")[0]
    + f"""
jobs: {{name: "job-{{n}}", run: WORK job, upload: work.py, matrix: {{n: {{range: [1, {MACHINES * 2}]}}}}}}
"""
)


@pytest.fixture
def desk(ec2: Cloud, state_dir: Path, tmp_path: Path) -> Iterator[Desk]:
    with desk_of(ec2, state_dir, tmp_path) as made:
        made.environ["CLOUDSEND_MAESTRO_LINGER"] = "60"
        yield made
    assert ec2.failures == []


def until_kept(ec2: Cloud) -> None:
    """The calls that let a run's machines go are this run's, and come after its end."""
    until(lambda: {ec2.tags(one.id).get("cloudsend:run") for one in ec2.instances} == {"kept"})


def _run(ec2: Cloud, desk: Desk, jobs: int) -> tuple[Counter[str], float]:
    """Calls by action, and how long it took; a new run of the same project, until it is over."""
    before, started = len(ec2.calls), time.monotonic()
    said = desk.json("run", desk.config(CONFIG.replace("JOBS", str(jobs))), "--fresh")
    lasted = time.monotonic() - started
    assert said["counts"]["succeeded"] == jobs
    until_kept(ec2)
    return Counter(call.action for call in ec2.calls[before:]), lasted


@pytest.mark.campaign("scale of AWS")
def test_calls_do_not_grow_with_the_number_of_jobs(
    ec2: Cloud, desk: Desk, summary_line: Callable[[str], None]
) -> None:
    desk.witness.let(lambda words: len(desk.witness.begun()) == MACHINES * 2)  # two on each
    started = time.monotonic()
    desk("run", desk.config(FULL))
    boot = time.monotonic() - started
    until_kept(ec2)
    first = Counter(call.action for call in ec2.calls)
    assert len(ec2.instances) == MACHINES
    few, short = _run(ec2, desk, FEW)
    many, long = _run(ec2, desk, MANY)
    assert len(ec2.instances) == MACHINES, "the machines of before are used again"
    pid = int(desk.json("maestro", "status")["pid"])
    (memory,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    summary_line(f"AWS: {MACHINES * 2} jobs on {MACHINES} new machines in {boot:.1f} s: {dict(first)}")
    summary_line(f"AWS: {FEW} jobs on the same machines in {short:.1f} s: {dict(few)}")
    summary_line(f"AWS: {MANY:,} jobs on the same machines in {long:.1f} s: {dict(many)}; the maestro's {memory}")
    assert first["RunInstances"] == MACHINES and few["RunInstances"] == many["RunInstances"] == 0
    # Whole lists of machines are asked for every two seconds while any comes or goes, and every fifteen else.
    lists = "DescribeInstances"
    assert many[lists] <= few[lists] + (long + short) / 2 + 2
    assert {action: count for action, count in many.items() if action != lists} == {
        action: count for action, count in few.items() if action != lists
    }

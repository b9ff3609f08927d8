"""examples/aws.yml by the real command: results come home, the machines end, and the bill is what `cost` has said."""

from __future__ import annotations

import csv
import math
import shutil
from calendar import monthrange
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_command import Desk, desk_of, dollars
from ec2lab import Cloud

ROOT = Path(__file__).parent.parent.parent
IDLE = 15  # seconds, instead of ten minutes; a machine at work is seen to be so every five
SETS = [word for index in range(2) for word in ("--set", f"instances[{index}].idle={IDLE}s")]


@pytest.fixture
def desk(ec2: Cloud, state_dir: Path, tmp_path: Path) -> Iterator[Desk]:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("results"))
    with desk_of(ec2, state_dir, tmp_path) as made:
        yield made
    assert ec2.failures == []


def _month(month: int) -> bytes:
    """What examples/scripts/tide_month.py writes."""
    with (ROOT / "examples/data/tides.csv").open(newline="", encoding="utf-8") as file:
        week = list(csv.DictReader(file))
    lines = ["day,high water,height in m"]
    for day in range(1, monthrange(2026, month)[1] + 1):
        tide = week[day % len(week)]
        height = float(tide["height in m"]) + 0.4 * math.cos(2 * math.pi * day / 14.77)
        lines.append(f"{day},{tide['high water']},{height:.2f}")
    return "".join(line + "\n" for line in lines).encode()


def test_the_example_of_aws(ec2: Cloud, desk: Desk) -> None:
    said = desk.json("run", "examples/aws.yml", *SETS)
    assert (said["state"], said["counts"]["succeeded"]) == ("succeeded", 13)
    results = desk.folder / "examples" / "results" / said["run"]
    home = {path.parent.name: path.read_bytes() for path in results.glob("*/month.csv")}
    assert home == {f"month-{n}": _month(n) for n in range(1, 13)}
    assert desk("tail", f"{said['run']}.13", "--stdout").stdout == "a year of tides was computed\n"
    assert sorted((row.type, row.market) for row in ec2.ledger()) == [
        ("t3.medium", "on-demand"), ("t3.small", "spot"), ("t3.small", "spot"),
    ]  # fmt: skip
    assert len(ec2.calls_of("RunInstances")) == 3

    for one in ec2.instances:
        ec2.wait(one.id, "terminated", timeout=IDLE * 4)
        assert f"it has been idle for {IDLE} seconds" in one.console
    assert [leak for leak in ec2.leaks() if not leak.startswith("group ")] == []
    assert desk.json("list", "instances") == []
    (cost,) = desk.json("cost")["runs"]
    assert cost["run"] == said["run"] and cost["cost_per_hour"] == 0
    assert cost["cost"] == pytest.approx(dollars(ec2.ledger()), abs=0.005)
    desk("gc", "--yes")
    assert ec2.leaks() == []

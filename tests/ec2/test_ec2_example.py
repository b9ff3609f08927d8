"""The example of AWS by the real command: results come home, machines are taken again, and end themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ec2lab import Cloud

ROOT = Path(__file__).parent.parent.parent
CLOUDSEND = [sys.executable, "-m", "cloudsend_cli"]
IDLE = 15  # seconds, instead of ten minutes; a machine at work is seen to be so every ten

Command = Callable[..., dict[str, Any]]


@pytest.fixture
def example(ec2: Cloud, state_dir: Path, tmp_path: Path) -> Iterator[Command]:
    """`cloudsend … -o json` beside a copy of the examples, with the lab as its cloud."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("results"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environ |= {"CLOUDSEND_HOME": str(state_dir), "CLOUDSEND_MAESTRO_LINGER": "1", **ec2.environ}
    environ |= {"CLOUDSEND_CALLER_CIDR": ec2.client_address}

    def run(*words: str) -> dict[str, Any]:
        limits = [f"instances[{index}].idle={IDLE}s" for index in range(2)]
        sets = [word for limit in limits for word in ("--set", limit)]
        command = [*CLOUDSEND, "run", "examples/aws.yml", *sets, *words, "-o", "json"]
        done = subprocess.run(
            command, check=False, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return dict(json.loads(done.stdout))

    yield run
    subprocess.run([*CLOUDSEND, "maestro", "stop"], check=False, env=environ, capture_output=True, timeout=60)


def test_the_example_of_aws(ec2: Cloud, example: Command, tmp_path: Path) -> None:
    said = example()
    assert (said["state"], len(said["jobs"])) == ("succeeded", 13)
    results = tmp_path / "examples" / "results" / said["run"]
    assert sorted(path.parent.name for path in results.glob("*/month.csv")) == sorted(
        f"month-{n}" for n in range(1, 13)
    )
    assert len((results / "month-2" / "month.csv").read_text().splitlines()) == 29
    launched = [one.id for one in ec2.instances]
    assert sorted((row.type, row.market) for row in ec2.ledger()) == [
        ("t3.medium", "on-demand"), ("t3.small", "spot"), ("t3.small", "spot"),
    ]  # fmt: skip

    again = example("--fresh")
    assert again["state"] == "succeeded" and again["run"] != said["run"]
    assert [one.id for one in ec2.instances] == launched, "machines that wait are taken again"

    for instance in launched:
        ec2.wait(instance, "terminated", timeout=IDLE * 4)
    assert not ec2.alive
    assert all(row.end is not None for row in ec2.ledger())
    assert [leak for leak in ec2.leaks() if not leak.startswith("group ")] == []
    assert ec2.failures == []

"""What jobs on real hosts report comes home with their logs, through kill -9 of agents and of the maestro."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import kill_agent, until_file

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
SAY = """
echo "CLOUDSEND_METRIC lr2=$((lr * lr))"
echo "CLOUDSEND_METRIC oops=1" >&2
echo "loss=0.$lr" >> "$CLOUDSEND_METRICS"
"""


def test_metrics_of_two_hosts_come_home_whatever_dies_meanwhile(cluster: MakeCluster) -> None:
    stack = cluster(2, settings={"cpus": 1})
    first, second = stack.hosts
    # Larger than what an end waits for: the log, and with it what was reported, comes after the end.
    large = f"yes a line of a log | head -c {6 << 20}; echo\n"
    values = {"lr": [2, 3]}
    jobs = [
        {"name": "waits", "run": f"{SAY}hostname >~/waits\n{until_file('~/go')}", "cpus": 0.6, "matrix": values},
        {"name": "small", "run": SAY, "cpus": 0.1, "matrix": values},
        {"name": "large", "run": large + SAY, "cpus": 0.1, "matrix": values},
    ]
    run = stack.submit(jobs=jobs)
    for host in stack.hosts:
        wait_for(lambda host=host: stack.ledger(host, "waits"))
    kill_agent(stack, first)
    stack.kill_maestro()
    for host in stack.hosts:
        host.write("go", "")
    assert stack.settle(run).counts["succeeded"] == 6
    for job in stack.jobs(run).values():
        lr = int(job.params["lr"])
        assert dict(job.metrics) == {"oops": "1", "lr2": str(lr * lr), "loss": f"0.{lr}"}, job
    assert {job.instance for job in stack.jobs(run).values()} == {stack.node(first), stack.node(second)}
    folder = Path(stack.client.find_run(run).results_dir)
    wait_for((folder / "results.json").exists)
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["metric.loss"] for row in rows] == [f"0.{row['param.lr']}" for row in rows]
    assert len(json.loads((folder / "results.json").read_text())) == len(rows) == 6

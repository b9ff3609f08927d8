"""Client and maestro go away; the hosts work on, and whoever comes next picks all of it up."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import cloudsend

from cloudsend_cli.api import Client

JOBS = 12
JOB = {
    "name": "j-{n}",
    "run": "echo $CLOUDSEND_ATTEMPT >> ~/ledger; while [ ! -e ~/gate ]; do sleep 0.05; done; echo {n} | tee out",
    "matrix": {"n": list(range(1, JOBS + 1))},
    "output": "out",
}
MakeCluster = Callable[..., Cluster]


def begin(cluster: Cluster) -> str:
    """All jobs are held by the hosts, some of them run, and then nobody is there who asks for them."""
    run = cluster.submit(jobs=[JOB])
    cluster.until(run, lambda p: p.counts["running"] == JOBS)
    wait_for(lambda: sum(len(cluster.ledger(h)) for h in cluster.hosts) >= 2)
    cluster.client.close()
    cluster.kill_maestro()
    return run


def work_on(cluster: Cluster) -> None:
    """Open the gate, and wait until the hosts have worked through what they hold."""
    for host in cluster.hosts:
        host.write("gate", "")
    wait_for(lambda: sum(len(cluster.ledger(h)) for h in cluster.hosts) == JOBS)


def check_all(cluster: Cluster, client: Client, run: str, results: Path) -> None:
    # What waited in a queue may have been taken back for another machine: by job, not by attempt.
    lines = Counter(line.rpartition(".")[0] for host in cluster.hosts for line in cluster.ledger(host))
    assert lines == {f"{run}.{n}": 1 for n in range(1, JOBS + 1)}
    jobs = client.list_jobs(run)
    assert {j.state for j in jobs} == {"succeeded"}
    for number in range(1, JOBS + 1):
        assert (results / run / f"j-{number}" / "out").read_text() == f"{number}\n"
        assert b"".join(client.read_log(f"{run}.{number}")) == f"{number}\n".encode()


def test_hosts_work_on_and_a_new_client_picks_all_of_it_up(cluster: MakeCluster) -> None:
    lab = cluster(2, settings={"cpus": 2})
    run = begin(lab)
    work_on(lab)
    assert lab.maestro() is None
    with Client(lab.state) as client:
        client.wait([run], timeout=60)
        lab.settle(run)
        check_all(lab, client, run, lab.files / "results")


def test_a_copied_state_directory_picks_it_up_as_well(cluster: MakeCluster, tmp_path: Path) -> None:
    lab = cluster(2, settings={"cpus": 2})
    run = begin(lab)
    copied = lab.directory / "copy"
    shutil.copytree(lab.state, copied, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    shutil.move(lab.state, tmp_path / "the old one")
    work_on(lab)
    with Client(copied) as client:
        for _ in client.follow(run, timeout=60):
            pass
        check_all(lab, client, run, lab.files / "results")
        client.maestro_stop()


@pytest.mark.parametrize("gone", ["killed", "stopped"])
def test_jobs_that_run_are_attached_to_and_not_started_again(cluster: MakeCluster, gone: str) -> None:
    lab = cluster(2, settings={"cpus": 2})
    run = begin(lab)
    if gone == "stopped":
        lab.client.maestro_stop()
    assert lab.submit(jobs=[JOB]) == run
    lab.until(run, lambda p: p.executing == 4)
    work_on(lab)
    lab.settle(run)
    check_all(lab, lab.client, run, lab.files / "results")


def test_a_machine_that_is_given_up_loses_its_jobs_to_the_others(cluster: MakeCluster) -> None:
    lab = cluster(2, settings={"cpus": 2})
    dead, alive = lab.hosts
    run = begin(lab)
    lost = {job.name for job in lab.client.list_jobs(run) if job.instance == lab.node(dead)}
    assert lost
    dead.power_off()
    alive.write("gate", "")
    assert lab.submit(jobs=[JOB]) == run
    wait_for(lambda: lab.phase(run, min(lost)) == "UNKNOWN")
    done = cloudsend(lab, "terminate", "instance", lab.node(dead), "--gone")
    assert done.returncode == 0, done.stderr
    assert f"{lab.node(dead)} is given up in run {run}" in done.stderr
    lab.settle(run)
    jobs = lab.jobs(run)
    assert {j.state for j in jobs.values()} == {"succeeded"}
    assert {j.name for j in jobs.values() if j.attempt == 2} == lost
    assert {j.instance for j in jobs.values()} == {lab.node(alive)}

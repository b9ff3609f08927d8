"""Many jobs on many hosts while some of these are killed, cut off or paused: all are accounted for."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import pick
from real_stack import wait_for
from ssh_cluster import Cluster

HOSTS = pick(8, 20)
JOBS = pick(400, 2000)
CUT_SECONDS = pick(12.0, 20.0)  # longer than a maestro listens for
MOST_MEMORY = 150 << 20  # of the maestro


def resident(pid: int) -> int:
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) << 10


@pytest.mark.campaign("soak")
@pytest.mark.timeout(420)
def test_nothing_is_lost_or_doubled_while_hosts_are_killed_cut_off_and_paused(
    cluster: Callable[..., Cluster], summary_line: Callable[[str], None]
) -> None:
    all_hosts = cluster(HOSTS, settings={"cpus": 2})
    killed, cut, paused = all_hosts.hosts[:2], all_hosts.hosts[2:4], all_hosts.hosts[4]
    begun = time.monotonic()
    job = {
        "name": "j-{n}",
        "run": "echo $CLOUDSEND_ATTEMPT >> ~/ledger; sleep 0.{n}; echo {n}; echo $CLOUDSEND_JOB > out",
        "matrix": {"n": list(range(1, JOBS + 1))},
        "output": "out",
        "retries_lost": 5,
    }
    config: dict[str, object] = {"jobs": [job]}
    run = all_hosts.submit(**config)
    all_hosts.until(run, lambda p: p.counts["succeeded"] >= JOBS // 10)
    for host in killed:
        host.power_off()
    for host in cut:
        host.partition()
    paused.pause()
    timer = threading.Timer(CUT_SECONDS, lambda: [*(h.heal() for h in cut), paused.resume()])
    timer.start()
    dead = {all_hosts.node(h) for h in killed}

    def only_the_dead_are_waited_for(_: object) -> bool:
        open_jobs = [j for j in all_hosts.client.list_jobs(run, states=["pending", "running"])]
        return not timer.is_alive() and all(j.instance in dead for j in open_jobs)

    wait_for(lambda: only_the_dead_are_waited_for(None), 300)
    unknown = [j for j in all_hosts.client.list_jobs(run, states=["running"]) if j.phase == "UNKNOWN"]
    assert {j.instance for j in unknown} <= dead
    for node in dead:
        assert all_hosts.client.give_up(node) == [run]
    all_hosts.settle(run, 300)
    took = time.monotonic() - begun

    jobs = all_hosts.jobs(run)
    assert len(jobs) == JOBS
    assert Counter(j.state for j in jobs.values()) == {"succeeded": JOBS}
    # Every execution is a line on a disk; those of the dead hosts are read there.
    for host in killed:
        host.power_on()
    lines = [line for host in all_hosts.hosts for line in all_hosts.ledger(host)]
    doubled = [attempt for attempt, count in Counter(lines).items() if count > 1]
    assert not doubled
    lost = {f"{run}.{j.number}" for j in unknown}
    again = [
        job for job, count in Counter(a.rpartition(".")[0] for a in lines).items() if count > 1 and job not in lost
    ]
    assert not again, "executed twice although no host of theirs was given up"
    # Results that went down with a host are done again when the config is run again.
    gone = [j for j in jobs.values() if j.outputs != "home"]
    assert {j.instance for j in gone} <= dead
    assert all_hosts.submit(**config) == run
    all_hosts.settle(run, 300)
    results = all_hosts.files / "results" / run
    for name in jobs:
        assert (results / name / "out").read_text() == f"{name}\n"
    maestro = all_hosts.maestro()
    assert maestro is not None
    memory = resident(maestro)
    assert memory < MOST_MEMORY
    summary_line(
        f"soak: {JOBS} jobs on {HOSTS} hosts in {took:.0f} s, {len(unknown)} on the killed hosts done again,"
        f" results of {len(gone)} made again;"
        f" maestro at most {memory >> 20} MB"
    )

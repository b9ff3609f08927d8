"""H1 and H2: a host restarts under its jobs, or never comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import LEDGER, Tail, connections, until_file, wait_connected, wait_ledger
from sshlab import LabHost

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
SHOWN_WITHIN = 30.0  # the bound of unknown


def test_h1_a_reboot_loses_what_ran_and_it_is_tried_again_as_its_policy_says(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    waits = {"run": LEDGER + "echo begun\n" + until_file("~/go") + "echo done", "cpus": 0.5}
    jobs = [
        {"name": "again", **waits},
        {"name": "once", **waits, "retries_lost": 0},
        {"name": "ended", "run": LEDGER + "echo kept", "cpus": 0.5},
        {"name": "waiting", "run": LEDGER, "cpus": 2},
    ]
    run = stack.submit(jobs=jobs)
    stack.until_phase(run, "ended", "DONE")
    wait_ledger(stack, host, 3)
    tail = Tail(stack, "again")
    tail.until_longer(1)
    assert stack.jobs(run)["waiting"].started_at is None
    before = connections(stack, host)
    host.reboot()
    begun = time.monotonic()
    wait_connected(stack, host, before)
    stack.until_phase(run, "once", "ABORTED")
    wait_ledger(stack, host, 4)
    summary_line(f"H1: the loss was known and a new attempt had begun {time.monotonic() - begun:.1f} s after the boot")
    assert not [name for name, job in stack.jobs(run).items() if job.phase == "RUNNING" and job.attempt == 1]
    host.write("go", "")
    stack.settle(run)
    seen = stack.jobs(run)
    assert {name: (job.state, job.reason, job.attempt) for name, job in seen.items()} == {
        "again": ("succeeded", "", 2),
        "once": ("failed", "lost: the host was restarted", 1),
        "ended": ("succeeded", "", 1),
        "waiting": ("succeeded", "", seen["waiting"].attempt),
    }
    told = [(attempt["attempt"], attempt["reason"]) for attempt in stack.client.attempts("again")]
    assert told[0] == (1, "lost: the host was restarted")
    expected = [f"{run}.1.1", f"{run}.1.2", f"{run}.2.1", f"{run}.3.1", seen["waiting"].uid]
    assert sorted(stack.ledger(host)) == expected
    assert stack.tail("again") == b"begun\ndone\n" and stack.tail("ended") == b"kept\n"
    assert tail.result() == b"begun\nbegun\ndone\n"


def test_h2_a_host_that_is_gone_for_good_keeps_its_jobs_unknown_and_the_others_go_on_until_it_is_given_up(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    stack = cluster(2)
    gone, well = stack.hosts
    job = {"run": LEDGER + until_file("~/go") + "echo done", "cpus": 2, "repeat": 4}
    run = stack.submit(jobs=[{"name": "job", **job}])

    def on(host: LabHost, *phases: str) -> list[str]:
        return [n for n, j in stack.jobs(run).items() if j.instance == stack.node(host) and j.phase in phases]

    wait_for(lambda: on(gone, "RUNNING") and on(well, "RUNNING") and len(on(gone, "IDLE") + on(well, "IDLE")) == 2)
    begun = time.monotonic()
    gone.power_off()
    there = [*on(gone, "RUNNING"), *on(gone, "IDLE"), *on(gone, "UNKNOWN")]
    for name in there:
        stack.until_phase(run, name, "UNKNOWN", SHOWN_WITHIN)
    summary_line(f"H2: a host without power was unknown after {time.monotonic() - begun:.1f} s")
    stack.client.cancel([there[0], *on(well, "RUNNING")])
    wait_for(lambda: len(on(well, "ABORTED")) == 1)
    well.write("go", "")
    wait_for(lambda: not on(well, "IDLE", "RUNNING"))
    assert [stack.phase(run, name) for name in there] == ["UNKNOWN"] * len(there)
    assert "silence ends nothing" in str(stack.client.explain(there[0]))
    assert stack.client.give_up(stack.node(gone)) == [run]
    stack.settle(run)
    seen = stack.jobs(run)
    assert sorted(j.state for j in seen.values()) == ["cancelled", "cancelled", "succeeded", "succeeded"]
    assert seen[there[0]].state == "cancelled"
    assert {seen[name].instance for name in there[1:]} <= {stack.node(well)}
    gone.power_on()
    ledger = stack.ledger(gone) + stack.ledger(well)
    assert len(set(ledger)) == len(ledger) == 1 + 3
    assert {j.uid for j in seen.values() if j.state == "succeeded"} <= set(ledger)

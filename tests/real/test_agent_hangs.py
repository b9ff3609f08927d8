"""A5 and H3: a stopped agent and a paused host are silent for a while, and then go on as if nothing had been."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from ssh_cluster import Cluster
from ssh_faults import LEDGER, Tail, agent_pid, connections, record_of, until_file
from sshlab import LabHost

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
SHOWN_WITHIN = 30.0  # the bound of unknown
SPEAK = "i=$((i + 1)); echo line $i; sleep 0.05"
TALKER = LEDGER + "i=0\n" + until_file("~/go", SPEAK) + "echo end"


def test_a5_h3_a_stopped_agent_and_a_paused_host_are_unknown_within_30_s_and_their_jobs_are_not_touched(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    """At the same time: an agent that stays stopped, one that goes on when missed, a host paused until then."""
    stack = cluster(4)
    stuck, resumed, paused, well = stack.hosts
    runs = {host.name: submit_to(stack, host) for host in stack.hosts}
    for host in stack.hosts:
        stack.until_phase(runs[host.name], host.name, "RUNNING")
    tails = {host.name: Tail(stack, f"{host.name}") for host in stack.hosts}
    for tail in tails.values():
        tail.until_longer(1)
    jobs = {host.name: record_of(host, f"{runs[host.name]}.1.1")["pid"] for host in stack.hosts}
    agents = {host.name: agent_pid(host) for host in (stuck, resumed)}
    begun = time.monotonic()
    for host in (stuck, resumed):
        host.kill(agents[host.name], signal.SIGSTOP)
    paused.pause()
    shown = {}
    for host in (stuck, resumed, paused):
        stack.until_phase(runs[host.name], host.name, "UNKNOWN", SHOWN_WITHIN)
        shown[host.name] = time.monotonic() - begun
    assert "silence ends nothing" in str(stack.client.explain(stuck.name))
    resumed.kill(agents[resumed.name], signal.SIGCONT)
    stack.until_phase(runs[resumed.name], resumed.name, "RUNNING")
    back = {resumed.name: time.monotonic() - begun}
    stack.until_phase(runs[stuck.name], stuck.name, "RUNNING")
    back[stuck.name] = time.monotonic() - begun
    paused.resume()
    awake = stack.until_phase(runs[paused.name], paused.name, "RUNNING")
    summary_line(
        f"A5: unknown after {shown[stuck.name]:.1f} s; a stopped agent was replaced after {back[stuck.name]:.1f} s, "
        f"one that went on was back after {back[resumed.name]:.1f} s; H3: unknown after {shown[paused.name]:.1f} s, "
        f"back {awake:.1f} s after a pause of {back[stuck.name]:.0f} s"
    )
    assert agent_pid(stuck) != agents[stuck.name]
    for host in stack.hosts:
        assert record_of(host, f"{runs[host.name]}.1.1")["pid"] == jobs[host.name]
        tails[host.name].until_longer(1)
        host.write("go", "")
    for host in stack.hosts:
        run = runs[host.name]
        stack.settle(run)
        seen = stack.jobs(run)[host.name]
        assert (seen.state, seen.attempt) == ("succeeded", 1)
        assert stack.ledger(host) == [f"{run}.1.1"]
        log = tails[host.name].result()
        count = log.count(b"\n") - 1
        assert log == b"".join(b"line %d\n" % n for n in range(1, count + 1)) + b"end\n"
        assert log == stack.tail(host.name)
    assert connections(stack, well) == 1


def submit_to(stack: Cluster, host: LabHost) -> str:
    """A run of its own for each host, named after it."""
    return stack.submit(
        name=f"{host.name}.json", instances={"labels": host.name}, jobs=[{"name": host.name, "run": TALKER}]
    )

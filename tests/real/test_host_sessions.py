"""H15 and H18: hosts that end what a login left behind, and hosts that share one home directory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import LEDGER, check_host, kill_agent, until_file, wait_ledger
from sshlab import LabHost

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
MakeHosts = Callable[..., list[LabHost]]
# As logind does with KillUserProcesses=yes: with the last session of a user goes all that is the user's.
LOGIND = """
while :; do
    until pgrep -u lab -f '^sshd: lab' >/dev/null; do sleep 0.02; done
    while pgrep -u lab -f '^sshd: lab' >/dev/null; do sleep 0.02; done
    pkill -KILL -u lab
done
"""


@contextmanager
def logind(host: LabHost) -> Iterator[None]:
    with subprocess.Popen(host.command(["/bin/sh", "-c", LOGIND], root=True)) as watching:
        try:
            yield
        finally:
            for pid in host.pids("until pgrep"):
                host.kill(pid)
            watching.wait()


def test_h15_a_host_that_ends_jobs_at_logout_loses_them_as_such_and_the_user_is_told_the_remedy(
    cluster: MakeCluster,
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    with logind(host):
        job = {"run": LEDGER + until_file("~/go") + "exit 3", "cpus": 0.5}
        jobs = [{"name": "patient", **job, "retries_lost": 5}, {"name": "once", **job, "retries_lost": 0}]
        run = stack.submit(jobs=jobs)
        for name in ("patient", "once"):
            stack.until_phase(run, name, "RUNNING")
        assert stack.client.list_instances()[0].remark == ""
        for lost in (1, 2):
            host.kill_sshd_sessions()
            wait_for(lambda: len(host.read("ledger", root=True).split()) == 2 + lost)  # noqa: B023 - as root: spared
        wait_for(lambda: "loginctl enable-linger" in stack.client.list_instances()[0].remark)
        assert "loginctl enable-linger" in check_host(stack, host)
        host.write("go", "", root=True)
        stack.settle(run)
    seen = stack.jobs(run)
    assert (seen["patient"].reason, seen["patient"].attempt) == ("exit 3", 3)
    assert (seen["once"].state, seen["once"].reason, seen["once"].attempt) == ("failed", "lost", 1)
    assert sorted(stack.ledger(host)) == [f"{run}.1.1", f"{run}.1.2", f"{run}.1.3", f"{run}.2.1"]


def test_h18_two_hosts_with_one_home_keep_apart_what_each_of_them_runs(
    cluster: MakeCluster, lab_hosts: MakeHosts
) -> None:
    (one,) = lab_hosts(1)
    (other,) = lab_hosts(1, home_of=one)
    stack = cluster(0)
    stack.hosts = [one, other]
    stack.trust()
    stack.write_providers()
    job = {"run": f"{LEDGER}hostname\n{until_file('~/go')}", "repeat": 4, "retries_lost": 3}
    run = stack.submit(jobs=[{"name": "job", **job}])
    wait_ledger(stack, one, 4)
    wait_for(lambda: {j.phase for j in stack.jobs(run).values()} == {"RUNNING"})
    first = {name: (j.instance, j.uid) for name, j in stack.jobs(run).items()}
    assert sorted(node for node, _ in first.values()) == sorted([stack.node(one), stack.node(other)] * 2)
    kill_agent(stack, one)
    other.reboot()
    wait_ledger(stack, one, 6)
    one.write("go", "")
    stack.settle(run)
    seen = stack.jobs(run)
    again = [job.uid for name, job in seen.items() if first[name][0] == stack.node(other)]
    assert {job.state for job in seen.values()} == {"succeeded"}
    assert sorted(stack.ledger(one)) == sorted([*(uid for _, uid in first.values()), *again])
    for job in seen.values():
        host = next(host for host in stack.hosts if stack.node(host) == job.instance)
        assert stack.tail(job.id) == f"{host.name}\n".encode()

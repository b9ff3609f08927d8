"""H4 and H13: disks that fill up, and homes where little can be written or executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import agent_home, check_host, until_file
from sshlab import LabHost

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
MakeHosts = Callable[..., list[LabHost]]
LEDGER = 'echo "$CLOUDSEND_ATTEMPT" >>/tmp/ledger\n'  # where there is room


def ledger(host: LabHost) -> list[str]:
    return host.sh("cat /tmp/ledger 2>/dev/null || true").split()


def submit_to(stack: Cluster, host: LabHost, name: str, **job: Any) -> str:
    job = {"name": name, "cpus": 0.2, **job}
    return stack.submit(name=f"{name}.json", instances={"labels": host.name}, jobs=[job])


def test_h4_with_the_disk_full_running_jobs_end_as_they_do_and_new_ones_wait_or_go_where_there_is_room(
    cluster: MakeCluster,
) -> None:
    stack = cluster(3, home_size="20m", home_inodes=500)
    bytes_, inodes, well = stack.hosts
    ends = {
        "exit": "exit 7",
        "write": "for n in 1 2 3 4; do touch ~/more-$n || exit 8; echo more >~/more-$n || exit 8; done",
        "speak": "i=0; while [ $i -lt 5000 ]; do echo line $i || exit 9; i=$((i + 1)); done; exit 9",
    }
    running = {}
    for host in (bytes_, inodes):
        for name, end in ends.items():
            script = LEDGER + "echo begun\n" + until_file("/tmp/full") + end
            running[f"{name}-{host.name}"] = submit_to(stack, host, f"{name}-{host.name}", run=script)
    for name, run in running.items():
        stack.until_phase(run, name, "RUNNING")
    bytes_.fill_disk()
    inodes.fill_inodes()
    for host in (bytes_, inodes):
        host.sh("touch /tmp/full")
    for name, run in running.items():
        stack.settle(run)
        seen = stack.jobs(run)[name]
        code = {"exit": "exit 7", "write": "exit 8", "speak": "exit 9"}[name.partition("-")[0]]
        assert seen.reason == f"{code}, disk-full"
        log = stack.tail(seen.id)
        host = next(host for host in stack.hosts if name.endswith(f"-{host.name}"))
        assert log == host.read(f"{agent_home(host)}/attempts/{seen.uid}/stdout")
        assert b"".join([b"begun\n", *(b"line %d\n" % n for n in range(5000))]).startswith(log)
    # Whatever comes now is done on the third one; what can only be done on the others waits, and says why.
    (stack.files / "file").write_bytes(b"x" * 300_000)
    job: dict[str, Any] = {"run": LEDGER + "sleep 0.1", "repeat": 3}
    waiting = [submit_to(stack, host, f"wait-{host.name}", **job) for host in (bytes_, inodes)]
    waiting += [submit_to(stack, host, f"send-{host.name}", **job, upload="file") for host in (bytes_, inodes)]
    any_ = stack.submit(name="any.json", jobs=[{"name": "any", **job, "repeat": 6}])
    stack.settle(any_)
    assert {(j.state, j.instance) for j in stack.jobs(any_).values()} == {("succeeded", stack.node(well))}
    for run in waiting:
        wait_for(lambda run=run: "its disk is full" in str(stack.client.explain(f"{run}.1")))  # type: ignore[misc]
        assert {j.state for j in stack.jobs(run).values()} == {"pending"}
    for host in (bytes_, inodes):
        host.free_disk()
    for run in waiting:
        stack.settle(run)
        assert {j.state for j in stack.jobs(run).values()} == {"succeeded"}
    begun = [line for host in stack.hosts for line in ledger(host)]
    assert len(set(begun)) == len(begun) == len(running) + 6 + 4 * 3


def test_h13_odd_homes_run_jobs_or_are_refused_with_what_to_do(cluster: MakeCluster, lab_hosts: MakeHosts) -> None:
    """Each home has a host and a run of its own; all are under way at the same time."""
    stack = cluster(1, noexec=True)
    (small,), (tiny,) = lab_hosts(1, home_size="1m"), lab_hosts(1, home_size="64k")
    shut, elsewhere, open_, homeless = rest = lab_hosts(4)
    stack.hosts += [small, tiny, *rest]
    for host in (shut, elsewhere):
        host.sh("chmod 555 .")
    open_.write(".bashrc", "umask 000\n")
    homeless.write(".bashrc", "unset HOME\n")
    stack.trust()
    stack.write_providers({elsewhere.name: {"home": "/tmp/agent"}})
    runs = {host: submit_to(stack, host, host.name, run=LEDGER + "umask; echo ${HOME-none}") for host in stack.hosts}
    for run in runs.values():
        stack.settle(run)
    seen = {host: stack.jobs(run)[host.name] for host, run in runs.items()}
    for host, reason in {
        tiny: "No space left on device",
        shut: "Permission denied: '/home/lab/.cloudsend'",
    }.items():
        assert (seen[host].state, ledger(host)) == ("failed", [])
        assert seen[host].reason.endswith(reason)
        assert "with `home:`" in check_host(stack, host)
    for host in stack.hosts:
        if host not in (tiny, shut):
            assert (seen[host].state, seen[host].reason) == ("succeeded", "")
            assert ledger(host) == [seen[host].uid]
            home = "none" if host is homeless else host.home
            assert stack.tail(host.name).decode() == f"{'0000' if host is open_ else '0022'}\n{home}\n"
    assert elsewhere.exists("/tmp/agent/agent.lock")
    assert open_.sh("find .cloudsend ! -type l -perm /077") == ""

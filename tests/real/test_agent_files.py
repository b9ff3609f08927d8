"""A4, A6, A7: what the agent needs on a host is broken, deleted or taken away while jobs run there."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import (
    LEDGER,
    agent_home,
    agent_pid,
    connections,
    kill_agent,
    record_of,
    until_file,
    wait_connected,
)

from cloudsend_cli.agent.client import agent_sha256, agent_source

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]


def evil_agent() -> bytes:
    """A program that does what it should not, and then is the agent."""
    found, archive = zipfile.ZipFile(io.BytesIO(agent_source())), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for name in found.namelist():
            text = found.read(name)
            writer.writestr(name, b"open('/home/lab/evil', 'w')\n" + text if name == "__main__.py" else text)
    return archive.getvalue()


def flipped() -> bytes:
    source = bytearray(agent_source())
    source[len(source) // 2] ^= 1
    return bytes(source)


def test_a4_an_agent_file_that_was_truncated_or_tampered_with_is_replaced_before_it_is_used(
    cluster: MakeCluster,
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    run = stack.submit(jobs=[{"name": "steady", "run": LEDGER + until_file("~/go") + "exit 4"}])
    stack.until_phase(run, "steady", "RUNNING")
    uid = str(stack.jobs(run)["steady"].uid)
    job = record_of(host, uid)["pid"]
    path = f"{agent_home(host)}/agent-{agent_sha256()[:16]}.pyz"
    assert hashlib.sha256(host.read(path)).hexdigest() == agent_sha256()
    evil = evil_agent()
    host.write("evil.pyz", evil)
    assert b"cloudsend-agent" in host.exec(["python3", "evil.pyz", "version"], check=False).stdout or host.exists(
        "evil"
    )
    assert host.exists("evil"), "the test's own program does nothing"
    host.sh("rm evil")
    for breakage in (
        lambda: host.write(path, agent_source()[:1000]),
        lambda: host.write(path, b""),
        lambda: host.write(path, flipped()),
        lambda: host.write(path, evil),
        lambda: host.sh('ln -sf ~/evil.pyz "$1"', path),
        lambda: host.sh('chmod 000 "$1"', path),
        lambda: host.sh('rm "$1"', path),
    ):
        breakage()
        kill_agent(stack, host)
        assert hashlib.sha256(host.read(path)).hexdigest() == agent_sha256()
        assert record_of(host, uid)["pid"] == job
    assert host.sh('find "$1" -name "*.pyz" -type f | wc -l', agent_home(host)) == "1"
    assert not host.exists("evil")
    host.write("go", "")
    stack.settle(run)
    assert (stack.jobs(run)["steady"].reason, stack.jobs(run)["steady"].attempt) == ("exit 4", 1)
    assert stack.ledger(host) == [uid]


def test_a7_with_python_gone_from_the_host_its_jobs_go_on_and_the_reason_is_told(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    jobs = [
        {"name": "steady", "run": LEDGER + until_file("~/go") + "exit 6"},
        {"name": "next", "run": LEDGER, "cpus": 2},
    ]
    run = stack.submit(jobs=jobs)
    stack.until_phase(run, "steady", "RUNNING")
    uid = str(stack.jobs(run)["steady"].uid)
    host.set_python("none")
    host.kill(agent_pid(host))
    wait_for(lambda: "no Python 3.6 or later" in str(stack.client.explain("steady")))
    assert stack.phase(run, "steady") == "UNKNOWN"
    host.write("go", "")  # it ends while nobody looks
    wait_for(lambda: record_of(host, uid)["state"] == "exited")
    before = connections(stack, host)
    host.set_python("machine")
    wait_connected(stack, host, before)
    stack.settle(run)
    seen = stack.jobs(run)
    assert (seen["steady"].reason, seen["steady"].attempt) == ("exit 6", 1)
    assert (seen["next"].state, seen["next"].attempt) == ("succeeded", 1)
    assert stack.ledger(host) == [uid, f"{run}.2.1"]


def test_a6_a_job_whose_agent_directory_is_deleted_goes_on_and_is_not_started_a_second_time_beside_itself(
    cluster: MakeCluster,
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    waits = {"run": LEDGER + until_file("~/go"), "cpus": 0.5, "grace": "1s"}
    jobs = [{"name": "again", **waits}, {"name": "once", **waits, "retries_lost": 0}, {"name": "killed", **waits}]
    run = stack.submit(jobs=jobs)
    for name in ("again", "once", "killed"):
        stack.until_phase(run, name, "RUNNING")
    pids = {name: record_of(host, str(job.uid))["pid"] for name, job in stack.jobs(run).items()}
    before = connections(stack, host)
    host.sh("rm -rf .cloudsend")
    wait_connected(stack, host, before)
    assert {stack.phase(run, name) for name in pids} == {"RUNNING"}
    stack.client.cancel(["killed"])
    stack.until_phase(run, "killed", "ABORTED")
    assert pids["killed"] not in host.processes()
    assert {pids["again"], pids["once"]} < host.processes().keys()
    assert sorted(stack.ledger(host)) == [f"{run}.{n}.1" for n in (1, 2, 3)]
    host.write("go", "")
    stack.settle(run)
    seen = stack.jobs(run)
    assert (seen["again"].state, seen["again"].attempt) == ("succeeded", 2)
    assert (seen["once"].state, seen["once"].attempt) == ("failed", 1)
    assert "deleted" in seen["once"].reason
    assert (seen["killed"].state, seen["killed"].attempt) == ("cancelled", 1)
    assert sorted(stack.ledger(host)) == [f"{run}.1.1", f"{run}.1.2", f"{run}.2.1", f"{run}.3.1"]


def test_a6_a_job_that_ended_after_its_agent_directory_was_deleted_is_lost_and_not_executed_again_as_the_same_attempt(
    cluster: MakeCluster,
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    run = stack.submit(jobs=[{"name": "once", "run": LEDGER + until_file("~/go"), "retries_lost": 0}])
    stack.until_phase(run, "once", "RUNNING")
    agent = agent_pid(host)
    stack.kill_maestro()
    host.sh("rm -rf .cloudsend")
    wait_for(lambda: agent not in host.processes())
    host.write("go", "")
    wait_for(lambda: not host.pids("go"))
    stack.settle(run)
    seen = stack.jobs(run)["once"]
    assert stack.ledger(host) == [f"{run}.1.1"]
    assert (seen.state, seen.attempt) == ("failed", 1)

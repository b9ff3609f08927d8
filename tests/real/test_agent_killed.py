"""A1-A3: the agent's processes are killed on a host, as the user sees it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import (
    LEDGER,
    Tail,
    agent_home,
    agent_pid,
    connections,
    kill_agent,
    record_of,
    until_file,
    wait_connected,
    wait_ledger,
)
from sshlab import LabHost

from cloudsend_cli.agent.client import agent_source

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
# Whether a second attempt begins while the first still lives is written into the ledger, too.
LIVES = """grep -qs '^State:.[^Z]' "/proc/$(cat ~/pid 2>/dev/null)/status" """
ALONE = f"if {LIVES}; then echo together >>~/ledger; fi; echo $$ >~/pid\n"


def test_a1_kill_9_of_the_agent_is_not_noticed_by_the_job_nor_in_its_log(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    speak = "i=$((i + 1)); echo line $i; sleep 0.01"
    run = stack.submit(
        jobs=[{"name": "talker", "run": LEDGER + "i=0\n" + until_file("~/go", speak) + "echo end; exit 3"}]
    )
    tail = Tail(stack, "talker")
    tail.until(lambda data: b"line 20\n" in data)
    uid = stack.jobs(run)["talker"].uid
    job = record_of(host, str(uid))["pid"]
    for _ in range(3):
        seconds = kill_agent(stack, host)
        tail.until_longer(200)
    summary_line(f"A1: another agent {seconds:.1f} s after kill -9")
    assert record_of(host, str(uid))["pid"] == job
    host.write("go", "")
    stack.settle(run)
    seen = stack.jobs(run)["talker"]
    assert (seen.reason, seen.exit_code, seen.attempt) == ("exit 3", 3, 1)
    log = host.read(f"{agent_home(host)}/attempts/{uid}/stdout")
    count = log.count(b"\n") - 1
    assert log == b"".join(b"line %d\n" % n for n in range(1, count + 1)) + b"end\n"
    assert tail.result() == stack.tail("talker") == log
    assert stack.ledger(host) == [uid]


def test_a2_kill_9_of_the_runner_is_a_loss_told_once_and_the_next_attempt_begins_alone(cluster: MakeCluster) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    job = {"name": "again", "run": LEDGER + ALONE + until_file("~/go") + "echo done"}
    once = {"name": "once", "run": LEDGER + "setsid sleep 1000 & sleep 1000", "retries_lost": 0}
    run = stack.submit(jobs=[job, once])
    for name in ("again", "once"):
        stack.until_phase(run, name, "RUNNING")
    seen = stack.jobs(run)
    for name in ("again", "once"):
        host.kill(record_of(host, str(seen[name].uid))["runner"])
    wait_for(lambda: stack.jobs(run)["again"].attempt == 2 and stack.phase(run, "again") == "RUNNING")
    host.write("go", "")
    stack.settle(run)
    after = stack.jobs(run)
    assert (after["again"].state, after["again"].attempt) == ("succeeded", 2)
    assert (after["once"].state, after["once"].reason, after["once"].attempt) == ("failed", "lost", 1)
    assert sorted(stack.ledger(host)) == [f"{run}.1.1", f"{run}.1.2", f"{run}.2.1"]
    assert stack.client.attempts("again")[0]["reason"] == "lost"
    wait_for(lambda: not host.pids("sleep 1000"))


def test_a3_kill_9_of_the_agent_at_any_moment_of_starts_and_ends_neither_loses_nor_doubles_a_job(
    cluster: MakeCluster,
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    count = 40
    job = {"name": "short", "run": LEDGER + "sleep 0.02", "repeat": count, "cpus": 0.5}
    run = stack.submit(jobs=[job])
    for reached in (1, 4, 9, 15, 22, 30):
        wait_ledger(stack, host, reached)
        kill_agent(stack, host)
    stack.settle(run)
    assert {j.state for j in stack.jobs(run).values()} == {"succeeded"}
    assert sorted(stack.ledger(host)) == sorted(f"{run}.{n}.1" for n in range(1, count + 1))


def test_a3_kill_9_of_the_agent_around_a_kill_ends_each_job_once_and_whole(cluster: MakeCluster) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    names = [f"long-{n}" for n in range(6)]
    jobs = [{"name": n, "run": LEDGER + "setsid sleep 1000 & sleep 1000", "cpus": 0.5, "grace": "1s"} for n in names]
    run = stack.submit(jobs=jobs)
    wait_ledger(stack, host, 4)
    for victim, name in enumerate(names):
        before = connections(stack, host)
        stack.client.cancel([name])
        if victim % 2:
            stack.until_phase(run, name, "ABORTED")
        host.kill(agent_pid(host))
        wait_connected(stack, host, before)
    stack.settle(run)
    assert {(j.state, j.attempt) for j in stack.jobs(run).values()} <= {("cancelled", 0), ("cancelled", 1)}
    assert len(set(stack.ledger(host))) == len(stack.ledger(host)) <= len(names)
    wait_for(lambda: not host.pids("sleep 1000"))


def test_a3_kill_9_of_either_agent_during_an_upgrade_leaves_the_running_job_alone(cluster: MakeCluster) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    run = stack.submit(jobs=[{"name": "steady", "run": LEDGER + until_file("~/go") + "exit 5"}])
    stack.until_phase(run, "steady", "RUNNING")
    uid = str(stack.jobs(run)["steady"].uid)
    job = record_of(host, uid)["pid"]
    host.write("older.pyz", other_agent())
    for kill in (None, "older", "newer", None):
        before = connections(stack, host)
        replace_agent(host, "older.pyz")  # takes over; the maestro's link ends, comes back and takes over in turn
        if kill == "older":
            host.kill(agent_pid(host))
        wait_connected(stack, host, before)
        if kill == "newer":
            host.kill(agent_pid(host))
            wait_connected(stack, host, before + 1)
        assert record_of(host, uid)["pid"] == job
        assert b"/older.pyz" not in command_of(host, agent_pid(host))
    host.write("go", "")
    stack.settle(run)
    assert (stack.jobs(run)["steady"].reason, stack.jobs(run)["steady"].attempt) == ("exit 5", 1)
    assert stack.ledger(host) == [uid]


def other_agent() -> bytes:
    """The same program with another digest: as of another version."""
    archive = io.BytesIO(agent_source())
    with zipfile.ZipFile(archive, "a") as writer:
        writer.writestr("other", b"")
    return archive.getvalue()


def replace_agent(host: LabHost, path: str) -> None:
    """Attach with the program in `path`: its daemon takes the place of the one that serves."""
    said = host.exec(["python3", "-I", "-S", "-B", path, "attach", f"{host.home}/{agent_home(host)}"]).stdout
    assert said.startswith(b"cloudsend-agent-1 "), said


def command_of(host: LabHost, pid: int) -> bytes:
    return host.read(f"/proc/{pid}/cmdline")

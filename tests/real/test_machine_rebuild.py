"""A state directory that was lost is made again from what the machines know: `cloudsend rebuild`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from machine_command import Command
from real_stack import wait_for
from ssh_cluster import Cluster

MakeCluster = Callable[..., Cluster]


def submit_some(made: Cluster, command: Command) -> str:
    """Four jobs on two hosts, of which one still runs."""
    made.config(
        "c.json",
        project="demo",
        environments=[{"name": "tools", "setup": "echo made"}],
        jobs=[
            {"name": "good", "run": "echo hello; echo data > r.txt", "output": "r.txt"},
            {"name": "bad", "run": "echo why >&2; exit 3"},
            {"name": "built", "run": "echo in it", "env": "tools"},
            {"name": "long", "run": "echo begun; while [ ! -e stop ]; do sleep 0.1; done; echo ended", "workdir": "~"},
        ],
    )
    run = command("run", "-d", "c.json").stdout.strip()
    command("wait", "good", "bad", "built", status=1)
    wait_for(lambda: command.json("getstate", "long")["phase"] == "RUNNING")
    command("maestro", "stop")
    return run


def test_u2_a_lost_state_directory_is_made_again(cluster: MakeCluster, tmp_path: Path) -> None:
    made = cluster(2)
    run = submit_some(made, Command(made))
    known = (made.state / "known_hosts").read_text()
    shutil.rmtree(made.state)
    shutil.rmtree(made.files / "results")
    made.state.mkdir(mode=0o700)
    (made.state / "known_hosts").write_text(known)
    command = Command(made)
    left = command("rebuild", status=1)
    assert "nothing was missing" not in left.stderr
    assert "`cloudsend rebuild --adopt` takes over all that it had" in left.stderr
    assert command.json("list", "runs") == []
    value = command.json("rebuild", "--adopt")
    assert [(r["run"], r["project"], r["created"], r["jobs"]) for r in value["runs"]] == [(run, "demo", True, 4)]
    jobs = {job["name"]: job for job in command.json("list", "jobs")}
    assert {name: job["state"] for name, job in jobs.items()} == {
        "good": "succeeded", "bad": "failed", "built": "succeeded", "long": "running",
    }  # fmt: skip
    assert (jobs["bad"]["reason"], jobs["bad"]["exit_code"], jobs["bad"]["attempt"]) == ("exit 3", 3, 1)
    assert command("tail", "bad", "--stderr").stdout == "why\n"
    assert command("tail", "built").stdout == "in it\n"
    assert command("tail", "good").stdout == "hello\n"
    (path,) = command("fetch", "good").stdout.splitlines()
    assert (Path(path) / "r.txt").read_text() == "data\n"
    assert command("rebuild", "--adopt").stderr.endswith("nothing was missing\n")
    for host in made.hosts:
        host.write("stop", "")
    assert command("wait", "long", "--timeout", "60")
    assert command("tail", "long").stdout == "begun\nended\n"
    assert "continued: 3 kept, 1 tried again" in command("run", "c.json", status=1).stderr


def test_a_rebuilt_job_can_be_killed(cluster: MakeCluster) -> None:
    made = cluster(1)
    submit_some(made, Command(made))
    (made.state / "state.db").unlink()
    command = Command(made)
    command("rebuild", "--adopt")
    command("kill", "job", "long")
    assert "cancelled by the user" in command("wait", "long", "--timeout", "60", status=1).stdout
    assert made.hosts[0].pids("while .* -e stop") == []


def test_a_host_that_does_not_answer_is_told_and_read_later(cluster: MakeCluster) -> None:
    made = cluster(2)
    run = submit_some(made, Command(made))
    before = {job["name"]: job["state"] for job in Command(made).json("list", "jobs")}
    (made.state / "state.db").unlink()
    command = Command(made)
    off = made.hosts[1]
    off.pause()
    first = command("rebuild", "--adopt", status=6)
    assert f"FAILED  {made.node(off)}" in first.stderr
    if command.json("list", "runs"):
        refused = command("run", "c.json", status=2).stderr
        assert f"{run} was rebuilt while {made.node(off)} did not answer" in refused
    off.resume()
    command("rebuild", "--adopt")
    assert {job["name"]: job["state"] for job in command.json("list", "jobs")} == before
    command("kill", "run", run)
    command("wait", run, status=1)


@pytest.mark.parametrize("answer", ["n", "y"])
def test_on_a_terminal_one_is_asked_before_attempts_are_taken_over(cluster: MakeCluster, answer: str) -> None:
    made = cluster(1)
    command = Command(made)
    made.config("c.json", jobs=[{"name": "a", "run": "true"}])
    command("run", "c.json")
    (made.state / "state.db").unlink()
    asked = command.on_terminal("rebuild")
    asked.expect("belong to another state directory")
    asked.expect(r"Adopt them\? \[y/N\]")
    asked.sendline(answer)
    asked.expect(pexpect.EOF)
    asked.close()
    assert asked.exitstatus == 0
    assert len(command.json("list", "jobs")) == (answer == "y")

"""A system that shuts down tells jobs and their runners to end: what it ends so is lost, and has not failed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest

from .conftest import Client, Host, sh

WAITS = "echo up; sleep 60 & wait"
ENDS_BADLY = "trap 'exit 3' TERM; echo up; sleep 60 & wait"
ENDS_WELL = "trap 'exit 0' TERM; echo up; sleep 60 & wait"


def begin(host: Host, agent: Client, script: str) -> tuple[int, int]:
    """The job and its runner."""
    agent.start(sh("a.1", script))
    job = agent.running("a.1")
    agent.until(lambda: agent.stream("a.1") == b"up\n")
    return job, int(json.loads(host.record("a.1").split(b" ", 1)[1])["runner"])


@pytest.mark.parametrize(
    ("script", "code", "order"),
    [
        (WAITS, None, lambda job, runner: (job, runner)),
        (WAITS, None, lambda job, runner: (runner, job)),
        (ENDS_BADLY, 3, lambda job, runner: (runner, job)),
    ],
    ids=["the job first", "its runner first", "a job that exits"],
)
def test_what_ends_badly_with_its_runner_told_is_lost(
    host: Host, agent: Client, script: str, code: int | None, order: Callable[[int, int], tuple[int, int]]
) -> None:
    job, runner = begin(host, agent, script)
    for pid in order(job, runner):
        os.kill(pid, signal.SIGTERM)
    agent.wait("a.1")
    status = agent.status["a.1"]
    assert (status["state"], status["cause"], status["exit_code"]) == ("lost", "shut-down", code)
    agent.start(sh("a.2", "exit 3"))
    agent.wait("a.2")
    assert (agent.status["a.2"]["state"], agent.status["a.2"]["exit_code"]) == ("exited", 3)


def test_what_ends_well_all_the_same_has_ended_well(host: Host, agent: Client) -> None:
    job, runner = begin(host, agent, ENDS_WELL)
    os.kill(runner, signal.SIGTERM)
    os.kill(job, signal.SIGTERM)
    agent.wait("a.1")
    status = agent.status["a.1"]
    assert (status["state"], status["cause"], status["exit_code"]) == ("exited", None, 0)


def test_a_job_that_somebody_ends_alone_has_failed(host: Host, agent: Client) -> None:
    job, _ = begin(host, agent, WAITS)
    os.kill(job, signal.SIGTERM)
    agent.wait("a.1")
    status = agent.status["a.1"]
    assert (status["state"], status["cause"], status["signal"]) == ("exited", None, signal.SIGTERM)


def test_a_job_that_is_cancelled_is_no_loss(host: Host, agent: Client) -> None:
    begin(host, agent, WAITS)
    agent.call("cancel", attempts=["a.1"])
    agent.wait("a.1")
    assert agent.status["a.1"]["state"] == "exited"
    assert agent.status["a.1"]["cause"] not in {None, "shut-down"}

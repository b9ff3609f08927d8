"""What attempts reported, on its way into the records of their jobs."""

from __future__ import annotations

from typing import Any

import pytest

from cloudsend_cli.core.decide import Decision, decide
from cloudsend_cli.core.model import Observation
from cloudsend_cli.core.state import RunState

from .deciding import POLICY, UP, change_job, news, running, seeing, serving, state_with

METRICS = (("loss", "0.5"),)


def decide_on(state: RunState, seen: Observation) -> Decision:
    return decide(state, seen, POLICY)


@pytest.mark.parametrize(
    "end",
    [
        {"state": "exited", "exit_code": 0},
        {"state": "exited", "exit_code": 1},
        {"state": "exited", "cause": "timeout", "signal": 9},
        {"state": "lost"},
    ],
)
def test_an_end_brings_what_the_attempt_reported(end: dict[str, Any]) -> None:
    state = running(state_with(retries=1, retries_lost=1))
    told = news("rtest1.1.2", metrics=METRICS, **end)
    assert decide_on(state, seeing(UP, attempts=told)).changes.jobs[1].metrics == METRICS


def test_what_a_log_reports_that_came_later_is_taken_once() -> None:
    state = change_job(state_with(), state="failed", attempt=2, node="n-0", fetch="wanted", ended_at=1.0)
    seen = seeing(UP, fetched={"rtest1.1.2": ""}, metrics={"rtest1.1.2": METRICS})
    job = decide_on(state, seen).changes.jobs[1]
    assert (job.metrics, job.fetch) == (METRICS, "home")
    known = change_job(state, metrics=METRICS, fetch="home")
    assert 1 not in decide_on(known, seen).changes.jobs
    of_an_earlier_one = seeing(UP, fetched={"rtest1.1.1": ""}, metrics={"rtest1.1.1": METRICS})
    assert 1 not in decide_on(change_job(known, metrics=()), of_an_earlier_one).changes.jobs


def test_a_new_attempt_has_reported_nothing_yet() -> None:
    state = change_job(serving(state_with()), attempt=1, metrics=METRICS)
    job = decide_on(state, seeing(UP)).changes.jobs[1]
    assert (job.state, job.attempt, job.metrics) == ("running", 2, ())

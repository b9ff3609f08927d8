"""Tables are read without loading a run; what they show of its jobs is what the loaded one says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from shown_jobs import show_job, show_jobs

from cloudsend_cli.core.explain import PHASES, environment_is_ready, phase_word
from cloudsend_cli.core.model import (
    JOB_STATES,
    EnvironmentBuild,
    HostView,
    JobGroup,
    JobSpec,
    Offer,
    Resources,
    RunSpec,
)
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import BuildRecord, Changes, JobRecord, RunState

NODE = NodePlan("n-0", "local", (Offer("{}", Resources(4.0)),))
UP = HostView(True, "b1", 0.0, Resources(2.0))
SILENT = HostView(False, "b1", 90.0, Resources(2.0), error="no route")
HANDED = {"state": "running", "node": "n-0", "attempt": 1}
PLAIN = JobSpec("j1", ("true",), "true")
GROUPS = (
    JobGroup("Search/GTX 2080", ((("--machine", "0"), ("--gpu", "0,1")), (("", "x"), ("n", "1"))), section="Search"),
)
PROMISED = {"id", "name", "run", "state", "phase", "reason", "exit_code", "attempt", "uid", "instance", "provider"}
PROMISED |= {"hash", "created_at", "started_at", "ended_at"}


def make(*specs: JobSpec, machine: str = "running", groups: tuple[JobGroup, ...] = (), **job: Any) -> RunState:
    """A run of which the first job is as `job` says."""
    environments = (EnvironmentBuild("e1", "tools", "true"),)
    state = plan_run(RunSpec("p", "/c.yml", specs or (PLAIN,), environments, groups=groups), [NODE], "rtest1", 0.0)
    state.apply(Changes(nodes={"n-0": replace(state.nodes["n-0"], state=machine)}))
    state.apply(Changes(jobs={1: replace(state.jobs[1], **job)}))
    return state


def phases(folder: Path, state: RunState, views: Mapping[str, HostView]) -> list[str]:
    return [job.phase for job in show_jobs(folder, state, views).values()]


@pytest.mark.parametrize(
    ("job", "node", "view", "word"),
    [
        ({}, "creating", None, "WAIT"),
        ({}, "running", UP, "QUEUE"),
        (HANDED, "running", UP, "IDLE"),
        (HANDED, "running", None, "IDLE"),
        ({**HANDED, "started_at": 1.0}, "running", UP, "RUNNING"),
        ({**HANDED, "started_at": 1.0}, "running", SILENT, "UNKNOWN"),
        ({"state": "succeeded"}, "running", SILENT, "DONE"),
        ({"state": "failed"}, "running", UP, "ABORTED"),
        ({"state": "cancelled"}, "running", UP, "ABORTED"),
    ],
)
def test_word_of_the_seeds(tmp_path: Path, job: dict[str, Any], node: str, view: HostView | None, word: str) -> None:
    assert phases(tmp_path, make(machine=node, **job), {"n-0": view} if view else {}) == [word]
    assert word in PHASES


def test_job_waits_for_its_dependency_and_its_environment(tmp_path: Path) -> None:
    jobs = (PLAIN, replace(PLAIN, name="j2", after=("j1",)), replace(PLAIN, name="j3", environment="e1"))
    state = make(*jobs)
    assert phases(tmp_path / "before", state, {"n-0": UP}) == ["QUEUE", "WAIT", "WAIT"]
    state.apply(Changes(builds={("n-0", "e1"): BuildRecord("n-0", "e1", state="succeeded")}))
    assert phases(tmp_path / "built", state, {"n-0": UP})[2] == "QUEUE"


def test_job_waits_for_any_end_and_for_its_section(tmp_path: Path) -> None:
    groups = (JobGroup("a/x"), JobGroup("b/x"))
    first = [replace(PLAIN, name=f"a/x/{n}", stage=1, group="a/x") for n in range(2)]
    last = replace(PLAIN, name="b/x/0", stage=2, group="b/x")
    state = make(*first, last, replace(PLAIN, name="j8", after_any=("a/x/*",)), groups=groups, state="failed")
    assert phases(tmp_path, state, {"n-0": UP}) == ["ABORTED", "QUEUE", "WAIT", "WAIT"]


def test_job_in_json_has_what_is_promised(tmp_path: Path) -> None:
    state = make(machine="wanted")
    waiting = show_job(tmp_path / "waiting", state).as_json()
    assert waiting.keys() >= PROMISED
    assert (waiting["id"], waiting["uid"], waiting["instance"], waiting["phase"]) == ("rtest1.1", None, None, "WAIT")
    assert waiting["created_at"] == "1970-01-01T00:00:00.000Z"
    ended = make(state="failed", attempt=2, node="n-0", ended_at=1.5, reason="exit 3", exit_code=3)
    shown = show_job(tmp_path / "ended", ended).as_json()
    assert (shown["uid"], shown["instance"], shown["provider"]) == ("rtest1.1.2", "n-0", "local")
    assert (shown["ended_at"], shown["reason"], shown["exit_code"]) == ("1970-01-01T00:00:01.500Z", "exit 3", 3)


def test_job_in_json_has_its_group_slot_metrics_and_duration(tmp_path: Path) -> None:
    task = replace(PLAIN, name="Search/GTX 2080/0", group="Search/GTX 2080")
    waiting = show_job(tmp_path / "waiting", make(task, groups=GROUPS)).as_json()
    assert (waiting["slot"], waiting["metrics"], waiting["metrics_ignored"], waiting["duration"]) == (
        None,
        {},
        0,
        None,
    )
    metrics = (("loss", "0.50"), ("", "3"))
    times = {"started_at": 10.0, "ended_at": 12.3456}
    ended = make(task, groups=GROUPS, state="succeeded", attempt=1, slot=0, metrics=metrics, **times)
    shown = show_job(tmp_path / "ended", ended).as_json()
    assert (shown["section"], shown["group"], shown["slot"]) == ("Search", "Search/GTX 2080", "machine=0 gpu=0,1")
    assert (shown["metrics"], shown["metrics_ignored"], shown["duration"]) == ({"loss": "0.50"}, 3, 2.346)
    plain = show_job(tmp_path / "plain", make()).as_json()
    assert (plain["section"], plain["group"]) == (None, None)


# ---- any states ----------------------------------------------------------------------------------------------------


def make_jobs(random: Random) -> list[JobSpec]:
    jobs = []
    for n in range(12):
        stage = random.choice((0, 1, 2, 3))
        earlier = [f"j{k}" for k in range(n)]
        after = tuple(random.sample(earlier, min(n, random.choice((0, 0, 1, 2)))))
        any_end = tuple(random.sample(earlier, min(n, random.choice((0, 0, 1, 2)))))
        group = f"{stage}/g" if stage else ""
        jobs.append(JobSpec(f"j{n}", ("x",), "x", after=after, after_any=any_end, stage=stage, group=group))
    return jobs


@pytest.mark.parametrize("seed", range(12))
def test_phases_are_those_of_the_state(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    groups = tuple(JobGroup(f"{n}/g", ((),)) for n in (1, 2, 3))
    state = plan_run(RunSpec("p", "/c.yml", tuple(make_jobs(random)), groups=groups), [NODE], "rtest1", 0.0)
    words = random.choice((JOB_STATES, ("pending", "succeeded"), ("pending", "failed", "succeeded", "succeeded")))
    jobs = {n: replace(j, state=random.choice(words), attempt=1) for n, j in state.jobs.items()}
    nodes = {"n-0": replace(state.nodes["n-0"], state="running" if seed else "creating")}
    state.apply(Changes(jobs=jobs, nodes=nodes))
    told = {number: job.phase for number, job in show_jobs(tmp_path, state).items()}
    assert told == {n: phase_of(state, job) for n, job in state.jobs.items()}


def phase_of(state: RunState, job: JobRecord) -> str:
    """By the indices of the loaded run, which tables do without."""
    waits = state.waiting_for.get(job.number, 0) > 0 or state.is_gated(job)
    ready = not waits and environment_is_ready(state, job.spec.environment)
    return phase_word(job.state, started=job.started_at is not None, connected=None, ready=ready)

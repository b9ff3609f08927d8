"""A small run, its machines and what is seen of them: what tests of single decisions begin with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudsend_cli.core.decide import Decision
from cloudsend_cli.core.model import (
    AttemptStatus,
    HostView,
    JobSpec,
    Observation,
    Offer,
    Policy,
    Resources,
    RunSpec,
)
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import Changes, RunState

NOW = 100.0
POLICY = Policy()


def state_with(jobs: int = 1, nodes: int = 1, **job: Any) -> RunState:
    specs = tuple(replace(JobSpec(f"j{i}", ("true",), "true"), **job) for i in range(1, jobs + 1))
    plans = [NodePlan(f"n-{i}", "fake", (Offer("{}", Resources(2.0)),)) for i in range(nodes)]
    return plan_run(RunSpec("p", "/c.yml", specs), plans, "rtest1", 0.0)


def change_node(run: RunState, name: str = "n-0", /, **values: Any) -> RunState:
    run.apply(Changes(nodes={name: replace(run.nodes[name], **values)}))
    return run


def change_job(run: RunState, number: int = 1, /, **values: Any) -> RunState:
    run.apply(Changes(jobs={number: replace(run.jobs[number], **values)}))
    return run


def serving(state: RunState) -> RunState:
    return change_node(state, state="running", generation=1, instance_id="i-1", token="t")


def running(state: RunState) -> RunState:
    return change_job(serving(state), state="running", attempt=2, node="n-0", boot="b1", handed_at=1.0)


def seeing(view: HostView | None = None, **values: Any) -> Observation:
    hosts = {"n-0": view} if view is not None else {}
    return replace(Observation(NOW, hosts=hosts), **values)


UP = HostView(True, "b1", 0.0, Resources(2.0))


def news(attempt: str, state: str, **values: Any) -> dict[str, dict[str, AttemptStatus]]:
    return {"n-0": {attempt: AttemptStatus(state, **values)}}


def kinds(decision: Decision) -> list[str]:
    return [type(a).__name__ for a in decision.actions]

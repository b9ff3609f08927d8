"""Why a job waits, as far as the number of rented machines goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.explain_machines import NOT_NEEDED
from cloudsend_cli.core.model import HostView, JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import Changes, RunState

NOW = 100.0
UP = HostView(True, "b1", 0.0, Resources(2.0))


def make(jobs: int, machines: int, **specs: Any) -> RunState:
    offers = (Offer("{}", Resources(2.0), 0.1, "pool"),)
    plans = [NodePlan(f"n-{n}", "aws", offers) for n in range(machines)]
    wanted = tuple(replace(JobSpec(f"j{n}", ("true",), "true"), **specs) for n in range(1, jobs + 1))
    return plan_run(RunSpec("p", "/c.yml", wanted), plans, "rtest1", 0.0)


def turn(state: RunState, to: str, *names: str) -> RunState:
    state.apply(Changes(nodes={name: replace(state.nodes[name], state=to) for name in names}))
    return state


def run(state: RunState, node: str, *numbers: int) -> RunState:
    state.apply(Changes(jobs={n: replace(state.jobs[n], state="running", attempt=1, node=node) for n in numbers}))
    return state


def why(state: RunState, number: int, **views: HostView) -> list[str]:
    seen = {name.replace("_", "-"): view for name, view in views.items()}
    return list(explain(state, state.jobs[number], seen, NOW).reasons)


def test_machines_that_are_not_needed_are_not_awaited() -> None:
    state = turn(make(2, 3), "creating", "n-0")
    assert why(state, 1) == ["n-0 is creating"]
    remarks = {name: remark for name, *_, remark in explain(state, state.jobs[1], {}, NOW).nodes}
    assert remarks == {"n-0": "creating", "n-1": NOT_NEEDED, "n-2": NOT_NEEDED}


def test_machines_that_are_on_their_way_are_told() -> None:
    state = run(turn(turn(make(20, 8), "running", "n-0"), "creating", *(f"n-{n}" for n in range(1, 8))), "n-0", 1, 2)
    assert why(state, 3, n_0=UP)[1:] == [
        "on their way: n-1, n-2, n-3, n-4, n-5 and 2 more",
        "no more machines are planned than the 8 that are there or come: `number` says how many",
    ]


def test_why_no_more_are_asked_for() -> None:
    state = run(turn(turn(make(4, 4), "running", "n-0"), "creating", "n-1"), "n-0", 1, 2)
    assert why(state, 3, n_0=UP)[1:] == [
        "on their way: n-1",
        "2 more machines of the plan are not asked for: those that are there, or come, have room",
    ]
    state = run(turn(turn(make(4, 3), "running", "n-0"), "creating", "n-1"), "n-0", 1, 2)
    assert why(state, 3, n_0=UP)[-1].startswith("1 more machine of the plan is not asked for")
    state.apply(Changes(run=replace(state.run, shortages=(("pool", NOW + 50),))))
    assert why(state, 3, n_0=UP)[1:] == ["on their way: n-1"]


def test_more_that_are_about_to_be_asked_for_need_no_word() -> None:
    state = run(turn(make(4, 2), "running", "n-0"), "n-0", 1, 2)
    assert why(state, 3, n_0=UP) == ["all places are taken; 0 jobs of its kind are before it"]

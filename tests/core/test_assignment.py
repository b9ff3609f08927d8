"""Which job goes where, and which first: best fit, spread, drawn by a seed, and the most work first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.assignment import DRAWS, draw, pick, rank_of, size_of
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.model import (
    EnvironmentBuild,
    HostView,
    JobSpec,
    Observation,
    Offer,
    Policy,
    Resources,
    RunSpec,
)
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import BuildRecord, Changes, RunState

NOW = 1000.0
POLICY = Policy(ahead=8)
FOUR = Resources(4.0)


def state_of(
    jobs: int, nodes: int = 4, *, assign: str = "", seed: int = 0, price: float | None = None, **job: Any
) -> RunState:
    specs = tuple(replace(JobSpec(f"j{n}", ("true",), "true"), **job) for n in range(1, jobs + 1))
    plans = [NodePlan(f"n-{n}", "fake", (Offer("{}", FOUR, price),)) for n in range(nodes)]
    spec = RunSpec("p", "/c.yml", specs, settings=(("assign", assign), ("seed", str(seed))))
    state = plan_run(spec, plans, "rtest1", 0.0)
    up = {name: replace(n, state="running", generation=1, instance_id=name) for name, n in state.nodes.items()}
    state.apply(Changes(nodes=up))
    return state


def seeing(*names: str, **views: HostView) -> Observation:
    view = HostView(True, "b1", 0.0, FOUR)
    return Observation(NOW, hosts=dict.fromkeys(names, view) | {k.replace("_", "-"): v for k, v in views.items()})


ALL = ("n-0", "n-1", "n-2", "n-3")


def places(state: RunState, *names: str, **views: HostView) -> dict[int, str]:
    """Where jobs are, when nothing changes any more."""
    for _ in range(10):
        decision = decide(state, seeing(*(names or ALL), **views), POLICY)
        state.apply(decision.changes)
    return {number: job.node for number, job in state.jobs.items() if job.state == "running"}


def expect(state: RunState, **seconds: float) -> RunState:
    by_name = {job.spec.name: job for job in state.jobs.values()}
    timed = {by_name[name].number: replace(by_name[name], expected=value) for name, value in seconds.items()}
    state.apply(Changes(jobs=timed))
    return state


# ---- best fit, and spread ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", ["", "multi_knapsack", "knapsack", "cheapest"])
def test_machine_with_least_room_is_filled_first(assign: str) -> None:
    assert places(state_of(5, assign=assign)) == {1: "n-0", 2: "n-0", 3: "n-0", 4: "n-0", 5: "n-1"}


def test_fastest_spreads() -> None:
    assert places(state_of(6, assign="fastest")) == {n: f"n-{(n - 1) % 4}" for n in range(1, 7)}


@pytest.mark.parametrize("assign", ["", "fastest"])
def test_job_without_a_gpu_leaves_those_with_one_to_others(assign: str) -> None:
    gpus = HostView(True, "b1", 0.0, Resources(4.0, 0, 2))
    state = state_of(4, 2, assign=assign)
    state.apply(Changes(nodes={"n-0": replace(state.nodes["n-0"], capacity=Resources(4.0, 0, 2))}))
    assert set(places(state, "n-1", n_0=gpus).values()) == {"n-1"}


# ---- drawn ---------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_places_whoever_answers_first() -> None:
    together = places(state_of(12, assign="random", seed=7))
    assert len(set(together.values())) > 1
    assert places(state_of(12, assign="random", seed=7)) == together
    late = state_of(12, assign="random", seed=7)
    silent = HostView(False, "", NOW)
    first = places(late, "n-1", "n-2", "n-3", n_0=silent)
    assert first == {number: node for number, node in together.items() if node != "n-0"}
    assert places(late) == together
    assert places(state_of(12, assign="random", seed=8)) != together


def test_draws_are_spread_over_the_machines() -> None:
    found = [pick("1", draw("1", number), ALL) for number in range(4000)]
    assert all(600 < found.count(name) < 1400 for name in ALL)
    assert {draw("1", number) for number in range(4000)} == set(range(DRAWS))
    assert pick("1", 0, []) is None and draw(None, 1) == -1


def test_machine_that_is_gone_is_drawn_for_no_more_and_the_others_keep_what_they_had() -> None:
    with_all = {number: pick("1", draw("1", number), ALL) for number in range(100)}
    without = {number: pick("1", draw("1", number), ALL[1:]) for number in range(100)}
    assert all(without[number] == name for number, name in with_all.items() if name != "n-0")


@pytest.mark.parametrize(
    "view",
    [
        HostView(False, "b1", NOW - POLICY.silence_limit, FOUR),
        HostView(True, "b1", 0.0, FOUR, full=True),
        HostView(True, "b1", 0.0, FOUR, leaving=True),
        HostView(True, "b1", 0.0, Resources(0.5)),
    ],
)
def test_place_that_gets_nothing_is_not_drawn(view: HostView) -> None:
    assert len(places(state_of(8, assign="random"), "n-1", "n-2", "n-3", n_0=view)) == 8


def test_place_where_its_environment_failed_is_not_drawn() -> None:
    state = state_of(8, assign="random", environment="e1")
    state.environments["e1"] = EnvironmentBuild("e1", "tools", "true")
    failed = {(n, "e1"): BuildRecord(n, "e1", state="failed" if n == "n-0" else "succeeded") for n in ALL}
    state.apply(Changes(builds=failed))
    found = places(state)
    assert len(found) == 8 and "n-0" not in found.values()


def test_machine_that_is_not_rented_is_not_drawn() -> None:
    state = state_of(8, assign="random", price=0.1)
    state.apply(Changes(nodes={n: replace(state.nodes[n], state="wanted") for n in ALL[2:]}))
    assert set(places(state, *ALL[:2]).values()) == set(ALL[:2])


def test_what_was_drawn_is_not_taken_back() -> None:
    state = state_of(3, 2, assign="random", resources=FOUR)
    busy = {n: replace(job, state="running", attempt=1, node="n-0", handed_at=1.0) for n, job in state.jobs.items()}
    state.apply(Changes(jobs=busy))
    assert decide(state, seeing("n-0", "n-1"), POLICY).actions == ()


def test_seed_of_an_edited_config_counts_from_then_on() -> None:
    state = state_of(12, assign="random", seed=7)
    state.apply(Changes(run=replace(state.run, settings=(("assign", "random"), ("seed", "8")))))
    assert places(state) == places(state_of(12, assign="random", seed=8))
    state = state_of(12, assign="random", seed=7)
    state.apply(Changes(run=replace(state.run, settings=())))
    assert len(state.ready) == 1


# ---- the most work first -------------------------------------------------------------------------------------------


def started(state: RunState) -> list[int]:
    decision = decide(state, seeing("n-0"), replace(POLICY, ahead=0))
    return [
        int(start.attempt.split(".")[1]) for action in decision.actions for start in getattr(action, "attempts", ())
    ]


def test_longest_are_handed_out_first() -> None:
    state = expect(state_of(8, 1), j2=10.0, j4=100.0, j6=1000.0, j8=10.0)
    for number in (1, 3, 5, 7):
        state.apply(Changes(jobs={number: replace(state.jobs[number], state="succeeded")}))
    assert started(state) == [6, 4, 2, 8]


def test_what_is_not_known_is_handed_out_before_what_is() -> None:
    assert started(expect(state_of(4, 1), j1=10.0, j2=1000.0)) == [3, 4, 2, 1]


def test_without_history_it_is_by_number() -> None:
    assert started(state_of(8, 1)) == [1, 2, 3, 4]


def test_sizes() -> None:
    assert size_of(0.0, 1.0) == 0 < size_of(0.001, 1.0) == size_of(0.01, 1.0) < size_of(1.0, 0.5) < size_of(1.0, 3.0)
    assert rank_of(0) < rank_of(50) < rank_of(1)


def test_growing_jobs_whose_memory_no_machine_has_are_given_what_there_is() -> None:
    """Rented for it is none: what is planned is known to be smaller."""
    state = state_of(1, 1, price=0.1, resources=Resources(1.0, 1 << 30), memory_factor=2.0)
    planned = replace(state.nodes["n-0"], state="wanted", offers=(Offer("{}", Resources(4.0, 2 << 30), 0.1),))
    state.apply(Changes(nodes={"n-0": replace(planned, capacity=Resources(4.0, 2 << 30))}))
    state.apply(Changes(jobs={1: replace(state.jobs[1], memory=4 << 30)}))
    decision = decide(state, Observation(NOW), POLICY)
    assert (decision.changes.jobs[1].memory, decision.changes.jobs[1].state) == (2 << 30, "pending")

"""`after` waits for success and `after_any` for any end: by name or glob, in chains, and many for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.model import JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_continue, plan_run
from cloudsend_cli.core.state import Changes, RunState

from .deciding import NOW, POLICY, change_job, seeing

NODE = NodePlan("n-0", "fake", (Offer("{}", Resources(4.0)),))


def job(name: str, after: Sequence[str] = (), any_end: Sequence[str] = (), **values: Any) -> JobSpec:
    return replace(JobSpec(name, (name,), name, after=tuple(after), after_any=tuple(any_end)), **values)


def run(*jobs: JobSpec) -> RunState:
    return plan_run(RunSpec("p", "/c.yml", jobs), (NODE,), "rtest1", 0.0)


def settle(state: RunState) -> dict[str, str]:
    """What is decided when nothing more comes of it."""
    for _ in range(20):
        decision = decide(state, seeing(), POLICY)
        if not decision.changes.jobs:
            break
        state.apply(decision.changes)
    return {j.spec.name: j.reason or j.state for j in state.jobs.values()}


def ready(state: RunState) -> list[str]:
    return sorted(state.jobs[n].spec.name for members in state.ready.values() for n in members)


def test_names_and_globs_become_numbers_without_the_job_itself() -> None:
    state = run(job("a1"), job("a2"), job("b"), job("c", ["b"], ["a*", "b"]), job("end", (), ["*"]))
    assert (state.jobs[4].after, state.jobs[4].after_any) == ((3,), (1, 2, 3))
    assert (state.jobs[5].after, state.jobs[5].after_any) == ((), (1, 2, 3, 4))


@pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
def test_any_end_is_enough(word: str) -> None:
    state = run(job("a"), job("b"), job("c", (), ["a", "b"]), job("d", ["a"]))
    assert ready(state) == ["a", "b"]
    change_job(state, 1, state=word, reason="why")
    assert "c" not in ready(state)
    change_job(state, 2, state="failed", reason="why")
    assert "c" in ready(state)
    assert settle(state)["d"] == ("pending" if word == "succeeded" else "dependency-failed: a")


def test_job_is_waited_for_again_when_it_is_opened_again() -> None:
    state = run(job("a"), job("b", (), ["a"]))
    change_job(state, 1, state="failed")
    assert ready(state) == ["b"]
    change_job(state, 1, state="pending")
    assert ready(state) == ["a"]
    assert (state.waiting_for[2], state.broken[2]) == (1, 0)


def test_both_kinds_together() -> None:
    state = run(job("a"), job("b"), job("c", ["a"], ["a", "b"]))
    change_job(state, 1, state="succeeded")
    assert (ready(state), state.waiting_for[3]) == (["b"], 1)
    change_job(state, 2, state="failed")
    assert ready(state) == ["c"]
    broken = run(job("a"), job("b"), job("c", ["a"], ["b"]))
    change_job(broken, 1, state="failed")
    assert settle(broken)["c"] == "dependency-failed: a", "it does not wait for b, as it never begins"


def test_bad_end_goes_down_a_chain_and_stops_where_any_end_will_do() -> None:
    state = run(
        job("x/1"),
        job("x/2"),
        job("y", ["x/*"]),
        job("z", ["y"]),
        job("report", (), ["x/*", "z"]),
        job("last", ["report"]),
    )
    change_job(state, 1, state="succeeded")
    change_job(state, 2, state="failed", reason="exit 1")
    assert settle(state) == {
        "x/1": "succeeded",
        "x/2": "exit 1",
        "y": "dependency-failed: x/2",
        "z": "dependency-failed: y",
        "report": "pending",
        "last": "pending",
    }
    assert ready(state) == ["report"]


def test_edited_dependencies_are_counted_anew() -> None:
    state = run(job("a"), job("b"), job("c", (), ["a"]))
    change_job(state, 1, state="failed")
    assert ready(state) == ["b", "c"]
    spec = RunSpec("p", "/c.yml", (job("a"), job("b"), job("c", (), ["b"])))
    state.apply(plan_continue(state, spec, (NODE,), NOW)[0])
    assert (state.jobs[3].after_any, ready(state)) == ((2,), ["a", "b"])
    assert state.dependents_any == {1: [], 2: [3]}
    change_job(state, 2, state="cancelled")
    assert ready(state) == ["a", "c"]


def test_many_that_wait_for_many_share_one_list_and_are_moved_once() -> None:
    many = 300
    first = [job(f"a/{n}") for n in range(many)]
    state = run(*first, *(job(f"b/{n}", ["a/*"], ["a/*"]) for n in range(many)))
    lists = {id(numbers) for n in range(many + 1, 2 * many + 1) for numbers in (state.jobs[n].after,)}
    assert len(lists) == 1
    entered = []
    real = state._enter
    state._enter = lambda record: (entered.append(record.number), real(record))[1]  # type: ignore[method-assign,func-returns-value]
    for number in range(1, many):
        change_job(state, number, state="succeeded")
    assert entered == list(range(1, many)), "what waits for others as well stays where it is"
    change_job(state, many, state="succeeded")
    assert sorted(entered[many:]) == list(range(many + 1, 2 * many + 1))


def test_one_bad_end_for_many_looks_at_the_list_once() -> None:
    """Seen: a preparation failed of which thousands of jobs each wait for all, and the maestro stood still."""
    many = 400

    class Counted(tuple[int, ...]):
        read = 0

        def __iter__(self) -> Any:
            Counted.read += 1
            return super().__iter__()

    state = run(*(job(f"a/{n}") for n in range(many)), *(job(f"b/{n}", ["a/*"]) for n in range(many)))
    shared = Counted(range(1, many + 1))
    waiting = {n: replace(state.jobs[n], after=shared) for n in range(many + 1, 2 * many + 1)}
    state.jobs.update(waiting)
    state.apply(Changes(jobs={many: replace(state.jobs[many], state="failed", reason="exit 1")}))
    Counted.read = 0
    changes = decide(state, seeing(), POLICY).changes.jobs
    assert len(changes) == many
    assert {j.reason for j in changes.values()} == {f"dependency-failed: a/{many - 1}"}
    assert Counted.read == 1

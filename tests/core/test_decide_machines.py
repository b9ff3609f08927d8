"""What `decide` makes of machines: those that come, refuse, are silent, or are given up by the user."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.actions import (
    CancelAttempts,
    CreateInstance,
    TerminateInstance,
)
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.model import (
    HostView,
    InstanceStatus,
    Observation,
    Output,
    Request,
)
from cloudsend_cli.core.state import BuildRecord, Changes, RunState

from .deciding import NOW, POLICY, UP, change_job, change_node, kinds, news, running, seeing, serving, state_with

CALL = "create n-0 1"


def creating(**values: Any) -> RunState:
    return change_node(
        state_with(), **{"state": "creating", "generation": 1, "token": "t", "created_at": 99.0} | values
    )


@pytest.mark.parametrize(
    ("code", "first", "state"),
    [
        ("capacity", True, "wanted"),
        ("quota", True, "failed"),
        ("provider", False, "failed"),
        ("auth", True, "failed"),
        ("auth", False, "creating"),
        ("unreachable", True, "creating"),
        ("expired", True, "creating"),
        ("error", True, "creating"),
    ],
)
def test_answer_to_a_create(code: str, first: bool, state: str) -> None:
    """Seen: a reply that was lost led to a second machine under a new token."""
    old = creating(not_before=0.0 if first else 150.0)
    node = decide(old, seeing(call_errors={CALL: (code, "words")}), POLICY).changes.nodes.get("n-0")
    assert (node.state if node else "creating") == state
    said = "denied: words" if (code, state) == ("auth", "failed") else "words"
    assert node is None or (node.token == "t" and node.reason == said)


def test_jobs_whose_machines_are_denied_say_so_and_not_that_there_are_none() -> None:
    """Seen: `no-capacity` for a policy without ec2:RunInstances, and the exit status of a job that failed."""
    state = state_with()
    denied = change_node(state, state="failed", reason="denied: you may not")
    (job,) = decide(denied, seeing(), POLICY).changes.jobs.values()
    assert (job.state, job.reason) == ("failed", "denied: you may not")


def test_create_is_repeated_in_time_with_the_same_token() -> None:
    def asked(state: RunState, **values: Any) -> list[CreateInstance]:
        return [a for a in decide(state, seeing(**values), POLICY).actions if isinstance(a, CreateInstance)]

    (again,) = asked(creating())
    assert (again.token, again.generation) == ("t", 1)
    assert asked(creating(), calls_pending=frozenset({CALL})) == []
    assert asked(creating(), calls_done=frozenset({CALL})) == []
    assert asked(creating(not_before=150.0)) == []
    assert len(asked(creating(created_at=80.0), calls_done=frozenset({CALL}))) == 1


def listed(state: str = "running", generation: int = 1, instance_id: str = "i-1", **values: Any) -> dict[str, Any]:
    status = replace(InstanceStatus(instance_id, "n-0", generation, state), **values)
    return {"instances": {"fake": (status,)}}


def test_machine_that_never_comes_up_is_given_back_and_asked_for_anew() -> None:
    state = creating(created_at=NOW - POLICY.boot_limit - 1)
    decision = decide(state, seeing(**listed("pending")), POLICY)
    assert decision.changes.nodes["n-0"].state == "releasing"
    assert kinds(decision) == ["DisconnectHost", "TerminateInstance"]
    state.apply(decision.changes)
    gone = decide(state, seeing(**listed("terminated")), POLICY).changes.nodes["n-0"]
    assert (gone.state, gone.instance_id) == ("wanted", "")


def test_machine_that_ended_before_use_is_not_asked_for_at_once() -> None:
    node = decide(creating(), seeing(**listed("terminated")), POLICY).changes.nodes["n-0"]
    assert (node.state, node.not_before) == ("wanted", NOW + POLICY.create_retry)
    wanted = change_node(state_with(), not_before=200.0)
    decision = decide(wanted, seeing(), POLICY)
    assert (decision.changes.nodes, decision.wake_at) == ({}, 200.0)


def test_silent_machine_that_complete_lists_omit_for_long_is_gone() -> None:
    """Seen: a laptop slept until the cloud had forgotten the machine that was taken meanwhile; the run never ended."""
    state, empty = running(state_with()), {"instances": {"fake": ()}}
    decision = decide(state, seeing(**empty), POLICY)
    limit = NOW + POLICY.absent_limit
    assert decision.changes.nodes["n-0"].not_before == limit
    state.apply(decision.changes)
    assert not decide(state, seeing(**empty), POLICY).changes
    back = decide(state, seeing(UP), POLICY).changes.nodes["n-0"]
    assert back.not_before == 0.0
    gone = decide(state, replace(seeing(**empty), now=limit), POLICY)
    assert gone.changes.jobs[1].reason == "retry after lost: the machine was forgotten by its provider"
    assert gone.changes.nodes["n-0"].state == "wanted"


def test_absence_alone_does_not_give_a_machine_back() -> None:
    """Seen: a list that lagged behind let a machine that lived go unbilled in our books and billed in theirs."""
    state = change_node(
        change_job(state_with(), state="succeeded"), state="releasing", instance_id="i-1", generation=1
    )
    empty = {"instances": {"fake": ()}}
    assert kinds(decide(state, seeing(**empty), POLICY)) == ["TerminateInstance"]
    done = decide(state, seeing(**empty, calls_done=frozenset({"terminate i-1"})), POLICY)
    assert done.changes.nodes["n-0"].state == "released"


@pytest.mark.parametrize(("generation", "node_state"), [(1, "running"), (2, "failed")])
@pytest.mark.parametrize("known", ["", "pending", "done"])
def test_machine_that_no_node_wants_is_given_back(generation: int, node_state: str, known: str) -> None:
    state = change_node(state_with(), state=node_state, generation=2, instance_id="i-2")
    calls = {f"calls_{known}": frozenset({"terminate i-1"})} if known else {}
    decision = decide(state, seeing(**listed(generation=generation), **calls), POLICY)
    asked = [a for a in decision.actions if isinstance(a, TerminateInstance)]
    assert [a.instance_id for a in asked] == ([] if known else ["i-1"])
    for other in (listed(generation=3), listed("terminated"), listed(node="foreign")):
        assert "TerminateInstance" not in kinds(decide(state, seeing(**other), POLICY))


def test_results_on_a_machine_that_ended_are_given_up_with_a_reason() -> None:
    """Seen: a job that ended in the same look as its machine asked the next machine for its results."""
    state = running(state_with(outputs=(Output("out"),)))
    ended = news("rtest1.1.2", "exited", exit_code=0)
    decision = decide(state, seeing(UP, attempts=ended, **listed("terminated", reason="preempted")), POLICY)
    job = decision.changes.jobs[1]
    assert job.state == "succeeded"
    assert job.fetch == "failed: gone with its machine, which was preempted"
    assert decision.changes.nodes["n-0"].state == "wanted"


# ---- machines that refuse ------------------------------------------------------------------------------------------


def refusing(code: str = "host-key") -> HostView:
    return HostView(connected=False, error="its key has changed", error_code=code)


@pytest.mark.parametrize("code", ["host-key", "auth", "unfit"])
def test_machine_that_refuses_is_left_out_and_the_run_goes_on_without_it(code: str) -> None:
    state = serving(state_with(nodes=2))
    seen = replace(seeing(**listed()), hosts={"n-0": refusing(code)})
    decision = decide(state, seen, POLICY)
    assert kinds(decision) == ["DisconnectHost", "TerminateInstance", "CreateInstance"]  # n-1 is not made yet
    state.apply(decision.changes)
    empty = {"instances": {"fake": ()}, "calls_done": frozenset({"terminate i-1"})}
    left_out = decide(state, seeing(**empty), POLICY)
    assert left_out.changes.nodes["n-0"].state == "failed"
    assert left_out.changes.nodes["n-0"].reason == "refused: its key has changed"
    assert state.jobs[1].state == "pending"


def test_run_whose_machines_all_refuse_fails_with_each_reason() -> None:
    state = change_node(state_with(), state="failed", reason="refused: its key has changed")
    job = decide(state, seeing(), POLICY).changes.jobs[1]
    assert (job.state, job.reason) == ("failed", "no-capacity: n-0: refused: its key has changed")


@pytest.mark.parametrize(
    ("view", "used"),
    [
        (refusing("unreachable"), "no"),  # silence may end
        (refusing(), "running"),
        (refusing(), "fetch"),
        (refusing(), "build"),
    ],
)
def test_machine_that_may_hold_something_of_the_run_is_waited_for(view: HostView, used: str) -> None:
    state = serving(state_with(jobs=2))
    if used == "running":
        state = change_job(state, state="running", node="n-0", attempt=1)
    elif used == "fetch":
        state = change_job(state, state="succeeded", node="n-0", attempt=1, fetch="wanted")
    elif used == "build":
        state.apply(Changes(builds={("n-0", "k"): BuildRecord("n-0", "k")}))
    decision = decide(state, replace(seeing(**listed()), hosts={"n-0": view}), POLICY)
    assert "n-0" not in decision.changes.nodes


# ---- machines that the user gives up -------------------------------------------------------------------------------


def giving_up(node: str = "n-0") -> Observation:
    return seeing(requests=(Request("r1", "gone", at=1.0, node=node),))


def test_what_a_machine_had_is_done_elsewhere_on_the_users_word() -> None:
    state = running(state_with(jobs=2, nodes=2))
    state.apply(Changes(builds={("n-0", "k"): BuildRecord("n-0", "k")}))
    change_job(state, 2, state="succeeded", node="n-0", attempt=1, fetch="wanted")
    decision = decide(state, giving_up(), POLICY)
    job = decision.changes.jobs[1]
    assert (job.state, job.reason, job.losses) == (
        "pending",
        "retry after lost: the machine was given up by the user",
        1,
    )
    assert decision.changes.jobs[2].fetch.startswith("failed: gone with its machine")
    assert decision.changes.nodes["n-0"].state == "releasing"
    state.apply(decision.changes)
    assert decide(state, giving_up(), POLICY).changes.nodes.get("n-0") is None  # the request is known
    gone = seeing(instances={"fake": ()}, calls_done=frozenset({"terminate i-1"}))
    assert decide(state, gone, POLICY).changes.nodes["n-0"].state == "failed"


@pytest.mark.parametrize("node", ["n-1", "n-7"])
def test_giving_up_what_does_not_run_changes_no_job(node: str) -> None:
    state = running(state_with(nodes=2))
    decision = decide(state, giving_up(node), POLICY)
    assert not decision.changes.jobs
    assert decision.changes.run is not None


def test_old_attempt_on_a_machine_that_came_back_is_ended() -> None:
    state = running(state_with())
    decision = decide(state, seeing(UP, attempts=news("rtest1.1.1", "running", started=1.0)), POLICY)
    assert [(a.node, a.attempts) for a in decision.actions if isinstance(a, CancelAttempts)] == [
        ("n-0", ("rtest1.1.1",))
    ]
    assert not decision.changes.jobs

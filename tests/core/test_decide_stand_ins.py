"""A machine that is taken back: what takes its place, when, and what becomes of the two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.actions import CreateInstance, FetchResume, StartAttempts, TerminateInstance
from cloudsend_cli.core.decide import Decision, decide
from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.model import AttemptStatus, InstanceStatus, JobSpec, Observation, Offer, RunSpec
from cloudsend_cli.core.naming import create_call, keep_call
from cloudsend_cli.core.plan import NodePlan, plan_continue
from cloudsend_cli.core.state import Changes, NodeRecord, RentalRecord, RunState

from .test_decide_renting import (
    NOW,
    OFFERS,
    POLICY,
    TWO,
    UP,
    done,
    listed,
    of_kind,
    rented,
    running,
    seeing,
    serving,
)

LEAVING = replace(UP, leaving=True)
OTHER = InstanceStatus("i-2", "n-0b", 1, "running", launched_at=NOW)


def noticed(**job: Any) -> RunState:
    """The notice was seen while a job ran: a stand-in is wanted."""
    state = running(serving(rented(2, **job)))
    state.apply(decide(state, seeing(LEAVING), POLICY).changes)
    return state


def put(state: RunState, *nodes: NodeRecord) -> RunState:
    state.apply(Changes(nodes={node.name: node for node in nodes}))
    return state


def standing_in(**values: Any) -> RunState:
    """The stand-in serves, and the machine that was taken back is gone."""
    state = noticed()
    other = replace(state.nodes["n-0b"], state="running", generation=1, instance_id="i-2", token="t2", **values)
    return put(state, other, replace(state.nodes["n-0"], state="released", instance_id=""))


# ---- asking --------------------------------------------------------------------------------------------------------


def test_notice_asks_for_another_machine_at_once_and_in_another_pool() -> None:
    state = running(serving(rented(2)))
    first = decide(state, seeing(LEAVING), POLICY)
    assert (first.changes.nodes["n-0"].state, first.changes.nodes["n-0"].retired) == ("running", True)
    other = first.changes.nodes["n-0b"]
    assert (other.state, other.stands_in_for, other.offers, other.retired) == ("wanted", "n-0", OFFERS, False)
    assert first.changes.jobs == {}, "what runs is followed to its end, and what waits is not given up"
    state.apply(first.changes)
    (create,) = of_kind(decide(state, seeing(LEAVING), POLICY), CreateInstance)
    assert (create.node, create.generation, create.request) == ("n-0b", 1, '"b"')


def test_machine_that_is_taken_back_gets_nothing_more_although_its_notice_is_withdrawn() -> None:
    state = noticed()
    decision = decide(state, seeing(UP), POLICY)
    assert not of_kind(decision, StartAttempts)
    assert not of_kind(decision, TerminateInstance)


def test_attempts_of_the_machine_that_is_taken_back_are_followed_to_their_end() -> None:
    state = noticed(persist=("state",))
    news = {"n-0": {"rtest1.1.1": AttemptStatus("exited", 20.0, 30.0, None, 15, "preempted")}}
    decision = decide(state, seeing(LEAVING, attempts=news), POLICY)
    assert of_kind(decision, FetchResume) == [FetchResume("n-0", "rtest1.1.1", ("state",))]
    assert decision.changes.jobs[1].state == "pending"


def own(state: RunState) -> RunState:
    node = state.nodes["n-0"]
    return put(state, replace(node, price=None, offers=(Offer("{}", TWO),)))


def cancelled(state: RunState) -> RunState:
    state.apply(Changes(jobs={1: replace(state.jobs[1], cancel=True), 2: replace(state.jobs[2], state="cancelled")}))
    return state


def spending(state: RunState, budget: float, stopped: str = "") -> RunState:
    """A dollar a second for a hundred seconds; each machine costs a minute at the least."""
    state.apply(Changes(run=replace(state.run, budget=budget, stopped=stopped)))
    state.apply(Changes(rentals={"r": RentalRecord("r", "i-0", "n-0", "aws", 3600.0, 0.0, 100.0)}))
    node = state.nodes["n-0"]
    return put(state, replace(node, price=3600.0, offers=tuple(replace(offer, least=60.0) for offer in node.offers)))


def test_other_machine_is_asked_for_while_the_budget_pays_for_it() -> None:
    state = spending(running(serving(rented(2))), 165.0)
    assert decide(state, seeing(LEAVING), POLICY).changes.nodes["n-0"].retired


WHY_NOT = (
    "not rented", "no job needs it", "the money ends", "the rest does not pay for a minute", "its name is another's",
    "two",
)  # fmt: skip


def with_other(state: RunState, /, **values: Any) -> RunState:
    return put(state, replace(state.nodes["n-0"], name="n-0b", **values))


@pytest.mark.parametrize("why", WHY_NOT)
def test_no_other_machine_is_asked_for_when(why: str) -> None:
    state = running(serving(rented(2)))
    if why == "not rented":
        state = own(state)
    elif why == "no job needs it":
        state = cancelled(state)
    elif why == "the money ends":
        state = spending(state, 1000.0, "the budget is spent")
    elif why == "the rest does not pay for a minute":
        state = spending(state, 160.0)
    elif why == "its name is another's":
        state = with_other(state, state="released", retired=True)
    else:
        state = with_other(state, state="releasing", retired=True, stands_in_for="n-0", instance_id="i-2")
    decision = decide(state, seeing(LEAVING), POLICY)
    assert not any(node.retired for node in decision.changes.nodes.values() if node.name == "n-0")
    assert not of_kind(decision, CreateInstance)


def test_job_that_is_open_again_asks_for_a_machine_although_the_notice_is_old() -> None:
    state = serving(rented(2))
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="succeeded")}))
    state.apply(Changes(jobs={2: replace(state.jobs[2], state="running", node="other", attempt=1)}))
    assert not decide(state, seeing(LEAVING), POLICY).changes.nodes.get("n-0b")
    state.apply(Changes(jobs={2: replace(state.jobs[2], state="pending")}))
    assert decide(state, seeing(LEAVING), POLICY).changes.nodes["n-0b"].state == "wanted"


def test_pair_takes_turns() -> None:
    state = standing_in()
    hosts = {"n-0b": LEAVING}
    decision = decide(state, replace(seeing(), hosts=hosts), POLICY)
    first, other = decision.changes.nodes["n-0"], decision.changes.nodes["n-0b"]
    assert (first.state, first.retired, first.generation, first.stands_in_for) == ("wanted", False, 1, "")
    assert (other.state, other.retired) == ("running", True)


# ---- the end of the machine that was taken back --------------------------------------------------------------------


def test_machine_that_was_taken_back_is_not_asked_for_again() -> None:
    state = noticed()
    gone = seeing(None, instances=listed(state="terminated", reason="preempted", ended_at=NOW))
    decision = decide(state, gone, POLICY)
    assert (decision.changes.nodes["n-0"].state, decision.changes.jobs[1].state) == ("released", "pending")
    assert decision.changes.run is None, "its pool was noted when its end was announced, and is not for longer"


def idle(state: RunState, view: Any, now: float, **values: Any) -> Decision:
    return decide(state, replace(seeing(view, **values), now=now), POLICY)


def test_machine_that_is_not_taken_after_all_is_let_go_after_a_while() -> None:
    state = noticed()
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="pending")}))
    state.apply(decide(state, seeing(LEAVING), POLICY).changes)
    assert state.nodes["n-0"].idle_since == NOW
    assert "n-0" not in idle(state, LEAVING, NOW + POLICY.leaving_limit - 1).changes.nodes
    state.apply(idle(state, LEAVING, NOW + POLICY.leaving_limit).changes)
    assert state.nodes["n-0"].state == "releasing"
    gone = idle(state, None, NOW + 200, instances=listed(state="terminated"))
    assert (gone.changes.nodes["n-0"].state, gone.changes.nodes["n-0"].retired) == ("released", True)


@pytest.mark.parametrize("seen", [{"calls_done": frozenset({keep_call("i-1", 1)})}, {"instances": {}}])
def test_machine_whose_notice_was_withdrawn_is_kept_and_not_taken_again(seen: dict[str, Any]) -> None:
    state = noticed()
    put(state, replace(state.nodes["n-0"], state="keeping"))
    ended = seen if "calls_done" in seen else {"instances": listed(state="terminated")}
    assert decide(state, seeing(None, **ended), POLICY).changes.nodes["n-0"].state == "released"


# ---- limits of the account -----------------------------------------------------------------------------------------


def refused(state: RunState, node: str = "n-0b", generation: int = 1, **values: Any) -> Decision:
    errors = {create_call(node, generation): ("quota", "no more")}
    return decide(state, replace(seeing(LEAVING, call_errors=errors), **values), POLICY)


def asked() -> RunState:
    state = noticed()
    state.apply(decide(state, seeing(LEAVING), POLICY).changes)
    assert state.nodes["n-0b"].state == "creating"
    return state


def test_limit_that_has_no_room_for_two_lets_the_first_wait_for_its_end() -> None:
    state = asked()
    decision = refused(state)
    first, other = decision.changes.nodes["n-0"], decision.changes.nodes["n-0b"]
    assert (first.retired, first.crowded, other.state, other.retired) == (False, True, "released", True)
    assert decision.changes.run is None, "the limit is not noted as used up"
    state.apply(decision.changes)
    assert not decide(state, seeing(LEAVING), POLICY).changes.nodes, "it is not tried again"
    state.apply(decide(state, seeing(None, instances=listed(state="terminated", ended_at=NOW)), POLICY).changes)
    assert state.nodes["n-0"].state == "wanted"


@pytest.mark.parametrize(("state", "crowded"), [("released", True), ("releasing", False)])
def test_refusal_that_comes_after_its_end_is_asked_again(state: str, crowded: bool) -> None:
    run = asked()
    span = RentalRecord("r", "i-1", "n-0", "aws", 0.1, 5.0, NOW + 1)
    run.apply(Changes(rentals={"r": span}))
    put(run, replace(run.nodes["n-0"], state=state, instance_id=""))
    node = refused(run, now=NOW + 2).changes.nodes["n-0b"]
    assert (node.state, node.crowded, node.not_before) == ("wanted", crowded, NOW + 2 + POLICY.create_retry)


def test_limit_that_is_used_up_by_others_leaves_the_machine_out() -> None:
    run = asked()
    put(run, replace(run.nodes["n-0"], state="released", instance_id=""))
    assert refused(run).changes.nodes["n-0b"].state == "failed"
    crowded = put(asked(), replace(run.nodes["n-0b"], crowded=True))
    assert refused(crowded).changes.nodes["n-0b"].state == "failed"


def test_machine_that_came_up_may_be_replaced_early_again() -> None:
    state = asked()
    put(state, replace(state.nodes["n-0b"], crowded=True))
    status = replace(OTHER, address=object())  # type: ignore[arg-type]
    decision = decide(state, seeing(LEAVING, instances={"aws": (status,)}), POLICY)
    assert (decision.changes.nodes["n-0b"].state, decision.changes.nodes["n-0b"].crowded) == ("running", False)


# ---- continuing ----------------------------------------------------------------------------------------------------


def continued(state: RunState) -> dict[str, NodeRecord]:
    spec = RunSpec("p", "/c.yml", (JobSpec("j1", ("true",), "true"),))
    changes, _ = plan_continue(state, spec, [NodePlan("n-0", "aws", OFFERS[1:])], NOW)
    return {name: changes.nodes.get(name, state.nodes[name]) for name in state.nodes}


def shapes(nodes: dict[str, NodeRecord]) -> dict[str, tuple[str, bool]]:
    return {name: (node.state, node.retired) for name, node in nodes.items()}


def test_run_that_is_continued_has_as_many_machines_as_are_planned() -> None:
    served = continued(standing_in())
    assert shapes(served) == {"n-0": ("released", True), "n-0b": ("running", False)}
    dying = noticed()
    wanted = continued(dying)
    assert shapes(wanted) == {"n-0": ("running", True), "n-0b": ("wanted", False)}
    assert (wanted["n-0b"].offers, wanted["n-0b"].stands_in_for) == (OFFERS[1:], "n-0")


def test_run_that_is_continued_later_begins_with_the_planned_name() -> None:
    state = done(standing_in())
    put(state, replace(state.nodes["n-0b"], state="released", instance_id=""))
    nodes = continued(state)
    assert shapes(nodes) == {"n-0": ("wanted", False), "n-0b": ("released", True)}
    assert (nodes["n-0"].generation, nodes["n-0b"].generation) == (1, 1)
    assert shapes(continued(put(state, *nodes.values()))) == shapes(nodes)


# ---- telling -------------------------------------------------------------------------------------------------------


def test_explanation_names_what_takes_the_place_of_what() -> None:
    state = noticed()
    told = explain(state, state.jobs[2], {"n-0": LEAVING}, NOW)
    remarks = {name: remark for name, *_, remark in told.nodes}
    assert remarks["n-0"] == "its provider is taking it back: n-0b takes its place"
    assert told.reasons == ("n-0b is wanted: preempted",)
    late = standing_in()
    assert [name for name, *_ in explain(late, late.jobs[2], {}, NOW).nodes] == ["n-0b"]


def test_waiting_jobs_are_not_given_up_between_two_machines() -> None:
    state = noticed()
    assert decide(state, replace(Observation(NOW)), POLICY).changes.jobs == {}

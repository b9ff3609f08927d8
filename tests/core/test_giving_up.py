"""A rented machine that does not answer, or is stopped before it was reached: what is done, and said before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudsend_cli.core.actions import CreateInstance, TerminateInstance
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.decide_nodes import STOPPED
from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.giving_up import describe_giving_up
from cloudsend_cli.core.model import HostView, Offer
from cloudsend_cli.core.state import BuildRecord, Changes, RunState

from .test_decide_renting import NOW, OFFERS, POLICY, TWO, change, listed, of_kind, rented, running, seeing, serving

SILENT = HostView(False, since=100.0, error="Connection refused", error_code="unreachable")
STARTING = "; it may be starting, and is given back at 00:16:40Z if nobody reaches it"


def test_machine_that_is_starting_is_said_to_be_given_up_and_when() -> None:
    """Seen: `Connection refused` for a quarter of an hour that was paid for, without a word of what comes of it."""
    state = serving(rented())
    assert describe_giving_up(state, state.nodes["n-0"], SILENT) == STARTING
    assert POLICY.boot_limit == 900.0, "the guide says 15 minutes"
    for now, given_back in ((SILENT.since + 900.0, False), (SILENT.since + 901.0, True)):
        seen = replace(seeing(SILENT, instances=listed()), now=now)
        found = decide(state, seen, POLICY).changes.nodes.get("n-0", state.nodes["n-0"])
        assert (found.state == "releasing") is given_back


def test_explain_says_so() -> None:
    state = serving(rented())
    found = explain(state, state.jobs[1], {"n-0": SILENT}, NOW)
    said = f"no answer since 00:01:40Z: Connection refused{STARTING}"
    assert found.reasons == (f"n-0: {said}",)
    assert found.nodes[0][3] == said


def test_machine_that_answered_before_is_not_starting() -> None:
    state = serving(rented())
    said = describe_giving_up(state, state.nodes["n-0"], replace(SILENT, boot="b1"))
    assert said == "; is given back at 00:16:40Z if nobody reaches it"


@pytest.mark.parametrize("why", ["unseen", "connected", "refuses", "new", "creating", "own", "used", "fetch", "build"])
def test_nothing_is_said_of_machines_that_are_waited_for(why: str) -> None:
    state = serving(rented(offers=(Offer("{}", TWO),) if why == "own" else OFFERS))
    view: HostView | None = SILENT
    if why in {"unseen", "connected"}:
        view = None if why == "unseen" else HostView(True, "b1")
    elif why in {"refuses", "new"}:
        view = replace(SILENT, error_code="auth") if why == "refuses" else replace(SILENT, since=0.0)
    elif why == "creating":
        change(state, state="creating")
    elif why == "used":
        running(state)
    elif why == "fetch":
        _put_fetch(state)
    elif why == "build":
        state.apply(Changes(builds={("n-0", "k"): BuildRecord("n-0", "k", state="running")}))
    assert describe_giving_up(state, state.nodes["n-0"], view) == ""
    if view is not None and why not in {"refuses", "creating"}:
        seen = replace(seeing(view, instances=listed()), now=NOW + 1e6)
        assert why == "new" or "n-0" not in decide(state, seen, POLICY).changes.nodes


# ---- stopped before it was reached ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["creating", "running"])
def test_machine_that_is_stopped_while_it_comes_up_is_given_back_and_asked_for_again(state: str) -> None:
    """Seen: `creating` until the run was ended by hand."""
    run = change(serving(rented()), state=state, instance_id="i-1" if state == "running" else "")
    view = SILENT if state == "running" else None
    decision = decide(run, seeing(view, instances=listed(state="stopped", address=None)), POLICY)
    assert [action.instance_id for action in of_kind(decision, TerminateInstance)] == ["i-1"]
    run.apply(decision.changes)
    assert (run.nodes["n-0"].state, run.nodes["n-0"].reason) == ("releasing", STOPPED)
    run.apply(decide(run, seeing(None, instances=listed(state="terminated")), POLICY).changes)
    again = decide(run, seeing(None, instances={"aws": ()}), POLICY)
    assert [action.generation for action in of_kind(again, CreateInstance)] == [2]


@pytest.mark.parametrize("why", ["used", "reached"])
def test_machine_that_is_stopped_later_may_be_started_again(why: str) -> None:
    """Its disk is kept, and what it has of the run with it."""
    state = running(serving(rented())) if why == "used" else serving(rented())
    view = replace(SILENT, boot="b1") if why == "reached" else SILENT
    decision = decide(state, seeing(view, instances=listed(state="stopped")), POLICY)
    assert of_kind(decision, TerminateInstance) == []


def _put_fetch(state: RunState) -> None:
    job = replace(state.jobs[1], state="succeeded", attempt=1, node="n-0", fetch="wanted")
    state.apply(Changes(jobs={1: job}))

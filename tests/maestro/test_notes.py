"""What those who follow a run are told of machines that cost money and of providers that do not answer."""

from __future__ import annotations

from dataclasses import replace

from cloudsend_cli.core.model import JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.naming import list_call
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import Changes, RunState
from cloudsend_cli.maestro.progress import RecentFailures, render_progress

DENIED = "i-1 (m7i.large in eu-west-3, $0.1008/h) was not ended: UnauthorizedOperation"


def make(**node: object) -> RunState:
    offer = Offer("{}", Resources(2.0), 0.1)
    state = plan_run(
        RunSpec("p", "/c", (JobSpec("a", ("true",), "true"),)), [NodePlan("aws-0", "aws", (offer,))], "r", 0
    )
    state.apply(Changes(nodes={"aws-0": replace(state.nodes["aws-0"], generation=1, instance_id="i-1", **node)}))  # type: ignore[arg-type]
    return state


def notes(state: RunState, troubles: dict[str, str]) -> list[str]:
    found = render_progress(state, {}, troubles, RecentFailures(state), 1)["notes"]
    assert isinstance(found, list)
    return found


def test_provider_that_does_not_answer_is_named_first() -> None:
    told = notes(make(state="running"), {list_call("aws"): "the credentials have expired: `aws sso login`"})
    assert told == ["aws: the credentials have expired: `aws sso login`"]


def test_machine_that_cannot_be_given_back_is_named_with_what_it_costs() -> None:
    for state in ("releasing", "keeping"):
        assert notes(make(state=state, trouble=DENIED), {}) == [f"aws-0 is not given back yet: {DENIED}"]
    assert notes(make(state="released"), {}) == []

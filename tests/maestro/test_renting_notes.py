"""What those who follow a run are told of machines that are on their way."""

from __future__ import annotations

from dataclasses import replace

from cloudsend_cli.core.model import HostView, JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.offers import take_offer
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import Changes, NodeRecord, RentalRecord, RunState
from cloudsend_cli.maestro.progress import RecentFailures, render_progress

FIRST = Offer('{"n":1}', Resources(2.0), 0.1, "pool a", "quota", note="m7i.large, eu-west-3a, spot")
SECOND = Offer('{"n":2}', Resources(2.0), 0.1, "pool b", "quota", note="m7i.large, eu-west-3b, spot")


def make(*nodes: str, offers: tuple[Offer, ...] = (FIRST, SECOND), jobs: int = 0) -> RunState:
    """With so many jobs, or as many as fill the machines."""
    plans = [NodePlan(name, "aws", offers) for name in nodes]
    specs = tuple(JobSpec(f"a{n}", ("true",), "true") for n in range(jobs or 2 * len(nodes)))
    return plan_run(RunSpec("p", "/c", specs), plans, "rtest1", 0)


def put(state: RunState, node: NodeRecord) -> None:
    state.apply(Changes(nodes={node.name: node}))


def notes(state: RunState) -> object:
    return render_progress(state, {}, {}, RecentFailures(state), 1)["notes"]


def test_many_machines_are_one_line() -> None:
    assert notes(make("aws-0", "aws-1", "aws-2")) == ["3 machines are on their way"]
    assert notes(make("aws-0")) == ["aws-0 is on its way"]


def test_machines_that_nothing_needs_now_are_not_awaited() -> None:
    assert notes(make("aws-0", "aws-1", "aws-2", jobs=4)) == ["2 machines are on their way"]
    assert notes(make("aws-0", "aws-1", "aws-2", jobs=1)) == ["aws-0 is on its way"]


def test_what_is_short_and_what_is_tried() -> None:
    state = make("aws-0", "aws-1")
    put(state, replace(take_offer(state.nodes["aws-0"], SECOND), state="creating"))
    assert notes(state) == [
        "m7i.large, eu-west-3a, spot: none to be had; trying m7i.large, eu-west-3b, spot",
        "2 machines are on their way",
    ]


def test_the_zone_that_is_short_is_the_one_that_was_asked_last() -> None:
    """Seen: after the second fallback, the first zone was named again."""
    third = replace(SECOND, request='{"n":3}', pool="pool c", note="m7i.large, eu-west-3c, spot")
    state = make("aws-0", offers=(FIRST, SECOND, third))
    state.run = replace(state.run, shortages=(("pool a", 600.0), ("pool b", 601.0), ("pool x", 602.0)))
    put(state, replace(take_offer(state.nodes["aws-0"], third), state="creating"))
    assert notes(state) == ["m7i.large, eu-west-3b, spot: none to be had; trying m7i.large, eu-west-3c, spot"]


def test_nothing_is_to_be_had() -> None:
    state = make("aws-0")
    state.run = replace(state.run, shortages=(("pool a", 600.0), ("pool b", 600.0)))
    assert notes(state) == ["aws-0: none of 2 kinds of machine is to be had now; they are asked for again later"]


def test_why_a_machine_is_asked_for_again() -> None:
    state = make("aws-0", "aws-1", offers=(FIRST,))
    put(state, replace(state.nodes["aws-0"], reason="preempted"))
    assert notes(state) == ["aws-0: preempted", "2 machines are on their way"]


def test_a_shortage_is_told_by_what_is_tried_instead() -> None:
    state = make("aws-0", "aws-1")
    state.run = replace(state.run, shortages=(("pool a", 600.0),))
    put(state, replace(state.nodes["aws-0"], reason="AWS would not launch m7i.large"))
    put(state, replace(state.nodes["aws-1"], reason="preempted"))
    assert notes(state) == ["aws-1: preempted", "2 machines are on their way"]


def test_the_end_of_the_money_is_told() -> None:
    state = make()
    state.run = replace(state.run, stopped="the budget of $5.00 is spent")
    assert notes(state) == ["the budget of $5.00 is spent: what has not started is given up"]


def test_what_is_paid_is_told_so_that_costs_run_on_without_news() -> None:
    state = make()
    state.apply(Changes(rentals={"r": RentalRecord("r", "i-1", "aws-0", "aws", 0.1, 5.0, None, 60.0)}))
    assert render_progress(state, {}, {}, RecentFailures(state), 1)["rentals"] == [[0.1, 5.0, None, 60.0]]


def test_machine_that_does_not_answer_yet_is_starting_and_will_be_given_up() -> None:
    """Seen: `no answer since …: Connection refused` at each boot, as if that were wrong, and no word of the end."""
    state = make("aws-0")
    put(state, replace(state.nodes["aws-0"], state="running"))
    silent = HostView(False, since=90.0, error="Connection refused", error_code="unreachable")
    assert render_progress(state, {"aws-0": silent}, {}, RecentFailures(state), 1)["notes"] == [
        "aws-0: no answer since 00:01:30Z: Connection refused; it may be starting, and is given back at 00:16:30Z if "
        "nobody reaches it"
    ]

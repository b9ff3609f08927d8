"""What a machine costs that ended itself while nobody looked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudsend_cli.core import renting
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.model import HostView
from cloudsend_cli.core.state import Changes, RentalRecord, RunState

from .test_decide_renting import NOW, POLICY, UP, change, listed, rented, running, seeing, serving


def test_machine_that_ended_itself_unseen_is_paid_for_until_its_idle_time_was_over() -> None:
    state = serving(rented())
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="succeeded", node="n-0", attempt=1, ended_at=200.0)}))
    ended = listed(launched_at=99.0, state="terminated")
    (rental,) = decide(state, seeing(None, instances=ended), POLICY).changes.rentals.values()
    assert rental.until == 200.0 + 40.0 + 60.0
    for view, until in ((UP, NOW), (replace(UP, connected=False, since=500.0), 500.0 + 40.0 + 60.0)):
        (rental,) = decide(state, seeing(view, instances=ended), POLICY).changes.rentals.values()
        assert rental.until == until, "it was not idle while it was heard"
    state.apply(Changes(jobs={1: replace(state.jobs[1], fetch="wanted")}))
    late = replace(seeing(None, instances=ended), now=9000.0)
    (rental,) = decide(state, late, POLICY).changes.rentals.values()
    assert rental.until == 200.0 + 3600.0 + 40.0 + 60.0, "it waited with a result that nobody had fetched"
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="running")}))
    (rental,) = decide(state, seeing(None, instances=ended), POLICY).changes.rentals.values()
    assert rental.until == NOW


def watched(state: RunState, view: HostView | None = UP) -> RentalRecord:
    """What is known of the rental after it was listed twice."""
    for _ in range(2):
        seen = seeing(view, instances=listed(launched_at=99.0, expires=399.0))
        state.apply(decide(state, seen, POLICY).changes)
    (rental,) = state.rentals.values()
    return rental


def test_machine_that_worked_unseen_is_paid_for_until_its_life_was_over_at_the_latest() -> None:
    """Seen: a night of a sleeping laptop was charged for a machine that had lived for an hour."""
    state = running(serving(rented()))
    assert watched(state).expires == 399.0
    ended = replace(seeing(None, instances=listed(launched_at=99.0, state="terminated")), now=5000.0)
    (rental,) = decide(state, ended, POLICY).changes.rentals.values()
    assert rental.until == 399.0 + renting.LATE
    early = replace(ended, now=700.0)
    (rental,) = decide(state, early, POLICY).changes.rentals.values()
    assert rental.until == 700.0


def test_machine_that_is_forgotten_is_paid_for_until_its_life_was_over_at_the_latest() -> None:
    state = running(serving(rented()))
    watched(state)
    change(state, not_before=1.0)
    silent = replace(seeing(replace(UP, connected=False), instances={"aws": ()}), now=5000.0)
    (rental,) = decide(state, silent, POLICY).changes.rentals.values()
    assert rental.until == 399.0 + renting.LATE
    change(state, state="released", instance_id="")
    (rental,) = decide(state, silent, POLICY).changes.rentals.values()
    assert rental.until == 399.0 + renting.LATE


@pytest.mark.parametrize("view", [None, replace(UP, armed=False)])
def test_life_bounds_nothing_that_was_not_seen_to_watch_over_it(view: HostView | None) -> None:
    assert watched(running(serving(rented())), view).expires is None


def test_life_of_a_machine_that_another_one_has_replaced_is_not_that_of_the_new_one() -> None:
    state = running(serving(rented()))
    watched(change(state, instance_id="i-0"))
    assert [rental.expires for rental in state.rentals.values()] == [None]

"""Which machines are left over: those that nothing wants for certain, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudsend_cli.core.costs import Cost
from cloudsend_cli.core.model import Offer, Rented, Resources
from cloudsend_cli.core.renting import (
    KEPT,
    Kind,
    describe_idle,
    describe_plan,
    find_excess,
    is_rented,
    is_rented_node,
    is_too_young,
    machine_cost,
    parse_note,
)
from cloudsend_cli.core.state import NodeRecord

NOW = 10_000.0
MACHINE = Rented("aws", "i-1", "eu-west-3", "running", "rlive1", "aws-0", "p", "m7i.large", "spot", 3.6, NOW - 3600)
ACTIVE, KNOWN = {"rlive1"}, {"rlive1", "rdone1"}


def why(**values: object) -> str:
    return find_excess(replace(MACHINE, **values), ACTIVE, KNOWN, NOW)  # type: ignore[arg-type]


def test_a_machine_of_a_run_that_is_not_over_is_never_left_over() -> None:
    assert why() == ""
    assert why(expires=NOW - 1e6) == ""


@pytest.mark.parametrize("state", ["ending", "terminated"])
def test_what_has_ended_is_not_left_over(state: str) -> None:
    assert why(run="rdone1", state=state) == ""


def test_a_run_that_has_ended_leaves_its_machines_over() -> None:
    assert why(run="rdone1") == "run rdone1 has ended"
    assert why(run="rdone1", launched_at=None) == "run rdone1 has ended"
    assert why(run="rdone1", state="stopped") == "run rdone1 has ended"


def test_a_machine_that_waits_is_left_over_when_it_is_past_its_time() -> None:
    assert why(run=KEPT) == ""
    assert why(run=KEPT, expires=NOW + 1) == ""
    assert why(run=KEPT, expires=NOW - 599) == ""
    assert "past its time" in why(run=KEPT, expires=NOW - 601)


def test_an_unknown_run_counts_after_ten_minutes() -> None:
    assert why(run="rlost1") == "run rlost1 is not known here"
    assert why(run="") == "the tag with its run is missing"
    assert why(run="rlost1", launched_at=NOW - 599) == ""
    assert why(run="rlost1", launched_at=None) == ""


@pytest.mark.parametrize(
    ("values", "young"),
    [
        ({"run": "rlost1", "launched_at": NOW - 10}, True),
        ({"run": "rlost1"}, False),
        ({"run": "rlive1", "launched_at": NOW - 10}, False),
        ({"run": KEPT, "launched_at": NOW - 10}, False),
        ({"run": "rlost1", "launched_at": NOW - 10, "state": "terminated"}, False),
    ],
)
def test_what_is_too_young_to_tell(values: dict[str, object], young: bool) -> None:
    machine = replace(MACHINE, **values)  # type: ignore[arg-type]
    assert is_too_young(machine, ACTIVE, KNOWN, NOW) is young


def test_notes_of_offers() -> None:
    assert parse_note("m7i.large, eu-west-3a, spot") == Kind("m7i.large", "eu-west-3a", "spot")
    assert parse_note("odd") == Kind("odd")


def test_what_costs_money() -> None:
    assert is_rented(Offer("{}", price=0.1))
    assert is_rented(Offer("{}", pool="aws z t"))
    assert not is_rented(Offer("{}"))
    node = NodeRecord("n", "p", Resources(), "{}")
    assert not is_rented_node(node)
    assert is_rented_node(replace(node, price=0.1))
    assert is_rented_node(replace(node, offers=(Offer("{}", pool="x"),)))


def test_a_machine_costs_something_while_it_runs() -> None:
    assert machine_cost(MACHINE, NOW) == Cost(3.6, 3.6)
    assert machine_cost(replace(MACHINE, price=None), NOW) == Cost(unknown=1)
    assert machine_cost(replace(MACHINE, launched_at=None), NOW) == Cost()
    assert machine_cost(replace(MACHINE, state="stopped"), NOW) == Cost(3.6)
    assert machine_cost(replace(MACHINE, state="terminated", ended_at=NOW - 1800), NOW) == Cost(1.8)


def test_a_plan_in_words() -> None:
    spot = Offer("{}", price=0.1, note="m7i.large, eu-west-3a, spot")
    demand = Offer("{}", price=0.1, note="g5.xlarge, eu-west-3b, on-demand")
    odd = Offer("{}", price=0.1)
    assert describe_plan([(spot,), (demand, spot), (spot,), (odd,)]) == (
        "2 x m7i.large spot in eu-west-3a, 1 x g5.xlarge in eu-west-3b, 1 x a machine"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "when it is idle"),
        (600.0, "when it is idle for 10 min"),
        (3600.0, "when it is idle for 1 h"),
        (86400.0, "when it is idle for 24 h"),
        (90.0, "when it is idle for 90 s"),
    ],
)
def test_when_a_machine_ends_itself(seconds: float | None, text: str) -> None:
    """Seen: `when it is idle` of one that waits for a day."""
    assert describe_idle(seconds) == text


def test_the_first_minute_of_a_machine_is_charged_whole() -> None:
    young = replace(MACHINE, launched_at=990.0, price=3600.0, least_seconds=60.0)
    assert machine_cost(young, 1000.0).total == 60.0

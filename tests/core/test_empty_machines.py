"""What is packed onto empty machines at once, and where first fit has to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from cloudsend_cli.core.empty_machines import Packed, choose_contents, pack, take_share
from cloudsend_cli.core.machine_rooms import Room
from cloudsend_cli.core.model import NOTHING, UNBOUNDED, HostView, JobSpec, Resources, RunSpec
from cloudsend_cli.core.needs import Needs
from cloudsend_cli.core.places import Place
from cloudsend_cli.core.plan import plan_run

FOUR = Resources(4.0, 16)
NEEDS: Needs = {("", Resources(3.0)): 2, ("e1", Resources(1.0)): 2}


def room(name: str, free: Resources = FOUR, *, empty: bool = True, cost: float = 1.0) -> Room:
    return Room(name, free, cost=cost, empty=empty)


def rooms(count: int, prefix: str = "n", cost: float = 1.0) -> list[Room]:
    return [room(f"{prefix}{number}", cost=cost) for number in range(count)]


def must(packed: Packed | None) -> Packed:
    assert packed is not None
    return packed


def test_machines_in_use_are_filled_first_and_empty_ones_before_those_that_are_paid_for() -> None:
    used = room("used", Resources(1.0, 16), empty=False)
    packed = must(pack(NEEDS, [used, *rooms(1)], rooms(3, "m", 0.5)))
    assert packed.used == {"used", "n0", "m0"}
    assert [Counter(content) for content in packed.contents] == [
        {Resources(3.0): 1, Resources(1.0): 1}, {Resources(3.0): 1},
    ]  # fmt: skip
    assert (packed.left, packed.cost) == (0, (0, 0.5, 1))


def test_what_fits_nowhere_is_counted() -> None:
    packed = must(pack({**NEEDS, ("", Resources(9.0)): 3}, rooms(1), rooms(1, "m")))
    assert (packed.left, packed.cost) == (3, (3, 1.0, 1))


def test_machines_of_unlike_sizes_are_taken_for_what_each_has() -> None:
    packed = must(pack(NEEDS, [room("a", Resources(3.0, 99, 4)), room("b", Resources(8.0, 8))], rooms(4, "m")))
    assert packed.machine == Resources(3.0, 8, 0)
    assert packed.cost == (0, 1.0, 1)


def test_no_more_machines_than_a_decision_has_time_for_are_packed() -> None:
    packed = must(pack({("", Resources(3.0)): 401, ("e1", Resources(1.0)): 2}, [], rooms(1000)))
    assert (packed.left, packed.cost) == (1, (1, 400.0, 400))


def test_full_machine_is_not_packed() -> None:
    gone = room("gone", Resources(0.0, -1, -1))
    assert must(pack(NEEDS, [gone, *rooms(2)], [])).used == {"n0", "n1"}


@pytest.mark.parametrize(
    ("needs", "further"),
    [
        ({("", Resources(3.0)): 2, ("e1", Resources(3.0)): 2}, rooms(4)),
        ({("", Resources(1.0 + number)): 1 for number in range(201)}, rooms(4)),
        ({("", Resources(1.0)): 2000, ("", Resources(2.0)): 1}, rooms(4)),
        ({**NEEDS, ("", Resources(0.0, 1)): 1}, rooms(4)),
        (NEEDS, []),
        (NEEDS, [*rooms(2), *rooms(2, "m", 2.0)]),
        (NEEDS, [replace(room("bad"), failed=frozenset({"e1"})), *rooms(2)]),
        (NEEDS, [room("unknown", UNBOUNDED), *rooms(2)]),
    ],
    ids=["one size", "many sizes", "many jobs", "no CPUs", "no machines", "prices", "failed builds", "unknown"],
)
def test_elsewhere_first_fit_has_to_do(needs: Needs, further: list[Room]) -> None:
    assert pack(needs, [], further) is None


def test_shares_are_chosen_so_that_the_others_are_found_to_hold_the_rest() -> None:
    four, three, two, one = contents = [Counter({Resources(float(number)): 1}) for number in (4, 3, 2, 1)]
    assert choose_contents(contents, 2, lambda rest, most: most == 2 and rest == two + one) == [four, three]
    assert choose_contents(contents, 2, lambda rest, most: Resources(2.0) not in rest) == [three, two]
    assert choose_contents(contents, 1, lambda rest, most: Resources(2.0) not in rest) == [two]
    assert choose_contents(contents, 4, lambda rest, most: not rest and not most) == contents
    assert choose_contents(contents * 4, 1, lambda rest, most: False) == [four], "it gives up"


def test_share_is_taken_once_and_only_where_there_is_room() -> None:
    state = plan_run(
        RunSpec("p", "/c.yml", (JobSpec("j", ("true",), "true", resources=Resources(2.0)),)), [], "r1", 0.0
    )
    job = state.jobs[1]
    view = HostView(True, "b1", 0.0, FOUR)
    full, other = Place("full", view, FOUR, FOUR, 4, 8), Place("other", view, FOUR, NOTHING, 0, 8)
    shares = {"full": Counter({Resources(2.0): 1}), "other": Counter({Resources(2.0): 1})}
    places = [Place("stranger", view, FOUR, NOTHING, 0, 8), full, other]
    assert take_share(shares, places, job) is other
    assert take_share(shares, places, job) is None

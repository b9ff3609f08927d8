"""Packing: never too much, nothing starved, the same whatever the order, and close to the least number of machines."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

import pytest
from cut_machines import MACHINE, allowed, cut
from hypothesis import example, given
from hypothesis import strategies as st

from cloudsend_cli.core.model import NOTHING, UNBOUNDED, Resources
from cloudsend_cli.core.packing import Kind, Packing, count_machines, plan_machines, plan_packing

NEEDS = st.builds(Resources, st.sampled_from((0.0, 0.25, 0.5, 1.0, 2.0, 3.0)), st.integers(0, 8), st.integers(0, 2))
COUNTS = st.dictionaries(NEEDS, st.integers(1, 30), max_size=8)
MACHINES = st.lists(
    st.builds(Resources, st.sampled_from((1.0, 2.0, 4.0)), st.integers(0, 16), st.integers(0, 4)), max_size=6
)
KINDS = st.lists(
    st.builds(
        Kind,
        st.builds(Resources, st.sampled_from((1.0, 2.0, 8.0)), st.integers(0, 16), st.integers(0, 4)),
        st.integers(0, 6),
        st.sampled_from((0.1, 0.3, 1.0, None)),
    ),
    min_size=1,
    max_size=4,
)


def total(content: Mapping[Resources, int]) -> Resources:
    used = NOTHING
    for need, count in content.items():
        for _ in range(count):
            used = used.plus(need)
    return used


def check(packing: Packing, machines: Iterable[Resources], needs: Mapping[Resources, int]) -> None:
    held: Counter[Resources] = Counter()
    for content, machine in zip(packing.contents, machines, strict=True):
        assert total(content).fits_in(machine), "over capacity"
        held.update(content)
        left = machine.minus(total(content))
        assert not any(need.fits_in(left) for need in packing.left), "starved"
    assert held + Counter(packing.left) == Counter(needs)


# ---- properties ----------------------------------------------------------------------------------------------------


@given(COUNTS, MACHINES)
def test_packing_never_gives_more_than_a_machine_has_and_starves_nothing(
    needs: dict[Resources, int], machines: list[Resources]
) -> None:
    packing = plan_packing(needs, machines)
    check(packing, machines, needs)
    assert packing == plan_packing(dict(reversed(needs.items())), machines), "the order of the input counts"


@example(
    {Resources(0.0, 3): 1, Resources(0.25, 2): 4, Resources(1.0, 2): 4},
    [Kind(Resources(1.0, 4), 3, 0.1), Kind(Resources(8.0, 5), 1, 0.1)],
)
@example(
    {Resources(0.25, 1): 5, Resources(0.25, 3): 3},
    [Kind(Resources(1.0), 0, 0.1), Kind(Resources(1.0, 9), 2, 0.1)],
)
@given(COUNTS, KINDS)
def test_machines_that_are_asked_for_hold_everything_that_they_can(
    needs: dict[Resources, int], kinds: list[Kind]
) -> None:
    packing = plan_machines(needs, kinds)
    check(
        packing, [kinds[number].capacity for number in packing.kinds], {n: c for n, c in needs.items() if n != NOTHING}
    )
    asked = Counter(packing.kinds)
    assert all(count <= kinds[number].count for number, count in asked.items())
    spare = [kind for number, kind in enumerate(kinds) if asked[number] < kind.count]
    assert not any(need.fits_in(kind.capacity) for need in packing.left for kind in spare), "starved"
    assert all(packing.contents), "a machine for nothing"
    assert packing == plan_machines(dict(reversed(needs.items())), kinds)


@given(COUNTS)
def test_more_of_the_same_never_needs_fewer_machines_than_hold_it(needs: dict[Resources, int]) -> None:
    """No two of the machines could be one."""
    packing = plan_machines(needs, [Kind(MACHINE, 1000)])
    assert count_machines(needs, MACHINE) == len(packing.contents) <= sum(needs.values())
    used = [total(content) for content in packing.contents]
    assert not any(one.plus(other).fits_in(MACHINE) for one, other in pairwise(used))


# ---- by hand -------------------------------------------------------------------------------------------------------


def test_packing_takes_the_tightest_machine() -> None:
    one, two, three, four = (Resources(float(cpus)) for cpus in (1, 2, 3, 4))
    assert plan_packing({two: 1}, [four, two, Resources(8.0)]).contents == ({}, {two: 1}, {})
    assert plan_packing({one: 1}, [Resources(1.0, 0, 1), four]).contents == ({}, {one: 1}), "its GPU is for others"
    assert plan_packing({one: 1, three: 1, four: 1}, [four, four]).contents in (
        ({four: 1}, {one: 1, three: 1}),
        ({one: 1, three: 1}, {four: 1}),
    )


def test_nothing_needs_no_machine() -> None:
    assert count_machines({}, MACHINE) == count_machines({NOTHING: 3}, MACHINE) == 0
    assert plan_packing({NOTHING: 3}, [MACHINE]).contents == ({NOTHING: 3},)
    assert plan_packing({NOTHING: 3}, []).left == {NOTHING: 3}


def test_many_different_needs_are_packed_in_one_way() -> None:
    needs = {Resources(1.0 + number % 64 / 8, number // 64): 1 for number in range(21_000)}
    cpus = sum(need.cpus for need in needs)
    machine = Resources(64.0, 1 << 20)
    assert cpus / 64 <= count_machines(needs, machine) <= cpus / 64 * 1.05 + 1
    check(plan_packing(needs, [machine] * 100), [machine] * 100, needs)


def test_what_is_there_no_time_asks_for_nothing() -> None:
    assert count_machines({Resources(1.0): 0}, MACHINE) == 0


def test_tenths_of_a_cpu_add_up() -> None:
    """In floating point ten times 0.1 is not 1."""
    assert count_machines({Resources(0.1): 40}, Resources(4.0)) == 1
    assert count_machines({Resources(1 / 3): 3}, Resources(1.0)) == 1
    assert count_machines({Resources(0.34): 3}, Resources(1.0)) == 2


def test_what_is_not_known_of_a_machine_does_not_limit_it() -> None:
    machine = Resources(2.0, UNBOUNDED.memory, UNBOUNDED.gpus)
    assert count_machines({Resources(1.0, 1 << 40, 1): 4}, machine) == 2


def test_cheapest_machines_are_not_always_the_fewest() -> None:
    small, large = Kind(Resources(2.0), 10, 0.1), Kind(Resources(16.0), 10, 1.0)
    assert plan_machines({Resources(1.0): 6}, [large, small]).kinds == (1, 1, 1)
    assert plan_machines({Resources(1.0): 16}, [large, small]).kinds == (1,) * 8
    dear = Kind(Resources(2.0), 10, 0.2)
    assert plan_machines({Resources(1.0): 16}, [large, dear]).kinds == (0,)
    assert plan_machines({Resources(1.0): 1, Resources(12.0): 1}, [large, dear]).kinds == (0,)
    assert plan_machines({Resources(1.0): 1, Resources(16.0): 1}, [large, dear]).kinds == (0, 1)


def test_fewest_machines_where_no_price_is_known() -> None:
    small, large = Kind(Resources(2.0), 10), Kind(Resources(16.0), 10, 1.0)
    assert plan_machines({Resources(1.0): 16}, [small, large]).kinds == (1,)


def test_machines_that_run_out_are_followed_by_others() -> None:
    kinds = [Kind(Resources(4.0), 2, 0.1), Kind(Resources(4.0), 1, 0.5)]
    packing = plan_machines({Resources(4.0): 5}, kinds)
    assert (packing.kinds, packing.left) == ((0, 0, 1), {Resources(4.0): 2})


# ---- against the least number --------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [1.0, 0.8])
@pytest.mark.parametrize("pieces", [3, 5, 10])
@pytest.mark.parametrize("machines", [4, 12, 25, 40])
def test_machines_that_were_cut_up_are_put_together_again(machines: int, pieces: int, full: float) -> None:
    """At most one machine, or 5 %, above the least number: 240 instances whose least number is known."""
    rng = random.Random(f"{machines}-{pieces}-{full}")
    for _ in range(10):
        needs = cut(rng, machines, pieces, full)
        assert machines <= count_machines(needs, MACHINE) <= allowed(machines)


def least_number(needs: list[Resources], machine: Resources) -> int:
    """By trying all ways."""
    best = len(needs)

    def place(index: int, free: list[Resources]) -> None:
        nonlocal best
        if len(free) >= best:
            return
        if index == len(needs):
            best = len(free)
            return
        need = needs[index]
        for number, room in enumerate(free):
            if need.fits_in(room) and room not in free[:number]:
                place(index + 1, [*free[:number], room.minus(need), *free[number + 1 :]])
        place(index + 1, [*free, machine.minus(need)])

    place(0, [])
    return best


def test_small_instances_against_exhaustive_search() -> None:
    rng = random.Random(1)
    for _ in range(200):
        needs = [
            Resources(rng.randint(1, 10) / 2, rng.randint(0, 12), rng.choice((0, 0, 0, 1, 2)))
            for _ in range(rng.randint(1, 9))
        ]
        machine = Resources(6.0, 16, 2)
        least = least_number(sorted(needs, key=lambda n: -n.cpus), machine)
        assert least <= count_machines(Counter(needs), machine) <= least + 1

"""The checker is checked: each seeded bug must be found, within a bounded number of worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from campaigns import pick

from .mutants import MUTANTS, Mutant
from .sweeps import Case, hunt, hunt_in

ROUNDS = pick(2, 5)
CAMPAIGN = pytest.mark.campaign("crash world")


@pytest.fixture(scope="module")
def worlds() -> list[Case]:
    """Planned before any mutant is put in: the same for all, and for the code as it is."""
    return list(hunt(ROUNDS))


def catch(cases: Iterator[Case] | list[Case]) -> tuple[int, str]:
    for count, case in enumerate(cases, 1):
        violations = case.live().judge.violations
        if violations:
            return count, violations[0]
    return 0, ""


@CAMPAIGN
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.put_in.__name__)
def test_mutant_is_caught(
    mutant: Mutant,
    worlds: list[Case],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    if mutant.hint:
        worlds = [*hunt_in(mutant.hint), *worlds]
    mutant.put_in(monkeypatch)
    count, violation = catch(worlds)
    assert violation, f"{mutant.what}: not caught in {len(worlds)} worlds"
    assert not violation.startswith("TypeError"), f"the mutant does not fit the code any more: {violation}"
    record_property("caught in world", count)


@CAMPAIGN
def test_the_code_as_it_is_passes_the_same_worlds(worlds: list[Case]) -> None:
    assert catch(worlds) == (0, "")


def test_every_safety_rule_has_a_mutant() -> None:
    assert {m.rule for m in MUTANTS} >= set("1234567")
    assert len({m.put_in for m in MUTANTS}) == len(MUTANTS) >= 12

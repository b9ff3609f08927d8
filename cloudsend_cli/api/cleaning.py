"""What is left over of what was rented: found, told, and removed when that is asked for."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cloudsend_cli.core.cost_views import ExcessView
from cloudsend_cli.core.model import Leftover, ProviderDefinition, Rented
from cloudsend_cli.core.ports import Renter
from cloudsend_cli.core.renting import ENDED, KEPT, find_excess, is_too_young
from cloudsend_cli.engine.instances import Runs, name_rented
from cloudsend_cli.engine.parallel import each_in_parallel
from cloudsend_cli.errors import CloudsendError, MaestroError
from cloudsend_cli.maestro import wiring

from .directory import Directory
from .renting import Note, end_waiting, list_definitions, list_known_runs, was_used

MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Excess:
    """One thing that is left over, and how it is removed."""

    view: ExcessView
    renter: Renter
    leftover: Leftover | None = None  # None: a machine


@dataclass(frozen=True, slots=True)
class Found:
    """`problems`: providers that could not be asked. `kept`: machines that wait for a run and end themselves.

    `used`: things that belong to machines, and go when those do. `unknown`: what cannot be known here.
    """

    excess: tuple[Excess, ...] = ()
    problems: tuple[tuple[str, CloudsendError], ...] = ()
    kept: int = 0
    used: int = 0
    unknown: str = ""


def find_excess_of(home: Directory, provider: str | None, note: Note) -> Found:
    if not was_used(home):
        known = "; ".join(filter(None, map(wiring.explain_unknown, sorted(wiring.RENTED_TYPES))))
        return Found(unknown=f"nothing was ever rented with this state directory; {known}")
    with suppress(MaestroError):  # without one, what is left over is found all the same
        home.carry_on_rented(note)
    sieve = _Sieve(list_known_runs(home), time.time())
    definitions = [d for d in list_definitions(home, everywhere=True) if provider in (None, d.name)]
    problems: list[tuple[str, CloudsendError]] = []
    for name, renter, machines, leftovers, problem in each_in_parallel(definitions, lambda d: _ask(home, d)):
        if problem is not None:
            problems.append((name, problem))
        sieve.take_machines(renter, machines)
        sieve.take_leftovers(renter, leftovers, {m.region for m in machines if m.state != "terminated"})
    if sieve.young:
        count = len(sieve.young)
        note(f"machines of unknown runs that are younger than 10 minutes were left out: {count}; look again later")
    return Found(tuple(sieve.found.values()), tuple(problems), len(sieve.kept), len(sieve.used))


@dataclass(slots=True)
class _Sieve:
    """Sorts what there is. Two providers of one account tell the same things: each counts once."""

    runs: Runs
    now: float
    found: dict[tuple[str, str], Excess] = field(default_factory=dict)
    young: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    used: set[tuple[str, str]] = field(default_factory=set)

    def take_machines(self, renter: Renter, machines: Sequence[Rented]) -> None:
        for machine in machines:
            why = find_excess(machine, self.runs.active, self.runs.known, self.now)
            if why:
                self.found.setdefault((MACHINE, machine.instance_id), Excess(_machine_view(machine, why), renter))
            elif machine.run == KEPT and machine.state not in ENDED:
                self.kept.add(machine.instance_id)
            elif is_too_young(machine, self.runs.active, self.runs.known, self.now):
                self.young.add(machine.instance_id)

    def take_leftovers(self, renter: Renter, leftovers: Sequence[Leftover], regions: Collection[str]) -> None:
        """`regions`: of machines that are there. A group belongs to all of them, whichever says so.

        A run that is about to rent a machine has none yet, or none that is seen; it may have made its group.
        """
        for leftover in leftovers:
            name = (leftover.kind, leftover.id)
            needed = leftover.kind == "group" and (self.runs.active or leftover.region in regions)
            if leftover.removable and not needed:
                self.found.setdefault(name, Excess(_leftover_view(leftover), renter, leftover))
            else:
                self.used.add(name)


def _ask(
    home: Directory, definition: ProviderDefinition
) -> tuple[str, Renter, list[Rented], list[Leftover], CloudsendError | None]:
    renter = wiring.open_renter(definition, home.path)
    machines: list[Rented] = []
    try:
        machines = list(renter.list_rented())
        return definition.name, renter, machines, list(renter.list_leftovers()), None
    except CloudsendError as problem:
        return definition.name, renter, machines, [], problem


def _machine_view(machine: Rented, why: str) -> ExcessView:
    return ExcessView(
        kind=MACHINE,
        id=machine.instance_id,
        name=name_rented(machine),
        provider=machine.provider,
        region=machine.region,
        why=why,
        price=machine.price,
        since=machine.launched_at,
        type=" ".join(filter(None, (machine.type, machine.market))),
    )


def _leftover_view(leftover: Leftover) -> ExcessView:
    return ExcessView(
        kind=leftover.kind,
        id=leftover.id,
        name="",
        provider=leftover.provider,
        region=leftover.region,
        why=leftover.why,
        price=leftover.price,
    )


def remove(home: Directory, found: Found) -> Iterator[ExcessView]:
    """Machines first: what belongs to them can be removed when they are gone. Each outcome as it comes."""
    home.writer()  # a copy of a state directory does not know the runs of today, and is refused
    for excess in sorted(found.excess, key=lambda e: e.leftover is not None):
        try:
            if excess.leftover is None:
                excess.renter.terminate_rented(excess.view.id)
                end_waiting(home, excess.view.id)
            else:
                excess.renter.remove_leftover(excess.leftover)
        except CloudsendError as problem:
            yield replace(excess.view, outcome=f"failed: {problem.message}", code=problem.code)
        else:
            yield replace(excess.view, outcome="removed")

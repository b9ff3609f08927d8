"""Which rented machines nothing wants any more, and what is known of those that something wants. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .costs import Cost, rental_cost
from .model import Offer, Rented
from .state import NodeRecord, RentalRecord

KEPT = "kept"  # in the place of a run's id: of a machine that no run has
ENDED = frozenset({"ending", "terminated"})
YOUNG = 600.0  # seconds in which a machine of a run that is not known may still become known
LATE = 600.0  # ... and after which a machine is past its time for certain
SWITCH_SECONDS = 60.0  # that a machine takes from its idle time's end until it is gone


@dataclass(frozen=True, slots=True)
class Kind:
    """What an offer's note says, which is `type, place, market`."""

    type: str = ""
    place: str = ""
    market: str = ""


NO_KIND = Kind()


def parse_note(note: str) -> Kind:
    parts = note.split(", ")
    return Kind(*parts) if len(parts) == 3 else Kind(note)


def is_rented(offer: Offer) -> bool:
    """Whether its machine costs money, or may."""
    return offer.price is not None or bool(offer.pool)


def is_rented_node(node: NodeRecord) -> bool:
    return node.price is not None or any(is_rented(offer) for offer in node.offers)


def find_excess(machine: Rented, active: Collection[str], known: Collection[str], now: float) -> str:
    """Why the machine is left over; "" while something wants it, or may.

    `active`: runs with something left to do; `known`: all runs of this state directory. What a run that is active has
    is its own to give back.
    """
    if machine.state in ENDED or machine.run in active:
        return ""
    if machine.expires is not None and now > machine.expires + LATE:
        return "it is past its time, and has not ended itself"
    if machine.run == KEPT:
        return ""
    if machine.run in known:
        return f"run {machine.run} has ended"
    if machine.launched_at is None or now - machine.launched_at < YOUNG:
        return ""
    return f"run {machine.run} is not known here" if machine.run else "the tag with its run is missing"


def is_too_young(machine: Rented, active: Collection[str], known: Collection[str], now: float) -> bool:
    """Whether nothing is known to want it, but that may be because it is so new."""
    if machine.state in ENDED or machine.run in active or machine.run in known or machine.run == KEPT:
        return False
    return not find_excess(machine, active, known, now)


def machine_cost(machine: Rented, now: float) -> Cost:
    """Since it was launched, whoever used it. A machine that is stopped costs no more, but for its disk."""
    if machine.launched_at is None:
        return Cost()
    running = machine.state in {"pending", "running", "unknown"}
    until = None if running else machine.ended_at if machine.ended_at is not None else now
    name = machine.instance_id
    return rental_cost(
        RentalRecord(name, name, "", "", machine.price, machine.launched_at, until, machine.least_seconds), now
    )


def describe_idle(seconds: float | None) -> str:
    """When a machine ends itself: `when it is idle for 10 min`; an hour, or a day, where it is to wait for longer."""
    if not seconds:
        return "when it is idle"
    units = ((3600, "h"), (60, "min"))
    size, unit = next(((size, unit) for size, unit in units if seconds % size == 0), (1, "s"))
    return f"when it is idle for {seconds / size:.4g} {unit}"


def describe_plan(machines: Sequence[Sequence[Offer]]) -> str:
    """What is rented first, such as `2 x m7i.large spot in eu-west-3a, 1 x g5.xlarge in eu-west-3b`."""
    counts: dict[str, int] = {}
    for offers in machines:
        kind = parse_note(offers[0].note)
        text = kind.type or "a machine"
        if kind.market and kind.market != "on-demand":
            text += f" {kind.market}"
        if kind.place:
            text += f" in {kind.place}"
        counts[text] = counts.get(text, 0) + 1
    return ", ".join(f"{count} x {text}" for text, count in counts.items())

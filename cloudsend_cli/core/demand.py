"""How many machines the open jobs need now, and which of those that are planned. Pure.

Of rented machines a run has as many as hold what is executed and what is ready to be, up to the `number` that its
config says: it grows when more becomes ready, and lets go of what nothing needs. What waits for other jobs, an earlier
stage, a slot or `max_parallel` does not count before it could begin.

What is needed is put by first fit into what is at hand, in one order, and only what is left over into machines that
could be asked for. So a machine that was asked for is used in the next look just as it was planned, and nothing is
asked for twice: see docs/adr/0018-machines-follow-the-queue.md. Where that asks for machines, all that are empty or
could be asked for are packed anew (core/empty_machines.py), which needs fewer where much is to fit closely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .decide_builds import list_failed_often
from .decide_money import pays_for
from .draft import Draft
from .empty_machines import pack
from .machine_rooms import Room, failed_there, is_at_hand, list_at_hand, put_first_fit
from .model import UNBOUNDED, Offer, Resources
from .naming import stand_in_name
from .needs import GONE, Need, Needs, list_delayed, list_needs
from .offers import choose_offer, current_offer, list_offers
from .renting import is_rented_node
from .state import FETCHED, NodeRecord

WORK_MOST: Final = 50_000  # needs times machines: with more, one way has to do


@dataclass(frozen=True, slots=True)
class Demand:
    """`ask`: nodes that are to have a machine now. `spare`: machines that nothing which waits would use."""

    ask: frozenset[str] = frozenset()
    spare: frozenset[str] = frozenset()


def plan_demand(draft: Draft) -> Demand:
    """INVARIANT: equal states and observations ask for the same machines; a second look asks for no more of them."""
    nodes = draft.all_nodes()
    if not any(is_rented_node(node) for node in nodes):
        return Demand()
    wanted = [node.name for node in nodes if node.state == "wanted"]
    holding = _holding_results(draft) if wanted else set()
    fetching = frozenset(name for name in wanted if name in holding or draft.running_jobs(name))
    needs = list_needs(draft, nodes)
    if not needs and not draft.state.delayed:
        return Demand(fetching, frozenset(node.name for node in nodes if is_at_hand(node)))
    at_hand = list_at_hand(draft, nodes)
    further = _list_further(draft, nodes, growing=bool(at_hand)) if needs and wanted else []
    used: frozenset[str] = frozenset()
    best: tuple[float, ...] | None = None
    for order, rule in _list_ways(needs, at_hand, further):
        found, cost = put_first_fit(order, at_hand, sorted(further, key=rule))
        if best is None or cost < best:
            best, used = cost, found
    if best is not None and best[-1]:  # machines are to be asked for: fewer may do
        packed = pack(needs, at_hand, sorted(further, key=lambda room: room.rank))
        if packed is not None and packed.cost < best:
            best, used = packed.cost, packed.used
    if best is not None and best[0] and (short := [at for _, at in draft.run.shortages if at > draft.seen.now]):
        draft.wake(min(short))  # what could hold the rest may be among what is not to be had now
    spare = {room.name for room in at_hand} - used
    if spare and (later := list_delayed(draft)):
        spare -= put_first_fit(list(later.items()), at_hand, [])[0]
    return Demand(fetching | (used & {room.name for room in further}), frozenset(spare))


def may_serve(node: NodeRecord, need: Resources) -> bool:
    """Whether a machine that is not there yet could hold it, as far as is known."""
    return not is_rented_node(node) or any(
        offer.capacity is None or need.fits_in(offer.capacity) for offer in list_offers(node)
    )


def _holding_results(draft: Draft) -> set[str]:
    """Nodes whose machines have what is still to be brought home."""
    jobs = (draft.job(number) for number in {**draft.state.to_fetch, **draft.jobs})
    return {job.node for job in jobs if job is not None and job.fetch in FETCHED}


# ---- where it could go ---------------------------------------------------------------------------------------------


def _list_further(draft: Draft, nodes: Iterable[NodeRecord], *, growing: bool) -> list[Room]:
    """What could be asked for. While the first of its offers are short, others are asked before it."""
    rooms = []
    often = list_failed_often(draft)
    chosen: dict[int, Offer | None] = {}  # by the identity of the offers, which most machines of a run share
    for index, node in enumerate(nodes):
        if node.state != "wanted" or node.retired or not is_rented_node(node):
            continue
        if id(node.offers) not in chosen or not node.offers:
            chosen[id(node.offers)] = choose_offer(node, draft.run.shortages, draft.seen.now)
        found = chosen[id(node.offers)]
        offer = found or current_offer(node)
        if growing and draft.run.budget is not None and not pays_for(draft, offer.price):
            continue
        rank = (found is None, not _is_heir(draft, node), index)
        failed = failed_there(draft, node.name) | often
        cost = math.nan if offer.price is None else offer.price
        rooms.append(Room(node.name, offer.capacity or UNBOUNDED, failed, cost, rank))
    if any(math.isnan(room.cost) for room in rooms):  # then the fewest are the cheapest, as far as is known
        return [replace(room, cost=1.0) for room in rooms]
    return rooms


def _is_heir(draft: Draft, node: NodeRecord) -> bool:
    """Whether it takes the place of a machine that is being taken back."""
    other = node.stands_in_for or stand_in_name(node.name)
    leaving = draft.nodes.get(other) or draft.state.nodes.get(other)
    return leaving is not None and leaving.retired and leaving.state not in GONE


# ---- putting the one into the other --------------------------------------------------------------------------------

Way = tuple[list[tuple[Need, int]], Callable[[Room], tuple[float, ...]]]


def _list_ways(needs: Needs, at_hand: Sequence[Room], further: Sequence[Room]) -> list[Way]:
    """In which orders needs are placed, and machines asked for."""
    if not needs:
        return []
    if len(needs) == 1 and len(further) <= 1:
        return [([*needs.items()], lambda room: room.rank)]  # any order is this one
    rooms = [*at_hand, *further]
    totals = [max(1e-9, sum(part(wanted) * count for (_, wanted), count in needs.items())) for part in _PARTS]
    largest = [max((float(part(room.free)) for room in rooms), default=0.0) for part in _PARTS]

    def share(wanted: Resources) -> list[float]:
        return [part(wanted) / most if most > 0 else 0.0 for part, most in zip(_PARTS, largest, strict=True)]

    def worth(room: Room) -> float:
        return sum(min(1.0, part(room.free) / total) for part, total in zip(_PARTS, totals, strict=True)) or 1e-9

    weights = [total / most if most > 0 else 0.0 for total, most in zip(totals, largest, strict=True)]
    sizes: list[Callable[[Resources], float]] = [
        lambda wanted: sum(a * b for a, b in zip(share(wanted), weights, strict=True)),
        lambda wanted: max(share(wanted)),
    ]
    orders = [_sort(needs, size) for size in sizes]
    rules: list[Callable[[Room], tuple[float, ...]]] = [lambda room: room.rank]
    if len({(room.free, room.cost) for room in further}) > 1:
        rules = [
            lambda room: (*room.rank[:2], room.cost / worth(room), room.cost, room.rank[2]),
            lambda room: (*room.rank[:2], room.cost, -worth(room), room.rank[2]),
            lambda room: (*room.rank[:2], -worth(room), room.cost, room.rank[2]),
        ]
    if len(needs) * len(rooms) > WORK_MOST:
        return [(orders[0], rules[0])]
    return [(order, rule) for order in orders for rule in rules]


_PARTS: Final[tuple[Callable[[Resources], float], ...]] = (lambda r: r.cpus, lambda r: r.memory, lambda r: r.gpus)


def _sort(needs: Needs, size: Callable[[Resources], float]) -> list[tuple[Need, int]]:
    """The largest first."""

    def rank(item: tuple[Need, int]) -> tuple[object, ...]:
        (key, wanted), _ = item
        return (-size(wanted), -wanted.gpus, -wanted.cpus, -wanted.memory, key)

    return sorted(needs.items(), key=rank)

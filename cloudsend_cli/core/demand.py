"""How many machines the open jobs need now, and which of those that are planned. Pure.

Of rented machines a run has as many as hold what is executed and what is ready to be, up to the `number` that its
config says: it grows when more becomes ready, and lets go of what nothing needs. What waits for other jobs, an earlier
stage, a slot or `max_parallel` does not count before it could begin.

What is needed is put by first fit into what is at hand, in one order, and only what is left over into machines that
could be asked for. So a machine that was asked for is used in the next look just as it was planned, and nothing is
asked for twice: see docs/adr/0018-machines-follow-the-queue.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .assignment import rank_of
from .decide_builds import list_failed_often
from .decide_money import pays_for
from .draft import Draft
from .model import PENDING, RUNNING, UNBOUNDED, Offer, Resources
from .naming import stand_in_name
from .offers import choose_offer, current_offer, list_offers
from .places import NO_LOAD
from .renting import is_rented_node
from .state import FETCHED, JobRecord, NodeRecord

DELAYED_MOST: Final = 200  # jobs that are looked at of those that are tried again later
WORK_MOST: Final = 50_000  # needs times machines: with more, one way has to do
GONE: Final = frozenset({"released", "failed"})

NO_KEYS: Final[frozenset[str]] = frozenset()
Need = tuple[str, Resources]  # an environment, and what is asked for
Needs = dict[Need, int]


@dataclass(frozen=True, slots=True)
class Demand:
    """`ask`: nodes that are to have a machine now. `spare`: machines that nothing which waits would use."""

    ask: frozenset[str] = frozenset()
    spare: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Room:
    """A machine that is there, is coming, or could be asked for."""

    name: str
    free: Resources
    failed: frozenset[str] = frozenset()  # environments that could not be built there
    cost: float = 1.0
    rank: tuple[int, ...] = ()

    def count(self, need: Need, most: int) -> int:
        """How many of these go there. What asks for no CPUs counts as one: nobody knows what it takes."""
        key, wanted = need
        if key in self.failed or wanted.memory > self.free.memory or wanted.gpus > self.free.gpus:
            return 0
        if self.free.cpus >= UNBOUNDED.cpus:
            return min(1, most)  # how large it is will be known when it is there
        pairs = ((self.free.cpus, wanted.cpus), (self.free.memory, wanted.memory), (self.free.gpus, wanted.gpus))
        if not wanted.cpus:
            pairs = ((math.ceil(self.free.cpus), 1.0), *pairs[1:])
        return max(0, min([most, *(int(have / want + 1e-6) for have, want in pairs if want)]))

    def take(self, wanted: Resources, count: int) -> _Room:
        cpus = 0.0 if self.free.cpus >= UNBOUNDED.cpus else self.free.cpus - (wanted.cpus or 1.0) * count
        free = Resources(cpus, self.free.memory - wanted.memory * count, self.free.gpus - wanted.gpus * count)
        return _Room(self.name, free, self.failed, self.cost, self.rank)


def plan_demand(draft: Draft) -> Demand:
    """INVARIANT: equal states and observations ask for the same machines; a second look asks for no more of them."""
    nodes = draft.all_nodes()
    if not any(is_rented_node(node) for node in nodes):
        return Demand()
    wanted = [node.name for node in nodes if node.state == "wanted"]
    holding = _holding_results(draft) if wanted else set()
    fetching = frozenset(name for name in wanted if name in holding or draft.running_jobs(name))
    needs = _list_needs(draft, nodes)
    if not needs and not draft.state.delayed:
        return Demand(fetching, frozenset(node.name for node in nodes if _is_at_hand(node)))
    at_hand = _list_at_hand(draft, nodes)
    further = _list_further(draft, nodes, growing=bool(at_hand)) if needs and wanted else []
    used: frozenset[str] = frozenset()
    best: tuple[float, ...] | None = None
    for order, rule in _list_ways(needs, at_hand, further):
        found, cost = _fill(order, at_hand, sorted(further, key=rule))
        if best is None or cost < best:
            best, used = cost, found
    if best is not None and best[0] and (short := [at for _, at in draft.run.shortages if at > draft.seen.now]):
        draft.wake(min(short))  # what could hold the rest may be among what is not to be had now
    spare = {room.name for room in at_hand} - used
    if spare and (later := _list_delayed(draft)):
        spare -= _fill(list(later.items()), at_hand, [])[0]
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


# ---- what is needed ------------------------------------------------------------------------------------------------


def _list_needs(draft: Draft, nodes: Iterable[NodeRecord]) -> Needs:
    """What could begin now if there were room, and what a machine holds that it cannot begin, or will not end."""
    needs = _list_ready(draft)
    for node in nodes:
        if node.retired and node.state not in GONE:
            _count(needs, (_need(job) for job in draft.running_jobs(node.name) if not job.cancel))
        elif node.state == "running":
            _count(needs, _list_queued(draft, node))
    return needs


def _count(needs: Needs, further: Iterable[Need]) -> None:
    for need in further:
        needs[need] = needs.get(need, 0) + 1


def _need(job: JobRecord) -> Need:
    return (job.spec.environment, job.resources)


def _list_ready(draft: Draft) -> Needs:
    """By class, in the order in which they are handed out. Work is in proportion to the classes, and to the news."""
    state = draft.state
    needs: Needs = {}
    if not state.ready:
        return needs
    gone: Counter[object] = Counter()
    for number, job in draft.jobs.items():
        old = state.jobs[number]
        if old.state == PENDING and job.state != PENDING:
            kind = state.class_of(old)
            gone[kind] += number in state.ready.get(kind, ())
    left: dict[str, int] = {}
    limit = draft.run.max_parallel
    room = state.unfinished if limit is None else limit - state.counts.get(RUNNING, 0)
    for kind, numbers in sorted(state.ready.items(), key=lambda item: (rank_of(item[0].size), next(iter(item[1])))):
        if kind.group not in left:
            left[kind.group] = _count_places(draft, kind.group)
        count = max(0, min(len(numbers) - gone[kind], left[kind.group], room))
        if count:
            need = (kind.environment, kind.resources)
            needs[need] = needs.get(need, 0) + count
        left[kind.group] -= count
        room -= count
    return needs


def _count_places(draft: Draft, name: str) -> int:
    """How many jobs of a group could begin."""
    group, pool = draft.state.groups.get(name), draft.state.pools.get(name)
    limits = [draft.state.unfinished]
    if group is not None:
        limits += [len(group.slots)] if group.slots else []
        limits += [group.max_parallel] if group.max_parallel is not None else []
    return min(limits) - (pool.running if pool is not None and group is not None else 0)


def _list_queued(draft: Draft, node: NodeRecord) -> Iterator[Need]:
    """What its machine cannot start before something else there ends: the newest of what it was given."""
    view = draft.seen.hosts.get(node.name)
    load = draft.state.load.get(node.name)
    if load is None or view is None or not view.connected:
        return
    over = load.resources.minus(draft.capacity(node))
    if not (over.cpus > 0 or over.memory > 0 or over.gpus > 0):
        return
    for number in reversed(draft.state.on_node.get(node.name, {})):
        job = draft.job(number)
        if job is None or job.state != RUNNING or job.started_at is not None or job.cancel:
            continue
        yield _need(job)
        over = over.minus(job.resources)
        if over.cpus <= 0 and over.memory <= 0 and over.gpus <= 0:
            return


def _list_delayed(draft: Draft) -> Needs:
    """What is tried again soon needs no machine yet, but keeps one."""
    jobs = (draft.job(number) for _, number in draft.state.delayed[:DELAYED_MOST])
    needs: Needs = {}
    _count(needs, (_need(job) for job in jobs if job is not None and job.state == PENDING))
    return needs


# ---- where it could go ---------------------------------------------------------------------------------------------


def _list_at_hand(draft: Draft, nodes: Iterable[NodeRecord]) -> list[_Room]:
    """What each machine has left: first those that are in use, then those that are not, then those that are coming."""
    rooms = []
    for index, node in enumerate(nodes):
        if not _is_at_hand(node):
            continue
        load = draft.state.load.get(node.name, NO_LOAD)
        capacity = draft.capacity(node)
        view = draft.seen.hosts.get(node.name)
        usable = view is None or (
            not (view.full or view.leaving)
            if view.connected
            else not view.boot or draft.seen.now - view.since < draft.policy.silence_limit
        )
        if not usable or (capacity.cpus >= UNBOUNDED.cpus and load.held):
            free = Resources(0.0, -1, -1)
        else:
            held = load.resources
            cpus = max(0.0, round(capacity.cpus - held.cpus - load.light, 6))
            free = Resources(cpus, capacity.memory - held.memory, capacity.gpus - held.gpus)
        rank = (node.state == "creating", load.held + load.light == 0, index)
        rooms.append(_Room(node.name, free, _failed_there(draft, node.name), rank=rank))
    return sorted(rooms, key=lambda room: room.rank)


def _is_at_hand(node: NodeRecord) -> bool:
    return not node.retired and node.state in {"creating", "running"}


def _failed_there(draft: Draft, name: str) -> frozenset[str]:
    if not draft.state.builds:
        return NO_KEYS
    builds = (draft.build(where, key) for where, key in draft.state.builds if where == name)
    return frozenset(build.key for build in builds if build is not None and build.state == "failed")


def _list_further(draft: Draft, nodes: Iterable[NodeRecord], *, growing: bool) -> list[_Room]:
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
        failed = _failed_there(draft, node.name) | often
        cost = math.nan if offer.price is None else offer.price
        rooms.append(_Room(node.name, offer.capacity or UNBOUNDED, failed, cost, rank))
    if any(math.isnan(room.cost) for room in rooms):  # then the fewest are the cheapest, as far as is known
        return [replace(room, cost=1.0) for room in rooms]
    return rooms


def _is_heir(draft: Draft, node: NodeRecord) -> bool:
    """Whether it takes the place of a machine that is being taken back."""
    other = node.stands_in_for or stand_in_name(node.name)
    leaving = draft.nodes.get(other) or draft.state.nodes.get(other)
    return leaving is not None and leaving.retired and leaving.state not in GONE


# ---- putting the one into the other --------------------------------------------------------------------------------

Way = tuple[list[tuple[Need, int]], Callable[[_Room], tuple[float, ...]]]


def _list_ways(needs: Needs, at_hand: Sequence[_Room], further: Sequence[_Room]) -> list[Way]:
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

    def worth(room: _Room) -> float:
        return sum(min(1.0, part(room.free) / total) for part, total in zip(_PARTS, totals, strict=True)) or 1e-9

    weights = [total / most if most > 0 else 0.0 for total, most in zip(totals, largest, strict=True)]
    sizes: list[Callable[[Resources], float]] = [
        lambda wanted: sum(a * b for a, b in zip(share(wanted), weights, strict=True)),
        lambda wanted: max(share(wanted)),
    ]
    orders = [_sort(needs, size) for size in sizes]
    rules: list[Callable[[_Room], tuple[float, ...]]] = [lambda room: room.rank]
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


def _fill(
    order: Iterable[tuple[Need, int]], at_hand: Sequence[_Room], further: Sequence[_Room]
) -> tuple[frozenset[str], tuple[float, ...]]:
    """First fit: which machines hold anything, and (what fits nowhere, what is paid for, how many that are)."""
    rooms = [*at_hand, *further]
    used: set[int] = set()
    homeless = 0
    for need, count in order:
        left = count
        for index, room in enumerate(rooms):
            if placed := room.count(need, left):
                rooms[index] = room.take(need[1], placed)
                used.add(index)
                left -= placed
                if not left:
                    break
        homeless += left
    asked = [rooms[index].cost for index in sorted(used) if index >= len(at_hand)]
    return frozenset(rooms[index].name for index in used), (homeless, math.fsum(asked), len(asked))

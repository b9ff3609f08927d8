"""What machines have left that are there, are coming, or could be asked for. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .draft import Draft
from .model import UNBOUNDED, Resources
from .needs import Need
from .places import NO_LOAD
from .state import NodeRecord

NO_KEYS: Final[frozenset[str]] = frozenset()


@dataclass(slots=True)
class Room:
    """A machine that is there, is coming, or could be asked for."""

    name: str
    free: Resources
    failed: frozenset[str] = frozenset()  # environments that could not be built there
    cost: float = 1.0
    rank: tuple[int, ...] = ()
    empty: bool = True  # nothing of this run is there

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

    def take(self, wanted: Resources, count: int) -> Room:
        cpus = 0.0 if self.free.cpus >= UNBOUNDED.cpus else self.free.cpus - (wanted.cpus or 1.0) * count
        free = Resources(cpus, self.free.memory - wanted.memory * count, self.free.gpus - wanted.gpus * count)
        return Room(self.name, free, self.failed, self.cost, self.rank, empty=False)


def list_at_hand(draft: Draft, nodes: Iterable[NodeRecord]) -> list[Room]:
    """What each machine has left: first those that are in use, then those that are not, then those that are coming."""
    rooms = []
    for index, node in enumerate(nodes):
        if not is_at_hand(node):
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
        empty = load.held + load.light == 0
        rank = (node.state == "creating", empty, index)
        rooms.append(Room(node.name, free, failed_there(draft, node.name), rank=rank, empty=empty))
    return sorted(rooms, key=lambda room: room.rank)


def is_at_hand(node: NodeRecord) -> bool:
    return not node.retired and node.state in {"creating", "running"}


def failed_there(draft: Draft, name: str) -> frozenset[str]:
    if not draft.state.builds:
        return NO_KEYS
    builds = (draft.build(where, key) for where, key in draft.state.builds if where == name)
    return frozenset(build.key for build in builds if build is not None and build.state == "failed")


def put_first_fit(
    order: Iterable[tuple[Need, int]], at_hand: Sequence[Room], further: Sequence[Room]
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

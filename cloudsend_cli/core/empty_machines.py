"""Which of what waits goes onto which machine that holds nothing yet: all of them are packed at once. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from .draft import Draft
from .machine_rooms import Room, list_at_hand
from .model import UNBOUNDED, Resources
from .needs import Need, Needs, list_ready
from .packing import Kind, Packing, plan_machines
from .places import Place
from .state import JobRecord

TRIES: Final = 8  # of choices which contents are handed out first
# Of different needs, jobs, and machines: with more, packing would hold up a decision. It takes 0.1 s for 400 machines.
KINDS_MOST: Final = 200
JOBS_MOST: Final = 2_000
MACHINES_MOST: Final = 400
ROUNDING: Final = 0.001  # CPUs


@dataclass(frozen=True, slots=True)
class Packed:
    """What each of the empty machines is to hold, the fullest first."""

    contents: Sequence[Mapping[Resources, int]]
    machine: Resources  # what each of them has at least
    left: int  # jobs that fit nowhere
    used: frozenset[str]  # machines, in use or empty
    cost: tuple[float, ...]  # as that of `put_first_fit`


def pack(needs: Needs, at_hand: Sequence[Room], further: Sequence[Room]) -> Packed | None:
    """First fit into the machines in use; what is left, onto empty ones, and then onto ones that could be asked for.

    None where first fit has to do: where there is one kind of need, one that takes no CPUs, or very many, and where
    machines that could be asked for differ in price, some could not build an environment, or a size is not known.
    """
    empty = [room for room in at_hand if room.empty and room.free.memory >= 0]
    rooms = [*empty, *further][:MACHINES_MOST]
    if not 1 < len({wanted for _, wanted in needs}) <= KINDS_MOST or sum(needs.values()) > JOBS_MOST:
        return None
    if not all(wanted.cpus for _, wanted in needs):
        return None
    if not rooms or len({room.cost for room in further}) > 1:
        return None
    if any(room.failed or room.free.cpus >= UNBOUNDED.cpus for room in rooms):
        return None
    free = [room.free for room in rooms]
    machine = Resources(min(f.cpus for f in free), min(f.memory for f in free), min(f.gpus for f in free))
    in_use, waiting = _put_into_used(needs, at_hand)
    found = _pack_alike(frozenset(waiting.items()), machine, len(rooms))
    asked = rooms[len(empty) : len(found.contents)]
    left = sum(found.left.values())
    used = in_use | {room.name for room in rooms[: len(found.contents)]}
    contents = sorted(found.contents, key=lambda content: -_fill_of(content, machine))
    return Packed(contents, machine, left, used, (left, math.fsum(room.cost for room in asked), len(asked)))


@lru_cache(maxsize=8)  # while machines come up, each look asks the same
def _pack_alike(needs: frozenset[tuple[Resources, int]], machine: Resources, most: int) -> Packing:
    return plan_machines(dict(needs), [Kind(machine, most)])


def plan_shares(draft: Draft, places: Iterable[Place]) -> dict[str, Counter[Resources]] | None:
    """What each empty machine that is up is given, where all that is ready has room on those that are up or coming.

    None where it has not: then what is expected to take longest goes first, and the rest waits in their queues.
    """
    rooms = list_at_hand(draft, draft.all_nodes())
    if not any(room.empty for room in rooms):
        return None
    ready = list_ready(draft)
    asked = sum(wanted.cpus * count for (_, wanted), count in ready.items())
    if asked > sum(room.free.cpus for room in rooms) + ROUNDING:
        return None
    packed = pack(ready, rooms, [])
    if packed is None or packed.left:
        return None
    connected = {place.name for place in places}
    up = [room.name for room in rooms if room.empty and room.name in connected]
    chosen = choose_contents(packed.contents, len(up), lambda rest, most: _hold(rest, packed.machine, most))
    return dict(zip(up, chosen, strict=False))


def choose_contents(
    contents: Sequence[Mapping[Resources, int]], up: int, hold: Callable[[Counter[Resources], int], bool]
) -> list[Counter[Resources]]:
    """What is to be held by those that are up, so that the others, looked at alone, are found to `hold` the rest.

    Packing is no exact search: what it found for all, it may miss for a part of it.
    """
    counted = [Counter(content) for content in contents]
    others = len(counted) - up
    for first in range(min(TRIES, others + 1)):
        rest: Counter[Resources] = sum(counted[:first] + counted[first + up :], Counter())
        if hold(rest, others):
            return counted[first : first + up]
    return counted[:up]


def _hold(needs: Counter[Resources], machine: Resources, most: int) -> bool:
    return len(_pack_alike(frozenset(needs.items()), machine, most + 1).contents) <= most


def take_share(shares: Mapping[str, Counter[Resources]], places: Iterable[Place], job: JobRecord) -> Place | None:
    """The place that is to have this one."""
    for place in places:
        share = shares.get(place.name)
        if (
            share is not None
            and share[job.resources] > 0
            and place.held < place.most
            and place.has_room(job.resources)
        ):
            share[job.resources] -= 1
            return place
    return None


def _put_into_used(needs: Needs, at_hand: Iterable[Room]) -> tuple[frozenset[str], Counter[Resources]]:
    """By first fit, the largest first: into which machines, and what is left over."""
    rooms = [room for room in at_hand if not room.empty]
    used: set[str] = set()
    waiting: Counter[Resources] = Counter()
    for need, count in sorted(needs.items(), key=_size, reverse=True):
        left = count
        for index, room in enumerate(rooms):
            if left and (placed := room.count(need, left)):
                rooms[index] = room.take(need[1], placed)
                used.add(room.name)
                left -= placed
        if left:
            waiting[need[1]] += left
    return frozenset(used), waiting


def _size(item: tuple[Need, int]) -> tuple[float | str, ...]:
    (key, wanted), _ = item
    return (wanted.gpus, wanted.cpus, wanted.memory, key)


def _fill_of(content: Mapping[Resources, int], machine: Resources) -> float:
    """How full it makes the machine."""
    return sum(
        count * (need.cpus / machine.cpus + need.memory / max(1, machine.memory) + need.gpus / max(1, machine.gpus))
        for need, count in content.items()
    )

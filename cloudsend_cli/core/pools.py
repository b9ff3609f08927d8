"""The places of a run's groups while attempts are handed out. Pure.

A pool is one for the whole run: an attempt holds its place, on whatever machine it is, until it has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .draft import Draft
from .model import RUNNING, JobGroup
from .state import JobRecord, Pool

NO_SLOT = -1


def read_delay(settings: tuple[tuple[str, str], ...]) -> float:
    """Seconds between the first tasks of two places, as the config says."""
    return float(dict(settings).get("delay", "0"))


class Rooms:
    """What groups have left, with this draft's ends and hand-outs counted."""

    def __init__(self, draft: Draft) -> None:
        self._groups = draft.state.groups
        self._pools = draft.state.pools
        self._own: dict[str, Pool] = {}
        self._draft = draft
        self._delay = read_delay(draft.run.settings)
        self._opened = set[tuple[str, int]]()
        for number, job in draft.jobs.items():
            old = draft.state.jobs[number]
            if old.state == RUNNING and job.state != RUNNING and old.spec.group:
                self._pool(old.spec.group).give_back(old.slot)

    def _pool(self, group: str) -> Pool:
        if group not in self._own:
            known = self._pools.get(group)
            self._own[group] = Pool(known.taken, known.running, dict(known.shared)) if known is not None else Pool()
        return self._own[group]

    def has_room(self, name: str) -> bool:
        group = self._groups.get(name)
        return group is None or (_has_room(group, self._pool(name)) and not self._must_wait(group))

    def _must_wait(self, group: JobGroup) -> bool:
        """Whether its next place is given for the first time, and too soon after another one was."""
        place = (group.name, self._pool(group.name).lowest_free)
        state = self._draft.state
        if not self._delay or not group.slots or place in state.opened or place in self._opened:
            return False
        due = (self._draft.seen.now if self._opened else state.opened_last) + self._delay
        if due > self._draft.seen.now:
            self._draft.wake(due)
        return due > self._draft.seen.now

    def take(self, name: str) -> int:
        """The lowest free place; NO_SLOT in a group without a pool. Only where there is room."""
        group = self._groups.get(name)
        if group is None:
            return NO_SLOT
        pool = self._pool(name)
        slot = pool.lowest_free if group.slots else NO_SLOT
        if slot != NO_SLOT and (name, slot) not in self._draft.state.opened:
            self._opened.add((name, slot))
        pool.take(slot)
        return slot


def _has_room(group: JobGroup, pool: Pool) -> bool:
    if group.max_parallel is not None and pool.running >= group.max_parallel:
        return False
    return not group.slots or pool.lowest_free < len(group.slots)


def move_slots(
    running: Iterable[tuple[JobRecord, JobRecord]], old: Mapping[str, JobGroup], new: Mapping[str, JobGroup]
) -> list[JobRecord]:
    """Attempts whose group or its pool was changed by their user, as (before, now), with the place of the same names
    and values in the new one.

    INVARIANT: what is still in use is given to no other. Where there are fewer such places than before, attempts share
    one until they have ended; where there is none, they hold a number beyond the pool.
    """
    used: dict[str, set[int]] = {}
    moving = []
    for before, job in sorted(running, key=lambda pair: pair[1].number):
        pool, group = old.get(before.spec.group), new.get(job.spec.group)
        if job.slot == NO_SLOT or pool is None or group is None:
            continue
        if (pool.name, pool.slots) == (group.name, group.slots):
            used.setdefault(group.name, set()).add(job.slot)
        else:
            moving.append((job, pool, group))
    return [replace(job, slot=_slot_in(job.slot, pool, group, used)) for job, pool, group in moving]


def _slot_in(slot: int, before: JobGroup, after: JobGroup, used: dict[str, set[int]]) -> int:
    taken = used.setdefault(after.name, set())
    pairs = before.slots[slot] if slot < len(before.slots) else None
    same = [i for i, other in enumerate(after.slots) if other == pairs]
    beyond = max([len(after.slots), *(i + 1 for i in taken)])
    found = next((i for i in same if i not in taken), same[0] if same else beyond)
    taken.add(found)
    return found

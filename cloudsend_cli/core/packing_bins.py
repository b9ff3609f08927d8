"""The heuristics of packing.py, over vectors of whole numbers. Pure.

Needs stand as (vector, how many of it there are), so that many equal ones cost as much as one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Vector = tuple[int, int, int]  # GPUs, millionths of a CPU, bytes
Counts = dict[Vector, int]

SEARCH_MOST: Final = 1_500  # steps of the search for what fills one bin
STEPS_MOST: Final = 400_000  # of each slow heuristic


def times(room: Vector, need: Vector, most: int) -> int:
    """How often `need` fits in `room`, `most` at the most."""
    for have, want in zip(room, need, strict=True):
        if want:
            most = min(most, have // want)
    return most


def minus(room: Vector, need: Vector, count: int = 1) -> Vector:
    return (room[0] - count * need[0], room[1] - count * need[1], room[2] - count * need[2])


def fits(need: Vector, room: Vector) -> bool:
    return need[0] <= room[0] and need[1] <= room[1] and need[2] <= room[2]


@dataclass(slots=True)
class Bins:
    """Machines while they are filled. `kinds`: of each, whatever number its opener gave it."""

    free: list[Vector] = field(default_factory=list)
    contents: list[Counts] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    left: Counts = field(default_factory=dict)
    _tight: list[tuple[int, int, int, int]] = field(default_factory=list)  # what is free, and where, sorted

    def open(self, capacity: Vector, kind: int) -> int:
        self.free.append(capacity)
        self.contents.append({})
        self.kinds.append(kind)
        insort(self._tight, (*capacity, len(self.free) - 1))
        return len(self.free) - 1

    def put(self, index: int, need: Vector, count: int) -> None:
        """`count` below 0 takes out."""
        room = self.free[index]
        del self._tight[bisect_left(self._tight, (*room, index))]
        self.free[index] = room = minus(room, need, count)
        insort(self._tight, (*room, index))
        content = self.contents[index]
        content[need] = content.get(need, 0) + count
        if not content[need]:
            del content[need]

    def resize(self, index: int, kind: int, free: Vector) -> None:
        del self._tight[bisect_left(self._tight, (*self.free[index], index))]
        self.kinds[index], self.free[index] = kind, free
        insort(self._tight, (*free, index))

    def find_tightest(self, need: Vector, without: int = -1) -> int:
        """The bin that is left with least of what is scarce: GPUs first, then CPUs, then memory. -1: none has room."""
        at = self._find(need, without)
        return self._tight[at][3] if at >= 0 else -1

    def _find(self, need: Vector, without: int = -1) -> int:
        """Where it stands among those that are sorted by what is free."""
        tight = self._tight
        _, cpus, memory = need
        at, end = bisect_left(tight, need), len(tight)
        while at < end:
            free_gpus, free_cpus, free_memory, index = tight[at]
            if free_cpus < cpus:
                at = bisect_left(tight, (free_gpus, cpus, memory), at)
            elif free_memory < memory:
                at = bisect_left(tight, (free_gpus, free_cpus, memory), at)
            elif index == without:
                at += 1
            else:
                return at
        return -1

    def pour(
        self, needs: Iterable[tuple[Vector, int]], opener: Callable[[Vector], tuple[Vector, int] | None] | None = None
    ) -> None:
        """Best fit, in the order of `needs`. `opener` gives one more machine that holds a need, where there is one."""
        tight = self._tight
        for need, count in needs:
            to_place = count
            while to_place:
                at = self._find(need)
                if at < 0:
                    opened = opener(need) if opener is not None else None
                    if opened is None:
                        self.left[need] = to_place
                        break
                    self.open(*opened)
                    continue
                *_, index = tight.pop(at)
                placed = times(self.free[index], need, to_place) if to_place > 1 else 1
                self.free[index] = room = minus(self.free[index], need, placed)
                insort(tight, (*room, index))
                content = self.contents[index]
                content[need] = content.get(need, 0) + placed
                to_place -= placed

    def close(self, index: int) -> None:
        """Take an empty bin out; the last one gets its number."""
        last = len(self.free) - 1
        del self._tight[bisect_left(self._tight, (*self.free[index], index))]
        if index != last:
            del self._tight[bisect_left(self._tight, (*self.free[last], last))]
            insort(self._tight, (*self.free[last], index))
        self.free[index], self.contents[index], self.kinds[index] = (
            self.free[last],
            self.contents[last],
            self.kinds[last],
        )
        del self.free[last], self.contents[last], self.kinds[last]


# ---- one bin after another -----------------------------------------------------------------------------------------


def fill_by_likeness(counts: Mapping[Vector, int], capacity: Vector, weights: Sequence[float]) -> list[Counts] | None:
    """Each time what has the largest weighted dot product with what is free. None: it would take too long."""
    left = dict(counts)
    steps = STEPS_MOST
    filled: list[Counts] = []
    while left:
        room, content = capacity, dict[Vector, int]()
        while fitting := [need for need, count in left.items() if fits(need, room) and count > content.get(need, 0)]:
            steps -= len(left)
            pull = [weight * have for weight, have in zip(weights, room, strict=True)]
            need = max(fitting, key=lambda v: (pull[0] * v[0] + pull[1] * v[1] + pull[2] * v[2], v))
            content[need] = content.get(need, 0) + 1
            room = minus(room, need)
        if steps < 0:
            return None
        filled += _repeat(left, content)
    return filled


def fill_by_search(
    counts: Mapping[Vector, int], capacity: Vector, size: Mapping[Vector, float]
) -> list[Counts] | None:
    """Each bin with the largest of what is left, and then as full as a bounded search finds. None: as above."""
    left = dict(sorted(counts.items(), key=lambda item: (-size[item[0]], item[0])))
    steps = STEPS_MOST
    filled: list[Counts] = []
    while left:
        steps -= SEARCH_MOST // 5 + len(left)
        if steps < 0:
            return None
        seed = next(iter(left))
        others = {need: count - (need == seed) for need, count in left.items() if need != seed or count > 1}
        content = _search(others, minus(capacity, seed), size)
        content[seed] = content.get(seed, 0) + 1
        filled += _repeat(left, content)
    return filled


def _repeat(left: Counts, content: Counts) -> list[Counts]:
    """As many bins alike as what is left makes: they would be found one by one."""
    count = min(left[need] // used for need, used in content.items())
    for need, used in content.items():
        left[need] -= used * count
        if not left[need]:
            del left[need]
    return [content] * count


def _search(left: Mapping[Vector, int], room: Vector, size: Mapping[Vector, float]) -> Counts:
    """What of `left` fills `room` best, as far as a depth-first search comes in SEARCH_MOST steps."""
    needs = [need for need in left if fits(need, room)]
    best: list[Vector] = []
    most, steps = 0.0, float(SEARCH_MOST)
    stack: list[tuple[int, Vector, float, tuple[Vector, ...]]] = [(0, room, 0.0, ())]
    while stack and steps > 0:
        at, free, full, chosen = stack.pop()
        if full > most:
            most, best = full, list(chosen)
        looked = at
        while at < len(needs) and not fits(needs[at], free):
            at += 1
        steps -= 1 + (at - looked) / 8
        if at == len(needs):
            continue
        need = needs[at]
        stack.append((at + 1, free, full, chosen))
        used = 0
        for other in reversed(chosen):
            if other != need:
                break
            used += 1
        again = at if used + 1 < left[need] else at + 1
        stack.append((again, minus(free, need), full + size[need], (*chosen, need)))
    found: Counts = {}
    for need in best:
        found[need] = found.get(need, 0) + 1
    return found


# ---- afterwards ----------------------------------------------------------------------------------------------------


def empty_some(bins: Bins, size: Mapping[Vector, float]) -> None:
    """Empty one bin after another into the rest, the least filled first, until none can be emptied."""
    steps = STEPS_MOST
    while len(bins.free) > 1 and steps > 0:
        order = sorted(range(len(bins.free)), key=lambda i: (_fill(bins.contents[i], size), bins.free[i]))
        for index in order[: max(2, len(order) // 8)]:
            done, steps = _empty(bins, index, size, steps)
            if done:
                bins.close(index)
                break
        else:
            return


def _fill(content: Mapping[Vector, int], size: Mapping[Vector, float]) -> float:
    return sum(size[need] * count for need, count in content.items())


def _empty(bins: Bins, index: int, size: Mapping[Vector, float], steps: int) -> tuple[bool, int]:
    """Move what it holds elsewhere, or exchange it for less. What was moved stays so: nothing is lost by that."""
    while bins.contents[index] and steps > 0:
        for need in sorted(bins.contents[index], key=lambda v: (-size[v], v)):
            to = bins.find_tightest(need, index)
            if to >= 0:
                bins.put(index, need, -1)
                bins.put(to, need, 1)
                break
            steps -= sum(map(len, bins.contents))
            if exchange := _find_exchange(bins, index, need, size):
                to, other = exchange
                bins.put(index, need, -1)
                bins.put(to, other, -1)
                bins.put(to, need, 1)
                bins.put(index, other, 1)
                break
        else:
            return False, steps
    return not bins.contents[index], steps


def _find_exchange(bins: Bins, index: int, need: Vector, size: Mapping[Vector, float]) -> tuple[int, Vector] | None:
    """Where `need` fits in the place of something smaller, with the smallest that would come back."""
    best: tuple[float, int, Vector] | None = None
    for to, content in enumerate(bins.contents):
        if to == index:
            continue
        for other in content:
            if size[other] >= size[need] or (best is not None and size[other] >= best[0]):
                continue
            back = minus(minus(bins.free[index], need, -1), other)
            if fits(need, minus(bins.free[to], other, -1)) and min(back) >= 0:
                best = (size[other], to, other)
    return None if best is None else (best[1], best[2])

"""Which stages of a run have begun. Pure.

A stage begins when no job of a lower one is unfinished: a count for each stage, not a product of dependencies.
"""

from __future__ import annotations

import heapq

ALL = 1 << 62  # every stage


class Stages:
    """Counts of unfinished jobs, and the pending ones, by stage from 1 on. `begun`: up to which stages may start."""

    __slots__ = ("_firsts", "begun", "pending", "unfinished")

    def __init__(self) -> None:
        self.unfinished: dict[int, int] = {}
        self.pending: dict[int, dict[int, None]] = {}
        self.begun = ALL
        self._firsts: list[int] = []  # a heap of stages, of which some may have ended meanwhile

    def enter(self, stage: int, number: int, *, pending: bool) -> None:
        """An unfinished job."""
        count = self.unfinished.get(stage, 0)
        self.unfinished[stage] = count + 1
        if not count:
            heapq.heappush(self._firsts, stage)
        if pending:
            self.pending.setdefault(stage, {})[number] = None

    def leave(self, stage: int, number: int) -> None:
        self.unfinished[stage] -= 1
        self.pending.get(stage, {}).pop(number, None)

    def turn(self) -> list[int]:
        """Compare with the counts; the pending jobs of stages that have begun now, or wait again."""
        while self._firsts and not self.unfinished[self._firsts[0]]:
            heapq.heappop(self._firsts)
        before, self.begun = self.begun, self._firsts[0] if self._firsts else ALL
        if before == self.begun:
            return []
        low, high = sorted((before, self.begun))
        turned = [number for stage, numbers in self.pending.items() if low < stage <= high for number in numbers]
        return sorted(turned)

"""Virtual time: what will happen, in order. Events of one moment happen in the order in which they were asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable


def no_edge(label: str) -> None:
    """Called by a fake before and after each effect; the crash world puts its crashes here."""


class Timeline:
    """The one clock of a simulated world. Nothing in it waits: time passes when the next event is taken."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay, self._count, action))

    @property
    def next_at(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def advance_to(self, when: float) -> None:
        """Let everything happen that is due until `when`, then be there."""
        heap = self._heap
        while heap and heap[0][0] <= when:
            at, _, action = heapq.heappop(heap)
            self.now = max(self.now, at)
            action()
        self.now = max(self.now, when)

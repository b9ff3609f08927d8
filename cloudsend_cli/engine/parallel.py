"""Many machines asked at once, each answer as it comes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

AT_ONCE = 16
T = TypeVar("T")
R = TypeVar("R")


def each_in_parallel(items: Sequence[T], work: Callable[[T], R]) -> Iterator[R]:
    """`work` of each item in the order in which they are done; what it raises is raised here."""
    wanted = deque(items)
    done: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()

    def take_turns() -> None:
        while True:
            try:
                item = wanted.popleft()
            except IndexError:
                return
            try:
                done.put((work(item), None))
            except BaseException as problem:  # noqa: BLE001 - it is raised where the answers are awaited
                done.put((None, problem))

    for _ in range(min(AT_ONCE, len(items))):
        # daemon: Ctrl-C does not wait for machines that are silent
        threading.Thread(target=take_turns, name="asking", daemon=True).start()
    for _ in items:
        result, problem = done.get()
        if problem is not None:
            raise problem
        yield result  # type: ignore[misc]

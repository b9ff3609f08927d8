"""What happens later, and when a host ends: one thread that waits, a few that act."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

WORKERS = 8


class Timekeeper:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._guard = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake, wakes = socket.socketpair()
        self._wakes = wakes
        self._selector.register(wakes, selectors.EVENT_READ)
        self._closed = False
        self.failures: list[str] = []
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="ec2lab")
        self._thread = threading.Thread(target=self._run, name="ec2lab-time", daemon=True)
        self._thread.start()

    def do(self, action: Callable[..., Any], *args: Any) -> Future[None] | None:
        """In a thread of ours, now. What goes wrong there is kept for the end of the lab."""
        with self._guard:
            return None if self._closed else self._workers.submit(self._act, action, *args)

    def after(self, delay: float, action: Callable[..., Any], *args: Any) -> None:
        entry = (time.monotonic() + delay, next(self._numbers), lambda: self.do(action, *args) and None)
        with self._guard:
            heapq.heappush(self._heap, entry)
        self._nudge()

    def when_ended(self, pid: int, action: Callable[[], Any]) -> None:
        """Once, when this child of ours has ended; its status is not taken."""
        try:
            ending = os.pidfd_open(pid)
        except ProcessLookupError:
            self.do(action)
            return
        with self._guard:
            self._selector.register(ending, selectors.EVENT_READ, action)
        self._nudge()

    def _act(self, action: Callable[..., Any], *args: Any) -> None:
        try:
            action(*args)
        except Exception:  # noqa: BLE001 - told by `failures`
            if not self._closed:
                self.failures.append(traceback.format_exc())

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def _run(self) -> None:
        while not self._closed:
            with self._guard:
                due = []
                while self._heap and self._heap[0][0] <= time.monotonic():
                    due.append(heapq.heappop(self._heap)[2])
                rest = self._heap[0][0] - time.monotonic() if self._heap else None
            for action in due:
                action()
            if due:
                continue
            for key, _ in self._selector.select(rest):
                if key.data is None:
                    self._wakes.recv(4096)
                    continue
                with self._guard:
                    self._selector.unregister(key.fd)
                os.close(key.fd)
                self.do(key.data)

    def close(self) -> None:
        with self._guard:
            self._closed = True
        self._nudge()
        self._thread.join(10)
        self._workers.shutdown(cancel_futures=True)
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                os.close(key.fd)
        self._selector.close()
        self._wake.close()
        self._wakes.close()

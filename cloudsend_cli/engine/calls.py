"""Provider calls that are under way. A tick never waits for one; results are news of a later tick."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cloudsend_cli.errors import CloudsendError

if TYPE_CHECKING:
    from concurrent.futures import Executor  # it loads `logging`, and the local maestro has no pool


class Calls(Protocol):
    """Runs provider calls; at most one for each key at a time."""

    def submit(self, key: str, call: Callable[[], object]) -> None: ...

    def pending(self) -> frozenset[str]: ...

    def errors(self) -> dict[str, tuple[str, str]]:
        """(error code, message) of calls that failed since the last question, by key."""

    def done(self) -> frozenset[str]:
        """Keys of all calls that succeeded so far."""


@dataclass(slots=True)
class DirectCalls:
    """Executes in place: for providers that answer at once and for the simulated world."""

    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    succeeded: frozenset[str] = frozenset()

    def submit(self, key: str, call: Callable[[], object]) -> None:
        try:
            call()
        except CloudsendError as error:
            self.failed[key] = (error.code, error.message)
        else:
            self.succeeded |= {key}

    def pending(self) -> frozenset[str]:
        return frozenset()

    def errors(self) -> dict[str, tuple[str, str]]:
        failed, self.failed = self.failed, {}
        return failed

    def done(self) -> frozenset[str]:
        return self.succeeded


class ThreadedCalls:
    """Executes on a pool. `wake` is called, from the pool's thread, when a result has come."""

    def __init__(self, executor: Executor, wake: Callable[[], None]) -> None:
        self._executor = executor
        self._wake = wake
        self._pending: set[str] = set()
        self._results: queue.SimpleQueue[tuple[str, CloudsendError | None]] = queue.SimpleQueue()
        self._failed: dict[str, tuple[str, str]] = {}
        self._done: frozenset[str] = frozenset()

    def submit(self, key: str, call: Callable[[], object]) -> None:
        self._collect()
        if key in self._pending:
            return
        self._pending.add(key)
        self._executor.submit(self._execute, key, call)

    def _execute(self, key: str, call: Callable[[], object]) -> None:
        error: CloudsendError | None = None
        try:
            call()
        except CloudsendError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - a provider's bug must become news, not a dead thread
            error = CloudsendError(f"{type(problem).__name__}: {problem}")
        self._results.put((key, error))
        self._wake()

    def _collect(self) -> None:
        while not self._results.empty():
            key, error = self._results.get()
            self._pending.discard(key)
            if error is not None:
                self._failed[key] = (error.code, error.message)
            else:
                self._done |= {key}

    def pending(self) -> frozenset[str]:
        self._collect()
        return frozenset(self._pending)

    def errors(self) -> dict[str, tuple[str, str]]:
        self._collect()
        failed, self._failed = self._failed, {}
        return failed

    def done(self) -> frozenset[str]:
        self._collect()
        return self._done

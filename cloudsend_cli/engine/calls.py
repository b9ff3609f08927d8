"""Provider calls that are under way. A tick never waits for a slow one; what came of it is news of a later tick."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cloudsend_cli.errors import CloudsendError

AT_ONCE = 8  # slow calls of one run


class Calls(Protocol):
    """Makes provider calls; at most one for each key at a time."""

    def submit(self, key: str, call: Callable[[], object], *, slow: bool) -> None: ...

    def pending(self) -> frozenset[str]: ...

    def errors(self) -> dict[str, tuple[str, str]]:
        """(error code, message) of calls that failed since the last question, by key."""

    def results(self) -> dict[str, object]:
        """What calls returned that succeeded since the last question, by key."""

    def done(self) -> frozenset[str]:
        """Keys of all calls that succeeded so far."""


@dataclass(slots=True)
class DirectCalls:
    """Makes each in place: for the simulated world, and for what answers at once."""

    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    returned: dict[str, object] = field(default_factory=dict)
    succeeded: frozenset[str] = frozenset()

    def submit(self, key: str, call: Callable[[], object], *, slow: bool = False) -> None:
        try:
            result = call()
        except CloudsendError as error:
            self.failed[key] = (error.code, _words(error))
        else:
            self.returned[key] = result
            self.succeeded |= {key}

    def pending(self) -> frozenset[str]:
        return frozenset()

    def errors(self) -> dict[str, tuple[str, str]]:
        failed, self.failed = self.failed, {}
        return failed

    def results(self) -> dict[str, object]:
        returned, self.returned = self.returned, {}
        return returned

    def done(self) -> frozenset[str]:
        return self.succeeded


def _words(error: CloudsendError) -> str:
    """What happened and what to do: this is all that is kept of it."""
    return f"{error.message} ({error.hint})" if error.hint else error.message


class ThreadedCalls:
    """Makes slow calls on threads, others in place. `wake` is called, from such a thread, when a result has come.

    The threads do not keep the process alive: a call that is cut off is made again, with the same token.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._direct = DirectCalls()
        self._pending: set[str] = set()
        self._room = threading.Semaphore(AT_ONCE)
        self._results: queue.SimpleQueue[tuple[str, object, CloudsendError | None]] = queue.SimpleQueue()

    def submit(self, key: str, call: Callable[[], object], *, slow: bool) -> None:
        self._collect()
        if not slow:
            self._direct.submit(key, call)
        elif key not in self._pending:
            self._pending.add(key)
            threading.Thread(target=self._make, args=(key, call), name=f"call {key}", daemon=True).start()

    def _make(self, key: str, call: Callable[[], object]) -> None:
        result: object = None
        error: CloudsendError | None = None
        try:
            with self._room:
                result = call()
        except CloudsendError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - a provider's bug must become news, not a dead thread
            error = CloudsendError(f"{type(problem).__name__}: {problem}")
        self._results.put((key, result, error))
        self._wake()

    def _collect(self) -> None:
        while not self._results.empty():
            key, result, error = self._results.get()
            self._pending.discard(key)
            if error is not None:
                self._direct.failed[key] = (error.code, _words(error))
            else:
                self._direct.returned[key] = result
                self._direct.succeeded |= {key}

    def pending(self) -> frozenset[str]:
        self._collect()
        return frozenset(self._pending)

    def errors(self) -> dict[str, tuple[str, str]]:
        self._collect()
        return self._direct.errors()

    def results(self) -> dict[str, object]:
        self._collect()
        return self._direct.results()

    def done(self) -> frozenset[str]:
        self._collect()
        return self._direct.done()

"""What goes wrong on purpose, and what came: the record of calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .wire import ApiError, Request

When = Mapping[str, object] | Callable[[Request], bool]


@dataclass
class Call:
    """One request as it reached the lab, and what became of it."""

    number: int
    time: float
    service: str
    region: str
    action: str
    params: dict[str, Any]
    access_key: str
    outcome: str = "under way"
    """`ok`, an error code, or what the lab did: `dropped before`, `dropped after`."""
    effects: int = 0
    """How often it was carried out: 0 when it was refused or dropped before, 2 when it was delivered twice."""
    seconds: float = 0.0


@dataclass(eq=False)
class Gate:
    """A call that is held: `reached` is set when one is, `release()` lets it and all others go on."""

    after: bool
    reached: threading.Event = field(default_factory=threading.Event)
    _open: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self._open.set()

    def hold(self) -> None:
        self.reached.set()
        self._open.wait(120)


@dataclass(eq=False)
class Fault:
    """Done to the next `times` calls that match, after `skip` of them have passed. None: to all, until removed."""

    action: str  # may hold * and ?
    error: ApiError | None = None
    drop: bool = False
    after: bool = False  # after the effect, not before it
    delay: float = 0.0
    twice: bool = False
    gate: Gate | None = None
    times: int | None = 1
    skip: int = 0
    when: When | None = None
    region: str | None = None
    hits: int = 0

    def matches(self, request: Request) -> bool:
        if not fnmatchcase(request.action, self.action) or self.region not in (None, request.region):
            return False
        if self.when is None:
            return True
        if callable(self.when):
            return self.when(request)
        return all(_is(request.params.get(name), wanted) for name, wanted in self.when.items())


def _is(value: object, wanted: object) -> bool:
    if isinstance(wanted, (list, tuple, set, frozenset)):
        return value in wanted
    return value == wanted or (isinstance(wanted, str) and isinstance(value, str) and fnmatchcase(value, wanted))


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._guard = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._guard:
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        with self._guard:
            if fault in self._faults:
                self._faults.remove(fault)

    def clear(self) -> None:
        with self._guard:
            for fault in self._faults:
                if fault.gate is not None:
                    fault.gate.release()
            self._faults.clear()

    def take(self, request: Request) -> list[Fault]:
        """Those that this call meets, each counted. Of several errors and drops the first one alone."""
        taken: list[Fault] = []
        with self._guard:
            for fault in list(self._faults):
                ends = fault.error is not None or fault.drop
                if not fault.matches(request) or (ends and any(one.error or one.drop for one in taken)):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                taken.append(fault)
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
        return taken

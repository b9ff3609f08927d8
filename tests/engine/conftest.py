"""Links to real agents, without a maestro."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_stack import find_processes

from .engine_machine import Machine


@pytest.fixture
def make_machine(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Machine]]:
    monkeypatch.setenv("CLOUDSEND_AGENT_IDLE", "30")
    made: list[Machine] = []

    def make(**options: object) -> Machine:
        made.append(Machine(state_dir, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for machine in reversed(made):
        machine.close()
    while found := find_processes(state_dir):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def machine(make_machine: Callable[..., Machine]) -> Machine:
    return make_machine()

"""A real stack for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_stack import Stack
from seed_scripts import Scripts


@pytest.fixture
def stack(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("CLOUDSEND_AGENT_IDLE", "30")
    found = Stack(state_dir)
    yield found
    found.close()


@pytest.fixture
def script(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripts]:
    """Makes clients of the seeds' documents."""
    monkeypatch.chdir(stack.files)
    made = Scripts(stack)
    yield made
    for client in made.clients:
        client.close()

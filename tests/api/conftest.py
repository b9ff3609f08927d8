"""A real stack for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_stack import Stack


@pytest.fixture
def stack(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("CLOUDSEND_AGENT_IDLE", "30")
    found = Stack(state_dir)
    yield found
    found.close()

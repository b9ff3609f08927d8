"""Tests of what others may do to a user of cloudsend: machines, other users, strangers on the network, configs."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent.conftest import agent, agent_file, host, make_host  # noqa: F401 - fixtures: a real agent


@pytest.fixture
def fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with things in it that nobody may touch, and the directory of the test's process inside it."""
    root = tmp_path / "fence"
    here = root / "a" / "b" / "here"
    here.mkdir(parents=True)
    for folder in (root, root / "a", root / "a" / "b", here):
        (folder / "precious").write_bytes(b"the user's own")
    (root / "elsewhere").mkdir()
    monkeypatch.chdir(here)
    return root

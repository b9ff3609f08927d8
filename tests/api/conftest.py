"""A real stack for each test, or one for the tests of a file that do not disturb each other."""

from __future__ import annotations

import shutil
import tempfile
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


@pytest.fixture(scope="module")
def shared_maestro() -> Iterator[Stack]:
    directory = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUDSEND_AGENT_IDLE", "30")
        made = Stack(directory)
        yield made
        made.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def shared(shared_maestro: Stack, tmp_path: Path) -> Stack:
    """The maestro and the agent of all tests of the file. Configs, and so runs, are of each test alone."""
    shared_maestro.files = tmp_path / "files"
    shared_maestro.files.mkdir()
    return shared_maestro


@pytest.fixture
def script(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripts]:
    """Makes clients of the seeds' documents."""
    monkeypatch.chdir(stack.files)
    made = Scripts(stack)
    yield made
    for client in made.clients:
        client.close()

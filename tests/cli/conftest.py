"""The real command, with a state directory of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command

from cloudsend_cli.api import Client


@pytest.fixture
def cloudsend(state_dir: Path, tmp_path: Path) -> Iterator[Command]:
    command = Command(state_dir, tmp_path)
    yield command
    _end(command)


@pytest.fixture(scope="module")
def cloudsend_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """One state directory for several tests that only read, or add a run."""
    state_dir = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    command = Command(state_dir, tmp_path_factory.mktemp("work"))
    yield command
    _end(command)
    shutil.rmtree(state_dir, ignore_errors=True)


def _end(command: Command) -> None:
    """Leave nothing running."""
    with Client(command.state_dir, environ=command.environ) as client:
        for run in client.list_runs():
            if run.state == "running":
                client.cancel_run(run.id)
                client.wait([run.id], 20)
        client.maestro_stop()

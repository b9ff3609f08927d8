"""The real command, with a state directory of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm_maestros
from command_line import Command
from rented_machines import Ask, Line

from cloudsend_cli.api import Client
from cloudsend_cli.api.directory import Directory
from cloudsend_cli.cli.execute import execute
from cloudsend_cli.cli.session import Session
from cloudsend_cli.cli.settings import Settings
from cloudsend_cli.maestro import wiring
from cloudsend_cli.testing.fake_renter import FakeRenter


@pytest.fixture(scope="module", autouse=True)
def maestros() -> Iterator[None]:
    with warm_maestros.used({}):
        yield


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


# ---- rented machines ------------------------------------------------------------------------------------------------


@pytest.fixture
def renter(tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRenter:
    made = FakeRenter(tmp_path / "machines", "aws")
    # The place where implementations are chosen, as a provider of a later version would be.
    monkeypatch.setattr(wiring, "open_renter", lambda definition, state_dir: made)
    # A maestro is another process, which would ask AWS for these machines. See test_ec2_faults_clients for that.
    monkeypatch.setattr(Directory, "carry_on_rented", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    (state_dir / "aws").mkdir(mode=0o700)
    (state_dir / "aws" / "regions").write_text("eu-west-3\n")
    return made


@pytest.fixture
def line(renter: FakeRenter, state_dir: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Line]:
    """Carry out a line; its exit status, stdout and stderr."""
    client = Client(state_dir)
    session: Any = Session(Settings())
    session._clients = {None: client}

    def carry_out(*argv: str) -> tuple[int, str, str]:
        status = execute(argv, session)
        return status, *capfd.readouterr()

    yield carry_out
    client.close()


@pytest.fixture
def data(line: Line) -> Ask:
    def ask(*argv: str, status: int = 0) -> Any:
        found, out, err = line(*argv, "-o", "json")
        assert found == status, err
        return json.loads(out)

    return ask

"""What the dead man's switch of rented machines takes for work, of the real agent's real processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudsend_cli.agent.client import agent_source
from cloudsend_cli.providers.aws.userdata import read_script

from .conftest import Host, sh, wait_for


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Host]:
    """With an agent whose file is named as on machines."""
    path = tmp_path / "agent-0123456789abcdef.pyz"
    path.write_bytes(agent_source())
    host = Host(tmp_path / "h", path)
    yield host
    host.close()


@pytest.fixture
def works(tmp_path: Path) -> Callable[[Host], bool]:
    """The switch's own question, asked of a /proc that shows this host's processes alone."""
    script = tmp_path / "works"
    script.write_text(read_script().partition("\ncase $1 in\nboot)")[0] + "\nworks\n")

    def ask(host: Host) -> bool:
        proc = tmp_path / "proc"
        proc.mkdir(exist_ok=True)
        for old in proc.iterdir():
            old.unlink()
        for pid in host.processes():
            (proc / str(pid)).symlink_to(f"/proc/{pid}")
        env = {**os.environ, "CLOUDSEND_DEADMAN_PROC": str(proc), "CLOUDSEND_DEADMAN_STATE": str(tmp_path)}
        done = subprocess.run(["sh", str(script)], env=env, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode == 0

    return ask


def test_attempt_is_work_with_its_agent_and_without(deployed: Host, works: Callable[[Host], bool]) -> None:
    client = deployed.attach(resources={"cpus": 4, "memory": 1 << 30, "gpus": 0})
    assert not works(deployed), "an agent that waits"
    client.start(sh("r.1.1", "sleep 600"))
    client.running("r.1.1")
    assert works(deployed)
    jobs = deployed.jobs()
    deployed.crash(client)
    assert works(deployed), "its runner goes on without the agent"
    for pid in jobs:
        os.kill(pid, 9)
    wait_for(lambda: not works(deployed))


def test_runner_that_waits_for_work_is_none(deployed: Host, works: Callable[[Host], bool]) -> None:
    client = deployed.attach(resources={"cpus": 4, "memory": 1 << 30, "gpus": 0})
    client.run(sh("r.1.1", "true"))
    assert len(deployed.processes()) > 1, "the runner is kept for the next attempt"
    assert not works(deployed)

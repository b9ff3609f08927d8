"""The file to which a job writes its metrics: told with its end, kept through every death, and never a trap."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .conftest import Client, Host, sh, wait_for


def test_a_job_writes_its_file_and_its_end_says_how_long_it_is(agent: Client, host: Host) -> None:
    status = agent.run(sh("m.1", 'echo loss=0.5 >> "$CLOUDSEND_METRICS"; ls "$CLOUDSEND_RUN_DIR"'))
    assert status["metrics_size"] == len("loss=0.5\n")
    assert agent.stream("m.1", "metrics") == b"loss=0.5\n"
    assert agent.stream("m.1") == b"", "it does not lie among the outputs"
    assert (host.home / "attempts/m.1/metrics").stat().st_size == 9
    manifest = agent.call("manifest", attempt="m.1", patterns=["**"], logs=True)
    assert [item.get("stream") for item in manifest["files"]] == ["stdout", "stderr"]


def test_without_a_file_nothing_is_said(agent: Client) -> None:
    status = agent.run(sh("m.1", "true"))
    assert not [name for name in status if "metrics" in name]
    reply = agent.call("read", attempt="m.1", stream="metrics", offset=0, length=10)
    assert (reply.ok, reply.error_code) == (False, "not-found")


@pytest.mark.parametrize(
    "trap",
    [
        "mkfifo $CLOUDSEND_METRICS",
        "mkdir $CLOUDSEND_METRICS",
        "ln -s /etc/passwd $CLOUDSEND_METRICS",
        "ln -s /dev/zero $CLOUDSEND_METRICS",
        ": > $CLOUDSEND_METRICS",
    ],
)
def test_what_is_no_file_with_something_in_it_does_not_count(agent: Client, trap: str) -> None:
    status = agent.run(sh("m.1", trap))
    assert (status["exit_code"], status.get("metrics_size")) == (0, None)
    reply = agent.call("read", attempt="m.1", stream="metrics", offset=0, length=10)
    assert reply.payload == b""


@pytest.mark.parametrize("how", ["exit 3", "kill -9 $$", "sleep 60"])
def test_however_a_job_ends_what_it_wrote_is_there(agent: Client, how: str) -> None:
    agent.start(sh("m.1", f"echo a=1 >> $CLOUDSEND_METRICS; {how}", timeout=0.5))
    assert agent.wait("m.1")["metrics_size"] == 4


def test_kill_9_of_the_agent_loses_and_doubles_nothing(agent: Client, host: Host, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    agent.start(
        sh("m.1", f"echo a=1 >> $CLOUDSEND_METRICS; read x < {gate}; echo b=2 >> $CLOUDSEND_METRICS", cpus=0.1),
        sh("m.2", "echo c=3 >> $CLOUDSEND_METRICS", cpus=0.1),
    )
    agent.running("m.1")
    agent.wait("m.2")
    before = agent.report()["m.2"]
    host.crash(agent)
    gate.write_text("\n")
    again = host.attach()
    assert again.wait_for_report("m.1")["metrics_size"] == len("a=1\nb=2\n")
    assert again.stream("m.1", "metrics") == b"a=1\nb=2\n"
    assert again.report()["m.2"] == before
    host.crash(again)  # ... whose journal may have them by now
    third = host.attach()
    assert third.report()["m.2"] == before
    assert third.report()["m.1"]["metrics_size"] == 8
    inventory = third.call("inventory", after=None)["attempts"]
    assert {item["id"]: item["status"]["metrics_size"] for item in inventory} == {"m.1": 8, "m.2": 4}


def test_kill_9_of_the_runner_leaves_what_was_written(agent: Client, host: Host) -> None:
    agent.start(sh("m.1", "echo a=1 >> $CLOUDSEND_METRICS; exec sleep 60"))
    job = agent.running("m.1")
    written = host.home / "attempts/m.1/metrics"
    wait_for(lambda: written.exists() and written.stat().st_size)
    runner = int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(runner, signal.SIGKILL)
    status = agent.wait("m.1")
    assert (status["state"], status["metrics_size"]) == ("lost", 4)

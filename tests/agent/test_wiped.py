"""The home is deleted under running attempts, whole or in part: nothing runs twice, nothing is forgotten."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Client, Host, sh, wait_for
from .test_crash import alive

RESOURCES = {"cpus": 4, "memory": 1 << 30, "gpus": 2}


def wipe(host: Host) -> None:
    while host.home.exists():  # something may still be writing into it
        shutil.rmtree(host.home, ignore_errors=True)


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def waiting(ident: str, go: Path, ledger: Path, **more: Any) -> dict[str, Any]:
    return sh(ident, f"echo {ident} >> {ledger}; while [ ! -e {go} ]; do sleep 0.05; done; exit 5", **more)


def test_an_attempt_that_outlives_its_home_is_running_and_then_lost(host: Host, go: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    old = host.attach(resources=RESOURCES)
    spec = waiting("a.1", go, ledger, cpus=2, gpus=1, memory=1000)
    old.start(spec)
    job = old.running("a.1")
    wipe(host)
    wait_for(lambda: not alive(old.about["pid"]))
    new = host.attach(resources=RESOURCES)
    assert new.report()["a.1"]["state"] == "running"
    assert new.report()["a.1"]["orphan"] is True
    assert new.report()["a.1"]["pid"] == job
    assert new.call("report")["free"] == {"cpus": 2.0, "memory": (1 << 30) - 1000, "gpus": 1}
    assert host.attach(owner="other").report() == {}
    assert new.start(spec) == {"a.1": "duplicate"}
    assert new.start(sh("a.1", "echo another")) == {"a.1": "duplicate"}
    assert new.run(sh("b.1", "exit 3", gpus=1))["exit_code"] == 3
    go.touch()
    status = new.wait("a.1")
    assert (status["state"], status["cause"], status["exit_code"]) == ("lost", "home-deleted", None)
    assert not alive(job)
    assert new.call("report")["free"] == {"cpus": 4.0, "memory": 1 << 30, "gpus": 2}
    new.call("ack", attempts=["a.1"])
    assert new.start(spec) == {"a.1": "duplicate"}
    assert new.wait("a.1")["state"] == "lost"
    assert ledger.read_text() == "a.1\n"


def test_a_home_that_is_made_anew_at_once_starts_nothing_twice(host: Host, go: Path, tmp_path: Path) -> None:
    """The old daemon still lives, with a queue, when the new one takes the same orders."""
    ledger = tmp_path / "ledger"
    old = host.attach(resources={"cpus": 1, "memory": 0, "gpus": 0})
    specs = [waiting(f"a.{i}", go, ledger) for i in range(3)]
    old.start(*specs)
    old.running("a.0")
    wipe(host)
    new = host.attach(resources={"cpus": 1, "memory": 0, "gpus": 0})
    assert new.about["pid"] != old.about["pid"]
    assert new.start(*specs) == {"a.0": "duplicate", "a.1": "queued", "a.2": "queued"}
    wait_for(lambda: not alive(old.about["pid"]))
    assert (host.home / "agent.sock").exists()
    go.touch()
    new.wait("a.0", "a.1", "a.2")
    assert [new.status[f"a.{i}"]["state"] for i in range(3)] == ["lost", "exited", "exited"]
    assert sorted(ledger.read_text().split()) == ["a.0", "a.1", "a.2"]


def test_an_orphan_is_cancelled_with_all_its_processes(host: Host, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    script = f"setsid sleep 300 & (setsid env -i sh -c 'echo $$ > {hidden}; exec sleep 300' &); sleep 300"
    old = host.attach()
    old.start(sh("a.1", script), sh("a.2", "sleep 300"))
    old.running("a.1")
    bystander = old.running("a.2")
    wait_for(lambda: hidden.exists() and hidden.read_text())
    wipe(host)
    new = host.attach()
    assert new.call("cancel", attempts=["a.1"])["results"] == {"a.1": "killing"}
    status = new.wait("a.1")
    assert (status["state"], status["cause"]) == ("lost", "cancelled")
    assert not alive(int(hidden.read_text()))
    assert alive(bystander)
    assert new.report()["a.2"]["state"] == "running"


def test_an_orphan_stays_one_over_a_crash(host: Host, go: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    old = host.attach()
    old.start(waiting("a.1", go, ledger))
    job = old.running("a.1")
    wipe(host)
    wait_for(lambda: not alive(old.about["pid"]))
    new = host.attach()
    assert new.report()["a.1"]["orphan"] is True
    host.crash(new)
    again = host.attach()
    assert again.report()["a.1"] == {"state": "running", "started": None, "orphan": True, "pid": job}
    host.crash(again)
    go.touch()
    wait_for(lambda: not alive(job))
    assert host.attach().wait_for_report("a.1")["cause"] == "home-deleted"
    assert ledger.read_text() == "a.1\n"


def test_a_directory_deleted_under_a_running_attempt(host: Host, agent: Client, go: Path, tmp_path: Path) -> None:
    """The home stays, and so does its daemon."""
    ledger = tmp_path / "ledger"
    specs = [waiting("a.1", go, ledger), waiting("a.2", go, ledger)]
    agent.start(*specs)
    agent.running("a.1")
    agent.running("a.2")
    shutil.rmtree(host.home / "attempts/a.1")
    assert agent.start(specs[0]) == {"a.1": "duplicate"}
    assert not (host.home / "attempts/a.1").exists()
    host.crash(agent)
    shutil.rmtree(host.home / "attempts/a.2")
    again = host.attach()
    assert {ident: status["orphan"] for ident, status in again.report().items()} == {"a.1": True, "a.2": True}
    assert again.start(*specs) == {"a.1": "duplicate", "a.2": "duplicate"}
    go.touch()
    again.wait("a.1", "a.2")
    assert {again.status[ident]["cause"] for ident in ("a.1", "a.2")} == {"home-deleted"}
    assert sorted(ledger.read_text().split()) == ["a.1", "a.2"]


def test_a_directory_deleted_under_an_adopted_attempt(host: Host, agent: Client, go: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    spec = waiting("a.1", go, ledger)
    agent.start(spec)
    agent.running("a.1")
    host.crash(agent)
    again = host.attach()
    assert again.report()["a.1"]["state"] == "running"
    shutil.rmtree(host.home / "attempts/a.1")
    again.until(lambda: again.report()["a.1"].get("orphan"))
    assert again.start(spec) == {"a.1": "duplicate"}
    go.touch()
    assert again.wait("a.1")["cause"] == "home-deleted"
    assert ledger.read_text() == "a.1\n"


def test_an_environment_built_in_a_deleted_home_is_not_ready(host: Host, go: Path) -> None:
    old = host.attach()
    script = f"mkdir -p $CLOUDSEND_ENV/bin; while [ ! -e {go} ]; do sleep 0.05; done"
    old.start(sh("b.1", script, environment="k1", kind="build"))
    old.running("b.1")
    wipe(host)
    new = host.attach()
    go.touch()
    assert new.wait("b.1")["cause"] == "home-deleted"
    assert new.call("report")["environments"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
def test_nobody_else_can_claim_to_be_an_orphan(host: Host) -> None:
    run_dir = f"{host.home}/attempts/a.1/work"
    faker = subprocess.Popen(
        [sys.executable, "-c", "import os, signal; os.setuid(65534); print('ready', flush=True); signal.pause()"],
        env={"CLOUDSEND_ATTEMPT": "a.1", "CLOUDSEND_RUN_DIR": run_dir},
        stdout=subprocess.PIPE,
    )
    try:
        assert faker.stdout is not None
        assert faker.stdout.readline() == b"ready\n"
        agent = host.attach()
        assert agent.report() == {}
        assert agent.run(sh("a.1", "exit 3"))["exit_code"] == 3
        assert faker.poll() is None
    finally:
        faker.send_signal(signal.SIGKILL)
        faker.communicate()


@pytest.mark.parametrize(
    "takes", ["", "[]", "nonsense", '{"owner":7,"cpus":"x","memory":-1,"gpu_ids":[-1],"slots":{}}', "[" * 9999]
)
def test_an_orphan_that_says_nonsense_of_itself_counts_as_one_cpu(host: Host, takes: str) -> None:
    host.home.mkdir(mode=0o700)
    environ = {"CLOUDSEND_ATTEMPT": "a.1", "CLOUDSEND_RUN_DIR": f"{host.home}/attempts/a.1/work"}
    odd = subprocess.Popen(["sleep", "300"], env={**environ, "CLOUDSEND_TAKES": takes, "PATH": os.environ["PATH"]})
    try:
        agent = host.attach(resources=RESOURCES)
        assert agent.report()["a.1"]["orphan"] is True
        assert agent.call("report")["free"]["cpus"] == 3.0
        agent.call("cancel", attempts=["a.1"])
        wait_for(lambda: odd.poll() is not None)
        assert agent.wait("a.1")["cause"] == "cancelled"
    finally:
        odd.kill()
        odd.wait()


def test_a_home_that_is_made_anew_takes_no_order_that_was_meant_for_the_old_one(host: Host, tmp_path: Path) -> None:
    """What was executed in the old one is not known any more: whoever asks for it again has to learn that."""
    ledger = tmp_path / "ledger"
    old = host.attach()
    old.run(sh("a.1", f"echo a.1 >> {ledger}"))
    kept = host.attach()
    assert kept.boot == old.boot
    wipe(host)
    wait_for(lambda: not alive(old.about["pid"]))
    new = host.attach()
    assert new.boot != old.boot
    assert new.start(sh("a.1", f"echo a.1 >> {ledger}"), boot=old.boot) == {"a.1": "wrong-boot"}
    assert new.report() == {}
    assert ledger.read_text() == "a.1\n"

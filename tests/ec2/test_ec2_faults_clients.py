"""What happens to those who rent: they are killed, for a while or for ever, doubled, paused, copied; users interfere.

Numbers of the catalogue of faults: C of the client and its maestro, U of users. Every call: see test_ec2_crashes.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ec2_stack import LEDGER, PATIENCE, AtOnce, Ec2Stack, Hook, begins_early, play_together, together, wait_for
from ec2lab import Cloud, Instance
from real_stack import is_alive

from cloudsend_cli.api.cleaning import Found
from cloudsend_cli.errors import MaestroError, StateDirError
from cloudsend_cli.maestro.client import ensure_maestro

pytestmark = pytest.mark.slow
HELD = f"{LEDGER}; until [ -e ~/go ]; do sleep 0.05; done"
UNADOPTED = 30  # seconds, instead of twenty minutes
RESULTS_WAIT = 45  # seconds, instead of an hour
IDLE = 15  # the shortest that a switch is told
TICK = 5  # of the dead man's switch
SLACK = 30  # for two busy cores


@pytest.fixture(scope="module")
def at_once(one_cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[AtOnce]:
    one_cloud.reset()
    chosen = [getattr(item, "obj", None) for item in request.session.items if item.path == request.path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloudsend_cli.providers.aws.offers.UNADOPTED", UNADOPTED)
        one_cloud.machine_environ["CLOUDSEND_RESULTS_WAIT"] = str(RESULTS_WAIT)
        with play_together(one_cloud, chosen) as made:
            yield made


def submit(stack: Ec2Stack, command: str = LEDGER, jobs: int = 1, **machine: object) -> str:
    return stack.submit(instances=stack.machine(**{"idle": "0", **machine}), jobs=[command] * jobs)


def let_go(stack: Ec2Stack) -> None:
    for one in stack.alive:
        stack.ec2.host(one.id).sh("touch go")


def finish(stack: Ec2Stack, run: str, machines: int = 1) -> None:
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    stack.check_nothing_left(machines)


# ---- killed, and another one comes --------------------------------------------------------------------------------


def kill_at(stack: Ec2Stack, action: str, *, after: bool) -> None:
    run = submit(stack)
    fault = stack.kill_maestro_at(1, after=after, actions=[action])
    assert fault.gate is not None and fault.gate.reached.wait(PATIENCE)
    finish(stack, run)


@together
def test_c2_killed_after_the_intent_and_before_the_launch(stack: Ec2Stack) -> None:
    kill_at(stack, "RunInstances", after=False)
    tokens = {call.params["ClientToken"] for call in stack.calls_of("RunInstances")}
    assert len(tokens) == 1


@together
def test_c3_killed_after_the_launch_and_before_its_id_is_known(stack: Ec2Stack) -> None:
    kill_at(stack, "RunInstances", after=True)
    first, second, *_ = stack.calls_of("RunInstances")
    assert first.params == second.params, "repeated to the byte"


@together
def test_c4_killed_before_the_login(stack: Ec2Stack) -> None:
    kill_at(stack, "DescribeInstances", after=True)


@together
def test_c8_killed_after_the_results_and_before_the_machine_is_given_back(stack: Ec2Stack) -> None:
    kill_at(stack, "TerminateInstances", after=False)


# ---- killed, and nobody comes, ever -------------------------------------------------------------------------------


def check_bounded(stack: Ec2Stack, one: Instance, seconds: float) -> None:
    """It ended itself, soon enough to be paid for no longer than that; nothing of it is left."""
    stack.ec2.wait(one.id, "terminated", timeout=seconds + PATIENCE)
    assert stack.maestro() is None
    assert one.reason is not None and one.reason.code == "Client.InstanceInitiatedShutdown"
    (row,) = [row for row in stack.ec2.ledger() if row.instance_id == one.id]
    assert row.end is not None and row.end - row.start < seconds + TICK + SLACK
    assert stack.leaks() == []


@together
def test_dead_for_ever_at_the_launch(stack: Ec2Stack) -> None:
    submit(stack)
    fault = stack.kill_maestro_at(1, after=True, actions=["RunInstances"])
    assert fault.gate is not None and fault.gate.reached.wait(PATIENCE)
    (machine,) = stack.machines
    check_bounded(stack, machine, UNADOPTED)


@together
@begins_early
def test_dead_for_ever_in_mid_run_and_the_job_ends(stack: Ec2Stack) -> None:
    """What it holds is done; then it waits for somebody who takes the result, and then it is idle."""
    submit(stack, HELD, idle="8s")
    wait_for(lambda: len(stack.ledger()) == 1)
    stack.kill_maestro()
    (machine,) = stack.machines
    let_go(stack)
    check_bounded(stack, machine, 10 + RESULTS_WAIT + IDLE)
    (row,) = [row for row in stack.ec2.ledger() if row.instance_id == machine.id]
    assert row.end is not None and row.end - row.start > RESULTS_WAIT


@together
@begins_early
def test_dead_for_ever_in_mid_run_and_the_job_does_not_end(stack: Ec2Stack) -> None:
    submit(stack, HELD, life="30s")
    wait_for(lambda: len(stack.ledger()) == 1)
    stack.kill_maestro()
    (machine,) = stack.machines
    check_bounded(stack, machine, 30)


@together
def test_dead_for_ever_while_the_machine_waits_for_a_run(stack: Ec2Stack) -> None:
    run = submit(stack, f"{LEDGER}; sleep 6", idle="8s")
    stack.follow_to_end(run)
    wait_for(lambda: stack.maestro() is None)
    (machine,) = stack.machines
    assert stack.ec2.tags(machine.id)["cloudsend:run"] == "kept"
    check_bounded(stack, machine, 8 + 20)


@together
@begins_early
def test_away_for_longer_than_the_idle_time_and_the_results_are_there(stack: Ec2Stack) -> None:
    """Seen: a laptop slept, the machine ended with the results, and the job was silently done again."""
    run = stack.submit(
        instances=stack.machine(idle="8s"), jobs=[{"run": f"{HELD}; echo found > result", "output": "result"}]
    )
    wait_for(lambda: len(stack.ledger()) == 1)
    stack.kill_maestro()
    (machine,) = stack.machines
    let_go(stack)
    later = f"$(($(cut -d. -f1 /proc/uptime) + {IDLE + 2 * TICK}))"
    last = "$(cat /run/cloudsend-deadman/last)"  # when its switch has seen that it is used
    stack.ec2.host(machine.id).sh(f"later={later}; until [ {last} -gt $later ]; do sleep 0.5; done", root=True)
    assert stack.maestro() is None
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    assert [path.read_text() for path in (stack.files / "results").rglob("result")] == ["found\n"]
    wait_for(lambda: stack.maestro() is None)
    check_bounded(stack, machine, UNADOPTED + RESULTS_WAIT)
    assert f"it has been idle for {IDLE} seconds" in machine.console


# ---- doubled, copied, paused --------------------------------------------------------------------------------------


@together
def test_c14_commands_at_the_same_time(stack: Ec2Stack) -> None:
    """They are one after another in truth: one run, one machine."""
    config = stack.config(instances=stack.machine(idle="0"), jobs=[LEDGER])
    commands = [stack.start_cli("run", config, "-d") for _ in range(4)]
    said = [one.communicate(timeout=PATIENCE) for one in commands]
    assert [one.returncode for one in commands] == [0] * 4, said
    (run,) = stack.client.list_runs()
    finish(stack, run.id)


@together
@begins_early
def test_whoever_looks_has_the_machines_of_an_ended_run_given_back(stack: Ec2Stack) -> None:
    """A maestro that died over it is replaced by commands about machines or money, not only by the next run."""
    for number, words in enumerate(("gc", "list instances", "wait @last"), 1):
        fault = stack.kill_maestro_at(1, after=False, actions=["TerminateInstances"])
        run = submit(stack, f"{LEDGER}; : {words}")
        assert fault.gate is not None and fault.gate.reached.wait(PATIENCE)
        wait_for(lambda: stack.maestro() is None)
        assert not stack.is_over(run)
        assert "no maestro was running" in stack.cli(*words.split()) or "wait" in words
        wait_for(lambda run=run: stack.is_over(run), every=0.2)
        stack.wait_until_gone()
        assert len(stack.machines) == number


@together
def test_c15_a_copied_state_directory(stack: Ec2Stack) -> None:
    """It is read, and carries nothing on while the first one is there; adopted after that one is gone it does."""
    run = submit(stack, HELD)
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        other = Ec2Stack(Path(folder), stack.ec2, stack.region)
        wait_for(lambda: all(job.phase == "RUNNING" for job in stack.client.list_jobs(run)))
        stack.kill_maestro()
        shutil.copytree(stack.state, other.state, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
        try:
            for words, status in (("wait @last", 7), ("create instance -p aws", 2), ("kill run @last", 2)):
                assert f"{other.state} is a copy of {stack.state}:" in other.cli(*words.split(), status=status)
            with pytest.raises(MaestroError, match="is a copy of"):
                other.client.list_terminable()
            with pytest.raises(StateDirError):
                list(other.client.remove_excess(Found()))
            assert [job.phase for job in other.client.list_jobs(run)] == ["RUNNING"]
            assert len(stack.alive) == 1
            shutil.rmtree(stack.state)
            let_go(stack)
            other.client.maestro_adopt()
            other.follow_to_end(run)
            assert [job.state for job in other.client.list_jobs(run)] == ["succeeded"]
            other.give_back()
        finally:
            other.close()
    assert sorted(stack.ledger().values()) == [1]
    stack.wait_until_gone()
    assert stack.leaks() == []


def pause_maestro(stack: Ec2Stack) -> int:
    """Not while it commits: then nobody can write before it is ended."""
    pid = stack.maestro()
    assert pid is not None
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(stack.state / "state.db", timeout=0, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                return pid
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)


@together
def test_c17_paused_maestro_wakes_after_another_has_taken_over(stack: Ec2Stack) -> None:
    run = submit(stack, HELD)
    wait_for(lambda: len(stack.ledger()) == 1)
    paused = pause_maestro(stack)
    try:
        ensure_maestro(stack.state).close()
        let_go(stack)
        stack.settle(run)
    finally:
        os.kill(paused, signal.SIGCONT)
    wait_for(lambda: not is_alive(paused))
    assert "a newer maestro has taken over" in stack.log()
    finish(stack, run)


# ---- users --------------------------------------------------------------------------------------------------------


@together
def test_u1_gc_while_a_machine_is_launched(stack: Ec2Stack) -> None:
    """Neither the group, which no machine uses yet, nor the machine that nobody knows yet is left over."""
    gate = stack.ec2.hold("RunInstances", region=stack.region)
    run = submit(stack)
    assert gate.reached.wait(PATIENCE)
    assert stack.cli("gc", "--yes", "-o", "json").strip() == "[]"
    gate.release()
    wait_for(lambda: stack.machines)
    assert stack.cli("gc", "--yes", "-o", "json").strip() == "[]"
    finish(stack, run)


@together
def test_u1_kill_twice_while_a_machine_is_launched(stack: Ec2Stack) -> None:
    """The launch is followed up until the machine has an id, and that one is ended."""
    gate = stack.ec2.hold("RunInstances", after=True, region=stack.region)
    run = submit(stack)
    assert gate.reached.wait(PATIENCE)
    stack.cli("kill", "run", run, status=None)
    stack.cli("kill", "run", run, status=None)
    gate.release()
    stack.follow_to_end(run)
    assert {job.state for job in stack.jobs(run).values()} == {"cancelled"}
    assert not stack.ledger()
    stack.check_nothing_left(1)


@together
@begins_early
def test_u2_state_directory_is_deleted(stack: Ec2Stack) -> None:
    """The machine ends itself; the gc of somebody else in the same account neither shows nor touches it."""
    submit(stack, HELD, idle="8s", life="40s")
    wait_for(lambda: len(stack.ledger()) == 1)
    pid = stack.maestro()
    assert pid is not None
    (machine,) = stack.machines
    shutil.rmtree(stack.state)
    wait_for(lambda: not is_alive(pid))
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        other = Ec2Stack(Path(folder), stack.ec2, stack.region)
        try:
            run = submit(other)
            other.follow_to_end(run)
            assert machine.id not in other.cli("gc", "--yes", status=None)
            assert machine.id not in other.cli("list", "instances")
            assert machine.id not in str([call.params for call in stack.calls_of("TerminateInstances")])
        finally:
            other.close()
    stack.ec2.wait(machine.id, "terminated", timeout=PATIENCE)
    assert machine.reason is not None and machine.reason.code == "Client.InstanceInitiatedShutdown"
    assert stack.leaks() == []


@together
def test_u3_terminate_is_cut_off_and_comes_again(stack: Ec2Stack) -> None:
    run = submit(stack, f"{LEDGER}; sleep 6", idle="60s")
    stack.follow_to_end(run)
    hook = Hook(lambda: command.kill())  # noqa: PLW0108 - there is no process yet
    fault = stack.ec2._fault("TerminateInstances", gate=hook, drop=True, region=stack.region)
    command = stack.start_cli("terminate", "instance", "--all", "--yes")
    command.communicate(timeout=PATIENCE)
    assert (fault.hits, command.returncode) == (1, -signal.SIGKILL)
    (machine,) = stack.alive
    assert machine.id in stack.cli("list", "instances", "-o", "json")
    stack.cli("terminate", "instance", "--all", "--yes")
    stack.check_nothing_left(1)

"""What AWS does to calls of a whole cloudsend: answers that are lost, errors, lists that lag; and a dead machine.

Numbers of the catalogue of faults: P2 lost answers, P3 errors, P6 lags, P9 machines that never come up. Calls of
commands: see test_ec2_faults_commands.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ec2_stack import CHANGING, LEDGER, Ec2Stack, in_parallel, stack_of, wait_for
from ec2_strikes import KINDS, is_change, strike
from ec2lab import Cloud, Fault

JOBS = 3
ATTEMPTS = 2  # of the SDK at each call, instead of four: it waits seconds between them
TIMES = {
    "cloudsend_cli.providers.aws.clients.ATTEMPTS": ATTEMPTS,
    "cloudsend_cli.maestro.loop.Policy": {"create_retry": 2.0},  # seconds, instead of ten
}


@pytest.fixture
def stack(ec2: Cloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ec2Stack]:
    monkeypatch.setenv("CLOUDSEND_MAESTRO_LINGER", "0.2")
    with stack_of(ec2, state_dir) as made:
        yield made


def submit(stack: Ec2Stack, machines: int = 1, jobs: int = JOBS, command: str = LEDGER, **machine: object) -> str:
    return stack.submit(instances=stack.machine(number=machines, **{"idle": "0", **machine}), jobs=[command] * jobs)


def finish(stack: Ec2Stack, run: str, machines: int = 1) -> None:
    stack.follow_to_end(run)
    stack.check_jobs(run, JOBS)
    stack.check_nothing_left(machines)


# ---- P2, P3 -------------------------------------------------------------------------------------------------------


def play_struck(stack: Ec2Stack, kind: str) -> None:
    """A machine is rented and kept, and taken by the next run, which has another one that it gives back."""

    def struck(*actions: str) -> list[Fault]:
        return [strike(stack.ec2, action, kind, stack.region, ATTEMPTS) for action in actions]

    faults = struck("CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances", "CreateTags")
    # It is kept as soon as its agent has told that it watches over itself.
    kept = submit(stack, command=f"{LEDGER}; sleep 6", jobs=1, idle="60s")
    stack.follow_to_end(kept)
    stack.check_jobs(kept, 1)
    faults += struck("CreateTags", "TerminateInstances")
    wanted = [stack.machine(idle="60s"), stack.machine(idle="0")]
    run = stack.submit(fresh=True, instances=wanted, jobs=[{"run": LEDGER, "cpus": 2}] * 2)
    stack.follow_to_end(run)
    stack.check_jobs(run, 2, earlier=1)
    assert {fault.action for fault in faults} == {*CHANGING}
    missed = [fault.action for fault in faults if not fault.hits]
    assert not missed, f"not called: {missed}"
    changes = {call.action for call in stack.calls_of(*{call.action for call in list(stack.ec2.calls)})}
    assert {action for action in changes if is_change(action)} == {*CHANGING}, "each change of a run is struck"
    stack.check_nothing_left(2)


@pytest.mark.slow
def test_p2_p3_no_answer_to_any_change(stack: Ec2Stack) -> None:
    """Of each call that changes something: answer lost, call lost, an error before and after its effect."""

    def one(kind: str) -> Callable[[Ec2Stack], None]:
        def play(stack: Ec2Stack) -> None:
            try:
                play_struck(stack, kind)
            except Exception as problem:
                raise AssertionError(kind) from problem

        return play

    in_parallel(stack.ec2, [one(kind) for kind in KINDS])


# ---- P6 -----------------------------------------------------------------------------------------------------------


def test_p6_lists_that_lag_kill_nothing_and_double_nothing(stack: Ec2Stack) -> None:
    """Not found after its launch, states of seconds ago, pages of one; then lists that are empty in mid-run."""
    lag = stack.ec2.lag
    lag.hidden, lag.stale, lag.page = 3, 1, 1
    run = submit(stack, 2)
    wait_for(lambda: len(stack.machines) == 2)
    assert stack.cli("gc", "--yes", "-o", "json").strip().endswith("[]"), "gc during it ends nothing"
    lag.empty = 4
    finish(stack, run, 2)


# ---- P9 -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_p9_machine_without_sshd_ends_itself_and_the_next_is_used(
    stack: Ec2Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudsend_cli.providers.aws.offers.UNADOPTED", 10)
    stack.ec2.break_next("no sshd")
    run = submit(stack, jobs=1)
    wait_for(lambda: stack.machines and stack.machines[0].boots)
    (first,) = stack.machines
    shown = stack.cli("info", "instance", first.id, "--console")
    assert "console:" in shown and "nothing yet" not in shown, shown
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    assert first.reason is not None and first.reason.code == "Client.InstanceInitiatedShutdown"
    stack.check_nothing_left(len(stack.machines))

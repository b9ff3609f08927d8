"""Machines that do not come up in time, whose life ends in the middle of a run, and many that all have some trouble.

Numbers of the catalogue of faults: P9 machines that never come up, U1 users who interfere, U4 many of everything, as
many as the catalogue says with CLOUDSEND_CAMPAIGN=full.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import scaled_maestro
from campaigns import FULL
from cloud_command import until
from ec2_stack import LEDGER, PATIENCE, AtOnce, Ec2Stack, play_together, together
from ec2lab import Cloud, Instance
from ec2lab.instance import GONE, USER
from ssh_faults import agent_pid

from cloudsend_cli.errors import NotFoundError, ResultError, UnreachableError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
BOOT_LIMIT = 15  # seconds, instead of fifteen minutes
LOGIN_LIMIT = 5  # ... instead of five minutes
LEAST_IDLE = 5  # ... instead of a minute
LIFE = 40  # ... instead of a day; its end is announced 15 s before
MACHINES, JOBS, MOST = (50, 500, 900.0) if FULL else (8, 80, PATIENCE)
HELD = f"{LEDGER}; until [ -e ~/go ]; do sleep 0.05; done"


@pytest.fixture(scope="module")
def at_once(one_cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[AtOnce]:
    one_cloud.reset()
    chosen = [getattr(item, "obj", None) for item in request.session.items if item.path == request.path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloudsend_cli.engine.hiring.LOGIN_LIMIT", LOGIN_LIMIT)
        with play_together(one_cloud, chosen) as made:
            yield made


def submit(stack: Ec2Stack, *commands: str, retries_lost: int | None = None, **machine: object) -> str:
    jobs = [
        {"name": f"job-{number}", "run": command, **({} if retries_lost is None else {"retries_lost": retries_lost})}
        for number, command in enumerate(commands or [LEDGER])
    ]
    return stack.submit(instances=stack.machine(**{"idle": "0", **machine}), jobs=jobs)


class Releaser:
    """Lets what is held on machines go, also on those that come later."""

    def __init__(self, stack: Ec2Stack) -> None:
        self._stack = stack
        self._released: set[str] = set()

    def __call__(self) -> None:
        for one in self._stack.alive:
            if one.id not in self._released and one.state == "running" and one.boots:
                with suppress(LookupError):
                    self._stack.ec2.host(one.id).sh("touch go")
                    self._released.add(one.id)


def why(one: Instance) -> str:
    return one.reason.code if one.reason is not None else ""


# ---- P9 ------------------------------------------------------------------------------------------------------------


@contextmanager
def scaled(stack: Ec2Stack) -> Iterator[None]:
    """The stack's maestro is the one with less patience."""
    stack.state.mkdir(mode=0o700, exist_ok=True)
    read, write = os.pipe()
    limits = [str(BOOT_LIMIT), str(LEAST_IDLE)]
    words = [sys.executable, scaled_maestro.__file__, *limits, str(stack.state), str(write)]
    environ = {**os.environ, "CLOUDSEND_MAESTRO_LINGER": "60"}
    with open(stack.state / "maestro.log", "ab") as log:
        process = subprocess.Popen(words, cwd="/", env=environ, stdout=log, stderr=log, pass_fds=(write,))
    os.close(write)
    try:
        with open(read, encoding="ascii") as first:
            assert first.read() == "ready", stack.log()
        yield
        assert process.poll() is None, "it was this one all the time"
    finally:
        process.kill()
        process.wait()


def never_up(stack: Ec2Stack, how: str) -> None:
    """It is given back by the maestro alone, what it wrote can be read meanwhile, and the job is done elsewhere."""
    stack.ec2.break_next(how, region=stack.region)
    with scaled(stack):
        run = submit(stack)
        until(lambda: stack.machines and stack.machines[0].state == "running", MOST)
        first = stack.machines[0]
        shown = stack.cli("info", "instance", first.id, "--console")
        assert "console" in shown and first.id in shown, shown
        stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    assert why(first) == USER.code and len(stack.machines) > 1
    (row,) = [row for row in stack.ec2.ledger() if row.instance_id == first.id]
    assert row.end is not None and row.end - row.start >= BOOT_LIMIT
    stack.check_nothing_left(len(stack.machines))


@together
def test_p9_machine_without_sshd_is_given_back_by_the_maestro(stack: Ec2Stack) -> None:
    never_up(stack, "no sshd")


@together
def test_p9_machine_without_cloud_init_is_given_back_by_the_maestro(stack: Ec2Stack) -> None:
    """It has no switch of its own: nobody else would end it."""
    never_up(stack, "no cloud-init")


@together
def test_p9_machine_that_hangs_at_its_start_is_given_back_by_the_maestro(stack: Ec2Stack) -> None:
    never_up(stack, "no machine")


@together
def test_p9_machine_of_a_command_that_never_comes_up_is_told(stack: Ec2Stack) -> None:
    """With its name, what to do next, and nothing that is hidden from the lists of what is paid for."""
    stack.ec2.break_next("no sshd", region=stack.region)
    with pytest.raises(UnreachableError, match="was rented and cannot be logged in to") as told:
        stack.client.create_instance("aws", ["type=m7i.large", f"region={stack.region}"])
    (machine,) = stack.machines
    assert f"terminate instance {machine.id}" in told.value.hint
    assert machine.id in stack.cli("list", "instances", "-o", "json")
    stack.cli("terminate", "instance", machine.id)
    stack.check_nothing_left(1)


# ---- the end of a life -----------------------------------------------------------------------------------------


TOLD = "trap 'echo TERM >> kept/said; echo told; exit 3' TERM; mkdir -p kept"
GOES_ON = f'{TOLD}; cat "${{CLOUDSEND_RESUME_DIR:-/none}}/kept/said" > out; {HELD}'


def life_of(stack: Ec2Stack, one: Instance) -> float:
    stack.ec2.wait(one.id, "terminated")
    (row,) = [row for row in stack.ec2.ledger() if row.instance_id == one.id]
    assert row.end is not None
    return row.end - row.start


@together
def test_job_that_outlives_its_machine_goes_on_from_what_it_left(stack: Ec2Stack) -> None:
    """Seen: without TERM and without what it persisted it began from nothing, and nothing named `life`."""
    hook = 'mkdir -p kept; echo "hook at $CLOUDSEND_PREEMPT_AT" >> kept/said'
    long = {"name": "long", "run": GOES_ON, "persist": "kept/", "output": "out", "on_preempt": hook}
    run = stack.submit(
        instances=stack.machine(idle="0", life=f"{LIFE}s"), jobs=[{"name": "short", "run": LEDGER}, long]
    )
    until(lambda: len(stack.ledger()) == 2, MOST)
    (first,) = stack.machines
    until(lambda: len(stack.ledger()) == 3, MOST)
    assert LIFE - 20 <= life_of(stack, first) <= LIFE + 10
    Releaser(stack)()
    stack.follow_to_end(run)
    jobs = {job.name: job for job in stack.jobs(run).values()}
    assert [(jobs[name].state, jobs[name].attempt) for name in ("short", "long")] == [
        ("succeeded", 1),
        ("succeeded", 2),
    ]
    assert sorted(stack.ledger().values()) == [1, 1, 1], "what was done is not done again"
    (out,) = (stack.files / "results").rglob("out")
    hooked, term = out.read_text().splitlines()
    assert hooked.startswith("hook at 20") and term == "TERM"
    told = stack.cli("explain", f"{run}.2")
    assert "its machine's `life` was over" in told and "`retries_lost`" in told, told
    stack.check_nothing_left(2)


@together
def test_job_that_may_not_be_lost_fails_with_its_log_and_its_results_at_home(stack: Ec2Stack) -> None:
    """... and its reason names `eco_life`. No second machine is rented for it."""
    job = {"name": "long", "run": GOES_ON, "output": ["out", "kept/"], "retries_lost": 0}
    run = stack.submit(instances=stack.machine(idle="0", eco_life=f"{LIFE}s", spot=True), jobs=[job])
    stack.follow_to_end(run)
    (ended,) = stack.jobs(run).values()
    assert (ended.state, ended.attempt) == ("failed", 1)
    assert "`eco_life` was over" in ended.reason, ended.reason
    assert stack.cli("tail", f"{run}.1") == "told\n"
    (said,) = (stack.files / "results").rglob("said")
    assert said.read_text() == "TERM\n"
    (machine,) = stack.machines
    assert machine.market == "spot" and life_of(stack, machine) <= LIFE + 10
    stack.check_nothing_left(1)


@together
def test_what_went_with_a_machine_is_said_to_be_gone(stack: Ec2Stack) -> None:
    """Seen: `tail` told of a connection that is not there now, and `fetch` that there was nothing to fetch."""
    run = stack.submit(
        instances=stack.machine(idle="0"), jobs=[{"name": "j", "run": HELD, "output": "out", "retries_lost": 0}]
    )
    until(lambda: len(stack.ledger()) == 1, MOST)
    (machine,) = stack.machines
    stack.ec2.host(machine.id).sh("shutdown -h now", root=True)
    stack.follow_to_end(run)
    stack.ec2.wait(machine.id, "terminated")
    with pytest.raises(NotFoundError, match="its log went with its machine aws-0, which was shut down from within"):
        b"".join(stack.client.read_log(f"{run}.1"))
    for ref in (f"{run}.1", run):
        with pytest.raises(ResultError, match="j: gone with aws-0, which was shut down from within"):
            stack.client.fetch(ref)
    stack.check_nothing_left(1)


# ---- users -------------------------------------------------------------------------------------------------------


@together
def test_u1_machines_are_ended_while_they_are_launched(stack: Ec2Stack) -> None:
    """Those of a run are left alone; who insists ends them, and the run rents others."""
    gate = stack.ec2.hold("RunInstances", after=True, region=stack.region)
    run = submit(stack, HELD)
    assert gate.reached.wait(PATIENCE)
    (first,) = stack.machines
    assert "nothing is rented but what runs use" in stack.cli("terminate", "instance", "--all", "--yes")
    assert first.state not in GONE
    stack.cli("terminate", "instance", "--all", "--yes", "--force")
    assert first.state in GONE
    gate.release()
    release = Releaser(stack)
    until(lambda: release() or stack.is_over(run), MOST)
    assert [job.state for job in stack.jobs(run).values()] == ["succeeded"]
    assert {*stack.ledger().values()} == {1}
    stack.check_nothing_left(2)


# ---- many of everything ------------------------------------------------------------------------------------------

TROUBLES = ("cut off", "agent killed", "ended", "taken back", "power failed")[: 5 if FULL else 3]
HARMLESS = {"cut off", "agent killed"}  # what is executed there goes on


def trouble(ec2: Cloud, one: Instance, what: str) -> None:
    host = ec2.host(one.id)
    if what == "cut off":
        host.partition()
    elif what == "agent killed":
        host.kill(agent_pid(host))
    elif what == "ended":
        ec2.terminate(one.id)
    elif what == "taken back":
        ec2.reclaim(one.id)
    else:
        ec2.stop(one.id, force=True)
        ec2.wait(one.id, "stopped")
        ec2.start(one.id)


@pytest.mark.campaign("machines of which some have trouble")
@together
def test_u4_many_jobs_on_many_machines_of_which_some_have_trouble(stack: Ec2Stack) -> None:
    """Each is accounted for: done, in an attempt that was executed once, and again only where a machine was lost."""
    run = submit(stack, *[HELD] * JOBS, number=MACHINES)
    until(lambda: len(stack.ledger()) == 2 * MACHINES, MOST)
    begun = {int(attempt.split(".")[1]) for attempt in stack.ledger()}
    nodes = {node.instance_id: name for name, node in stack.nodes(run).items()}
    chosen = [*zip(stack.machines, TROUBLES, strict=False)]
    harmed = {nodes[one.id] for one, what in chosen if what not in HARMLESS}
    cut = {nodes[one.id] for one, what in chosen if what == "cut off"}
    lost = {job.number for job in stack.jobs(run).values() if job.instance in harmed} & begun
    for one, what in chosen:
        trouble(stack.ec2, one, what)
    release = Releaser(stack)

    def is_done_but_there() -> bool:
        release()
        return all(job.state == "succeeded" or job.instance in cut for job in stack.jobs(run).values())

    until(is_done_but_there, MOST)
    for one, what in chosen:
        if what == "cut off":
            stack.ec2.host(one.id).heal()
    until(lambda: release() or stack.is_over(run), MOST)
    jobs, ledger = stack.jobs(run).values(), stack.ledger()
    assert [job.state for job in jobs] == ["succeeded"] * JOBS
    assert {*ledger.values()} == {1}, "an attempt is executed once"
    assert all(ledger[f"{run}.{job.number}.{job.attempt}"] == 1 for job in jobs)
    executed = Counter(int(attempt.split(".")[1]) for attempt in ledger)
    assert {number for number, count in executed.items() if count > 1} == lost
    assert max(executed.values()) <= 2
    # What was lost is replaced where the jobs that are left have no room on the others.
    machines = len(stack.machines)
    assert MACHINES <= machines <= MACHINES + sum(what in {"ended", "taken back"} for what in TROUBLES)
    stack.check_nothing_left(machines)

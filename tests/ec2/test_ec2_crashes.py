"""Maestros and commands are killed at the edges of what they ask of AWS: no machine is leaked, none is doubled.

Points are sampled; CLOUDSEND_CAMPAIGN=full takes every call, and more seeds of the chains.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from campaigns import FULL, pick
from cloud_user import surroundings
from ec2_stack import LEDGER, Ec2Stack, Hook, in_parallel, wait_for
from ec2lab import Cloud

from cloudsend_cli.maestro.client import ensure_maestro

JOBS, MACHINES = 3, 2
BEFORE, AFTER = False, True
SAMPLE = {
    "kept": ((4, BEFORE), (9, AFTER)),
    "given back": ((5, AFTER), (10, BEFORE)),
    "taken again": ((3, AFTER), (6, BEFORE)),
}  # calls of a maestro, of ten to twenty
EVERY = [(number, after) for number in range(1, 21) for after in (BEFORE, AFTER)]
SEEDS = pick(1, 24)  # of chains

CAMPAIGN = pytest.mark.campaign("kills of maestros that rent")
Summary = Callable[[str], None]


@pytest.fixture
def cloud(ec2: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("CLOUDSEND_MAESTRO_LINGER", "0.2")
    with surroundings(ec2):
        yield ec2
    assert ec2.failures == []


@dataclass(frozen=True)
class Point:
    """`story`: what becomes of the machines. The maestro is killed at its call of this number."""

    story: str
    number: int
    after: bool

    def __str__(self) -> str:
        return f"{self.story}, {'after' if self.after else 'before'} call {self.number}"


def submit(stack: Ec2Stack, *, fresh: bool = False) -> str:
    machine = stack.machine(number=MACHINES, idle="120s")
    return stack.submit(fresh=fresh, instances=machine, jobs=[LEDGER] * JOBS)


def kill_once(stack: Ec2Stack, point: Point) -> bool:
    """A run whose maestro is killed at the point. False: it made fewer calls than that."""
    taken = point.story == "taken again"
    if taken:
        stack.follow_to_end(submit(stack))
    waiting, before = len(stack.alive), len(stack.machines)
    run = submit(stack, fresh=taken)
    fault = stack.kill_maestro_at(point.number, after=point.after)
    stack.follow_to_end(run)
    stack.ec2.lift(fault)
    stack.check_jobs(run, JOBS, earlier=JOBS * taken)
    stack.check_nothing_left(before + MACHINES - waiting)
    return fault.hits > 0


class Killer(threading.Thread):
    """Kills the maestros of a run one after another, each at a moment of its own, and starts the next."""

    def __init__(self, stack: Ec2Stack, run: str, seed: str, times: int) -> None:
        super().__init__(daemon=True)
        self.stack, self.target, self.times = stack, run, times
        self.random = random.Random(seed)
        self.killed: list[str] = []
        self.problem: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            while len(self.killed) < self.times and not self.stack.is_over(self.target):
                self.kill_one()
        except Exception as problem:  # noqa: BLE001 - the test shows it
            self.problem = problem

    def kill_one(self) -> None:
        ensure_maestro(self.stack.state).close()
        how = self.random.choice(["call", "call", "call", "line", "moment"])
        if how == "call":
            number, after = self.random.randint(1, 4), self.random.random() < 0.5
            fault = self.stack.kill_maestro_at(number, after=after)
            assert fault.gate is not None
            reached = self.wait(fault.gate.reached.is_set, 6)
            self.stack.ec2.lift(fault)
            if reached:
                self.killed.append(f"{'after' if after else 'before'} call {number}")
            return
        if how == "line":
            lines = self.stack.log().count("\n") + self.random.randint(1, 2)
            self.wait(lambda: self.stack.log().count("\n") >= lines, 3)
        else:
            self.wait(lambda: False, self.random.uniform(0.2, 3))
        if self.stack.kill_maestro():
            self.killed.append(how)

    def wait(self, happened: Callable[[], bool], seconds: float) -> bool:
        """Until it has, the run is over, or so long."""
        now = look = time.monotonic()
        until = now + seconds
        while not happened() and now < until:
            if now >= look:  # it reads the database
                look = now + 0.2
                if self.stack.is_over(self.target):
                    break
            time.sleep(0.02)
            now = time.monotonic()
        return happened()


def kill_again_and_again(stack: Ec2Stack, seed: int, runs: int, kills: int) -> int:
    """Runs of one project after another, whose maestros are killed at each turn. How many were."""
    count = 0
    for number in range(runs):
        waiting, before = len(stack.alive), len(stack.machines)
        run = submit(stack, fresh=number > 0)
        killer = Killer(stack, run, f"{seed} {number}", kills)
        stack.follow_to_end(run, 120)
        killer.join(60)
        assert killer.problem is None, killer.problem
        count += len(killer.killed)
        told = (number, killer.killed, before, waiting)
        stack.check_jobs(run, JOBS, earlier=JOBS * number)
        assert len(stack.machines) == before + MACHINES - waiting, told
    stack.check_nothing_left(len(stack.machines))
    return count


@pytest.mark.slow
@CAMPAIGN
@pytest.mark.parametrize("story", ["kept", "given back", "taken again"])
def test_maestro_killed_around_each_call(cloud: Cloud, story: str, summary_line: Summary) -> None:
    if story == "given back":
        cloud.deny("CreateTags")  # what cannot be kept is ended by the maestro
    points = [Point(story, number, after) for number, after in (EVERY if FULL else SAMPLE[story])]

    def one(stack: Ec2Stack, point: Point) -> bool:
        try:
            return kill_once(stack, point)
        except Exception as problem:
            raise AssertionError(f"{point}: {problem!r}\n{stack.log()[-2000:]}") from problem

    reached = in_parallel(cloud, [lambda stack, point=point: one(stack, point) for point in points])
    summary_line(f"crashes of AWS: {story}: {sum(map(bool, reached))} points, no leak, no double")


def kill_command(stack: Ec2Stack, number: int) -> int:
    """The command that submits is killed at its call of this number, 0: when it has committed; then it comes again."""
    config = stack.config(instances=stack.machine(number=MACHINES, idle="120s"), jobs=[LEDGER] * JOBS)
    hook = Hook(lambda: process.kill())  # noqa: PLW0108 - there is no process yet
    fault = stack.ec2._fault("*", gate=hook, drop=True, skip=number - 1, region=stack.region) if number else None
    process = stack.start_cli("run", config, "-d")
    if not number:
        wait_for(lambda: process.poll() is not None or stack.client.list_runs())
        process.kill()
    process.communicate(timeout=30)
    if fault is not None:
        stack.ec2.lift(fault)
    stack.cli("run", config, "-d")
    (run,) = stack.client.list_runs()
    stack.follow_to_end(run.id)
    stack.check_jobs(run.id, JOBS)
    stack.check_nothing_left(MACHINES)
    return process.returncode == -signal.SIGKILL


@CAMPAIGN
def test_c1_command_killed_while_it_submits(cloud: Cloud, summary_line: Summary) -> None:
    numbers = pick((0, 6), range(8))
    killed = in_parallel(cloud, [lambda stack, number=number: kill_command(stack, number) for number in numbers])
    summary_line(f"crashes of AWS: {sum(killed)} commands killed while they submitted, no leak, no double")


@pytest.mark.slow
@CAMPAIGN
def test_c9_c13_maestros_killed_one_after_another(cloud: Cloud, summary_line: Summary) -> None:
    """Double crashes too: also those that mend what a crash has left are killed."""

    def one(stack: Ec2Stack, seed: int) -> int:
        try:
            return kill_again_and_again(stack, seed, runs=2, kills=3)
        except Exception as problem:
            raise AssertionError(f"seed {seed}: {problem!r}\n{stack.log()[-2000:]}") from problem

    seeds = range(1, SEEDS + 1)
    killed = in_parallel(cloud, [lambda stack, seed=seed: one(stack, seed) for seed in seeds])
    summary_line(f"crashes of AWS: {sum(killed)} maestros killed in {len(seeds)} chains, no leak, no double")

"""Worlds by seed: each switches on a random subset of all faults until a moment of healing, and then must settle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from cloudsend_cli.core.model import FINAL_STATES, JobGroup, JobSpec, Output, Resources

from .fake_machine import JobPlan
from .scenarios import lose_disk, make_job, make_plan, partition, preempt, reboot, restart_agent
from .world import Scenario, World

HEALING = 150.0
MESSAGES = ("lost", "lost-reply", "duplicate", "late")
REFUSALS = ("capacity", "lost", "lost-reply", "duplicate")
EVENTS: dict[str, Callable[[World, str], None]] = {
    "preemption": preempt,
    "termination": lambda world, node: preempt(world, node, "terminated"),
    "partition": partition,
    "reboot": reboot,
    "disk loss": lose_disk,
    "agent restart": restart_agent,
}
KINDS = (
    *EVENTS,
    "crash",
    "messages",
    "cloud",
    "lag",
    "blindness",
    "cancel",
    "second maestro",
    "slow calls",
    "forgetful",
)


def make_scenario(seed: int) -> Scenario:
    """The same seed gives the same world, to the last message."""
    random = Random(seed)
    kinds = frozenset(kind for kind in KINDS if random.random() < 0.4)
    count, nodes = random.randint(1, 7), random.randint(1, 3)
    jobs = [_make_job(random, i) for i in range(count)]
    jobs, groups = _put_in_sections(Random(f"{seed} sections"), jobs)
    plans = {job.name: tuple(_make_plan(random) for _ in range(3)) for job in jobs}
    return Scenario(
        f"seed {seed}: {', '.join(sorted(kinds))}",
        make_plan(*jobs, nodes=nodes, max_parallel=random.choice((None, None, 1, 2)), groups=groups),
        lambda world: _set_up(world, Random(seed + 1), kinds, nodes),
        jobs={**plans, "environment tools": (JobPlan(3.0, random.choice((0, 0, 0, 1))),)},
        allowed={job.name: tuple(FINAL_STATES) for job in jobs},
        maestros=2 if "second maestro" in kinds else 1,
        slow_calls=random.choice((0.5, 4.0)) if "slow calls" in kinds else 0.0,
        restart_after=random.choice((0.5, 3.0, 30.0)),
        deadline=6000.0,
    )


def _make_job(random: Random, i: int) -> JobSpec:
    after = tuple(f"j{d}" for d in range(i) if random.random() < 0.15)
    return make_job(
        f"j{i}",
        after=after,
        retries=random.choice((0, 0, 1, 2)),
        retries_lost=random.choice((0, 1, 1, 3)),
        resources=Resources(random.choice((0.5, 1.0, 2.0))),
        environment=random.choice(("", "", "e1")),
        outputs=random.choice(((), (), (Output("out"),))),
        timeout=random.choice((None, None, 6.0)),
    )


def _put_in_sections(random: Random, jobs: list[JobSpec]) -> tuple[list[JobSpec], tuple[JobGroup, ...]]:
    """In some worlds. Stages rise with the jobs' numbers, as each waits for lower ones only."""
    if random.random() < 0.6:
        return jobs, ()
    slots = [tuple((("--gpu", random.choice("01")),) for _ in range(random.randint(1, 3))) for _ in range(4)]
    names = ("1/a", "1/b", "2/a", "2/b")
    groups = tuple(JobGroup(n, s, random.choice((None, None, 1, 2))) for n, s in zip(names, slots, strict=True))
    stages = sorted(random.choice((1, 1, 2)) for _ in jobs)
    placed = []
    for job, stage in zip(jobs, stages, strict=True):
        given = replace(job, after=(), after_any=job.after) if random.random() < 0.5 else job
        if group := random.choice(("a", "b", "")):
            need = Resources(random.choice((0.0, 0.0, 1.0)))
            given = replace(given, stage=stage, group=f"{stage}/{group}", slot_args=True, resources=need)
        placed.append(given)
    return placed, groups


def _make_plan(random: Random) -> JobPlan:
    return JobPlan(random.uniform(0.01, 20.0), random.choice((0, 0, 0, 3)))


def _set_up(world: World, random: Random, kinds: frozenset[str], nodes: int) -> None:
    world.at(HEALING, _heal)
    _set_up_cloud(world, random, kinds)
    for kind in sorted(kinds & EVENTS.keys()):
        for _ in range(random.randint(1, 3)):
            node = f"fake-{random.randrange(nodes)}"
            world.at(random.uniform(5.0, HEALING), lambda w, k=kind, n=node: EVENTS[k](w, n))  # type: ignore[misc]
    if "messages" in kinds:
        rate = random.choice((0.03, 0.2))
        world.network.chance = lambda verb: _draw(random, rate, ("problem",) if verb == "fetch" else MESSAGES)
    if "crash" in kinds:
        world.crash_chance = lambda: world.timeline.now < HEALING and random.random() < 0.04
    if "cancel" in kinds:
        everything = random.random() < 0.3
        world.cancel_at(random.uniform(0.0, 60.0), None if everything else (1,))


def _set_up_cloud(world: World, random: Random, kinds: frozenset[str]) -> None:
    if "cloud" in kinds:
        world.provider.chance = lambda verb: _draw(
            random, 0.2, REFUSALS if verb == "create" else ("lost", "lost-reply")
        )
    if "lag" in kinds:
        world.provider.list_lag = random.choice((2.0, 20.0))
    if "blindness" in kinds:
        for _ in range(4):
            when = random.uniform(0.0, HEALING)
            world.at(when, lambda w, u=when + 10.0: setattr(w.provider, "blind_until", u))  # type: ignore[misc]
    if "forgetful" in kinds:
        world.provider.forget_after = world.provider.list_lag + 30.0


def _draw(random: Random, rate: float, choices: tuple[str, ...]) -> str:
    return random.choice(choices) if random.random() < rate else ""


def _heal(world: World) -> None:
    world.network.chance = world.provider.chance = lambda verb: ""
    for machine in world.machines.values():
        machine.heal()

"""Stories of sections: stages, groups with pools of places, what goes on after bad ends, and growing memory."""

from __future__ import annotations

from dataclasses import replace

from cloudsend_cli.core.model import JobGroup, JobSpec, Resources, Slot
from cloudsend_cli.core.plan import plan_continue

from .fake_machine import JobPlan
from .scenarios import (
    FAILED_ONLY,
    FAILS,
    SLOW,
    lose_disk,
    make_job,
    make_nodes,
    make_plan,
    make_spec,
    partition,
    preempt,
    reboot,
    restart_agent,
)
from .world import Scenario, World

LIGHT = Resources(cpus=0.0)
GIB = 1 << 30
ENDED = ("succeeded", "failed")


def make_task(stage: int, group: str, n: int, **settings: object) -> JobSpec:
    given = {"stage": stage, "group": group, "resources": LIGHT, "slot_args": True, **settings}
    return make_job(f"{group}/{n}", **given)


def make_slots(*values: str) -> tuple[Slot, ...]:
    return tuple((("--gpu", value),) for value in values)


SEARCH = JobGroup("1/search", make_slots("0", "1", "1"))
SINGLE = JobGroup("1/single", ((),))
LIMITED = JobGroup("2/limited", make_slots("a", "b", "c"), max_parallel=2)
GROUPS = (SEARCH, SINGLE, LIMITED)
TASKS = (
    *(make_task(1, "1/search", n) for n in range(5)),
    *(make_task(1, "1/single", n, retries=1) for n in range(3)),
    *(make_task(2, "2/limited", n) for n in range(4)),
    make_task(3, "3/none", 0, after=("2/limited/*",)),
    make_job("aside"),
)


def _sections(world: World) -> None:
    world.at(12.0, preempt)
    world.at(23.0, lambda w: partition(w, "fake-1", 20.0))
    world.at(40.0, reboot)


def _sections_with_lost_messages(world: World) -> None:
    for verb in ("start", "ack", "news"):
        world.network.faults[verb, 2] = "lost"
    world.network.faults["start", 3] = "late"
    world.at(14.0, restart_agent)
    world.at(18.0, lose_disk)
    world.cancel_at(13.0, (2,))


def _continued(world: World) -> None:
    """Its config is run again with other pools, while an earlier stage is done, and is to be done again in part."""
    edited = make_task(1, "1/search", 1, argv=("run", "edited"))
    jobs = [edited if job.name == edited.name else job for job in TASKS]
    groups = (replace(SEARCH, slots=make_slots("2", "1")), SINGLE, replace(LIMITED, slots=make_slots("c", "d")))

    def again(world: World) -> None:
        spec = make_spec(jobs, groups=groups)
        world.change_by_user(lambda s: plan_continue(s, spec, make_nodes(2), world.timeline.now)[0])

    world.network.faults["start", 1] = "lost"
    world.user_at(10.2, again)
    world.user_at(13.0, again)
    world.user_at(44.0, again)


def _short_of_memory(world: World) -> None:
    world.at(14.0, preempt)
    world.at(30.0, lambda w: partition(w, seconds=10.0))


GROWING = {"retries": 3, "memory_factor": 2.0, "resources": Resources(1.0, GIB)}

SECTIONS: tuple[Scenario, ...] = (
    Scenario(
        "sections",
        make_plan(*TASKS, nodes=2, groups=GROUPS),
        _sections,
        jobs={"1/search/0": (SLOW,), "1/single/0": (FAILS, JobPlan())},
    ),
    Scenario(
        "sections, and lost messages",
        make_plan(*TASKS, nodes=2, groups=GROUPS),
        _sections_with_lost_messages,
        jobs={"1/single/1": (FAILS,), "2/limited/2": (FAILS,)},
        allowed={
            "1/single/1": FAILED_ONLY,
            "2/limited/2": FAILED_ONLY,
            "3/none/0": FAILED_ONLY,
            "1/search/1": ("succeeded", "cancelled"),
        },
    ),
    Scenario(
        "sections, continued",
        make_plan(*TASKS, nodes=2, groups=GROUPS),
        _continued,
        jobs={"1/search/0": (SLOW,), "1/single/1": (FAILS, FAILS, JobPlan())},
        allowed={"1/single/1": ENDED},
    ),
    Scenario(
        "after any end",
        make_plan(
            make_job("good"),
            make_job("bad"),
            make_job("summary", after_any=("good", "bad")),
            make_job("strict", after=("bad",)),
            make_job("after strict", after_any=("strict",), after=("good",)),
            make_job("last", after=("summary",), after_any=("*",)),
        ),
        lambda w: w.at(13.0, preempt),
        jobs={"bad": (FAILS,), "good": (SLOW,)},
        allowed={"bad": FAILED_ONLY, "strict": FAILED_ONLY},
    ),
    Scenario(
        "memory grows",
        make_plan(make_job("hungry", **GROWING), make_job("glutton", **GROWING), make_job("plain")),
        _short_of_memory,
        jobs={"hungry": (JobPlan(memory=3 * GIB),), "glutton": (JobPlan(memory=30 * GIB),)},
        allowed={"glutton": FAILED_ONLY},
    ),
)

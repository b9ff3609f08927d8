"""The stories that every crash point is tried in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from cloudsend_cli.core.model import EnvironmentBuild, JobGroup, JobSpec, Offer, Output, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_continue, plan_run
from cloudsend_cli.core.state import RunState

from .fake_machine import JobPlan
from .world import TWO_CPUS, Scenario, World

RUN_ID = "rtest1"
FAILED_ONLY = ("failed",)
ENDED_ANYHOW = ("succeeded", "cancelled")
ENVIRONMENT = EnvironmentBuild("e1", "tools", "pip install tools")


def make_job(name: str, **settings: object) -> JobSpec:
    return replace(JobSpec(name, ("run", name), name), **settings)  # type: ignore[arg-type]


def make_nodes(number: int, resources: Resources = TWO_CPUS) -> list[NodePlan]:
    return [
        NodePlan(f"fake-{i}", "fake", (Offer(json.dumps({"node": f"fake-{i}", "settings": []}), resources),))
        for i in range(number)
    ]


def make_spec(jobs: Sequence[JobSpec], max_parallel: int | None = None, groups: Sequence[JobGroup] = ()) -> RunSpec:
    environments = (ENVIRONMENT,) if any(job.environment for job in jobs) else ()
    return RunSpec("test", "/config.yml", tuple(jobs), environments, max_parallel=max_parallel, groups=tuple(groups))


def make_plan(
    *jobs: JobSpec, nodes: int = 1, max_parallel: int | None = None, groups: Sequence[JobGroup] = ()
) -> Callable[[], RunState]:
    """The run of these jobs as it is planned, once for all worlds: records are frozen."""
    return cache(lambda: plan_run(make_spec(jobs, max_parallel, groups), make_nodes(nodes), RUN_ID, 0.0))


def three_jobs(**settings: object) -> tuple[JobSpec, ...]:
    return tuple(make_job(f"j{i}", **settings) for i in (1, 2, 3))


# ---- what happens meanwhile ----------------------------------------------------------------------------------------


def preempt(world: World, node: str = "fake-0", reason: str = "preempted") -> None:
    for instance in world.provider.living(node):
        world.provider.end(instance, reason)


def partition(world: World, node: str = "fake-0", seconds: float = 60.0) -> None:
    machine = world.machine_of(node)
    if machine is not None:
        machine.partition()
        world.timeline.after(seconds, machine.heal)


def reboot(world: World, node: str = "fake-0") -> None:
    machine = world.machine_of(node)
    if machine is not None:
        machine.reboot()


def lose_disk(world: World, node: str = "fake-0") -> None:
    machine = world.machine_of(node)
    if machine is not None:
        machine.lose_disk()


def restart_agent(world: World, node: str = "fake-0") -> None:
    machine = world.machine_of(node)
    if machine is not None:
        machine.restart_agent()


# ---- how worlds are set up -----------------------------------------------------------------------------------------


def _slow_boot(world: World) -> None:
    world.provider.boot_delay = 40.0
    world.provider.list_lag = 20.0
    world.provider.add_foreign(world.run_id, "fake-0")


def _never_boots(world: World) -> None:
    world.provider.boot_delay = 5000.0
    world.at(100.0, lambda w: setattr(w.provider, "boot_delay", 8.0))


def _preempted(world: World) -> None:
    world.at(5.0, preempt)
    world.at(24.0, preempt)
    world.at(25.0, lambda w: preempt(w, "fake-1"))


def _ended_outside(world: World) -> None:
    world.provider.list_lag = 4.0
    world.at(14.0, lambda w: preempt(w, "fake-0", "terminated"))


def _partitioned(world: World) -> None:
    world.at(11.0, partition)
    world.at(90.0, lambda w: partition(w, seconds=5.0))


def _lost_replies(world: World) -> None:
    for verb in ("create", "terminate"):
        world.provider.faults[verb, 1] = "lost-reply"
    for verb in ("start", "cancel", "ack"):
        for n in (1, 2):
            world.network.faults[verb, n] = "lost-reply"
    world.network.faults["news", 1] = world.network.faults["news", 4] = "lost"
    world.cancel_at(12.0, (3,))


def _lost_requests(world: World) -> None:
    for verb in ("create", "terminate"):
        world.provider.faults[verb, 1] = "lost"
    for verb in ("start", "cancel", "ack"):
        world.network.faults[verb, 1] = "lost"
    world.provider.blind_until = 12.0
    world.cancel_at(15.0, (3,))


def _duplicated(world: World) -> None:
    world.provider.faults["create", 1] = world.provider.faults["create", 2] = "duplicate"
    for verb in ("start", "cancel", "ack"):
        for n in (1, 2, 3):
            world.network.faults[verb, n] = "duplicate"
    world.at(15.0, reboot)
    world.cancel_at(12.0, (3,))
    world.cancel_at(12.5, (3,))


def _late(world: World) -> None:
    world.network.faults["start", 1] = "late"
    world.network.faults["cancel", 1] = "late"
    world.network.faults["ack", 1] = "late"
    world.at(12.0, reboot)
    world.cancel_at(20.0, (3,))


def _cancel_lost_start(world: World) -> None:
    world.network.faults["start", 1] = "late"
    world.cancel_at(10.7, (1, 2))


def _late_and_rebooted(world: World) -> None:
    """The start is on its way for so long that its machine has another boot when it arrives."""
    world.network.faults["start", 1] = "late"
    world.at(10.6, reboot)


def _unacknowledged(world: World) -> None:
    for n in (1, 2, 3):
        world.network.faults["ack", n] = "lost"


def _cancel_unknown(world: World) -> None:
    world.cancel_at(13.0, None)
    world.at(12.0, lambda w: partition(w, seconds=40.0))


def _cancel_twice(world: World) -> None:
    world.cancel_at(9.0, (2,), "same")
    world.cancel_at(9.5, (2,), "same")
    world.cancel_at(13.0, None)


def _cancel_early(world: World) -> None:
    world.cancel_at(2.0, None)


def _continued(world: World) -> None:
    jobs = [
        make_job("kept"),
        make_job("edited", argv=("run", "edited", "again")),
        make_job("renamed to", argv=("run", "renamed")),
        make_job("bad", retries=1),
        make_job("after bad", after=("bad",)),
        make_job("new", after=("renamed to",), environment="e1"),
    ]

    def again(world: World) -> None:
        world.store.runs[RUN_ID].environments["e1"] = ENVIRONMENT
        world.change_by_user(lambda s: plan_continue(s, make_spec(jobs), make_nodes(2), world.timeline.now)[0])

    world.user_at(13.5, again)
    world.user_at(60.0, again)


def _fetches(world: World) -> None:
    world.network.faults["fetch", 1] = "disk full on the host"
    world.network.faults["fetch", 2] = "file changed"
    world.at(10.0, restart_agent)
    world.at(20.0, lambda w: preempt(w, "fake-1"))


def _troubled_build(world: World) -> None:
    world.at(11.0, reboot)
    world.at(19.0, lose_disk)
    world.at(33.0, lose_disk)
    world.at(60.0, preempt)


def _rebooted_twice(world: World) -> None:
    world.at(12.0, reboot)
    world.at(30.0, reboot)


def _capacity(world: World) -> None:
    for n in (1, 2, 3):
        world.provider.faults["create", n] = "capacity"


def _one_refused(world: World) -> None:
    world.provider.faults["create", 2] = "quota"


def _expired(world: World) -> None:
    world.provider.faults["create", 1] = "lost-reply"
    for n in (2, 3):
        world.provider.faults["create", n] = "auth"
    for n in (1, 2):
        world.provider.faults["terminate", n] = "auth"
    world.provider.list_lag = 30.0


def _forgetful(world: World) -> None:
    world.provider.forget_after = 5.0
    world.at(14.0, preempt)


def _omitted(world: World) -> None:
    """A replica behind: the list leaves out a machine that lives, when it is in use and when it is given back."""

    def hide(seconds: float) -> Callable[[World], None]:
        return lambda w: w.provider.omitted_until.update(
            {i.instance_id: w.timeline.now + seconds for i in w.provider.living()}
        )

    for when in range(12, 80, 2):
        world.at(float(when), hide(8.0))


def _unseen(world: World) -> None:
    world.provider.list_lag = 6.0
    world.provider.faults["create", 1] = "lost-reply"
    world.at(1.0, preempt)


def _one_comes_late(world: World) -> None:
    """The first machine is given more than it can start while the second does not answer; then what waits moves."""
    for when in range(1, 25):
        world.at(float(when), lambda w: partition(w, "fake-1", 1.0))
    world.network.faults["revoke", 1] = "duplicate"
    world.network.faults["revoke", 2] = "lost"
    world.at(40.0, reboot)


SLOW = JobPlan(30.0)
FAILS = JobPlan(3.0, exit_code=3)
MANY = tuple(make_job(f"m{i}") for i in range(7))
CONTINUED_FIRST = (
    make_job("kept"),
    make_job("edited"),
    make_job("renamed"),
    make_job("dropped"),
    make_job("bad"),
    make_job("after bad", after=("bad",)),
)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("plain", make_plan(*three_jobs())),
    Scenario("crowd", make_plan(*MANY, nodes=2)),
    Scenario("one comes late", make_plan(*MANY, nodes=2), _one_comes_late, jobs={f"m{i}": (SLOW,) for i in range(7)}),
    Scenario("slow calls", make_plan(*three_jobs(), nodes=2), slow_calls=2.5),
    Scenario(
        "two maestros",
        make_plan(*three_jobs(), nodes=2),
        _preempted,
        jobs={"j1": (SLOW,), "j2": (SLOW,)},
        maestros=2,
    ),
    Scenario("environments", make_plan(*three_jobs(environment="e1"), make_job("bare"), nodes=2), lambda w: None),
    Scenario(
        "environment fails",
        make_plan(*three_jobs(environment="e1"), make_job("bare")),
        jobs={"environment tools": (JobPlan(4.0, exit_code=1),)},
        allowed={name: FAILED_ONLY for name in ("j1", "j2", "j3")},
    ),
    Scenario(
        "environment lost",
        make_plan(*three_jobs(environment="e1")),
        _troubled_build,
    ),
    Scenario(
        "dependencies",
        make_plan(
            make_job("a"),
            make_job("b", after=("a",)),
            make_job("c", after=("a", "b")),
            make_job("bad"),
            make_job("d", after=("bad", "a")),
            make_job("e", after=("d",)),
        ),
        jobs={"bad": (FAILS,)},
        allowed={name: FAILED_ONLY for name in ("bad", "d", "e")},
    ),
    Scenario(
        "retries",
        make_plan(make_job("once", retries=1), make_job("always", retries=2), make_job("never")),
        jobs={"once": (FAILS, JobPlan()), "always": (FAILS,), "never": (FAILS,)},
        allowed={"always": FAILED_ONLY, "never": FAILED_ONLY},
    ),
    Scenario(
        "bad ends",
        make_plan(
            make_job("slow", timeout=4.0),
            make_job("oom"),
            make_job("signal"),
            make_job("missing", outputs=(Output("out"),)),
        ),
        jobs={
            "slow": (JobPlan(60.0),),
            "oom": (JobPlan(2.0, None, 9, "oom"),),
            "signal": (JobPlan(2.0, None, 11),),
            "missing": (JobPlan(2.0, missing=("out",)),),
        },
        allowed={name: FAILED_ONLY for name in ("slow", "oom", "signal", "missing")},
    ),
    Scenario("slow boot", make_plan(*three_jobs()), _slow_boot),
    Scenario("never boots", make_plan(*three_jobs()), _never_boots),
    Scenario("preempted", make_plan(*three_jobs(), nodes=2), _preempted, jobs={"j1": (SLOW,)}),
    Scenario("ended outside", make_plan(*three_jobs()), _ended_outside, jobs={"j1": (SLOW,)}),
    Scenario("partitioned", make_plan(*three_jobs()), _partitioned, jobs={"j2": (SLOW,)}),
    Scenario(
        "rebooted", make_plan(*three_jobs(), make_job("waits")), lambda w: w.at(12.0, reboot), jobs={"j1": (SLOW,)}
    ),
    Scenario("agent restarted", make_plan(*three_jobs()), lambda w: w.at(11.0, restart_agent)),
    Scenario("disk lost", make_plan(*three_jobs()), lambda w: w.at(14.5, lose_disk)),
    Scenario(
        "lost twice",
        make_plan(make_job("j1"), make_job("j2", after=("j1",))),
        _rebooted_twice,
        jobs={"j1": (SLOW,)},
        allowed={"j1": ("succeeded", "failed"), "j2": ("succeeded", "failed")},
    ),
    Scenario(
        "lost replies", make_plan(*three_jobs()), _lost_replies, jobs={"j3": (SLOW,)}, allowed={"j3": ENDED_ANYHOW}
    ),
    Scenario(
        "lost requests", make_plan(*three_jobs()), _lost_requests, jobs={"j3": (SLOW,)}, allowed={"j3": ENDED_ANYHOW}
    ),
    Scenario("duplicated", make_plan(*three_jobs()), _duplicated, jobs={"j3": (SLOW,)}, allowed={"j3": ENDED_ANYHOW}),
    Scenario("late", make_plan(*three_jobs()), _late, jobs={"j3": (SLOW,)}, allowed={"j3": ENDED_ANYHOW}),
    Scenario(
        "cancel before start",
        make_plan(*three_jobs()),
        _cancel_lost_start,
        jobs={"j3": (JobPlan(60.0),)},
        allowed={"j1": ENDED_ANYHOW, "j2": ENDED_ANYHOW},
    ),
    Scenario("late and rebooted", make_plan(*three_jobs()), _late_and_rebooted, jobs={"j1": (JobPlan(60.0),)}),
    Scenario(
        "unacknowledged",
        make_plan(make_job("once", retries=1), make_job("twice", retries=2)),
        _unacknowledged,
        jobs={"once": (FAILS, SLOW), "twice": (FAILS, FAILS, SLOW)},
    ),
    Scenario(
        "cancel while unknown",
        make_plan(*three_jobs()),
        _cancel_unknown,
        jobs={"j1": (SLOW,), "j2": (SLOW,)},
        allowed={name: ENDED_ANYHOW for name in ("j1", "j2", "j3")},
    ),
    Scenario(
        "cancel twice",
        make_plan(*three_jobs(), make_job("after", after=("j1",))),
        _cancel_twice,
        jobs={"j1": (SLOW,)},
        allowed={name: (*ENDED_ANYHOW, "failed") for name in ("j1", "j2", "j3", "after")},
    ),
    Scenario(
        "cancel while it boots",
        make_plan(*three_jobs(), make_job("after", after=("j1",)), nodes=2),
        _cancel_early,
        allowed={name: ("cancelled",) for name in ("j1", "j2", "j3", "after")},
    ),
    Scenario(
        "continued",
        make_plan(*CONTINUED_FIRST),
        _continued,
        jobs={"bad": (FAILS, FAILS, JobPlan())},
        allowed={"bad": ("succeeded", "failed"), "after bad": ("succeeded", "failed"), "dropped": ENDED_ANYHOW},
    ),
    Scenario("fetches", make_plan(*three_jobs(outputs=(Output("out"),)), make_job("plain"), nodes=2), _fetches),
    Scenario("one at a time", make_plan(*MANY[:4], max_parallel=1)),
    Scenario("capacity", make_plan(*three_jobs(), nodes=2), _capacity),
    Scenario("quota", make_plan(*three_jobs(), nodes=2), _one_refused),
    Scenario(
        "all refused",
        make_plan(*three_jobs()),
        lambda w: w.provider.faults.update({("create", 1): "quota"}),
        allowed={name: ("succeeded", "failed") for name in ("j1", "j2", "j3")},  # once, to any maestro
    ),
    Scenario("credentials expire", make_plan(*three_jobs()), _expired),
    Scenario("forgetful cloud", make_plan(*three_jobs()), _forgetful, restart_after=30.0),
    Scenario("omitted from lists", make_plan(*three_jobs()), _omitted, jobs={"j1": (SLOW,)}),
    Scenario("ended unseen", make_plan(*three_jobs()), _unseen),
    Scenario(
        "too big",
        make_plan(make_job("small"), make_job("big", resources=Resources(64.0)), nodes=2),
        allowed={"big": FAILED_ONLY},
    ),
)

"""Stories of rented machines: offers that run short, machines that are taken back, kept, stopped, and money's end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cloudsend_cli.core.model import JobSpec, Offer, Output, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_continue, plan_run
from cloudsend_cli.core.state import RunState

from .fake_cloud import PRICE, FakeInstance
from .fake_machine import JobPlan
from .scenarios import RUN_ID, SCENARIOS, SLOW, make_job, preempt
from .section_scenarios import SECTIONS
from .world import TWO_CPUS, Scenario, World

POOLS = ("a", "b", "c")
NOTICE_SECONDS = 20.0
GIVEN_UP = ("succeeded", "cancelled")
ENDED = ("succeeded", "failed")


def make_offers(*pools: str, keep: float = 0.0) -> tuple[Offer, ...]:
    """One of each pool, each dearer than the one before; all of them of one quota."""
    return tuple(
        Offer(f'{{"pool":"{pool}"}}', TWO_CPUS, PRICE * (1 + index), f"pool {pool}", "quota", keep)
        for index, pool in enumerate(pools)
    )


def make_rented(
    *jobs: JobSpec, nodes: int = 1, offers: tuple[Offer, ...] | None = None, budget: float | None = None
) -> Callable[[], RunState]:
    spec = RunSpec("project", "/config.yml", jobs, budget=budget)
    plans = [NodePlan(f"fake-{i}", "fake", offers or make_offers(*POOLS)) for i in range(nodes)]
    return partial(plan_run, spec, plans, RUN_ID, 0.0)


def three(**settings: object) -> tuple[JobSpec, ...]:
    return tuple(make_job(f"r{n}", **settings) for n in (1, 2, 3))


def notice(world: World, node: str = "fake-0", *, taken: bool = True) -> None:
    """Announced, and then taken or not."""
    machine = world.machine_of(node)
    if machine is None:
        return
    world.provider.instances[machine.key].noticed = True
    machine.notice()
    end = partial(preempt, world, node) if taken else machine.withdraw_notice
    world.timeline.after(NOTICE_SECONDS, end)


def outlive(world: World, node: str = "fake-0", cause: str = "life-over") -> None:
    """The machine says that its own time is nearly over, and ends itself then. No other is asked for meanwhile."""
    machine = world.machine_of(node)
    if machine is not None:
        machine.notice(cause)
        end = partial(_end_itself, world, world.provider.instances[machine.key])
        world.timeline.after(NOTICE_SECONDS, end)


def _end_itself(world: World, instance: FakeInstance) -> None:
    world.provider.end(instance, "shut down from within")


def stop(world: World, node: str = "fake-0", seconds: float = 60.0) -> None:
    """Somebody stops the machine, and starts it again later."""
    for instance in world.provider.living(node):
        machine = world.machines.get(instance.instance_id)
        if machine is None:
            continue
        instance.stopped = True
        machine.reboot(seconds)
        world.timeline.after(seconds, partial(_start_again, world, instance))


def _start_again(world: World, instance: FakeInstance) -> None:
    instance.stopped, instance.started_again = False, world.timeline.now


def _short(world: World) -> None:
    offers = make_offers(*POOLS)
    world.provider.short = {offers[0].request: "capacity", offers[1].request: "capacity"}
    world.at(60.0, lambda w: w.provider.short.clear())


def _all_short(world: World) -> None:
    world.provider.short = {offer.request: "capacity" for offer in make_offers(*POOLS)}
    world.at(300.0, lambda w: w.provider.short.clear())


def _over_quota(world: World) -> None:
    world.provider.faults["create", 2] = "quota"


def _fails_at_launch(world: World) -> None:
    world.at(3.0, lambda w: preempt(w, "fake-0", "capacity"))


def _noticed(world: World) -> None:
    world.at(11.0, notice)
    world.at(60.0, lambda w: notice(w, "fake-1"))


def _noticed_again(world: World) -> None:
    world.at(11.0, notice)
    world.at(40.0, lambda w: notice(w, "fake-0b"))
    world.at(70.0, notice)


def _noticed_and_crowded(world: World) -> None:
    """The account has room for no other machine while the one that is taken back is there."""
    world.provider.most = 1
    world.at(11.0, notice)


def _noticed_and_cancelled(world: World) -> None:
    world.at(11.0, notice)
    world.cancel_at(12.0, None)


def _noticed_and_short(world: World) -> None:
    """Neither is the place of the one that is taken back to be had at once, nor any other for a while."""
    world.at(9.0, lambda w: w.provider.short.update({offer.request: "capacity" for offer in make_offers(*POOLS)}))
    world.at(11.0, notice)
    world.at(300.0, lambda w: w.provider.short.clear())


def _noticed_and_continued(world: World) -> None:
    def again(world: World) -> None:
        spec = RunSpec("project", "/config.yml", (*three(), make_job("later")))
        plans = [NodePlan("fake-0", "fake", make_offers("c", "b"))]
        world.change_by_user(lambda state: plan_continue(state, spec, plans, world.timeline.now)[0])

    world.at(11.0, notice)
    world.user_at(13.0, again)
    world.user_at(40.0, again)
    world.user_at(200.0, again)


def _outlived(world: World) -> None:
    world.at(11.0, outlive)
    world.at(14.0, lambda w: outlive(w, "fake-1", "eco-life-over"))


def _outlived_again(world: World) -> None:
    for seconds in (11.0, 40.0, 70.0, 100.0):
        world.at(seconds, outlive)


def _outlived_and_cancelled(world: World) -> None:
    world.at(11.0, outlive)
    world.cancel_at(11.05, None)


def _never_answers(world: World) -> None:
    world.policy = replace(world.policy, boot_limit=60.0)
    world.deaf = {"fake-0"}


def _noticed_and_troubled(world: World) -> None:
    world.network.faults["resume", 1] = "it was interrupted"
    world.at(11.0, notice)


def _withdrawn(world: World) -> None:
    world.at(11.0, lambda w: notice(w, taken=False))


def _kept(world: World) -> None:
    def again(world: World) -> None:
        spec = RunSpec("project", "/config.yml", (*three(), make_job("later")))
        plans = [NodePlan("fake-0", "fake", make_offers("a", keep=40.0))]
        world.change_by_user(lambda state: plan_continue(state, spec, plans, world.timeline.now)[0])

    world.user_at(45.0, again)


def _not_kept(world: World) -> None:
    world.provider.faults["keep", 1] = "lost"
    world.provider.faults["keep", 2] = "provider"


def _kept_unheard(world: World) -> None:
    world.provider.faults["keep", 1] = "lost-reply"
    world.provider.list_lag = 3.0


def waves() -> tuple[JobSpec, ...]:
    """One job, then four that fill a machine each, then one: more machines are asked for, lost, and let go."""
    whole = {"after": ("first",), "resources": TWO_CPUS}
    last = make_job("last", after=("w*",))
    return (make_job("first"), *(make_job(f"w{n}", **whole) for n in range(4)), last)


def _second_wave_hit(world: World) -> None:
    world.at(45.0, lambda w: preempt(w, "fake-1"))


KEPT = make_offers("a", keep=40.0)
LONG = JobPlan(200.0)

RENTED: tuple[Scenario, ...] = (
    Scenario("short of machines", make_rented(*three(), nodes=2), _short),
    Scenario("short of all machines", make_rented(*three()), _all_short),
    Scenario("over a quota", make_rented(*three(), nodes=2), _over_quota),
    Scenario("fails at launch", make_rented(*three()), _fails_at_launch),
    Scenario(
        "noticed", make_rented(*three(persist=("state",)), nodes=2), _noticed, jobs={"r1": (SLOW,), "r2": (SLOW,)}
    ),
    Scenario("noticed, state lost", make_rented(*three(persist=("s",))), _noticed_and_troubled, jobs={"r1": (SLOW,)}),
    Scenario(
        "noticed again and again", make_rented(*three(persist=("s",))), _noticed_again, jobs={"r1": (JobPlan(45.0),)}
    ),
    Scenario("noticed, and crowded", make_rented(*three()), _noticed_and_crowded, jobs={"r1": (SLOW,)}),
    Scenario(
        "noticed, and cancelled",
        make_rented(*three(persist=("s",))),
        _noticed_and_cancelled,
        jobs={f"r{n}": (SLOW,) for n in (1, 2, 3)},
        allowed={f"r{n}": GIVEN_UP for n in (1, 2, 3)},
    ),
    Scenario("noticed, and short", make_rented(*three()), _noticed_and_short, jobs={"r1": (SLOW,)}),
    Scenario("noticed, and continued", make_rented(*three()), _noticed_and_continued, jobs={"r1": (SLOW,)}),
    Scenario(
        "outlives its machine",
        make_rented(*three(persist=("s",), retries_lost=2), nodes=2),
        _outlived,
        jobs={"r1": (SLOW,), "r2": (SLOW,)},
    ),
    Scenario(
        "outlives all its machines",
        make_rented(*three(outputs=(Output("o"),))),
        _outlived_again,
        jobs={"r1": (LONG,)},
        allowed={"r1": ("failed",), "r2": ENDED, "r3": ENDED},
    ),
    Scenario(
        "outlives its machine, and is cancelled",
        make_rented(*three(persist=("s",))),
        _outlived_and_cancelled,
        jobs={f"r{n}": (SLOW,) for n in (1, 2, 3)},
        allowed={f"r{n}": GIVEN_UP for n in (1, 2, 3)},
    ),
    Scenario(
        "never answers",
        make_rented(*three()),
        _never_answers,
        allowed={f"r{n}": ("failed",) for n in (1, 2, 3)},
    ),
    Scenario("notice withdrawn", make_rented(*three()), _withdrawn, jobs={"r1": (SLOW,)}),
    Scenario("stopped and started", make_rented(*three()), lambda w: w.at(12.0, stop), jobs={"r1": (SLOW,)}),
    Scenario("kept, and taken again", make_rented(*three(), offers=KEPT), _kept),
    Scenario(
        "machines follow the queue",
        make_rented(*waves(), nodes=3, offers=KEPT),
        _second_wave_hit,
        jobs={"w0": (SLOW,), "last": (LONG,)},
    ),
    Scenario("not kept", make_rented(*three(), offers=KEPT), _not_kept),
    Scenario("kept unheard", make_rented(*three(), offers=KEPT), _kept_unheard),
    Scenario(
        "money ends",
        make_rented(*three(), make_job("r4"), make_job("r5"), budget=PRICE * 60 / 3600),
        jobs={f"r{n}": (JobPlan(25.0 * n),) for n in range(1, 6)},
        allowed={f"r{n}": GIVEN_UP for n in range(1, 6)},
    ),
    Scenario(
        "noticed, and money ends",
        make_rented(*three(persist=("s",)), budget=PRICE * 60 / 3600),
        lambda w: w.at(11.0, notice),
        jobs={f"r{n}": (LONG,) for n in (1, 2, 3)},
        allowed={f"r{n}": GIVEN_UP for n in (1, 2, 3)},
    ),
    Scenario(
        "money ends unwatched",
        make_rented(*(replace(job, persist=("s",)) for job in three()), nodes=2, budget=2 * PRICE * 90 / 3600),
        jobs={f"r{n}": (LONG,) for n in (1, 2, 3)},
        allowed={f"r{n}": GIVEN_UP for n in (1, 2, 3)},
        restart_after=200.0,
    ),
)

ALL_SCENARIOS = (*SCENARIOS, *RENTED, *SECTIONS)

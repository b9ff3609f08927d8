"""The crash world: whole runs of the real engine in virtual time, with a death at any effect's edge.

The store, the cloud and the machines outlive every maestro; a maestro's memory does not outlive its death. Edges are
numbered in the order in which they are met: before and after every commit, provider call and request to a host.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.model import Policy, Request, Resources
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import Changes, RunState
from cloudsend_cli.engine.calls import Calls, DirectCalls
from cloudsend_cli.engine.session import Session
from cloudsend_cli.engine.tick import tick
from cloudsend_cli.errors import CloudsendError, ConflictError

from .fake_cloud import FakeInstance, FakeProvider
from .fake_host import FakeHosts, FakeNetwork
from .fake_machine import Execution, FakeMachine, JobPlan
from .invariants import Judge
from .memory_store import MemoryStore
from .timeline import Timeline

TICKS_MOST = 3000
TICKS_AT_ONE_MOMENT = 60
LINGER = 100.0  # after the end, so that whatever is still on its way arrives
CONFLICT_PAUSE = 0.05
TWO_CPUS = Resources(2.0, 8 << 30, 0)


class Crash(BaseException):
    """The maestro is dead, here and now. Nothing may catch it but the world."""

    def __init__(self, maestro: Maestro) -> None:
        super().__init__("the maestro died")
        self.maestro = maestro


@dataclass(frozen=True)
class Scenario:
    """A story: what is wanted, how its jobs go, and what happens meanwhile."""

    name: str
    plan: Callable[[], RunState]  # called once: records are frozen
    set_up: Callable[[World], None] = lambda world: None
    jobs: dict[str, tuple[JobPlan, ...]] = field(default_factory=dict)  # by name: one for each execution in turn
    allowed: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by name: how it may end; else: succeeded
    maestros: int = 1
    slow_calls: float = 0.0
    restart_after: float = 1.0
    deadline: float = 4000.0
    resources: Resources = TWO_CPUS


class WatchedStore(MemoryStore):
    """Shows each commit to the judge before it is written."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge
        self.edge: Callable[[str], None] = lambda label: None
        self.by_user = False

    def commit(self, run: str, version: int, changes: Changes, events: Sequence[Event]) -> int:
        self.edge("commit before")
        stored = self._stored(run)
        self._compare(stored, version)
        self.judge.on_commit(stored, changes, by_user=self.by_user)
        new_version = super().commit(run, stored.run.version, changes, events)
        self.edge("commit after")
        return new_version


class WatchedProvider(FakeProvider):
    """Shows each call to the judge."""

    judge: Judge
    store: MemoryStore

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        self.judge.on_create(self, (node, generation, token, request))
        return super().create_instance(run, node, generation, token, request)

    def _create(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        instance_id = super()._create(run, node, generation, token, request)
        self.judge.after_create(self.store.runs[run], self, node)
        return instance_id

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        self.judge.on_terminate(self.store.runs[run], self, node, instance_id)
        super().terminate_instance(run, node, instance_id)


class SlowCalls:
    """Provider calls that take their time. What was sent has its effect although the maestro died meanwhile."""

    def __init__(self, timeline: Timeline, seconds: float, wake: Callable[[], None]) -> None:
        self._timeline = timeline
        self._seconds = seconds
        self._wake = wake
        self._pending: set[str] = set()
        self._direct = DirectCalls()

    def submit(self, key: str, call: Callable[[], object], *, slow: bool) -> None:
        if key in self._pending:
            return
        self._pending.add(key)

        def run() -> None:
            try:
                self._direct.submit(key, call)
            finally:
                self._pending.discard(key)
                self._wake()

        self._timeline.after(self._seconds, run)

    def pending(self) -> frozenset[str]:
        return frozenset(self._pending)

    def errors(self) -> dict[str, tuple[str, str]]:
        return self._direct.errors()

    def results(self) -> dict[str, object]:
        return self._direct.results()

    def done(self) -> frozenset[str]:
        return self._direct.done()


class Maestro:
    """One process that keeps calling `tick`."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.wake_at: float | None = world.timeline.now
        self.hosts = FakeHosts(world.network, self.edge)
        calls: Calls = DirectCalls()
        if world.scenario.slow_calls:
            calls = SlowCalls(world.timeline, world.scenario.slow_calls, self.wake)
        providers = world.providers
        find = lambda name, _: providers[name]  # noqa: E731
        self.session = Session(world.run_id, world.store, find, self.hosts, calls, world.policy)

    def edge(self, label: str) -> None:
        if not self.dead:
            self.world.edge(self, label)

    def wake(self) -> None:
        self.wake_at = self.world.timeline.now

    @property
    def ready(self) -> bool:
        return (
            self.hosts.news
            or self.session.requests_hinted
            or (self.wake_at is not None and self.wake_at <= self.world.timeline.now)
        )

    def die(self) -> None:
        self.dead = True
        self.hosts.close()


class World:
    """One life of one run. `violations` is empty when all went as it must."""

    policy = Policy(look_soon=5.0)  # coarse, so that its stories have time for what they tell

    def __init__(self, scenario: Scenario, initial: RunState, crashes: Collection[int] = ()) -> None:
        self.scenario = scenario
        self.crashes = frozenset(crashes)
        self.deaf: Collection[str] = ()  # nodes whose machines run and can never be reached
        self.pause_at: int | None = None
        self.pause_ticks = 0
        self.crash_chance: Callable[[], bool] = lambda: False
        self.edges = 0
        self.labels: list[str] = []
        self.timeline = Timeline()
        self.ledger: list[Execution] = []
        self.judge = Judge(self.ledger)
        self.judge.fenced = not scenario.slow_calls  # else a dead maestro's call may come after its successor's
        self.store = WatchedStore(self.judge)
        self.store.create_run(initial)
        self.run_id = initial.run.id
        self.machines: dict[str, FakeMachine] = {}
        self.network = FakeNetwork(self.timeline, self.machines)
        self.provider = WatchedProvider(self.timeline, capacity=scenario.resources)
        self.provider.judge, self.provider.store = self.judge, self.store
        self.provider.on_start = self._machine_on
        self.provider.on_end = self._machine_off
        self.providers = {self.provider.name: self.provider}
        self.maestros: list[Maestro] = []
        self.started = 0
        self.ticks = 0
        self.plans_used: dict[str, int] = {}
        self.user_actions = 0
        self.done_at = 0.0
        scenario.set_up(self)

    # ---- machines --------------------------------------------------------------------------------------------------

    def _machine_on(self, instance: FakeInstance) -> None:
        key = instance.instance_id
        machine = FakeMachine(self.timeline, key, self.scenario.resources, self._plan, self.ledger)
        machine.partitioned = instance.node in self.deaf
        stored = self.store.runs[self.run_id]
        machine.on_execute = lambda m, start: self.judge.on_execute(stored, m, start)
        machine.on_cancel = self.judge.buried.add
        machine.on_ack = lambda attempt: self.judge.on_ack(stored, attempt)
        machine.on_lease_end = lambda: self.provider.end(instance, "terminated")
        self.machines[key] = machine

    def _machine_off(self, instance: FakeInstance) -> None:
        machine = self.machines.get(instance.instance_id)
        if machine is not None:
            machine.power_off()

    def _plan(self, start: AttemptStart) -> JobPlan:
        name = start.spec.name
        plans = self.scenario.jobs.get(name)
        if not plans:
            return JobPlan()
        used = self.plans_used.get(name, 0)
        self.plans_used[name] = used + 1
        return plans[min(used, len(plans) - 1)]

    def machine_of(self, node: str) -> FakeMachine | None:
        """The machine that serves `node` now."""
        for instance in self.provider.living(node):
            return self.machines.get(instance.instance_id)
        return None

    # ---- what happens meanwhile ------------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[World], None]) -> None:
        """Something that happens to the world."""
        self.timeline.after(when, lambda: action(self))

    def user_at(self, when: float, action: Callable[[World], None]) -> None:
        """Something that the user does; the world waits for it, and for what comes of it."""
        self.user_actions += 1

        def act() -> None:
            self.user_actions -= 1
            action(self)
            for maestro in self.maestros:
                maestro.session.requests_hinted = True
            if not self.maestros:
                self.start_maestro()

        self.timeline.after(when, act)

    def cancel_at(self, when: float, jobs: tuple[int, ...] | None, name: str = "") -> None:
        request = Request(name or f"cancel-{when}-{jobs}", "cancel", jobs, when)
        self.judge.cancels[request.id] = jobs
        self.user_at(when, lambda world: world.store.add_request(world.run_id, request))

    def change_by_user(self, update: Callable[[RunState], Changes]) -> None:
        """What `cloudsend run` on a run that exists does."""
        self.store.by_user, edge = True, self.store.edge
        self.store.edge = lambda label: None
        self.store.write_run(self.run_id, update)
        self.store.by_user, self.store.edge = False, edge

    # ---- maestros --------------------------------------------------------------------------------------------------

    def start_maestro(self) -> Maestro:
        self.started += 1
        maestro = Maestro(self, f"maestro-{self.started}")
        self.maestros.append(maestro)
        return maestro

    def edge(self, maestro: Maestro, label: str) -> None:
        number = self.edges
        self.edges += 1
        self.labels.append(label)
        if number in self.crashes or self.crash_chance():
            raise Crash(maestro)
        if number == self.pause_at:
            self._pause(maestro)

    def _pause(self, maestro: Maestro) -> None:
        """`maestro` stops in the middle of its tick; another takes over, and then the old one wakes."""
        self.judge.fenced = False
        self.maestros.remove(maestro)
        self.start_maestro()
        self._go_on(self.ticks + self.pause_ticks)
        self._use_edges_of(maestro)
        self.maestros.append(maestro)

    def _use_edges_of(self, maestro: Maestro) -> None:
        self.store.edge = maestro.edge
        for provider in self.providers.values():
            provider.edge = maestro.edge

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Live until everything is settled; return the violations."""
        for _ in range(self.scenario.maestros):
            self.start_maestro()
        try:
            self._go_on(TICKS_MOST)
        except Exception as problem:  # noqa: BLE001 - a bug of the engine is a finding of this world
            self.judge.blame(f"{type(problem).__name__}: {problem}")
        self.done_at = self.timeline.now
        if not self.judge.violations:
            self.timeline.advance_to(self.done_at + LINGER)
        stored = self.store.runs[self.run_id]
        self.judge.judge_jobs(stored, self.scenario.allowed, self.machines.values(), self.network.homes)
        self.judge.judge_machines(stored, self.providers.values(), self.done_at)
        self.judge.judge_bill(stored, self.providers.values())
        return self.judge.violations

    def _go_on(self, ticks_most: int) -> None:
        still = 0
        while self.maestros or self.user_actions:
            if self.ticks >= ticks_most:
                if ticks_most == TICKS_MOST:
                    self.judge.blame("no end: too many ticks")
                return
            maestro = next((m for m in self.maestros if m.ready), None)
            if maestro is not None:
                still += 1
                if still > TICKS_AT_ONE_MOMENT:
                    self.judge.blame("busy: it ticks without pause")
                    return
                self._tick(maestro)
            else:
                still = 0
                if not self._pass_time():
                    return

    def _pass_time(self) -> bool:
        times = [m.wake_at for m in self.maestros if m.wake_at is not None]
        if self.timeline.next_at is not None:
            times.append(self.timeline.next_at)
        if not times or min(times) > self.scenario.deadline:
            self.judge.blame("no end: nothing will ever wake the maestro" if not times else "no end: too late")
            return False
        try:
            self.timeline.advance_to(min(times))
        except Crash as crash:
            self._bury(crash.maestro)
        return True

    def _tick(self, maestro: Maestro) -> None:
        self.ticks += 1
        # ORDER: of several maestros the next one is the one that has waited longest.
        self.maestros.remove(maestro)
        self.maestros.append(maestro)
        self._use_edges_of(maestro)
        try:
            ticked = tick(maestro.session, self.timeline.now)
        except Crash as crash:
            self._bury(crash.maestro)
        except ConflictError:
            maestro.wake_at = self.timeline.now + CONFLICT_PAUSE
        except CloudsendError as problem:
            self.judge.blame(f"{type(problem).__name__} from a tick: {problem}")
            maestro.wake_at = self.timeline.now + 1.0
        else:
            maestro.wake_at = ticked.wake_at
            if ticked.done:
                maestro.die()
                if maestro in self.maestros:
                    self.maestros.remove(maestro)

    def _bury(self, maestro: Maestro) -> None:
        """A successor comes when nobody is left to act."""
        maestro.die()
        if maestro in self.maestros:
            self.maestros.remove(maestro)
        if self.maestros:
            return
        self.user_actions += 1  # the world waits for the successor

        def follow() -> None:
            self.user_actions -= 1
            self.start_maestro()

        self.timeline.after(self.scenario.restart_after, follow)

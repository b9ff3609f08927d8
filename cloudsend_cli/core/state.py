"""What is remembered of a run: intents and results, with the indices that keep a tick's work constant per job.

Records are frozen. `RunState` changes only through `apply`, which is called after the changes are committed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .assignment import NOT_DRAWN, draw, read_seed, size_of
from .model import (
    FINAL_STATES,
    NOTHING,
    PENDING,
    RUNNING,
    SUCCEEDED,
    EnvironmentBuild,
    JobGroup,
    JobSpec,
    Offer,
    ProviderDefinition,
    Resources,
    Upload,
)
from .naming import attempt_id
from .records import replace
from .stages import Stages

# Results that no fetch can bring any more: the job is done again when its config is run again.
RESULTS_GONE = "failed: gone with its machine"
RESUME = "resume"
FETCHED = frozenset({"wanted", RESUME})
AT_REST = frozenset({"wanted", "released", "failed"})  # states of nodes without a machine


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job of a run. `attempt` is the number of its newest execution, 0 before the first."""

    number: int
    spec: JobSpec
    hash: str
    created_at: float
    state: str = PENDING
    reason: str = ""
    exit_code: int | None = None
    attempt: int = 0
    failures: int = 0  # ends that count against `retries`
    losses: int = 0  # ends that count against `retries_lost`
    node: str = ""
    boot: str = ""  # the boot that was asked to execute the attempt
    after: tuple[int, ...] = ()
    not_before: float = 0.0
    handed_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    cancel: bool = False  # the user asked for its end
    fetch: str = (
        ""  # "", "wanted", "home", "failed: ...", or RESUME while what the next attempt goes on from is fetched
    )
    fetch_tries: int = 0
    superseded_by: int = 0
    batch: int = 1
    maxrss: int | None = None
    cpu_seconds: float | None = None
    resume: tuple[Upload, ...] = ()  # what an earlier attempt left, whose machine was taken back
    after_any: tuple[int, ...] = ()
    slot: int = -1  # of its group's pool: the place that its newest attempt was given; -1: none
    memory: int = 0  # bytes that it is given, where an earlier attempt had too little; 0: what its spec says
    expected: float = 0.0  # seconds that it took in earlier runs; 0: not known
    metrics: tuple[tuple[str, str], ...] = ()  # what its newest attempt reported

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def resources(self) -> Resources:
        """What it is given, which may be more than its spec says."""
        return replace(self.spec.resources, memory=self.memory) if self.memory else self.spec.resources


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A machine that the plan wants. It keeps its name when the machine under it is replaced."""

    name: str
    provider: str
    capacity: Resources
    request: str  # rendered JSON of the intended machine
    generation: int = 0
    token: str = ""
    state: str = "wanted"  # wanted, creating, running, keeping, releasing, released, failed
    instance_id: str = ""
    reason: str = ""
    not_before: float = 0.0
    created_at: float = 0.0
    price: float | None = None  # dollars per hour
    trouble: str = ""  # why its provider did not take it back when it was asked last
    idle_since: float = 0.0  # since when it has nothing to do and nothing waits for it; 0: it has
    kept: str = ""  # the machine that this run gave out of its hands last: it may be another run's by now
    lease: float | None = None  # when it ends itself at the latest, as it was last told
    offers: tuple[Offer, ...] = ()  # in the order in which they are tried; capacity, request, price are of one of them
    unanswered: int = 0  # machines in a row that never answered
    barren: int = 0  # machines in a row whose time was over before a job of this run began there
    stands_in_for: str = ""  # the planned node with which this one takes turns, see decide_stand_ins
    retired: bool = False  # another serves in its place: its machine gets nothing more, and is followed to its end
    crowded: bool = False  # the account's limit left no room for two machines while one was being taken back


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """The building of one environment on one node."""

    node: str
    key: str
    attempt: int = 1
    state: str = RUNNING  # wanted, running, succeeded, failed
    boot: str = ""
    reason: str = ""
    losses: int = 0
    cancel: bool = False  # nobody waits for it any more, and its end was asked for


@dataclass(frozen=True, slots=True)
class RentalRecord:
    """The time for which this run pays for a machine; one that was stopped and started has several."""

    id: str  # see naming.rental_id
    instance_id: str
    node: str
    provider: str
    price: float | None  # dollars per hour; None: not known
    since: float
    until: float | None = None
    least: float = 0.0  # seconds that are paid for at least
    note: str = ""  # type, place, market
    waiting: bool = False  # after the run, until another takes it or, at `until`, it ends itself
    kept_at: float = 0.0  # ... since when: what is paid for at least may be paid until a later `since`
    taken_at: float = 0.0  # of one that waited before: when this run asked for it; `since` may be later as well
    expires: float | None = None  # when it ends itself at the latest; None: it was not seen to watch over that


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The run as a whole. `version` grows with every commit and is what a compare-and-swap compares."""

    id: str
    project: str
    config_path: str
    created_at: float
    batch: int = 1
    results_dir: str = ""
    max_parallel: int | None = None
    budget: float | None = None  # dollars
    stopped: str = ""  # why what is left is given up, where the user has not asked for it
    base_env: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    providers: tuple[ProviderDefinition, ...] = ()
    cancelled: bool = False
    ended_at: float | None = None
    version: int = 0
    requests_done: tuple[str, ...] = ()  # ids of the newest requests carried out
    shortages: tuple[tuple[str, float], ...] = ()  # (pool or quota of offers, until when it is not asked)
    groups: tuple[JobGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What one decision changes: whole records, by key. Everything not named stays."""

    run: RunRecord | None = None
    jobs: Mapping[int, JobRecord] = field(default_factory=dict)
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    builds: Mapping[tuple[str, str], BuildRecord] = field(default_factory=dict)
    rentals: Mapping[str, RentalRecord] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.run or self.jobs or self.nodes or self.builds or self.rentals)


@dataclass(slots=True)
class Load:
    """What a node's hand-outs ask for in all, and how many they are."""

    resources: Resources = NOTHING
    held: int = 0
    light: int = 0  # those that take no CPUs, as the pool of their group is their limit; they are not in `held`

    def count(self, job: JobRecord, change: int) -> None:
        if is_light(job):
            self.light += change
        else:
            self.held += change


def is_light(job: JobRecord) -> bool:
    return bool(job.spec.group) and job.spec.resources.cpus == 0


@dataclass(slots=True)
class Pool:
    """What is handed out of a group. `taken`: a bit for each place, so that the lowest free one is found at once.

    `shared`: places that more than one attempt holds, since their user changed the pool: until the last has ended.
    """

    taken: int = 0
    running: int = 0
    shared: dict[int, int] = field(default_factory=dict)

    @property
    def lowest_free(self) -> int:
        return (~self.taken & (self.taken + 1)).bit_length() - 1

    def take(self, slot: int) -> None:
        self.running += 1
        if slot >= 0 and self.taken >> slot & 1:
            self.shared[slot] = self.shared.get(slot, 0) + 1
        elif slot >= 0:
            self.taken |= 1 << slot

    def give_back(self, slot: int) -> None:
        self.running -= 1
        if self.shared.get(slot):
            self.shared[slot] -= 1
        elif slot >= 0:
            self.taken &= ~(1 << slot)


def _is_open(dependency: JobRecord | None) -> bool:
    return dependency is None or dependency.state != SUCCEEDED


def _is_unfinished(dependency: JobRecord | None) -> bool:
    return dependency is None or not dependency.final


def _is_broken(dependency: JobRecord | None) -> bool:
    return dependency is not None and dependency.final and dependency.state != SUCCEEDED


class JobClass(NamedTuple):
    """Jobs that can go to the same places now: where one of them cannot, none can."""

    environment: str
    resources: Resources
    slots: tuple[str, ...]
    group: str
    size: int = 0  # of the work that it is expected to be
    draw: int = NOT_DRAWN


def job_class(job: JobRecord, seed: str | None = None) -> JobClass:
    spec = job.spec
    size = size_of(job.expected, spec.resources.cpus) if job.expected else 0
    return JobClass(spec.environment, job.resources, spec.slots, spec.group, size, draw(seed, job.number))


class RunState:
    """A run in memory. Indices are derived from the records and never stored."""

    def __init__(
        self,
        run: RunRecord,
        jobs: Iterable[JobRecord] = (),
        nodes: Iterable[NodeRecord] = (),
        builds: Iterable[BuildRecord] = (),
        environments: Iterable[EnvironmentBuild] = (),
        rentals: Iterable[RentalRecord] = (),
    ) -> None:
        self.run = run
        self.jobs: dict[int, JobRecord] = {}
        self.nodes: dict[str, NodeRecord] = {n.name: n for n in nodes}
        self.builds: dict[tuple[str, str], BuildRecord] = {(b.node, b.key): b for b in builds}
        self.environments: dict[str, EnvironmentBuild] = {e.key: e for e in environments}
        self.rentals: dict[str, RentalRecord] = {r.id: r for r in rentals}
        self.counts: dict[str, int] = {}
        self.ready: dict[JobClass, dict[int, None]] = {}
        self.delayed: list[tuple[float, int]] = []
        self.stages = Stages()
        self.groups: dict[str, JobGroup] = {g.name: g for g in run.groups}
        self.seed = read_seed(run.settings)
        self.pools: dict[str, Pool] = {}
        self.opened: set[tuple[str, int]] = set()  # places of groups that were given before
        self.opened_last = 0.0  # when one was given for the first time, of those
        self.dependents: dict[int, list[int]] = {}
        self.dependents_any: dict[int, list[int]] = {}
        self.waiting_for: dict[int, int] = {}  # how many of a job's dependencies have not come to what it waits for
        self.broken: dict[int, int] = {}  # ... and how many ended badly that were to succeed
        self.on_node: dict[str, dict[int, None]] = {}
        self.load: dict[str, Load] = {}
        self.to_fetch: dict[int, None] = {}
        self.superseded: dict[int, None] = {}
        self.doomed: dict[int, None] = {}  # pending jobs of which a dependency ended badly
        self.duration_sum = 0.0
        self.duration_count = 0
        records = list(jobs)
        for job in records:
            self.jobs[job.number] = job
            self.counts[job.state] = self.counts.get(job.state, 0) + 1
            self._enter_stage(job)
        self.stages.turn()
        for job in records:
            self._index_dependencies(job)
        for job in records:
            self._enter(job)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def attempt_of(self, job: JobRecord) -> str:
        return attempt_id(self.run.id, job.number, job.attempt)

    def live_jobs(self) -> Iterator[JobRecord]:
        """Jobs that are the newest of their name; superseded ones are history."""
        return (j for j in self.jobs.values() if not j.superseded_by)

    @property
    def unfinished(self) -> int:
        return self.counts.get(PENDING, 0) + self.counts.get(RUNNING, 0)

    @property
    def settled(self) -> bool:
        """Nothing left to do for any job: all ends are final and all outputs are home or given up."""
        return not self.unfinished and not self.to_fetch

    def is_gated(self, job: JobRecord) -> bool:
        """Whether jobs of earlier stages are unfinished."""
        return job.spec.stage > self.stages.begun

    @property
    def mean_duration(self) -> float | None:
        return self.duration_sum / self.duration_count if self.duration_count else None

    # ---- changing --------------------------------------------------------------------------------------------------

    def apply(self, changes: Changes) -> None:
        """Make committed changes the present state."""
        if changes.run is not None:
            self._take_run(changes.run)
        self.nodes.update(changes.nodes)
        self.builds.update(changes.builds)
        self.rentals.update(changes.rentals)
        for number, new in changes.jobs.items():
            old = self.jobs.get(number)
            if old is not None:
                self._leave(old)
                self._leave_stage(old)
                self.counts[old.state] -= 1
            self.jobs[number] = new
            self.counts[new.state] = self.counts.get(new.state, 0) + 1
            self._enter_stage(new)
            if old is None or old.after != new.after or old.after_any != new.after_any:
                self._forget_dependencies(old)
                self._index_dependencies(new)
            self._enter(new)
            self._dependency_turned(old, new)
        for number in self.stages.turn():
            self._leave(self.jobs[number])
            self._enter(self.jobs[number])

    def _take_run(self, run: RunRecord) -> None:
        seed = read_seed(run.settings)
        elsewhere = seed != self.seed or run.groups != self.run.groups
        self.run = run
        if elsewhere:  # for what is ready
            self.groups = {g.name: g for g in run.groups}
            ready = [self.jobs[number] for numbers in self.ready.values() for number in numbers]
            self.seed = seed
            self.ready.clear()
            for job in ready:
                self.ready.setdefault(self.class_of(job), {})[job.number] = None

    def class_of(self, job: JobRecord) -> JobClass:
        """Where a job stands while it is ready. Jobs that share a pool keep their order, however long they take."""
        group = self.groups.get(job.spec.group)
        kind = job_class(job, self.seed)
        return kind._replace(size=0) if group is not None and group.slots else kind

    def set_version(self, version: int) -> None:
        """The version that the store gave to what was applied last."""
        self.run = replace(self.run, version=version)

    def pop_delayed(self, now: float) -> None:
        """Move jobs whose waiting time has passed to the ready index. Derived from the records and `now` only."""
        while self.delayed and self.delayed[0][0] <= now:
            _, number = heapq.heappop(self.delayed)
            job = self.jobs.get(number)
            if job is not None and job.state == PENDING and job.not_before <= now:
                self._enter(replace(job, not_before=0.0))

    def _enter_stage(self, job: JobRecord) -> None:
        if job.spec.stage and not job.final:
            self.stages.enter(job.spec.stage, job.number, pending=job.state == PENDING)

    def _leave_stage(self, job: JobRecord) -> None:
        if job.spec.stage and not job.final:
            self.stages.leave(job.spec.stage, job.number)

    def _forget_dependencies(self, job: JobRecord | None) -> None:
        if job is not None:
            for dependency in job.after:
                self.dependents[dependency].remove(job.number)
            for dependency in job.after_any:
                self.dependents_any[dependency].remove(job.number)

    def _index_dependencies(self, job: JobRecord) -> None:
        self.waiting_for.pop(job.number, None)
        self.broken.pop(job.number, None)
        if job.after or job.after_any:
            others = [self.jobs.get(dependency) for dependency in job.after]
            any_others = [self.jobs.get(dependency) for dependency in job.after_any]
            self.waiting_for[job.number] = sum(map(_is_open, others)) + sum(map(_is_unfinished, any_others))
            self.broken[job.number] = sum(map(_is_broken, others))
        for dependency in job.after:
            self.dependents.setdefault(dependency, []).append(job.number)
        for dependency in job.after_any:
            self.dependents_any.setdefault(dependency, []).append(job.number)

    def _dependency_turned(self, old: JobRecord | None, new: JobRecord) -> None:
        """Count with differences: a job that waits for many is not scanned whenever one of them ends."""
        opened = _is_open(new) - _is_open(old)
        broke = _is_broken(new) - _is_broken(old)
        if opened or broke:
            self._count(self.dependents.get(new.number, ()), opened, broke)
        unended = _is_unfinished(new) - _is_unfinished(old)
        if unended:
            self._count(self.dependents_any.get(new.number, ()), unended, 0)

    def _count(self, dependents: Iterable[int], opened: int, broke: int) -> None:
        """What waits for others as well stays where it is: that costs little, however many wait for however many."""
        waiting_for, broken = self.waiting_for, self.broken
        for number in dependents:
            before = (waiting_for[number] > 0, broken[number] > 0)
            waiting_for[number] += opened
            broken[number] += broke
            if before != (waiting_for[number] > 0, broken[number] > 0):
                waiting = self.jobs[number]
                if waiting.state == PENDING:
                    self._leave(waiting)
                    self._enter(waiting)

    def _enter(self, job: JobRecord) -> None:
        if job.state == PENDING:
            if self.broken.get(job.number, 0) > 0:
                self.doomed[job.number] = None
            elif self.waiting_for.get(job.number, 0) > 0 or job.fetch == RESUME or self.is_gated(job):
                pass
            elif job.not_before > 0:
                heapq.heappush(self.delayed, (job.not_before, job.number))
            else:
                self.ready.setdefault(self.class_of(job), {})[job.number] = None
        elif job.state == RUNNING:
            self.on_node.setdefault(job.node, {})[job.number] = None
            load = self.load.setdefault(job.node, Load())
            load.resources = load.resources.plus(job.resources)
            load.count(job, 1)
            if job.spec.group:
                self.pools.setdefault(job.spec.group, Pool()).take(job.slot)
        elif job.started_at is not None and job.ended_at is not None and job.ended_at >= job.started_at:
            # An exponential mean would weigh recent ends more; sums keep the arithmetic exact and reversible.
            self.duration_sum += job.ended_at - job.started_at
            self.duration_count += 1
        if job.fetch in FETCHED:
            self.to_fetch[job.number] = None
        if job.superseded_by:
            self.superseded[job.number] = None
        self._note_opened(job)

    def _note_opened(self, job: JobRecord) -> None:
        if job.slot < 0:
            return
        place = (job.spec.group, job.slot)
        if place not in self.opened:
            self.opened.add(place)
            self.opened_last = max(self.opened_last, job.handed_at or 0.0)

    def _leave(self, job: JobRecord) -> None:
        number = job.number
        self.to_fetch.pop(number, None)
        self.superseded.pop(number, None)
        if job.state == PENDING:
            self.doomed.pop(number, None)
            kind = self.class_of(job)
            members = self.ready.get(kind)
            if members is not None:
                members.pop(number, None)
                if not members:
                    del self.ready[kind]
        elif job.state == RUNNING:
            self.on_node.get(job.node, {}).pop(number, None)
            load = self.load.setdefault(job.node, Load())
            load.resources = load.resources.minus(job.resources)
            load.count(job, -1)
            if job.spec.group:
                self.pools[job.spec.group].give_back(job.slot)
        elif job.started_at is not None and job.ended_at is not None and job.ended_at >= job.started_at:
            self.duration_sum -= job.ended_at - job.started_at
            self.duration_count -= 1

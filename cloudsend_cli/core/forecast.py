"""What a run would do, before it is begun: which machines first, what runs where, for how long. Pure.

The jobs are gone through once in the order and with the rules by which they are handed out, each as long as it took in
earlier runs, on machines that are there as soon as they are asked for. So it is what to expect if nothing comes
between.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .assignment import FASTEST, rank_of, read_assign
from .cost_forecast import ExpectedCost, Span, expect_cost
from .demand import plan_demand
from .draft import Draft
from .history import NO_HISTORY, History, estimate_times
from .model import NOTHING, RUNNING, SUCCEEDED, UNBOUNDED, HostView, JobGroup, Observation, Policy, Resources, RunSpec
from .naming import job_hash
from .places import Place, best_place, keep_drawn
from .plan import NodePlan, plan_run
from .pools import Rooms, read_delay
from .renting import is_rented
from .state import Changes, JobRecord, RunState

JOBS_MOST: Final = 20_000  # with more it is not gone through: it would take longer than a plan may
LOOKS_MOST: Final = 2000  # how often it is asked whether more machines are needed, for the same reason
NAMED: Final = 3  # jobs that are named of a machine


@dataclass(frozen=True, slots=True)
class MachineForecast:
    name: str
    jobs: int
    first: tuple[str, ...]  # names of the first that run there


@dataclass(frozen=True, slots=True)
class GroupForecast:
    name: str
    jobs: int
    at_once: int | None  # None: as many as there is room for


@dataclass(frozen=True, slots=True)
class Forecast:
    jobs: int
    unknown: int  # jobs that no earlier run has timed
    machines: tuple[MachineForecast, ...] = ()  # those that are used, where that is foreseen
    seconds: float | None = None  # until the last end, where anything is known of it
    groups: tuple[GroupForecast, ...] = ()
    why_not: str = ""  # why nothing is foreseen of machines
    estimated: int = 0  # of the unknown ones: points of a sweep of which others were timed, taken for their mean
    cost: ExpectedCost | None = None


def plan_forecast(
    spec: RunSpec,
    nodes: Sequence[NodePlan],
    history: History = NO_HISTORY,
    kept: Collection[str] = (),
    *,
    under_way: bool = False,
) -> Forecast:
    """`kept`: names of jobs that are not done again. `under_way`: some of the others may have begun, so that nothing
    is said of what is left to pay."""
    whole, spec = spec, _without(spec, kept)
    state = plan_run(spec, nodes, "plan", 0.0, history)
    unknown = sum(not job.expected for job in state.jobs.values())
    why_not = _describe_why_not(state, nodes)
    bare = Forecast(len(state.jobs), unknown, groups=_list_groups(spec), why_not=why_not)
    if why_not:
        return bare
    known = {number: job.expected for number, job in state.jobs.items() if job.expected}
    if unknown:
        estimates = _estimate(whole, state, history)
        known.update((n, estimates[job.spec.name]) for n, job in state.jobs.items() if job.spec.name in estimates)
    passage = _go_through(state, nodes, known)
    found = passage.names()
    machines = [MachineForecast(name, len(jobs), tuple(jobs[:NAMED])) for name, jobs in found.items() if jobs]
    forecast = replace(bare, machines=tuple(machines), estimated=len(known) - (len(state.jobs) - unknown))
    if not known:
        return forecast
    if under_way or not any(is_rented(node.offers[0]) for node in nodes):
        return replace(forecast, seconds=passage.end)
    missing = len(state.jobs) - len(known)
    least = _go_through(plan_run(spec, nodes, "plan", 0.0, history), nodes, known, 0.0) if missing else passage
    homeless = len(state.jobs) - least.begun
    cost = expect_cost(nodes, least.spans(), history.starting, jobs=missing, homeless=homeless)
    return replace(forecast, seconds=passage.end, cost=cost)


def foresee_places(spec: RunSpec, nodes: Sequence[NodePlan], history: History = NO_HISTORY) -> dict[str, list[str]]:
    """Names of all jobs on each machine, in the order in which they begin; nothing where that is not foreseen."""
    state = plan_run(spec, nodes, "plan", 0.0, history)
    if _describe_why_not(state, nodes):
        return {}
    return _go_through(state, nodes, {n: job.expected for n, job in state.jobs.items() if job.expected}).names()


def _estimate(whole: RunSpec, state: RunState, history: History) -> dict[str, float]:
    """By name, of points of sweeps that no run has timed. Those that are kept, not in `state`, tell of others, too."""
    times = {job.spec.name: job.expected for job in state.jobs.values()}
    for job in whole.jobs:
        if job.name not in times:
            times[job.name] = history.expect(job_hash(job), job)
    known = {name: seconds for name, seconds in times.items() if seconds}
    return estimate_times(whole.jobs, known, history.by_name)


def _without(spec: RunSpec, kept: Collection[str]) -> RunSpec:
    return replace(spec, jobs=tuple(job for job in spec.jobs if job.name not in kept))


def _describe_why_not(state: RunState, nodes: Sequence[NodePlan]) -> str:
    """Why it cannot be foreseen; "" where it can."""
    if any(plan.capacity is None or plan.capacity.cpus >= UNBOUNDED.cpus for plan in nodes):
        return "how large the machines are will be known when they are there"
    return f"of more than {JOBS_MOST:,} jobs it is not foreseen" if len(state.jobs) > JOBS_MOST else ""


def list_first(spec: RunSpec, nodes: Sequence[NodePlan], kept: Collection[str] = ()) -> frozenset[str]:
    """Of the rented machines, those that are asked for at once."""
    if not any(is_rented(node.offers[0]) for node in nodes):
        return frozenset()
    spec = _without(spec, kept)
    return plan_demand(Draft(plan_run(spec, nodes, "plan", 0.0), Observation(0.0), Policy())).ask


def _list_groups(spec: RunSpec) -> tuple[GroupForecast, ...]:
    counts: dict[str, int] = {}
    for job in spec.jobs:
        if job.group:
            counts[job.group] = counts.get(job.group, 0) + 1
    groups = {group.name: group for group in spec.groups}
    found = [(name, count, groups.get(name, JobGroup(name))) for name, count in counts.items()]
    return tuple(GroupForecast(name, count, _at_once(group, spec, count)) for name, count, group in found)


def _at_once(group: JobGroup, spec: RunSpec, count: int) -> int | None:
    limits = [
        limit for limit in (len(group.slots) or None, group.max_parallel, spec.max_parallel) if limit is not None
    ]
    return min([*limits, count]) if limits else None


# ---- going through it ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Passage:
    """What runs on each machine from when until when, in the order in which it begins."""

    on: dict[str, list[tuple[str, Span]]]
    begun: int = 0
    end: float = 0.0

    def names(self) -> dict[str, list[str]]:
        return {node: [name for name, _ in jobs] for node, jobs in self.on.items()}

    def spans(self) -> dict[str, list[Span]]:
        return {node: [span for _, span in jobs] for node, jobs in self.on.items()}


def _go_through(
    state: RunState, nodes: Sequence[NodePlan], known: Mapping[int, float], otherwise: float | None = None
) -> _Passage:
    """`known`: seconds of jobs by number; others take `otherwise`, or the mean of these."""
    if otherwise is None:
        otherwise = sum(known.values()) / len(known) if known else 1.0
    there = [node.name for node in nodes if node.at_hand or not is_rented(node.offers[0])]
    closed = len(nodes) - len(there)
    places: dict[str, Place] = {}
    _open(state, there, places)
    in_order = list(places.values())
    passage = _Passage({node.name: [] for node in nodes})
    ends: list[tuple[float, int]] = []
    begin = now = read_delay(state.run.settings)  # before which no place of a pool was given
    ready, looks = 0, LOOKS_MOST
    while True:
        draft = Draft(state, Observation(now), Policy())
        more = sum(map(len, state.ready.values()))
        if closed and more > ready and looks:  # it is asked for more machines when more becomes ready
            asked = plan_demand(draft).ask
            closed, looks = closed - len(asked), looks - 1
            _open(state, asked, places)
            in_order = [places[name] for name in state.nodes if name in places]
        started = _start(draft, in_order)
        for job in started.values():
            until = now + known.get(job.number, otherwise)
            passage.on[job.node].append((job.spec.name, (now - begin, until - begin)))
            heapq.heappush(ends, (until, job.number))
        state.apply(Changes(jobs=started))
        passage.begun += len(started)
        ready = sum(map(len, state.ready.values()))
        if not ends and draft.wake_at is None:
            return passage
        now = min(at for at in (ends[0][0] if ends else None, draft.wake_at) if at is not None)
        ended = {}
        while ends and ends[0][0] <= now:
            job = state.jobs[heapq.heappop(ends)[1]]
            ended[job.number] = replace(job, state=SUCCEEDED)
            places[job.node].give_back(job)
            passage.end = now - begin
        state.apply(Changes(jobs=ended))


def _open(state: RunState, names: Iterable[str], places: dict[str, Place]) -> None:
    up = {name: replace(state.nodes[name], state="running") for name in names}
    state.apply(Changes(nodes=up))
    for name, node in up.items():
        places[name] = Place(name, HostView(True), node.capacity, NOTHING, 0, len(state.jobs) + 1)


def _start(draft: Draft, places: list[Place]) -> dict[int, JobRecord]:
    state = draft.state
    rooms = Rooms(draft)
    spread = read_assign(state.run.settings) == FASTEST
    limit = state.run.max_parallel
    left = len(state.jobs) if limit is None else limit - state.counts.get(RUNNING, 0)
    started: dict[int, JobRecord] = {}
    full: set[tuple[Resources, bool]] = set()  # what no machine has room for, however long it takes
    for kind in sorted(state.ready, key=lambda kind: (rank_of(kind.size), next(iter(state.ready[kind])))):
        open_places = places if state.seed is None else keep_drawn(draft, state.seed, kind, places)
        need = (kind.resources, bool(kind.group))
        for number in state.ready[kind]:
            if len(started) >= left or need in full or not rooms.has_room(kind.group):
                break
            job = state.jobs[number]
            place = best_place(open_places, job, spread=spread)
            if place is None or not place.has_room(job.resources):
                full.update([need] if state.seed is None else [])
                break
            slot = rooms.take(kind.group)
            started[number] = replace(job, state=RUNNING, node=place.name, slot=slot, handed_at=draft.seen.now)
            place.take(job)
    return started

"""What a run would do, before it is begun: which machines first, what runs where, for how long. Pure.

The jobs are gone through once in the order and with the rules by which they are handed out, on machines that are all
there from the beginning, each as long as it took in earlier runs. So it is what to expect if nothing comes between.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .assignment import FASTEST, rank_of, read_assign
from .demand import plan_demand
from .draft import Draft
from .history import NO_HISTORY, History
from .model import NOTHING, RUNNING, SUCCEEDED, UNBOUNDED, HostView, JobGroup, Observation, Policy, RunSpec
from .places import Place, best_place, keep_drawn
from .plan import NodePlan, plan_run
from .pools import Rooms
from .renting import is_rented
from .state import Changes, JobRecord, RunState

JOBS_MOST: Final = 20_000  # with more it is not gone through: it would take longer than a plan may
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


def plan_forecast(
    spec: RunSpec, nodes: Sequence[NodePlan], history: History = NO_HISTORY, kept: Collection[str] = ()
) -> Forecast:
    """`kept`: names of jobs that are not done again."""
    spec = _without(spec, kept)
    state = plan_run(spec, nodes, "plan", 0.0, history)
    unknown = sum(not job.expected for job in state.jobs.values())
    why_not = _describe_why_not(state, nodes)
    bare = Forecast(len(state.jobs), unknown, groups=_list_groups(spec), why_not=why_not)
    if why_not:
        return bare
    names, seconds = _go_through(state)
    timed = unknown < len(state.jobs)
    machines = [MachineForecast(name, len(found), tuple(found[:NAMED])) for name, found in names.items() if found]
    return replace(bare, machines=tuple(machines), seconds=seconds if timed else None)


def foresee_places(spec: RunSpec, nodes: Sequence[NodePlan], history: History = NO_HISTORY) -> dict[str, list[str]]:
    """Names of all jobs on each machine, in the order in which they begin; nothing where that is not foreseen."""
    state = plan_run(spec, nodes, "plan", 0.0, history)
    return {} if _describe_why_not(state, nodes) else _go_through(state)[0]


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


def _go_through(state: RunState) -> tuple[dict[str, list[str]], float]:
    """Names of the jobs on each machine, and when the last of them ends."""
    up = {name: replace(node, state="running") for name, node in state.nodes.items()}
    state.apply(Changes(nodes=up))
    known = [job.expected for job in state.jobs.values() if job.expected]
    mean = sum(known) / len(known) if known else 1.0
    places = {
        name: Place(name, HostView(True), node.capacity, NOTHING, 0, len(state.jobs) + 1) for name, node in up.items()
    }
    names: dict[str, list[str]] = {name: [] for name in places}
    ends: list[tuple[float, int]] = []
    now = 0.0
    while True:
        started = _start(state, list(places.values()))
        for job in started.values():
            names[job.node].append(job.spec.name)
            heapq.heappush(ends, (now + (job.expected or mean), job.number))
        state.apply(Changes(jobs=started))
        if not ends:
            return names, now
        ended = {}
        now = ends[0][0]
        while ends and ends[0][0] <= now:
            job = state.jobs[heapq.heappop(ends)[1]]
            ended[job.number] = replace(job, state=SUCCEEDED)
            places[job.node].give_back(job)
        state.apply(Changes(jobs=ended))


def _start(state: RunState, places: list[Place]) -> dict[int, JobRecord]:
    draft = Draft(state, Observation(0.0), Policy())
    rooms = Rooms(draft)
    spread = read_assign(state.run.settings) == FASTEST
    limit = state.run.max_parallel
    left = len(state.jobs) if limit is None else limit - state.counts.get(RUNNING, 0)
    started: dict[int, JobRecord] = {}
    for kind in sorted(state.ready, key=lambda kind: (rank_of(kind.size), next(iter(state.ready[kind])))):
        open_places = places if state.seed is None else keep_drawn(draft, state.seed, kind, places)
        for number in state.ready[kind]:
            if len(started) >= left or not rooms.has_room(kind.group):
                break
            job = state.jobs[number]
            place = best_place(open_places, job, spread=spread)
            if place is None or not place.has_room(job.resources):
                break
            slot = rooms.take(kind.group)
            started[number] = replace(job, state=RUNNING, node=place.name, slot=slot)
            place.take(job)
    return started

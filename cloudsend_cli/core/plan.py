"""From what the user wrote to records: new runs, continued runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .growth import keep_memory
from .history import NO_HISTORY, History
from .model import (
    CANCELLED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    UNBOUNDED,
    Aside,
    JobGroup,
    JobSpec,
    Offer,
    ProviderDefinition,
    Resources,
    RunSpec,
)
from .naming import job_hash, match_names, stand_in_name
from .offers import take_offer
from .overtaken import list_overtaken
from .pools import move_slots
from .state import AT_REST, RESULTS_GONE, BuildRecord, Changes, JobRecord, NodeRecord, RunRecord, RunState

AT_HAND = frozenset({"creating", "running", "keeping"})  # states of nodes that have a machine, or are about to


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One machine of the plan, with what could be had for it in the order in which it is tried."""

    name: str
    provider: str
    offers: tuple[Offer, ...]
    warnings: tuple[str, ...] = ()
    asides: tuple[Aside, ...] = ()
    waiting: bool = False  # a machine that waits for a run would be taken
    at_hand: bool = False  # the run that is continued has its machine

    @property
    def capacity(self) -> Resources | None:
        """Of the first offer; None: not known before the machine exists."""
        return self.offers[0].capacity


@dataclass(frozen=True, slots=True)
class Continued:
    """What running a config again means for its jobs, by number."""

    kept: tuple[int, ...] = ()  # succeeded with the same content
    attached: tuple[int, ...] = ()  # pending or running already
    reopened: tuple[int, ...] = ()  # failed or cancelled before: a new attempt
    added: tuple[int, ...] = ()
    superseded: tuple[int, ...] = ()  # edited: replaced by one of `added`
    dropped: tuple[int, ...] = ()  # no longer in the config
    overtaken: tuple[int, ...] = ()  # of `kept`: what they wait for is done again, or was since
    numbers: Mapping[str, int] = field(default_factory=dict, compare=False)  # of its jobs, by the config's names


def plan_run(
    spec: RunSpec, nodes: Sequence[NodePlan], run_id: str, now: float, history: History = NO_HISTORY
) -> RunState:
    """A new run: version 0, nothing committed, nothing started."""
    jobs = [_new_job(n, job, job_hash(job), now, history) for n, job in enumerate(spec.jobs, 1)]
    jobs = _resolve_after(jobs, {job.spec.name: job.number for job in jobs})
    run = RunRecord(
        id=run_id,
        project=spec.project,
        config_path=spec.config_path,
        created_at=now,
        results_dir=spec.results_dir,
        max_parallel=spec.max_parallel,
        budget=spec.budget,
        base_env=spec.base_env,
        settings=spec.settings,
        providers=spec.providers,
        groups=spec.groups,
    )
    return RunState(run, jobs, _node_records(nodes, {}), (), spec.environments)


def _new_job(number: int, spec: JobSpec, content: str, now: float, history: History, batch: int = 1) -> JobRecord:
    expected = history.expect(content, spec)
    return JobRecord(number, spec, content, now, batch=batch, expected=expected)


def plan_continue(
    state: RunState, spec: RunSpec, nodes: Sequence[NodePlan], now: float, history: History = NO_HISTORY
) -> tuple[Changes, Continued]:
    """Fold a config into its earlier run: what succeeded is kept, what runs is attached to, the rest is attempted.

    History is never lost: an edited job is a new number, and the old one names its successor.
    """
    batch = state.run.batch + 1
    merge = _Merge(state, batch, now, history)
    by_name = {job.spec.name: job for job in state.live_jobs()}
    wanted = {job.name: job_hash(job) for job in spec.jobs}
    earlier = _match_earlier(by_name, wanted)
    for job_spec in spec.jobs:
        merge.take(job_spec, wanted[job_spec.name], earlier.get(job_spec.name))
    merge.drop(by_name.values())
    merge.change_pools(spec.groups)
    jobs = {j.number: j for j in _resolve_after(list(merge.live.values()), merge.numbers)}
    merge.changed.update({n: j for n, j in jobs.items() if n in merge.changed or state.jobs.get(n) != j})
    node_records = {n.name: n for n in _node_records(nodes, state.nodes)}
    changes = Changes(
        run=replace(
            state.run,
            batch=batch,
            cancelled=False,
            stopped="",
            ended_at=None,
            results_dir=spec.results_dir,
            max_parallel=spec.max_parallel,
            budget=spec.budget,
            base_env=spec.base_env,
            settings=spec.settings,
            providers=_providers(state, spec),
            groups=spec.groups,
        ),
        jobs=merge.changed,
        nodes=node_records,
        builds={key: _reopen_build(b) for key, b in state.builds.items() if b.state == "failed"},
    )
    continued = merge.result()
    return changes, replace(continued, overtaken=list_overtaken(jobs, continued.kept))


def _match_earlier(by_name: dict[str, JobRecord], wanted: Mapping[str, str]) -> dict[str, JobRecord]:
    """By name, the job that each of the config goes on with: that of its name and content; else one of its content
    that is called otherwise now, as a sweep that grows numbers its points anew; else that of its name."""
    found = {
        name: by_name[name] for name, content in wanted.items() if name in by_name and by_name[name].hash == content
    }
    renamed: dict[str, list[JobRecord]] = {}
    for name, job in reversed(by_name.items()):
        # A running attempt keeps its name, which another job may not have beside it.
        if name not in found and (job.state != RUNNING or name not in wanted):
            renamed.setdefault(job.hash, []).append(job)
    for name, content in wanted.items():
        if name not in found and renamed.get(content):
            found[name] = renamed[content].pop()
    taken = {job.number for job in found.values()}
    for name in wanted:
        if name not in found and name in by_name and by_name[name].number not in taken:
            found[name] = by_name[name]
    return found


def _providers(state: RunState, spec: RunSpec) -> tuple[ProviderDefinition, ...]:
    """Those of the config as it is now, and earlier ones, from which machines may still be had."""
    newest = {p.name: p for p in (*state.run.providers, *spec.providers)}
    return tuple(newest.values())


def _reopen_build(build: BuildRecord) -> BuildRecord:
    return replace(build, state="wanted", attempt=build.attempt + 1, reason="", losses=0)


def plan_fetch(state: RunState, numbers: Iterable[int]) -> Changes:
    """Try again to bring home what these jobs left, from the machines on which they ran."""
    jobs = {n: _fetch_again(state.jobs[n]) for n in numbers}
    needed = {job.node for job in jobs.values()}
    nodes = {
        name: replace(node, state="wanted", reason="", not_before=0.0)
        for name, node in state.nodes.items()
        if name in needed and node.state == "released"
    }
    return Changes(run=replace(state.run, ended_at=None), jobs=jobs, nodes=nodes)


def _fetch_again(job: JobRecord) -> JobRecord:
    if not job.fetch.startswith("failed"):
        return job
    return replace(job, fetch="wanted", fetch_tries=0, not_before=0.0)


@dataclass(slots=True)
class _Merge:
    state: RunState
    batch: int
    now: float
    history: History
    live: dict[int, JobRecord] = field(default_factory=dict)
    changed: dict[int, JobRecord] = field(default_factory=dict)
    groups: dict[str, list[int]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # by the name that the config now uses
    next_number: int = 0

    def __post_init__(self) -> None:
        self.next_number = max(self.state.jobs, default=0) + 1

    def take(self, spec: JobSpec, content: str, old: JobRecord | None) -> None:
        self.numbers[spec.name] = self._take(spec, content, old)

    def _take(self, spec: JobSpec, content: str, old: JobRecord | None) -> int:
        if old is None:
            return self._add(spec, content)
        if old.hash != content:
            self._note("superseded", old)
            return self._retire(old, self._add(spec, content), "superseded by an edited job")
        if old.state == RUNNING and old.cancel:
            return self._retire(old, self._add(spec, content), "cancelled by the user")
        if old.final and (old.state != SUCCEEDED or old.fetch.startswith(RESULTS_GONE)):
            self._reopen(old, spec)
        else:
            self._keep("kept" if old.final else "attached", old, spec)
        return old.number

    def drop(self, old_jobs: Iterable[JobRecord]) -> None:
        for job in old_jobs:
            if job.number not in self.live and job.number not in self.changed:
                self._retire(job, -1, "no longer in the config")
                self._note("dropped", job)

    def change_pools(self, groups: Iterable[JobGroup]) -> None:
        handed_out = [n for numbers in self.state.on_node.values() for n in numbers]
        running = [(self.state.jobs[n], self.changed.get(n, self.state.jobs[n])) for n in handed_out]
        for job in move_slots(running, self.state.groups, {g.name: g for g in groups}):
            self.changed[job.number] = job
            if job.number in self.live:
                self.live[job.number] = job

    def _note(self, group: str, job: JobRecord) -> None:
        self.groups.setdefault(group, []).append(job.number)

    def _keep(self, group: str, old: JobRecord, spec: JobSpec) -> None:
        job = _fetch_again(_with_spec(old, spec))
        self.live[job.number] = job
        if job is not old:
            self.changed[job.number] = job
        self._note(group, job)

    def _reopen(self, old: JobRecord, spec: JobSpec) -> None:
        job = replace(
            old,
            spec=spec,
            memory=keep_memory(old, spec),
            state=PENDING,
            reason="",
            failures=0,
            losses=0,
            cancel=False,
            not_before=0.0,
            fetch="",
            fetch_tries=0,
            batch=self.batch,
        )
        self.live[job.number] = self.changed[job.number] = job
        self._note("reopened", job)

    def _add(self, spec: JobSpec, content: str) -> int:
        job = _new_job(self.next_number, spec, content, self.now, self.history, self.batch)
        self.next_number += 1
        self.live[job.number] = self.changed[job.number] = job
        self._note("added", job)
        return job.number

    def _retire(self, old: JobRecord, successor: int, reason: str) -> int:
        job = replace(old, superseded_by=successor)
        if old.state == PENDING:
            job = replace(job, state=CANCELLED, reason=reason, ended_at=self.now, fetch="")
        elif old.state == RUNNING:
            job = replace(job, cancel=True)
        self.changed[old.number] = job
        return successor

    def result(self) -> Continued:
        groups = {group: tuple(numbers) for group, numbers in self.groups.items()}
        return Continued(**groups, numbers=self.numbers)


def _with_spec(old: JobRecord, spec: JobSpec) -> JobRecord:
    """A running attempt keeps the spec that it was started with; what comes after it goes by the config as it is."""
    if old.state == RUNNING:
        place = (spec.stage, spec.group)
        same = (old.spec.stage, old.spec.group) == place
        return old if same else replace(old, spec=replace(old.spec, stage=spec.stage, group=spec.group))
    return old if old.spec == spec else replace(old, spec=spec, memory=keep_memory(old, spec))


def _resolve_after(jobs: list[JobRecord], by_name: dict[str, int]) -> list[JobRecord]:
    """Names and globs of `after` become numbers; the config layer has refused what matches nothing."""
    found: dict[tuple[str, ...], tuple[tuple[int, ...], frozenset[int]]] = {}
    resolved = []
    for job in jobs:
        after = _numbers(job.spec.after, job.number, by_name, found)
        after_any = _numbers(job.spec.after_any, job.number, by_name, found)
        same = (after, after_any) == (job.after, job.after_any)
        resolved.append(job if same else replace(job, after=after, after_any=after_any))
    return resolved


def _numbers(
    patterns: tuple[str, ...],
    own: int,
    by_name: dict[str, int],
    found: dict[tuple[str, ...], tuple[tuple[int, ...], frozenset[int]]],
) -> tuple[int, ...]:
    """One list for all that wait for the same: many that wait for many would fill the memory."""
    if not patterns:
        return ()
    if patterns not in found:
        names = [n for pattern in patterns for n in match_names(pattern, by_name)]
        numbers = tuple(dict.fromkeys(by_name[n] for n in names))
        found[patterns] = (numbers, frozenset(numbers))
    numbers, members = found[patterns]
    return tuple(n for n in numbers if n != own) if own in members else numbers


def _node_records(plans: Sequence[NodePlan], known: dict[str, NodeRecord]) -> list[NodeRecord]:
    records = []
    for plan in plans:
        old, other = known.get(plan.name), known.get(stand_in_name(plan.name))
        if old is None or other is None or not old.retired or other.stands_in_for != plan.name:
            records.append(_node_record(plan, old))
        elif old.state in AT_REST and other.state in AT_REST:
            records += [_node_record(plan, old), replace(other, state="released", retired=True)]
        else:
            records.append(_node_record(plan, other))
    return records


def _node_record(plan: NodePlan, old: NodeRecord | None) -> NodeRecord:
    if old is not None and old.state not in AT_REST:
        return old
    new = take_offer(NodeRecord(plan.name, plan.provider, UNBOUNDED, "", offers=plan.offers), plan.offers[0])
    if old is None:
        return new
    new = replace(new, name=old.name, stands_in_for=old.stands_in_for)
    return replace(new, generation=old.generation, created_at=old.created_at)

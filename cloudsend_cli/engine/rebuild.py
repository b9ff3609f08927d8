"""A state directory that was lost, made again from what hosts remember. Nothing is started or stopped by it.

What a host tells is its own word, so nothing of it may run anywhere else: rebuilt jobs get no new attempts, and a run
that is new here hands out nothing until its config is run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloudsend_cli.core.decide_jobs import reason_of
from cloudsend_cli.core.model import (
    CANCELLED,
    FAILED,
    RUNNING,
    SUCCEEDED,
    UNBOUNDED,
    AttemptStatus,
    EnvironmentBuild,
    ProviderDefinition,
)
from cloudsend_cli.core.naming import job_hash
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import BuildRecord, Changes, JobRecord, NodeRecord, RunRecord, RunState
from cloudsend_cli.core.submission import UNREACHED
from cloudsend_cli.errors import NotFoundError
from cloudsend_cli.store.sqlite import SqliteStore

from . import homelogs, results
from .inventory import BuildFound, HostFound, JobFound, RunFound
from .places import Place
from .reports import files_at_home, read_metrics

LOGS = "logs"  # in the state directory
LIVE = frozenset({"queued", "running"})
NEVER_STARTED = "never started"
NO_SCRIPT = "echo 'what this environment is made of was lost: run the config again' >&2; exit 1"
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of one run."""

    run: str
    project: str
    config: str
    results: str
    created: bool  # else it was there, and was completed
    jobs: int  # that were added, or brought up to a later attempt
    running: int

    def as_json(self) -> dict[str, object]:
        return {
            "run": self.run,
            "project": self.project,
            "config": self.config or None,
            "results_dir": self.results or None,
            "created": self.created,
            "jobs": self.jobs,
            "running": self.running,
        }


BringLogs = Callable[[Place, Sequence[str]], None]


def rebuild(
    store: SqliteStore, hosts: Sequence[HostFound], state_dir: Path, now: float, bring: BringLogs
) -> list[Rebuilt]:
    """Write all that the hosts told and the store lacks. Repeating it changes nothing.

    `bring` copies home the logs of these attempts of one machine, as far as it can.
    """
    unreached = tuple(h.place.node for h in hosts if h.problem is not None)
    told: dict[str, RunFound] = {}
    for host in hosts:
        for run, found in host.runs.items():
            if run not in told or (found.project and not told[run].project):
                told[run] = found
    done = []
    for run, about in sorted(told.items(), key=lambda item: (item[1].created or 0.0, item[0])):
        pieces = _Pieces(run, hosts, state_dir, now)
        try:
            known = store.run_row(run).run
        except NotFoundError:
            record = pieces.make_run(about, unreached)
            pieces.bring_logs(record, {}, bring)
            state = pieces.make_state(record)
            store.create_run(state, [Event("rebuilt", run, f"{len(state.jobs)} jobs")])
            done.append(_outcome(state.run, state.jobs, created=True))
        else:
            pieces.bring_logs(known, {r.number: r.attempt for r in store.list_jobs(run)}, bring)
            done.append(_complete(store, pieces, unreached))
    return [one for one in done if one.created or one.jobs]


def _complete(store: SqliteStore, pieces: _Pieces, unreached: Sequence[str]) -> Rebuilt:
    outcome: list[Rebuilt] = []

    def update(state: RunState) -> Changes:
        changes = pieces.complete_run(state, unreached)
        outcome.append(_outcome(changes.run or state.run, changes.jobs, created=False))
        return changes

    known = store.load_without_jobs(pieces.run).environments
    new = [e for key, e in pieces.environments.items() if key not in known]
    store.write_run(pieces.run, update, environments=new)
    return outcome[-1]


def _outcome(run: RunRecord, jobs: Mapping[int, JobRecord], *, created: bool) -> Rebuilt:
    running = sum(1 for job in jobs.values() if job.state == RUNNING)
    return Rebuilt(run.id, run.project, run.config_path, run.results_dir, created, len(jobs), running)


class _Pieces:
    """Records of one run as the hosts tell it."""

    def __init__(self, run: str, hosts: Sequence[HostFound], state_dir: Path, now: float) -> None:
        self.run = run
        self.now = now
        self._hosts = hosts
        self._state_dir = state_dir
        self._newest = _newest_attempts(run, hosts)
        self.environments = _environments(run, hosts, (job.spec.environment for job, _ in self._newest.values()))

    def make_run(self, about: RunFound, unreached: Sequence[str]) -> RunRecord:
        created = about.created or min((j.status.started or self.now for j, _ in self._newest.values()), default=0.0)
        return RunRecord(
            id=self.run,
            project=about.project or "rebuilt",
            config_path=about.config,
            created_at=created,
            results_dir=str(_choose_results(about, self._state_dir)),
            max_parallel=0,  # nothing is handed out until the config is run again, which brings the user's own limit
            settings=((UNREACHED, ", ".join(unreached)),) if unreached else (),
            providers=self._providers(),
        )

    def make_state(self, run: RunRecord) -> RunState:
        jobs = self._jobs(run)
        busy = _busy_nodes(jobs.values())
        nodes = [n if n.name in busy else replace(n, state="released") for n in self._nodes().values()]
        ends = [job.ended_at or run.created_at for job in jobs.values()]
        run = replace(run, ended_at=None if busy else max(ends, default=self.now))
        return RunState(run, jobs.values(), nodes, self._builds().values(), self.environments.values())

    def bring_logs(self, run: RunRecord, known: Mapping[int, int], bring: BringLogs) -> None:
        """Those that no results will bring along. `known`: by job, the attempt that the store knows."""
        wanted: dict[Place, list[str]] = {}
        for number, (job, host) in self._newest.items():
            over = job.status.state not in LIVE and known.get(number, 0) < job.attempt
            if over and not self._has_log(job) and (not job.spec.outputs or _is_home(run, job)):
                wanted.setdefault(host.place, []).append(job.uid)
        for place, attempts in wanted.items():
            bring(place, attempts)

    def _has_log(self, job: JobFound) -> bool:
        return homelogs.is_home(self._state_dir / LOGS, job.uid)

    def complete_run(self, state: RunState, unreached: Sequence[str]) -> Changes:
        """What the run lacks: jobs and attempts that it does not know, and machines that it needs for them."""
        jobs = {}
        for number, job in self._jobs(state.run).items():
            old = state.jobs.get(number)
            if old is None or old.attempt < job.attempt:
                spec = old.spec if old is not None and old.hash == job.hash else job.spec
                created = old.created_at if old is not None else job.created_at
                jobs[number] = replace(job, spec=spec, created_at=created, batch=state.run.batch)
        busy = _busy_nodes(jobs.values())
        nodes: dict[str, NodeRecord] = {}
        for name, node in self._nodes().items():
            known = state.nodes.get(name)
            if known is None and any(job.node == name for job in jobs.values()):
                nodes[name] = node if name in busy else replace(node, state="released")
            elif known is not None and known.state in {"released", "failed"} and name in busy:
                nodes[name] = replace(known, state="wanted", reason="", not_before=0.0)
        builds = {key: b for key, b in self._builds().items() if key not in state.builds and (jobs or nodes)}
        settings = tuple(pair for pair in state.run.settings if pair[0] != UNREACHED)
        if dict(state.run.settings).get(UNREACHED) and unreached:
            settings = state.run.settings
        run = None
        if jobs or settings != state.run.settings:
            known_names = {p.name for p in state.run.providers}
            more = tuple(p for p in self._providers() if p.name not in known_names)
            ended = None if busy else state.run.ended_at
            run = replace(state.run, settings=settings, providers=(*state.run.providers, *more), ended_at=ended)
        return Changes(run, jobs, nodes, builds)

    def _providers(self) -> tuple[ProviderDefinition, ...]:
        return tuple(dict.fromkeys(h.place.provider for h in self._hosts if self.run in h.runs))

    def _nodes(self) -> dict[str, NodeRecord]:
        """`wanted`: the maestro claims them and connects, as it does for any run."""
        found = {}
        for host in self._hosts:
            if self.run in host.runs:
                place = host.place
                capacity = place.capacity or UNBOUNDED
                found[place.node] = NodeRecord(place.node, place.provider.name, capacity, place.request)
        return found

    def _jobs(self, run: RunRecord) -> dict[int, JobRecord]:
        jobs = {n: self._job(run, job, host.place.node) for n, (job, host) in self._newest.items()}
        latest: dict[str, int] = {}
        for number in sorted(jobs):
            latest[jobs[number].spec.name] = number
        return {
            n: job if latest[job.spec.name] == n else replace(job, superseded_by=latest[job.spec.name])
            for n, job in jobs.items()
        }

    def _job(self, run: RunRecord, found: JobFound, node: str) -> JobRecord:
        status = found.status
        spec = replace(found.spec, retries=0, retries_lost=0)
        job = JobRecord(
            found.number,
            spec,
            found.hash or job_hash(spec),
            run.created_at,
            state=RUNNING,
            attempt=found.attempt,
            node=node,
            boot=found.boot,
            handed_at=status.started or self.now,
            started_at=status.started,
            slot=found.slot,
        )
        if status.state in LIVE:
            return job
        state, reason = read_end(status)
        leaves = bool(spec.outputs) and state != CANCELLED
        left = (leaves and not _is_home(run, found)) or not self._has_log(found)
        return replace(
            job,
            state=state,
            reason=reason,
            exit_code=status.exit_code,
            ended_at=status.ended or status.started or self.now,
            fetch="wanted" if left else "home" if leaves else "",
            maxrss=status.maxrss,
            cpu_seconds=status.cpu_seconds,
            metrics=read_metrics(files_at_home(self._state_dir / LOGS, found.uid)) if self._has_log(found) else (),
        )

    def _builds(self) -> dict[Key, BuildRecord]:
        newest: dict[Key, tuple[BuildFound, str]] = {}
        for host in self._hosts:
            for build in host.builds:
                key = (host.place.node, build.environment.key)
                if build.run == self.run and (key not in newest or newest[key][0].attempt < build.attempt):
                    newest[key] = (build, host.place.node)
        return {key: _build_record(build, node) for key, (build, node) in newest.items()}


def read_end(status: AttemptStatus) -> tuple[str, str]:
    """(state, reason) of an attempt that is over: what decide would make of it, without any further attempt."""
    if status.state == "exited":
        if status.cause == "cancelled":
            return CANCELLED, "cancelled by the user"
        if not status.cause and status.exit_code == 0 and not status.signal and not status.missing:
            return SUCCEEDED, ""
        return FAILED, reason_of(status)
    if status.state == "lost":
        return FAILED, status.cause or "lost"
    if status.state == "cancelled":
        return CANCELLED, "cancelled by the user"
    return FAILED, NEVER_STARTED


def _build_record(build: BuildFound, node: str) -> BuildRecord:
    status = build.status
    record = BuildRecord(node, build.environment.key, build.attempt, RUNNING, build.boot)
    if status.state in LIVE:
        return record
    if status.state == "exited" and status.exit_code == 0 and not status.cause and not status.signal:
        return replace(record, state=SUCCEEDED)
    if status.state == "exited":
        return replace(record, state=FAILED, reason=reason_of(status))
    return replace(record, state="wanted", attempt=build.attempt + 1)


def _newest_attempts(run: str, hosts: Iterable[HostFound]) -> dict[int, tuple[JobFound, HostFound]]:
    found: dict[int, tuple[JobFound, HostFound]] = {}
    for host in hosts:
        for job in host.jobs:
            known = found.get(job.number)
            if job.run == run and (known is None or known[0].attempt < job.attempt):
                found[job.number] = (job, host)
    return found


def _environments(run: str, hosts: Iterable[HostFound], used: Iterable[str]) -> dict[str, EnvironmentBuild]:
    """Those that were built for the run; of others that jobs name only the key is known."""
    found = {b.environment.key: b.environment for h in hosts for b in h.builds if b.run == run}
    unknown = {key for key in used if key and key not in found}
    return {**found, **{key: EnvironmentBuild(key, key, NO_SCRIPT) for key in sorted(unknown)}}


def _busy_nodes(jobs: Iterable[JobRecord]) -> set[str]:
    return {job.node for job in jobs if job.state == RUNNING or job.fetch == "wanted"}


def _is_home(run: RunRecord, job: JobFound) -> bool:
    return results.is_home(results.Home(run.results_dir, run.id, job.spec.name), job.uid)


def _choose_results(about: RunFound, state_dir: Path) -> Path:
    """Where results of the run go: where they went before, if that is the user's place and not a host's choice."""
    if about.results and os.path.isabs(about.results):
        wanted = Path(os.path.normpath(about.results))
        folder = os.path.dirname(about.config)
        beside = os.path.isfile(about.config) and os.path.commonpath([folder, wanted]) == folder
        if beside or (wanted / about.id).is_dir():
            return wanted
    return state_dir / "results"

"""From a plan to the seeds' objects, each with the entry of the config that it was made from. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cloudsend_cli.core.forecast import foresee_places
from cloudsend_cli.core.machine_views import InstanceView
from cloudsend_cli.core.model import JobSpec, Resources
from cloudsend_cli.core.submission import PlanView
from cloudsend_cli.core.views import JobView

from .objects import (
    NO_KEYS,
    CloudSendEnvironment,
    CloudSendInstance,
    CloudSendJob,
    CloudSendProcess,
    FindHost,
    FindPid,
    Keys,
)
from .opening import Source


@dataclass(slots=True)
class Objects:
    """All of one config. `entry_of` knows of each job the index of its entry."""

    instances: dict[str, CloudSendInstance]
    environments: dict[str, CloudSendEnvironment]
    jobs: dict[str, CloudSendJob]
    entry_of: Mapping[str, int]
    plan: PlanView

    def are_of(self, plan: PlanView) -> bool:
        """Whether the same jobs are planned on machines of the same names."""
        same = self.plan.spec.jobs == plan.spec.jobs
        return same and [node.name for node in self.plan.nodes] == [node.name for node in plan.nodes]


def make_objects(
    plan: PlanView, source: Source, find_host: FindHost, find_pid: FindPid, old: Objects | None = None
) -> Objects:
    """What `old` has, and is planned as it was, stays the same object."""
    spec = plan.spec
    known = source.entries("environments")
    named = {str(entry.get("name")): entry for entry in known}
    kept = old.environments if old is not None else {}
    environments = {
        build.key: kept.get(build.key)
        or CloudSendEnvironment(build, named.get(build.name, known[0] if len(known) == 1 else NO_KEYS))
        for build in spec.environments
    }
    entries = source.entries("jobs")
    indices = _spread(entries, "repeat", len(spec.jobs))
    jobs = {
        job.name: _make_job(
            rank,
            job,
            entries[indices[rank]] if indices else NO_KEYS,
            environments.get(job.environment),
            find_pid,
            old.jobs.get(job.name) if old is not None else None,
        )
        for rank, job in enumerate(spec.jobs)
    }
    entry_of = {name: indices[rank] for rank, name in enumerate(jobs)} if indices else {}
    machines = _make_instances(plan, source, find_host, old.instances if old is not None else {})
    return Objects(machines, environments, jobs, entry_of, plan)


def _make_job(
    rank: int,
    spec: JobSpec,
    config: Keys,
    environment: CloudSendEnvironment | None,
    find_pid: FindPid,
    old: CloudSendJob | None,
) -> CloudSendJob:
    if old is not None and old.is_of(spec):
        return old.renew(rank, config, environment)
    return CloudSendJob(rank, spec, config, environment, find_pid)


def _make_instances(
    plan: PlanView, source: Source, find_host: FindHost, old: Mapping[str, CloudSendInstance]
) -> dict[str, CloudSendInstance]:
    entries = source.entries("instances") or [NO_KEYS]
    indices = [0] * len(plan.nodes) if len(entries) == 1 else _spread(entries, "number", len(plan.nodes))
    found: dict[str, CloudSendInstance] = {}
    ranks: dict[int, int] = {}
    for number, node in enumerate(plan.nodes):
        entry = indices[number] if indices else -1
        ranks[entry] = ranks.get(entry, 0) + 1
        rank = f"{entry + 1}.{ranks[entry]}" if indices else str(number + 1)
        config = entries[entry] if indices else NO_KEYS
        known = old.get(node.name)
        found[node.name] = (
            CloudSendInstance(node.name, node.capacity, rank, config, find_host)
            if known is None
            else known.renew(node.capacity, rank, config)
        )
    return found


def _spread(entries: Sequence[Keys], key: str, total: int) -> list[int]:
    """Of each of `total` objects the index of its entry, where `key` says how many each makes; else nothing."""
    counts = [count if isinstance(count := entry.get(key), int) else 1 for entry in entries]
    return [i for i, count in enumerate(counts) for _ in range(count)] if sum(counts) == total else []


def see_machines(objects: Objects, views: Sequence[InstanceView]) -> None:
    for view in views:
        instance = objects.instances.get(view.name)
        if instance is None:  # it stands in for a machine that is taken back
            planned = objects.instances.get(view.name[:-1])
            if planned is None:
                continue
            instance = objects.instances[view.name] = planned.replacement(view.name)
        instance.see(view)


def see_jobs(
    objects: Objects, jobs: Mapping[str, CloudSendJob], views: Sequence[JobView], batch: str
) -> Iterator[CloudSendProcess]:
    """The newest process of each of these jobs, which are by their ids, in the order of the run."""
    for view in views:
        job = jobs.get(view.id)
        if job is not None:
            yield job.see(view, batch)
            if view.instance is not None:
                job.place(objects.instances.get(view.instance))


def assign_jobs(objects: Objects) -> None:
    """Place each job that is nowhere yet: where the plan foresees it, else where the least is to be done."""
    machines = list(objects.instances.values())
    for name, names in foresee_places(objects.plan.spec, objects.plan.nodes, objects.plan.history).items():
        for job in (objects.jobs[one] for one in names):
            if job.get_instance() is None:
                job.place(objects.instances[name])
    gather_jobs(objects)
    loads = {m: sum(job.needs.cpus for job in m.get_jobs()) / (m.get_cpus() or 1.0) for m in machines}
    able: dict[Resources, list[CloudSendInstance]] = {}
    for job in objects.jobs.values():
        if job.get_instance() is not None:
            continue
        if job.needs not in able:
            able[job.needs] = [m for m in machines if m.capacity is None or job.needs.fits_in(m.capacity)]
        if able[job.needs]:
            chosen = min(able[job.needs], key=loads.__getitem__)
            loads[chosen] += job.needs.cpus / (chosen.get_cpus() or 1.0)
            job.place(chosen)
    gather_jobs(objects)


def gather_jobs(objects: Objects) -> None:
    """Tell each machine of its jobs."""
    placed: dict[str, list[CloudSendJob]] = {name: [] for name in objects.instances}
    for job in objects.jobs.values():
        instance = job.get_instance()
        if instance is not None and instance.get_name() in placed:  # it may be of an earlier plan
            placed[instance.get_name()].append(job)
    for name, instance in objects.instances.items():
        instance.place(placed[name])

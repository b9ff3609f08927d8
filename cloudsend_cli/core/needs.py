"""What the open jobs need now: what could begin if there were room, what a machine holds and cannot begin. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from .assignment import rank_of
from .draft import Draft
from .model import PENDING, RUNNING, Resources
from .state import JobRecord, NodeRecord

DELAYED_MOST: Final = 200  # jobs that are looked at of those that are tried again later
GONE: Final = frozenset({"released", "failed"})

Need = tuple[str, Resources]  # an environment, and what is asked for
Needs = dict[Need, int]


def list_needs(draft: Draft, nodes: Iterable[NodeRecord]) -> Needs:
    """What could begin now if there were room, and what a machine holds that it cannot begin, or will not end."""
    needs = list_ready(draft)
    for node in nodes:
        if node.retired and node.state not in GONE:
            _count(needs, (_need(job) for job in draft.running_jobs(node.name) if not job.cancel))
        elif node.state == "running":
            _count(needs, _list_queued(draft, node))
    return needs


def _count(needs: Needs, further: Iterable[Need]) -> None:
    for need in further:
        needs[need] = needs.get(need, 0) + 1


def _need(job: JobRecord) -> Need:
    return (job.spec.environment, job.resources)


def list_ready(draft: Draft) -> Needs:
    """By class, in the order in which they are handed out. Work is in proportion to the classes, and to the news."""
    state = draft.state
    needs: Needs = {}
    if not state.ready:
        return needs
    gone: Counter[object] = Counter()
    for number, job in draft.jobs.items():
        old = state.jobs[number]
        if old.state == PENDING and job.state != PENDING:
            kind = state.class_of(old)
            gone[kind] += number in state.ready.get(kind, ())
    left: dict[str, int] = {}
    limit = draft.run.max_parallel
    room = state.unfinished if limit is None else limit - state.counts.get(RUNNING, 0)
    for kind, numbers in sorted(state.ready.items(), key=lambda item: (rank_of(item[0].size), next(iter(item[1])))):
        if kind.group not in left:
            left[kind.group] = _count_places(draft, kind.group)
        count = max(0, min(len(numbers) - gone[kind], left[kind.group], room))
        if count:
            need = (kind.environment, kind.resources)
            needs[need] = needs.get(need, 0) + count
        left[kind.group] -= count
        room -= count
    return needs


def _count_places(draft: Draft, name: str) -> int:
    """How many jobs of a group could begin."""
    group, pool = draft.state.groups.get(name), draft.state.pools.get(name)
    limits = [draft.state.unfinished]
    if group is not None:
        limits += [len(group.slots)] if group.slots else []
        limits += [group.max_parallel] if group.max_parallel is not None else []
    return min(limits) - (pool.running if pool is not None and group is not None else 0)


def _list_queued(draft: Draft, node: NodeRecord) -> Iterator[Need]:
    """What its machine cannot start before something else there ends: the newest of what it was given."""
    view = draft.seen.hosts.get(node.name)
    load = draft.state.load.get(node.name)
    if load is None or view is None or not view.connected:
        return
    over = load.resources.minus(draft.capacity(node))
    if not (over.cpus > 0 or over.memory > 0 or over.gpus > 0):
        return
    for number in reversed(draft.state.on_node.get(node.name, {})):
        job = draft.job(number)
        if job is None or job.state != RUNNING or job.started_at is not None or job.cancel:
            continue
        yield _need(job)
        over = over.minus(job.resources)
        if over.cpus <= 0 and over.memory <= 0 and over.gpus <= 0:
            return


def list_delayed(draft: Draft) -> Needs:
    """What is tried again soon needs no machine yet, but keeps one."""
    jobs = (draft.job(number) for _, number in draft.state.delayed[:DELAYED_MOST])
    needs: Needs = {}
    _count(needs, (_need(job) for job in jobs if job is not None and job.state == PENDING))
    return needs

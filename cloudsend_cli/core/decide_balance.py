"""What waits in one machine's queue while another is idle is taken back. Pure.

Hosts are given more than they run, so that none waits for a round trip and all work on when the maestro is away. With
long jobs that leaves some waiting behind others although there is room elsewhere.
"""

from __future__ import annotations

from .assignment import rank_of
from .decide_builds import environment_ready
from .draft import Draft
from .naming import attempt_id
from .places import Place
from .records import replace
from .state import JobRecord, job_class


def take_back(draft: Draft, places: list[Place]) -> None:
    """Ask back as much as idle places could start now; it becomes ready again when its host has let it go.

    A job that was asked back is not asked for again for a while: `not_before` of a running job is that time. With
    `assign: random` each waits for the place that was drawn for it.
    """
    if draft.state.seed is not None:
        return
    crowded = [p for p in places if not p.used.fits_in(p.capacity)]
    if not crowded:
        return
    idle = [p for p in places if p.held < p.most and p.free.cpus > 0 and not draft.starts.get(p.name)]
    if not idle:
        return
    for place in sorted(crowded, key=lambda p: p.free.cpus):
        for job in _waiting(draft, place):
            if not any(getattr(job.resources, name) for name in _list_short(place)):
                continue
            taker = next((p for p in idle if _could_start(draft, p, job)), None)
            asked = job.not_before > draft.seen.now
            if taker is None or not (asked or _is_due(draft, job)):
                continue
            taker.used = taker.used.plus(job.resources)
            place.used = place.used.minus(job.resources)
            if not asked:
                draft.put_job(replace(job, not_before=draft.seen.now + draft.policy.take_back_again))
                draft.revokes.setdefault(place.name, []).append(attempt_id(draft.run.id, job.number, job.attempt))
            if not _list_short(place):
                break


def _list_short(place: Place) -> list[str]:
    """Of what more is asked for there than it has."""
    free = place.free
    return [name for name in ("cpus", "memory", "gpus") if getattr(free, name) < 0]


def _waiting(draft: Draft, place: Place) -> list[JobRecord]:
    """Jobs that are not known to have been started there, what would be started last first."""
    held = (j for j in draft.running_jobs(place.name) if j.started_at is None and not j.cancel)
    return sorted(held, key=lambda j: (j.handed_at or 0.0, rank_of(job_class(j).size), j.number), reverse=True)


def _is_due(draft: Draft, job: JobRecord) -> bool:
    """Whether its host has had it for so long that it would have been started if there were room."""
    due = (job.handed_at or 0.0) + draft.policy.take_back_after
    if due > draft.seen.now:
        draft.wake(due)
    return due <= draft.seen.now


def _could_start(draft: Draft, place: Place, job: JobRecord) -> bool:
    key = job.spec.environment
    return place.has_room(job.resources) and (not key or environment_ready(draft, place.name, key, place.view))

"""Jobs of a continued run that are kept although what they wait for is done again, or was since. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cloudsend_cli.errors import Problem

from .state import JobRecord

NAMED = 5  # of those that are told


def list_overtaken(jobs: Mapping[int, JobRecord], kept: Collection[int]) -> tuple[int, ...]:
    """Of `kept`, those that wait for jobs which are not kept, or which a later submission did after them; and those
    that wait for such ones. `jobs`: all that the config has."""
    waiting = [job for n in kept if (job := jobs[n]).after or job.after_any or job.spec.stage > 1]
    again = set(jobs).difference(kept) if waiting else set[int]()
    found: set[int] = set()
    while True:
        look = _Look(jobs, again)
        before = len(found)
        for job in waiting:
            if job.number not in found and look.is_overtaken(job):
                found.add(job.number)
                again.add(job.number)
        if len(found) == before:
            return tuple(n for n in kept if n in found)


def warn_of_overtaken(names: Sequence[str]) -> tuple[Problem, ...]:
    if not names:
        return ()
    waits, them = ("it waits for", "it") if len(names) == 1 else ("they wait for", "them")
    told = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
    what = f"kept, although what {waits} is done again, or was since: {told}"
    return (Problem(f"{what}; edit {them} (a variable will do) or run all with --fresh"),)


@dataclass(slots=True)
class _Earlier:
    """What one waits for: whether any of it is done again, and the last start of what each submission asked for."""

    again: bool = False
    started: dict[int, float] = field(default_factory=dict)

    def take(self, job: JobRecord, *, again: bool) -> None:
        self.again |= again
        if job.started_at is not None:
            self.started[job.batch] = max(job.started_at, self.started.get(job.batch, 0.0))

    def overtakes(self, job: JobRecord) -> bool:
        # Not by the times alone, which are those of two machines.
        mine = job.started_at or 0.0
        return self.again or any(batch > job.batch and at > mine for batch, at in self.started.items())


@dataclass(slots=True)
class _Look:
    """Many wait for the same many: each list is gone through once."""

    jobs: Mapping[int, JobRecord]
    again: Collection[int]
    known: dict[object, _Earlier] = field(default_factory=dict)

    def is_overtaken(self, job: JobRecord) -> bool:
        if any(self._earlier(id(numbers), numbers).overtakes(job) for numbers in (job.after, job.after_any)):
            return True
        stage = job.spec.stage
        return stage > 1 and self._before(stage).overtakes(job)

    def _earlier(self, key: object, numbers: Collection[int]) -> _Earlier:
        if key not in self.known:
            self.known[key] = found = _Earlier()
            for number in numbers:
                found.take(self.jobs[number], again=number in self.again)
        return self.known[key]

    def _before(self, stage: int) -> _Earlier:
        key = "stage", stage
        if key in self.known:
            return self.known[key]
        return self._earlier(key, [n for n, job in self.jobs.items() if 0 < job.spec.stage < stage])

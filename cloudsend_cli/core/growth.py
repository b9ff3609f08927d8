"""More memory for a job whose attempt had too little. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .draft import Draft
from .explain import describe_bytes
from .model import JobSpec, Resources
from .records import replace
from .state import JobRecord


def grow(draft: Draft, job: JobRecord, reason: str) -> tuple[JobRecord, str]:
    """The job as it is tried again, and the reason with what became of its memory.

    Machines that have not told how much they have set no bound.
    """
    asked = job.resources
    if job.spec.memory_factor <= 1 or not asked.memory:
        return job, reason
    capacities = [draft.capacity(node) for node in draft.usable_nodes()]
    most = max((c.memory for c in capacities if asked.fits_in(c)), default=asked.memory)
    memory = min(int(asked.memory * job.spec.memory_factor), most)
    had = f"{reason} with {describe_bytes(asked.memory)}"
    if memory <= asked.memory:
        return job, f"{had}, and no machine has more"
    return replace(job, memory=memory), f"{had}; the next attempt is given {describe_bytes(memory)}"


def shrink(job: JobRecord, capacities: Iterable[Resources]) -> JobRecord | None:
    """A job that was given more than any machine has by now, with what there is; None: it never fits."""
    if not job.memory:
        return None
    memory = max((c.memory for c in capacities if job.spec.resources.fits_in(c)), default=0)
    return replace(job, memory=memory) if memory else None


def keep_memory(job: JobRecord, spec: JobSpec) -> int:
    """What a job that is tried again is given, where its config was run again: an edited figure counts anew."""
    old = job.spec
    same = (old.resources, old.memory_factor) == (spec.resources, spec.memory_factor)
    return job.memory if same else 0

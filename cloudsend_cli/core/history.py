"""How long jobs took in earlier runs of their project. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .model import JobSpec
from .state import RentalRecord

_WORD = re.compile(r"[^\W_]+")
_NUMBERED = re.compile(r"(?<![^\W_])\d+$")  # of equal names, and of `repeat`
_SEVERAL = re.compile(r"\*(?:[\W_]*\*)+")


@dataclass(frozen=True, slots=True)
class History:
    """Mean seconds of executions that succeeded, of the newest run in which there were any."""

    by_hash: Mapping[str, float] = field(default_factory=dict)
    by_name: Mapping[str, float] = field(default_factory=dict)
    starting: float | None = None  # from the launch of a rented machine to its first job, there; None: not known

    def expect(self, content: str, job: JobSpec) -> float:
        """Of the same content, else of the same name; 0: not known."""
        found = self.by_hash.get(content, 0.0)
        return found or (0.0 if is_numbered(job) else self.by_name.get(job.name, 0.0))


NO_HISTORY = History()


def is_numbered(job: JobSpec) -> bool:
    """Whether it is called by its number alone, which another point has when the sweep grows."""
    group, _, number = job.name.rpartition("/")
    return bool(job.group) and group == job.group and number.isdecimal()


# ---- points of a sweep that no run has timed -----------------------------------------------------------------------


def sweep_of(job: JobSpec) -> str:
    """What is the same of all points of a sweep, though each has another name; "" of what is no point of one.

    Such as `train-* lr,seed` of `train-0.1-4`, and `Search/GTX/*` of a task. Values are found in a name by their
    words: a sign that a name may not have is changed there.
    """
    if job.group:
        return f"{job.group}/*"
    if not job.params and all(name != "CLOUDSEND_REPEAT" for name, _ in job.env):
        return ""
    values = {word for _, value in job.params for word in _WORD.findall(value)}
    name = _WORD.sub(lambda word: "*" if word[0] in values else word[0], job.name)
    name = _NUMBERED.sub("*", name)
    return " ".join((_SEVERAL.sub("*", name), ",".join(name for name, _ in job.params)))


def estimate_times(
    jobs: Iterable[JobSpec], known: Mapping[str, float], by_name: Mapping[str, float] | None = None
) -> dict[str, float]:
    """By name, of those that are not `known`: the mean of the points of the same sweep that are, if any; else of what
    had the names of that sweep before it was edited."""
    sums: dict[str, tuple[float, int]] = {}
    before: dict[str, tuple[float, int]] = {}
    missing = []
    for job in jobs:
        sweep = sweep_of(job)
        if sweep and job.name in known:
            _add(sums, sweep, known[job.name])
        elif sweep:
            missing.append((job.name, sweep))
            if by_name and job.name in by_name:
                _add(before, sweep, by_name[job.name])
    means = {sweep: total / count for sweep, (total, count) in {**before, **sums}.items()}
    return {name: means[sweep] for name, sweep in missing if sweep in means}


def _add(sums: dict[str, tuple[float, int]], sweep: str, seconds: float) -> None:
    total, count = sums.get(sweep, (0.0, 0))
    sums[sweep] = (total + seconds, count + 1)


# ---- machines ------------------------------------------------------------------------------------------------------


def find_starting(rentals: Iterable[RentalRecord], first: Mapping[str, float]) -> float | None:
    """Seconds from a launch to the first job on that machine, in the middle of those of one run; None: not known.

    `first`: when the first job began on each node. Of each node the first machine: of later ones it is not told.
    """
    firsts: dict[str, RentalRecord] = {}
    for rental in rentals:
        known = firsts.get(rental.node)
        if not rental.waiting and (known is None or rental.since < known.since):
            firsts[rental.node] = rental
    times = []
    for node, rental in firsts.items():
        at = first.get(node)
        if (
            at is not None
            and not rental.taken_at
            and rental.since <= at
            and (rental.until is None or at <= rental.until)
        ):
            times.append(at - rental.since)
    from statistics import median  # 4 ms, for what a plan asks alone

    return round(median(times), 3) if times else None

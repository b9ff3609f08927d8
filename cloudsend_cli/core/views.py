"""What commands print: plain data made from records, with its stable JSON form. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypedDict

from .costs import Cost
from .model import CANCELLED, FAILED, PENDING, RUNNING, SUCCEEDED, HostView, JobGroup
from .silence import describe_silence
from .state import RunState

Json = dict[str, object]


def iso(seconds: float | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, or None."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as every command shows it."""

    id: str
    name: str
    run: str
    number: int
    state: str
    phase: str
    reason: str
    exit_code: int | None
    attempt: int
    uid: str | None  # the id of its newest attempt
    instance: str | None
    provider: str | None
    hash: str
    command: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    params: Mapping[str, str]
    outputs: str = ""  # "", "wanted", "home" or "failed: why"
    superseded: bool = False
    maxrss: int | None = None
    cpu_seconds: float | None = None
    unknown_since: float | None = None  # when its machine was last heard, while it is not
    silence: str = ""  # what is known of that
    section: str = ""
    group: str = ""  # of a section: "section/group"
    slot: str | None = None  # the place of the group's pool that its newest attempt was given, as slot_text
    metrics: Mapping[str, str] = field(default_factory=dict)  # what its newest attempt reported, as it was written
    metrics_ignored: int = 0  # how many pairs of what it reported were not taken

    @property
    def duration(self) -> float | None:
        """Seconds from its newest attempt's start to its end; None where one of them is not known."""
        if self.started_at is None or self.ended_at is None:
            return None
        return round(max(0.0, self.ended_at - self.started_at), 3)

    def as_json(self) -> Json:
        return {
            "id": self.id,
            "name": self.name,
            "run": self.run,
            "state": self.state,
            "phase": self.phase,
            "reason": self.reason or None,
            "exit_code": self.exit_code,
            "attempt": self.attempt,
            "uid": self.uid,
            "instance": self.instance,
            "provider": self.provider,
            "hash": self.hash,
            "command": self.command,
            "params": dict(self.params),
            "metrics": dict(self.metrics),
            "metrics_ignored": self.metrics_ignored,
            "section": self.section or None,
            "group": self.group or None,
            "slot": self.slot,
            "outputs": self.outputs or None,
            "superseded": self.superseded,
            "created_at": iso(self.created_at),
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "duration": self.duration,
            "max_memory_bytes": self.maxrss,
            "cpu_seconds": self.cpu_seconds,
            "unknown_since": iso(self.unknown_since),
        }


@dataclass(frozen=True, slots=True)
class RunView:
    """One run in a line. `state`: running while anything is open, else failed, cancelled or succeeded."""

    id: str
    project: str
    config: str
    state: str
    counts: Mapping[str, int]
    batch: int
    results_dir: str
    created_at: float
    ended_at: float | None
    cost: Cost | None = None  # None: it has rented nothing
    queued: int = 0  # of its jobs that are running: handed over, and not begun

    @property
    def told_counts(self) -> Mapping[str, int]:
        return tell_counts(self.counts, self.queued)

    def as_json(self) -> Json:
        return {
            "id": self.id,
            "project": self.project,
            "config": self.config or None,
            "state": self.state,
            "counts": dict(self.counts),
            "queued": self.queued,
            "batch": self.batch,
            "results_dir": self.results_dir or None,
            "created_at": iso(self.created_at),
            "ended_at": iso(self.ended_at),
            **cost_json(self.cost),
        }


def cost_json(cost: Cost | None) -> Json:
    """`cost` is null where nothing was rented; what is `unknown` is not in it."""
    if cost is None:
        return {"cost": None, "cost_per_hour": None, "unknown": 0}
    return {"cost": round(cost.total, 6), "cost_per_hour": round(cost.per_hour, 6), "unknown": cost.unknown}


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    """One environment on one machine."""

    key: str
    name: str
    run: str
    node: str
    state: str
    reason: str

    def as_json(self) -> Json:
        return {
            "key": self.key,
            "name": self.name,
            "run": self.run,
            "instance": self.node or None,
            "state": self.state,
            "reason": self.reason or None,
        }


@dataclass(frozen=True, slots=True)
class MaestroView:
    """The background process of the state directory, if it runs."""

    running: bool
    pid: int | None = None
    since: float | None = None
    epoch: int | None = None
    runs: tuple[str, ...] = ()  # those that it carries on, or that wait for one

    def as_json(self) -> Json:
        return {
            "running": self.running,
            "pid": self.pid,
            "since": iso(self.since),
            "epoch": self.epoch,
            "runs": list(self.runs),
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run as the maestro tells it to those who follow."""

    run: str
    state: str
    counts: Mapping[str, int]
    running: Sequence[str]  # some names of what runs now
    failed: Sequence[Mapping[str, str]]  # newest bad ends: id, name, reason
    notes: Sequence[str]  # such as: environment ml is being built on local-0
    settled: bool
    sequence: int = 0
    executing: int | None = None  # of those that are running; the others wait in their host's queue
    rentals: Sequence[Sequence[float | None]] = ()  # price, since, until and least of each RentalRecord


def run_state_word(counts: Mapping[str, int]) -> str:
    """The state of a run from the states of its jobs that are not superseded."""
    if counts.get(PENDING, 0) + counts.get(RUNNING, 0):
        return RUNNING
    if counts.get(FAILED, 0):
        return FAILED
    if counts.get(CANCELLED, 0):
        return CANCELLED
    return SUCCEEDED


def tell_counts(counts: Mapping[str, int], queued: int) -> Mapping[str, int]:
    """For people: what waits in its host's queue counts as pending, as they want to know what executes."""
    if not queued:
        return counts
    moved = {PENDING: counts.get(PENDING, 0) + queued, RUNNING: counts.get(RUNNING, 0) - queued}
    return {**counts, **moved}


def live_counts(state: RunState) -> dict[str, int]:
    """Jobs by state, superseded ones left out."""
    counts = dict(state.counts)
    for number in state.superseded:
        counts[state.jobs[number].state] -= 1
    return {word: counts.get(word, 0) for word in (PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED)}


class Slots:
    """The places of a run's groups, as commands show them."""

    def __init__(self, groups: Iterable[JobGroup]) -> None:
        self._groups = {group.name: group for group in groups}

    def group_of(self, name: str) -> str:
        """Of a job that is known by its name alone."""
        group = name.rpartition("/")[0]
        return group if group in self._groups else ""

    def section_of(self, group: str) -> str:
        return self._groups[group].section if group in self._groups else ""

    def text(self, group: str, slot: int) -> str | None:
        """Such as `machine=0 gpu=1`; the number of a place that has no names; None where there is none."""
        found = self._groups.get(group)
        if slot < 0 or found is None:
            return None
        pairs = found.slots[slot] if slot < len(found.slots) else ()
        return " ".join(f"{key.lstrip('-')}={value}" if key else value for key, value in pairs) or str(slot)


class Silence(TypedDict):
    """Fields of a JobView."""

    unknown_since: float | None
    silence: str


def silence_of(state: str, node: str, view: HostView | None) -> Silence:
    """Laid over a running job while its machine does not answer."""
    if state != RUNNING or view is None or view.connected:
        return {"unknown_since": None, "silence": ""}
    return {"unknown_since": view.since or None, "silence": describe_silence(node, view)}

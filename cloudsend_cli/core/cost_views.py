"""What commands print of money: plain data with its stable JSON form. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .costs import Cost
from .renting import Kind
from .views import Json, cost_json, iso


@dataclass(frozen=True, slots=True)
class MachineCost:
    """The time for which a run pays for one machine."""

    name: str
    instance_id: str
    provider: str
    kind: Kind
    price: float | None
    since: float
    until: float | None  # None: it goes on
    seconds: float  # that are paid for
    cost: Cost
    waiting: bool = False  # for the next run: after this one, at its cost
    waits_until: float | None = None  # ... and ends itself then, where none comes

    def as_json(self) -> Json:
        return {
            "instance": self.name,
            "instance_id": self.instance_id,
            "provider": self.provider,
            "type": self.kind.type or None,
            "place": self.kind.place or None,
            "market": self.kind.market or None,
            "price_per_hour": self.price,
            "since": iso(self.since),
            "until": iso(self.until),
            "waiting": self.waiting,
            "waits_until": iso(self.waits_until),
            "seconds": round(self.seconds, 3),
            "cost": None if self.cost.unknown else round(self.cost.total, 6),
        }


@dataclass(frozen=True, slots=True)
class JobCost:
    """A job's share of what its machines cost while it ran there."""

    id: str
    name: str
    state: str
    attempts: int
    seconds: float
    cost: Cost

    def as_json(self) -> Json:
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "attempts": self.attempts,
            "seconds": round(self.seconds, 3),
            "cost": None if self.cost.unknown else round(self.cost.total, 6),
        }


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run has cost so far, or in all when it has ended. `jobs` is None where nobody asked."""

    run: str
    project: str
    state: str
    cost: Cost
    budget: float | None = None
    created_at: float | None = None
    machines: tuple[MachineCost, ...] = ()
    jobs: tuple[JobCost, ...] | None = None

    @property
    def left(self) -> float | None:
        return None if self.budget is None else max(0.0, self.budget - self.cost.total)

    @property
    def unused(self) -> float | None:
        """What was paid while no job ran: starting, setting up, waiting. None where the jobs are not known."""
        if self.jobs is None:
            return None
        return max(0.0, self.cost.total - sum(job.cost.total for job in self.jobs))

    def as_json(self) -> Json:
        value: Json = {
            "run": self.run,
            "project": self.project,
            "state": self.state,
            **cost_json(self.cost),
            "budget": self.budget,
            "budget_left": None if self.left is None else round(self.left, 6),
            "machines": [machine.as_json() for machine in self.machines],
        }
        if self.jobs is not None:
            value["jobs"] = [job.as_json() for job in self.jobs]
            value["unused"] = None if self.unused is None else round(self.unused, 6)
        return value


@dataclass(frozen=True, slots=True)
class ExcessView:
    """Something of ours that costs money, or may, and that nothing wants any more."""

    kind: str  # machine, or what kind of thing else
    id: str
    name: str
    provider: str
    region: str
    why: str
    price: float | None = None  # dollars per hour
    since: float | None = None
    type: str = ""
    outcome: str = "left"  # removed, or why not
    code: str = ""  # of the error that stood in the way

    def as_json(self) -> Json:
        return {
            "kind": self.kind,
            "id": self.id,
            "name": self.name or None,
            "provider": self.provider,
            "region": self.region,
            "type": self.type or None,
            "why": self.why,
            "price_per_hour": self.price,
            "since": iso(self.since),
            "outcome": self.outcome,
            "code": self.code or None,
        }

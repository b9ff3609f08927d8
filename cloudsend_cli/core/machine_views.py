"""What commands print of machines and of where they come from: plain data with its stable JSON form. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .costs import Cost
from .explain import describe
from .model import Resources, list_known
from .renting import NO_KIND, Kind
from .views import Json, iso


@dataclass(frozen=True, slots=True)
class RentalView:
    """What a machine that costs money is, and what it has cost."""

    kind: Kind = NO_KIND
    price: float | None = None  # dollars per hour
    since: float | None = None  # when it was launched, or when this run has it since
    cost: Cost | None = None
    expires: float | None = None  # when it ends itself at the latest
    idle: float | None = None  # seconds without work after which it ends itself; None: nobody has said
    project: str = ""
    kept: bool = False  # it is in no run, and waits for one
    leftover: str = ""  # why nothing wants it

    def as_json(self) -> Json:
        return {
            "type": self.kind.type or None,
            "place": self.kind.place or None,
            "market": self.kind.market or None,
            "price_per_hour": self.price,
            "rented_at": iso(self.since),
            "cost": None if self.cost is None or self.cost.unknown else round(self.cost.total, 6),
            "expires_at": iso(self.expires),
            "idle_seconds": self.idle,
            "kept": self.kept,
            "leftover": self.leftover or None,
        }


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One machine, once, whatever number of runs use it."""

    name: str
    provider: str
    instance_id: str
    state: str  # a node's state, "claimed" or "kept", else that of its provider
    runs: tuple[str, ...] = ()
    claimed: bool = False  # kept by `create instance`, whether a run uses it or not
    capacity: Resources | None = None
    free: Resources | None = None  # None: nobody has asked the machine
    load: float | None = None  # over the last minute, of everybody
    running: int = 0  # jobs of this state directory that execute there
    queued: int = 0  # ... and that were handed to it and wait
    others: int = 0  # jobs that it executes for others
    connected: bool | None = None  # None: no maestro to ask
    since: float | None = None
    remark: str = ""
    rental: RentalView | None = None  # None: it is not rented

    @property
    def in_use(self) -> str:
        """Such as `3/8 CPUs, 1/2 GPUs`; empty when nobody knows."""
        if self.capacity is None or self.free is None or "cpus" not in list_known(self.capacity):
            return ""
        text = f"{self.capacity.cpus - self.free.cpus:g}/{self.capacity.cpus:g} CPUs"
        if list_known(self.capacity).get("gpus"):
            text += f", {self.capacity.gpus - self.free.gpus}/{self.capacity.gpus} GPUs"
        return text

    def as_json(self) -> Json:
        return {
            "name": self.name,
            "run": self.runs[0] if self.runs else None,
            "runs": list(self.runs),
            "provider": self.provider,
            "instance_id": self.instance_id or None,
            "state": self.state,
            "claimed": self.claimed,
            "capacity": describe(self.capacity) if self.capacity is not None else None,
            **resources_json(self.capacity),
            **{f"{name}_free": value for name, value in resources_json(self.free).items()},
            "load": self.load,
            "jobs": self.running,
            "queued": self.queued,
            "others": self.others,
            "connected": self.connected,
            "since": iso(self.since),
            "remark": self.remark or None,
            "rented": self.rental is not None,
            **(self.rental or RentalView()).as_json(),
        }


def resources_json(resources: Resources | None) -> Json:
    known = list_known(resources) if resources is not None else {}
    return {"cpus": known.get("cpus"), "memory_bytes": known.get("memory"), "gpus": known.get("gpus")}


@dataclass(frozen=True, slots=True)
class ProviderHost:
    """A machine that a provider names, with what its file says of it."""

    name: str
    host: str
    capacity: Resources | None = None  # None: what the machine has
    settings: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> Json:
        return {"name": self.name, "host": self.host, **resources_json(self.capacity), "settings": dict(self.settings)}


@dataclass(frozen=True, slots=True)
class ProviderView:
    """Where machines come from. `defaults`: (key, value, where it is said) of its machines, after all layers."""

    name: str
    type: str
    status: str  # "ready", or why it cannot be used
    capacity: str
    file: str = ""
    hosts: tuple[ProviderHost, ...] = ()
    defaults: tuple[tuple[str, str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()  # its own, such as its region

    def as_json(self) -> Json:
        return {
            "name": self.name,
            "type": self.type,
            "status": self.status,
            "capacity": self.capacity or None,
            "file": self.file or None,
            "hosts": [host.as_json() for host in self.hosts],
            "defaults": {key: {"value": value, "origin": origin} for key, value, origin in self.defaults},
            "settings": dict(self.settings),
        }


@dataclass(frozen=True, slots=True)
class CheckView:
    """The answer to one question of `cloudsend check`. ok None: it could not be found out."""

    name: str
    ok: bool | None
    text: str
    hint: str = ""
    provider: str = ""
    host: str = ""
    code: str = ""  # of the error, as docs/errors.md lists them
    exit_status: int = 0
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> Json:
        return {
            "name": self.name,
            "ok": self.ok,
            "text": self.text,
            "hint": self.hint or None,
            "provider": self.provider or None,
            "host": self.host or None,
            "code": self.code or None,
            "warnings": list(self.warnings),
            "facts": dict(self.facts) or None,
        }

"""Everything a maestro can do to the world: a closed union. Each returns at once and may be repeated safely."""

from __future__ import annotations

from dataclasses import dataclass

from .model import HostAddress, JobSpec, Slot, Upload


@dataclass(frozen=True, slots=True)
class CreateInstance:
    """Ask the provider for the machine of a committed intent; the same token asks for the same machine."""

    node: str
    provider: str
    generation: int
    token: str
    request: str  # rendered JSON, stored with the intent: a retry repeats it to the byte


@dataclass(frozen=True, slots=True)
class TerminateInstance:
    """Give a machine back. Gone is fine."""

    node: str
    provider: str
    instance_id: str


@dataclass(frozen=True, slots=True)
class KeepInstance:
    """Take a machine out of the run and let it wait for a later one. One that is out of it already is fine."""

    node: str
    provider: str
    generation: int
    instance_id: str


@dataclass(frozen=True, slots=True)
class LeaseHost:
    """Tell the node's machine to end itself in so many seconds, whoever is alive then; None: it need not."""

    node: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class ConnectHost:
    """Open and keep a link to the node's machine, with our agent on it."""

    node: str
    address: HostAddress


@dataclass(frozen=True, slots=True)
class DisconnectHost:
    """Stop using the node's machine; whatever runs there goes on."""

    node: str


@dataclass(frozen=True, slots=True)
class AttemptStart:
    """One attempt as the host is asked to execute it."""

    attempt: str
    spec: JobSpec  # with the resources that it is given
    build: bool = False
    resume: tuple[Upload, ...] = ()  # what an earlier attempt left, by its own paths
    slot: int = -1  # the number of its place in the pool of its group; -1: it has none
    pairs: Slot = ()  # ... and the names and values of that


@dataclass(frozen=True, slots=True)
class StartAttempts:
    """Hand attempts to the agent of one boot; files they need are sent first. Exclusive on the host by attempt id."""

    node: str
    boot: str
    attempts: tuple[AttemptStart, ...]
    files: tuple[Upload, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelAttempts:
    """Leave a tombstone and end what runs. Repeated until the end is seen."""

    node: str
    attempts: tuple[str, ...]
    cause: str = "cancelled"


@dataclass(frozen=True, slots=True)
class RevokeAttempts:
    """Take back attempts that wait in the host's queue: each either never starts there, which becomes news, or it is
    too late and nothing changes."""

    node: str
    attempts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AckAttempts:
    """Tell the host that these ends are durable here; it stops reporting them."""

    node: str
    attempts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchResume:
    """Bring home what the next attempt of a job goes on from, to a place of its own."""

    node: str
    attempt: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchOutputs:
    """Bring an ended attempt's outputs home; the manifest in the destination is written last."""

    node: str
    attempt: str
    patterns: tuple[str, ...]
    name: str


Action = (
    CreateInstance
    | TerminateInstance
    | KeepInstance
    | LeaseHost
    | ConnectHost
    | DisconnectHost
    | StartAttempts
    | CancelAttempts
    | RevokeAttempts
    | AckAttempts
    | FetchResume
    | FetchOutputs
)

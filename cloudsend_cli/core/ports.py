"""Every interface between the engine and the world, in the order in which a job meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .actions import AttemptStart
from .metrics import Metrics
from .model import (
    AttemptStatus,
    Finding,
    HostAddress,
    HostView,
    InstanceSpec,
    InstanceStatus,
    Leftover,
    MachinePlan,
    Rented,
    Request,
    Resources,
    Upload,
)
from .state import Changes, RunState


class Store(Protocol):
    """Keeps runs. Everything a commit returned from is durable against power loss."""

    def load(self, run: str) -> RunState:
        """The run as last committed. Raises NotFoundError."""

    def commit(self, run: str, version: int, changes: Changes, events: Sequence[Event]) -> int:
        """Write all of `changes` if the stored version is still `version`; return the new version.

        ConflictError means that nothing was written and somebody else acts: load again before acting.
        """

    def list_requests(self, run: str) -> Sequence[Request]:
        """Users' requests that no commit has carried out yet, oldest first."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit trail, never read back for decisions."""

    kind: str
    subject: str
    text: str = ""


class Provider(Protocol):
    """Where instances come from. Verbs may be repeated, and treat gone as fine.

    Each implementation names in its docstring what makes `create_instance` idempotent.
    """

    name: str
    slow: bool  # its verbs wait for a network: they are called on threads, several at a time

    def check(self, spec: InstanceSpec) -> list[str]:
        """Problems of `spec` in user words; pure."""

    def largest(self, spec: InstanceSpec) -> Resources | None:
        """What the machine of `spec` will have, None when that is not known before it exists."""

    def plan_machines(self, specs: Sequence[InstanceSpec]) -> Sequence[MachinePlan]:
        """The machines of one run here, each planned once, in the order of `specs`.

        Pure, but for a slow provider, which asks what there is and changes nothing: AuthError, UnreachableError.
        """

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        """Ask for the machine; return its id. The same token asks for the same machine, however often.

        UnreachableError: the machine may exist. AuthError: this call did nothing, an earlier one may have. Any other
        error means that the token has no living machine; CapacityError if it had one that has ended.
        """

    def list_instances(self, run: str) -> Sequence[InstanceStatus]:
        """All machines of this run, also those we forgot. Raises UnreachableError rather than answer in part."""

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        """Give it back. Success means that the request was accepted, or that it is gone; it may go on for a while."""


class Renter(Provider, Protocol):
    """A provider whose machines cost money. Its verbs act on what carries our tags, and on nothing else."""

    def keep_instance(self, run: str, node: str, instance_id: str) -> None:
        """Take it out of its run and let it wait for a later one of its project, until it ends itself."""

    def list_rented(self) -> Sequence[Rented]:
        """Every machine of ours, of all runs and in all regions ever used, also ended ones that are still shown.

        Raises UnreachableError rather than answer in part.
        """

    def start_instance(self, instance_id: str) -> None: ...

    def stop_instance(self, instance_id: str) -> None: ...

    def terminate_rented(self, instance_id: str) -> None:
        """Give back a machine whatever run it belongs to."""

    def fetch_console(self, instance_id: str) -> str:
        """What the machine wrote to its console; "" while there is nothing yet."""

    def list_leftovers(self) -> Sequence[Leftover]:
        """What else carries our tags. Raises UnreachableError rather than answer in part."""

    def remove_leftover(self, leftover: Leftover) -> None: ...

    def check_account(self, *, fix: bool = False) -> Iterator[Finding]:
        """Each answer as it is found: credentials, permissions, limits, clock, ways in. `fix` mends what is ours."""


@dataclass(frozen=True, slots=True)
class HostNews:
    """What one node's link has brought since it was last drained."""

    view: HostView
    attempts: Mapping[str, AttemptStatus] = field(default_factory=dict)
    fetched: Mapping[str, str] = field(default_factory=dict)  # attempt id -> "" or what went wrong
    persisted: Mapping[str, tuple[Upload, ...]] = field(default_factory=dict)  # of those that FetchResume brought
    metrics: Mapping[str, Metrics] = field(default_factory=dict)  # of those whose logs came with FetchOutputs


class Hosts(Protocol):
    """Links to machines, one for each node of one run. No call blocks on the network; replies come as news."""

    def connect(self, node: str, address: HostAddress, capacity: Resources | None) -> None:
        """Open and keep a link. Repeating it changes nothing; another address replaces the link."""

    def disconnect(self, node: str) -> None: ...

    def drain(self) -> Mapping[str, HostNews]:
        """News of every connected or connecting node, each piece of news once."""

    def fetching(self) -> frozenset[str]:
        """Attempts whose outputs are on their way."""

    def forget(self) -> None:
        """Make every link report in full again: whatever was drained may not have been committed."""

    def start(self, node: str, boot: str, attempts: Sequence[AttemptStart], files: Sequence[Upload]) -> None: ...

    def cancel(self, node: str, attempts: Sequence[str], cause: str) -> None:
        """Leave tombstones and end what runs. What the host did not know becomes news as `cancelled`."""

    def revoke(self, node: str, attempts: Sequence[str]) -> None:
        """Take back what has not started. What never will is news as `cancelled`; what has is left alone."""

    def ack(self, node: str, attempts: Sequence[str]) -> None: ...

    def fetch(self, node: str, attempt: str, patterns: Sequence[str], name: str) -> None: ...

    def fetch_resume(self, node: str, attempt: str, patterns: Sequence[str]) -> None:
        """Bring what the job's next attempt goes on from; it becomes news as `fetched` and `persisted` together."""

    def lease(self, node: str, seconds: float | None) -> None:
        """Tell the machine when to end itself at the latest; lost with the connection, and said again after it."""


class ByteStream(Protocol):
    """A duplex byte channel to a process on a host; never blocks."""

    def fileno(self) -> int: ...

    def recv(self, size: int) -> bytes:
        """b"" means closed; BlockingIOError means nothing now."""

    def send(self, data: bytes) -> int:
        """How many bytes were taken; BlockingIOError means none now."""

    def close(self) -> None: ...


class Host(Protocol):
    """A reachable machine."""

    address: HostAddress
    warning: str  # what the last login has found that the user should mend, or ""
    patience: float  # seconds without a word after which the channel is taken for dead; the agent speaks every 5 s

    def open_agent(self, source: bytes, sha256: str, compiled: Callable[[], bytes] | None = None) -> ByteStream:
        """Put the agent there if it differs and attach to it. `compiled` is for hosts of the same Python.

        UnreachableError never means that anything died. AuthError, HostKeyError and UnfitError: trying again at once
        does not help; nothing was started.
        """

    def open_shell(self, command: Sequence[str]) -> int:
        """Give the user's terminal to a shell (or a command) there; return its exit status."""


Clock = Callable[[], float]

"""One instance as the lab knows it. moto knows its tags, disks and interfaces; what moves is here."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from sshlab.namespace_host import NamespaceHost

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
GONE = {"shutting-down", "terminated"}


@dataclass(frozen=True)
class Reason:
    code: str
    message: str
    transition: str = ""  # what DescribeInstances shows as StateTransitionReason, without the time


USER = Reason(
    "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown", "User initiated"
)
ITSELF = Reason("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
SPOT = Reason(
    "Server.SpotInstanceTermination",
    "Server.SpotInstanceTermination: Spot instance termination",
    "Server.SpotInstanceTermination",
)
NO_CAPACITY = Reason(
    "Server.InsufficientInstanceCapacity",
    "Server.InsufficientInstanceCapacity: Insufficient capacity to satisfy instance request",
    "Server.InsufficientInstanceCapacity",
)


@dataclass
class Moment:
    """What DescribeInstances shows from a time on."""

    since: float
    state: str
    public: str | None
    reason: Reason | None = None


@dataclass
class Instance:
    id: str
    region: str
    zone: str
    type: str
    market: str  # on-demand or spot
    token: str | None
    image: str
    user: str
    user_data: bytes
    public_key: str | None
    key_name: str | None
    price: float
    launched: float
    groups: list[str]
    wants_public: bool
    shutdown: str = "stop"  # InstanceInitiatedShutdownBehavior
    protected: bool = False
    tokens_required: bool = True
    cpus: tuple[int, int] | None = None  # cores, threads of each
    spot_request: str | None = None
    vcpus: int = 2
    interfaces: list[str] = field(default_factory=list)  # those that end with it
    private: str | None = None
    number: int | None = None  # of its public address
    history: list[Moment] = field(default_factory=list)
    reports: dict[str, Any] = field(default_factory=dict)  # what IMDS tells beside the facts: spot/instance-action
    host: NamespaceHost | None = None
    broken: str | None = None
    impaired: bool = False
    first_launch: float = 0.0
    old_console: str = ""
    boots: int = 0
    work: threading.RLock = field(default_factory=threading.RLock)  # held while the machine's power changes
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.first_launch = self.launched

    @property
    def state(self) -> str:
        return self.history[-1].state

    @property
    def public(self) -> str | None:
        return self.history[-1].public

    @property
    def reason(self) -> Reason | None:
        return self.history[-1].reason

    def at(self, when: float) -> Moment:
        """What was true then; what was true first, before."""
        return next((moment for moment in reversed(self.history) if moment.since <= when), self.history[0])

    def asked_at(self, moment: Moment) -> float:
        """When what led to this state was asked for: of `terminated`, when it began to shut down."""
        place = self.history.index(moment)
        while place > 0 and self.history[place - 1].reason is moment.reason:
            place -= 1
        return self.history[place].since

    def enter(self, state: str, public: str | None, reason: Reason | None = None) -> None:
        with self.changed:
            self.history.append(Moment(time.time(), state, public, reason))
            self.changed.notify_all()

    def wait(self, state: str, timeout: float = 30) -> None:
        """Until it is, or has been since this call began, in this state."""
        seen = len(self.history) - 1
        with self.changed:
            if not self.changed.wait_for(lambda: state in [moment.state for moment in self.history[seen:]], timeout):
                raise TimeoutError(f"{self.id} is {self.state}, not {state}, after {timeout:g} s")

    @property
    def console(self) -> str:
        return self.host.console if self.host is not None else self.old_console

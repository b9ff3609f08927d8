"""A provider with memory: tokens, boot delay, lists that lag, preemption, lost replies, and a bill."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloudsend_cli.core.model import HostAddress, InstanceSpec, InstanceStatus, MachinePlan, Offer, Resources
from cloudsend_cli.errors import (
    AuthError,
    CapacityError,
    CloudsendError,
    ConfigError,
    ProviderError,
    QuotaError,
    UnreachableError,
)

from .timeline import Timeline, no_edge

PRICE = 0.1  # dollars per hour
REFUSALS: dict[str, Callable[[], CloudsendError]] = {
    "capacity": lambda: CapacityError("no machine of this type is free"),
    "quota": lambda: QuotaError("the account may have no more machines"),
    "auth": lambda: AuthError("the credentials have expired"),
    "provider": lambda: ProviderError("the image does not exist"),
    "config": lambda: ConfigError([]),
    "lost": lambda: UnreachableError("the request was lost"),
}


@dataclass(slots=True)
class FakeInstance:
    """One machine of the ledger: what truly exists, whatever a list says."""

    instance_id: str
    run: str
    node: str
    generation: int
    token: str
    request: str
    created_at: float
    ready_at: float
    ours: bool = True  # created by us and tagged; what is not must never be touched
    asked_to_end: bool = False
    noticed: bool = False  # its end was announced, whatever came of it
    stopped: bool = False
    started_again: float = 0.0  # since when it runs after it was stopped
    was_kept: bool = False
    kept: bool = False  # of no run, until one takes it or it ends itself
    ended_at: float | None = None
    reason: str = ""
    told: InstanceStatus | None = None  # what was said of it last, which mostly is said again

    @property
    def alive(self) -> bool:
        return self.ended_at is None


class FakeProvider:
    """Implements core.ports.Provider. Idempotent by a table of tokens that is never forgotten.

    `faults` maps (verb, n-th call of it) to what goes wrong: a key of REFUSALS, `lost-reply` (the effect happened) or
    `duplicate` (the network delivered the request twice). `chance`, asked after it, may say the same at random.
    """

    slow = False

    def __init__(self, timeline: Timeline, name: str = "fake", capacity: Resources | None = None) -> None:
        self.name = name
        self.timeline = timeline
        self.capacity = capacity or Resources(2.0, 8 << 30, 0)
        self.boot_delay = 8.0
        self.boot_spread = 0.0  # that many seconds more for some, up to six times as many
        self.keep_seconds = 40.0
        self.short: dict[str, str] = {}  # request -> the refusal that it gets, a key of REFUSALS
        self.most: int | None = None  # machines that the account may have at once
        self.keeping = False  # its offers are for keeping
        self.end_delay = 3.0
        self.list_lag = 0.0
        self.forget_after: float | None = None
        self.blind_until = 0.0
        self.omitted_until: dict[str, float] = {}
        self.faults: dict[tuple[str, int], str] = {}
        self.chance: Callable[[str], str] = lambda verb: ""
        self.calls: dict[str, int] = {}
        self.instances: dict[str, FakeInstance] = {}
        self.tokens: dict[str, str] = {}
        self.edge: Callable[[str], None] = no_edge
        self.on_start: Callable[[FakeInstance], None] = lambda instance: None
        self.on_end: Callable[[FakeInstance], None] = lambda instance: None

    # ---- the port --------------------------------------------------------------------------------------------------

    def check(self, spec: InstanceSpec) -> list[str]:
        return [f"{key}: no such setting" for key, _ in spec.settings if key != "zone"]

    def largest(self, spec: InstanceSpec) -> Resources | None:
        return spec.capacity or self.capacity

    def plan_machines(self, specs: Sequence[InstanceSpec]) -> Sequence[MachinePlan]:
        return [MachinePlan((self._offer(spec),)) for spec in specs for _ in range(spec.number)]

    def _offer(self, spec: InstanceSpec) -> Offer:
        settings = json.dumps({"settings": [list(pair) for pair in spec.settings]})
        return Offer(settings, self.largest(spec), PRICE, keep=self.keep_seconds if self.keeping else 0.0)

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        self.edge("create before")
        fault = self._fault("create")
        if fault in REFUSALS and (fault in {"auth", "lost"} or token not in self.tokens):
            raise REFUSALS[fault]()
        if request in self.short and token not in self.tokens:
            raise REFUSALS[self.short[request]]()
        if self.most is not None and token not in self.tokens and self._count_alive() >= self.most:
            raise REFUSALS["quota"]()
        instance_id = self._create(run, node, generation, token, request)
        if fault == "duplicate":
            self._create(run, node, generation, token, request)
        self.edge("create after")
        if fault == "lost-reply":
            raise UnreachableError("the reply was lost")
        return instance_id

    def list_instances(self, run: str) -> Sequence[InstanceStatus]:
        now = self.timeline.now
        if now < self.blind_until or self._fault("list"):
            raise UnreachableError("only a part of the list came")
        seen = now - self.list_lag
        return tuple(
            self._status(i, seen)
            for i in self.instances.values()
            if i.run == run
            and i.ours
            and not i.kept
            and i.created_at <= seen
            and self.omitted_until.get(i.instance_id, 0.0) <= now
            and not self._forgotten(i, now)
        )

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        self.edge("terminate before")
        fault = self._fault("terminate")
        if fault in REFUSALS:
            raise REFUSALS[fault]()
        instance = self.instances.get(instance_id)
        if instance is not None:
            self._ask_to_end(instance)
        self.edge("terminate after")
        if fault == "lost-reply":
            raise UnreachableError("the reply was lost")

    def keep_instance(self, run: str, node: str, instance_id: str) -> None:
        self.edge("keep before")
        fault = self._fault("keep")
        if fault in REFUSALS:
            raise REFUSALS[fault]()
        instance = self.instances.get(instance_id)
        if instance is not None and instance.run == run and not instance.kept:
            instance.kept = instance.was_kept = True
            self._end_when_idle(instance)
        self.edge("keep after")
        if fault == "lost-reply":
            raise UnreachableError("the reply was lost")

    # ---- what happens to machines ----------------------------------------------------------------------------------

    def end(self, instance: FakeInstance, reason: str) -> None:
        """The machine is gone now, from whatever cause."""
        if instance.alive:
            instance.ended_at = self.timeline.now
            instance.reason = reason
            self.on_end(instance)

    def add_foreign(self, run: str, node: str) -> FakeInstance:
        """A machine that somebody else made, with our run's name on it by accident but without our tag."""
        now = self.timeline.now
        foreign = FakeInstance(f"foreign-{len(self.instances)}", run, node, 1, "", "", now, now, ours=False)
        self.instances[foreign.instance_id] = foreign
        return foreign

    def living(self, node: str | None = None) -> list[FakeInstance]:
        """Machines of ours that are billed and were not asked to end; with `node`, those that serve it."""
        return [
            i
            for i in self.instances.values()
            if i.alive and i.ours and not i.asked_to_end and (node is None or (i.node == node and not i.kept))
        ]

    def _count_alive(self) -> int:
        return sum(1 for i in self.instances.values() if i.alive and i.ours)

    def bill(self) -> float:
        """Seconds of all machines so far."""
        now = self.timeline.now
        return sum((now if i.ended_at is None else i.ended_at) - i.created_at for i in self.instances.values())

    def _known_token(self, token: str, request: str) -> str | None:
        instance_id = self.tokens.get(token)
        if instance_id is not None:
            instance = self.instances[instance_id]
            if instance.request != request:
                raise ProviderError("the token was used for another request")
            if not instance.alive:
                raise CapacityError("the machine of this token has ended")
        return instance_id

    def _create(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        known = self._known_token(token, request)
        if known is not None:
            return known
        waiting = next((i for i in self.living() if i.kept and i.request == request), None)
        if waiting is not None:
            waiting.kept = False
            waiting.run, waiting.node, waiting.generation, waiting.token = run, node, generation, token
            self.tokens[token] = waiting.instance_id
            return waiting.instance_id
        now = self.timeline.now
        number = len(self.instances) + 1
        boot = self.boot_delay + self.boot_spread * (number * 5 % 7)
        instance = FakeInstance(f"i-{number}", run, node, generation, token, request, now, now + boot)
        self.instances[instance.instance_id] = instance
        self.tokens[token] = instance.instance_id
        self.timeline.after(boot, lambda: self._start(instance))
        return instance.instance_id

    def _start(self, instance: FakeInstance) -> None:
        if instance.alive:
            self.on_start(instance)

    def _end_when_idle(self, instance: FakeInstance) -> None:
        """Its dead man's switch, as far as a run can tell."""
        generation = instance.generation

        def look() -> None:
            if instance.kept and instance.generation == generation:
                self.end(instance, "terminated")

        self.timeline.after(self.keep_seconds, look)

    def _ask_to_end(self, instance: FakeInstance) -> None:
        if not instance.asked_to_end:
            instance.asked_to_end = True
            self.timeline.after(self.end_delay, lambda: self.end(instance, "terminated"))

    def _forgotten(self, instance: FakeInstance, now: float) -> bool:
        return (
            self.forget_after is not None
            and instance.ended_at is not None
            and now >= instance.ended_at + self.forget_after
        )

    def _status(self, instance: FakeInstance, seen: float) -> InstanceStatus:
        state, reason = "pending", ""
        if instance.ended_at is not None and instance.ended_at <= seen:
            state, reason = "terminated", instance.reason
        elif instance.stopped:
            state = "stopped"
        elif instance.ready_at <= seen:
            state = "running"
        told = instance.told
        if (
            told is None
            or (told.state, told.reason) != (state, reason)
            or (told.node, told.generation) != (instance.node, instance.generation)
            or told.launched_at != max(instance.created_at, instance.started_again)
        ):
            told = instance.told = self._make_status(instance, state, reason)
        return told

    def _make_status(self, instance: FakeInstance, state: str, reason: str) -> InstanceStatus:
        address = HostAddress("ssh", instance.instance_id, host=instance.instance_id) if state == "running" else None
        return InstanceStatus(
            instance.instance_id,
            instance.node,
            instance.generation,
            state,
            address,
            reason,
            PRICE,
            launched_at=max(instance.created_at, instance.started_again),
            ended_at=instance.ended_at if state == "terminated" else None,
        )

    def _fault(self, verb: str) -> str:
        count = self.calls[verb] = self.calls.get(verb, 0) + 1
        return self.faults.get((verb, count)) or self.chance(verb)

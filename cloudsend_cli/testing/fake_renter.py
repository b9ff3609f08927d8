"""A provider of rented machines with memory, without a cloud: for commands about machines, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cloudsend_cli.core.model import (
    Aside,
    Finding,
    HostAddress,
    InstanceSpec,
    InstanceStatus,
    Leftover,
    MachinePlan,
    Offer,
    Rented,
    Resources,
)
from cloudsend_cli.core.renting import KEPT
from cloudsend_cli.errors import CapacityError, CloudsendError, NotFoundError, ProviderError

REGION = "here-1"
NOTES = ("small, here-1a, spot", "small, here-1b, spot", "large, here-1a, on-demand")
PRICES = (0.02, 0.01, 0.4)
REQUESTS = tuple(f'{{"idle":600,"offer":{number}}}' for number in range(len(NOTES)))
ASIDE = Aside(f"slow, {REGION}, on-demand", 0.005, "slowed down now and then")
LIFE = 86400.0


@dataclass(slots=True)
class FakeMachine:
    """One machine of the ledger. `request` is one of REQUESTS."""

    id: str
    run: str
    node: str
    generation: int
    token: str
    request: str
    launched_at: float
    state: str = "running"
    ended_at: float | None = None

    @property
    def kind(self) -> tuple[str, str, float]:
        """(type, market, price)"""
        number = REQUESTS.index(self.request)
        name, _, market = NOTES[number].split(", ")
        return name, market, PRICES[number]


@dataclass(slots=True)
class FakeRenter:
    """Implements core.ports.Renter. Idempotent by a table of tokens that is never forgotten.

    Machines are there at once, as directories below `folder` in which a local agent can run. `refusals`: what the
    next calls of a verb get instead of an answer, in their order.
    """

    folder: Path
    name: str = "cloud"
    slow: bool = True
    clock: Callable[[], float] = time.time
    machines: dict[str, FakeMachine] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    leftovers: dict[str, Leftover] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    refusals: dict[str, list[CloudsendError]] = field(default_factory=dict)
    console: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)

    # ---- Provider --------------------------------------------------------------------------------------------------

    def check(self, spec: InstanceSpec) -> list[str]:
        return []

    def largest(self, spec: InstanceSpec) -> Resources | None:
        return Resources(2.0)

    def plan_machines(self, specs: Sequence[InstanceSpec]) -> Sequence[MachinePlan]:
        offers = tuple(
            Offer(request, Resources(2.0), price, f"pool {note}", f"quota {note.split(', ')[2]}", 600.0, note)
            for request, price, note in zip(REQUESTS, PRICES, NOTES, strict=True)
        )
        return [MachinePlan(offers, asides=(ASIDE,)) for spec in specs for _ in range(spec.number)]

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        self._call("create", node)
        if token not in self.tokens:
            instance_id = f"i-{len(self.machines) + 1}"
            self.tokens[token] = instance_id
            self.machines[instance_id] = FakeMachine(instance_id, run, node, generation, token, request, self.clock())
        known = self.machines[self.tokens[token]]
        if known.request != request:
            raise ProviderError("the token was used for another request")
        if known.state == "terminated":
            raise CapacityError("the machine of this token has ended")
        return known.id

    def list_instances(self, run: str) -> Sequence[InstanceStatus]:
        self._call("list", run)
        return [self._status(machine) for machine in self.machines.values() if machine.run == run]

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        if instance_id in self.machines:
            self.terminate_rented(instance_id)

    # ---- Renter ----------------------------------------------------------------------------------------------------

    def keep_instance(self, run: str, node: str, instance_id: str) -> None:
        self._call("keep", instance_id)
        if self.machines[instance_id].run == run:
            self.machines[instance_id].run = KEPT

    def list_rented(self) -> Sequence[Rented]:
        self._call("list", "")
        return [self._rented(machine) for machine in self.machines.values()]

    def start_instance(self, instance_id: str) -> None:
        self._call("start", instance_id)
        machine = self._own(instance_id)
        if machine.state != "running":
            machine.state, machine.launched_at, machine.ended_at = "running", self.clock(), None

    def stop_instance(self, instance_id: str) -> None:
        self._call("stop", instance_id)
        machine = self._own(instance_id)
        machine.state, machine.ended_at = "stopped", self.clock()

    def terminate_rented(self, instance_id: str) -> None:
        self._call("terminate", instance_id)
        machine = self._own(instance_id)
        if machine.state != "terminated":
            machine.state, machine.ended_at = "terminated", self.clock()

    def fetch_console(self, instance_id: str) -> str:
        self._call("console", instance_id)
        return self.console

    def list_leftovers(self) -> Sequence[Leftover]:
        self._call("leftovers", "")
        return list(self.leftovers.values())

    def remove_leftover(self, leftover: Leftover) -> None:
        self._call("remove", leftover.id)
        self.leftovers.pop(leftover.id, None)

    def check_account(self, *, fix: bool = False) -> Iterator[Finding]:
        self._call("check", str(fix))
        yield from ([replace(finding, ok=True) for finding in self.findings] if fix else self.findings)

    # ---- what there is ---------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[FakeMachine]:
        return [machine for machine in self.machines.values() if machine.state != "terminated"]

    def bill(self) -> float:
        """Dollars for all machines so far."""
        now = self.clock()
        hours = [((m.ended_at or now) - m.launched_at) / 3600 * m.kind[2] for m in self.machines.values()]
        return sum(hours)

    def _own(self, instance_id: str) -> FakeMachine:
        if instance_id not in self.machines:
            raise NotFoundError(f"there is no {instance_id}")
        return self.machines[instance_id]

    def _call(self, verb: str, subject: str) -> None:
        self.calls.append((verb, subject))
        waiting = self.refusals.get(verb)
        if waiting:
            raise waiting.pop(0)

    def _address(self, machine: FakeMachine) -> HostAddress | None:
        if machine.state != "running":
            return None
        return HostAddress("local", f"fake:{machine.id}", home=str(self.folder / machine.id))

    def _status(self, machine: FakeMachine) -> InstanceStatus:
        return InstanceStatus(
            machine.id,
            machine.node,
            machine.generation,
            machine.state,
            self._address(machine),
            price=machine.kind[2],
            launched_at=machine.launched_at,
            ended_at=machine.ended_at,
        )

    def _rented(self, machine: FakeMachine) -> Rented:
        kind, market, price = machine.kind
        return Rented(
            provider=self.name,
            instance_id=machine.id,
            region=REGION,
            state=machine.state,
            run=machine.run,
            node=machine.node,
            project="p",
            type=kind,
            market=market,
            price=price,
            launched_at=machine.launched_at,
            ended_at=machine.ended_at,
            address=self._address(machine),
            expires=machine.launched_at + LIFE,
            idle=600.0,
        )

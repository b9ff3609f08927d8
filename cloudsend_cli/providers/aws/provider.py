"""EC2 as a provider: machines are rented for a run, tagged as ours, given back, and end themselves when we are gone.

Idempotency of `create_instance`: see create. What carries no owner tag of this installation is never touched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudsend_cli.core.model import (
    Finding,
    InstanceSpec,
    InstanceStatus,
    Leftover,
    MachinePlan,
    ProviderDefinition,
    Rented,
    Resources,
)

from . import instances, kept
from .clients import Account
from .create import create_machine
from .launch import Intent
from .settings import parse_account
from .tenant import Tenant

if TYPE_CHECKING:
    from .planning import Planner

PRICE_KEPT = 600.0


class AwsProvider:
    """The account of one definition. Implements core.ports.Renter."""

    slow = True

    def __init__(
        self, definition: ProviderDefinition, state_dir: Path, forget_host: Callable[[str], None] = lambda alias: None
    ) -> None:
        """`forget_host` is told the alias of each machine that is seen to have ended."""
        self.name = definition.name
        self._definition = definition
        profile, region = parse_account(definition)
        self._tenant = Tenant(definition.name, Account(profile, region), state_dir, forget_host)
        self._prices: dict[tuple[str, ...], tuple[float, float | None]] = {}
        self._planner: Planner | None = None
        self._lock = threading.Lock()

    # ---- plans ----------------------------------------------------------------------------------------------------

    def check(self, spec: InstanceSpec) -> list[str]:
        from .planning import check_spec

        return check_spec(self._definition, spec)

    def largest(self, spec: InstanceSpec) -> Resources | None:
        from .planning import find_largest

        return find_largest(self._definition, spec)

    def plan_machines(self, specs: Sequence[InstanceSpec]) -> Sequence[MachinePlan]:
        from .planning import Planner

        with self._lock:
            if self._planner is None:
                self._planner = Planner(self._definition, self._tenant.account, self._tenant.state_dir)
        return kept.mark_waiting(self._tenant, self._planner.plan(specs))

    # ---- machines of a run ----------------------------------------------------------------------------------------

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        return create_machine(self._tenant, Intent(run, node, generation, token), request)

    def list_instances(self, run: str) -> Sequence[InstanceStatus]:
        """One call for each region that the run may have used. One that does not answer fails the whole list.

        The port has no word for "known in this region and not in that one": a machine that is absent from a list is
        one that may be gone. The run's own regions are looked at, so that another region's trouble is not its own.
        """
        return instances.list_statuses(self._tenant, run)

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        instances.terminate_machine(self._tenant, instance_id, run, self._find_price)

    def keep_instance(self, run: str, node: str, instance_id: str) -> None:
        kept.keep_machine(self._tenant, run, instance_id)

    # ---- machines of whatever run ---------------------------------------------------------------------------------

    def list_rented(self) -> Sequence[Rented]:
        return instances.list_rented(self._tenant, self._find_price)

    def start_instance(self, instance_id: str) -> None:
        instances.start_machine(self._tenant, instance_id)

    def stop_instance(self, instance_id: str) -> None:
        instances.stop_machine(self._tenant, instance_id)

    def terminate_rented(self, instance_id: str) -> None:
        instances.terminate_machine(self._tenant, instance_id, None, self._find_price)

    def fetch_console(self, instance_id: str) -> str:
        return instances.fetch_console(self._tenant, instance_id)

    # ---- the rest of the account ----------------------------------------------------------------------------------

    def list_leftovers(self) -> Sequence[Leftover]:
        from .leftovers import list_leftovers

        return list_leftovers(self._tenant)

    def remove_leftover(self, leftover: Leftover) -> None:
        from .leftovers import remove_leftover

        remove_leftover(self._tenant, leftover)

    def check_account(self, *, fix: bool = False) -> Iterator[Finding]:
        from .accounts import check_account

        return check_account(self._tenant, fix=fix)

    def _find_price(self, machine: instances.Machine) -> float | None:
        """Asked once in a while for each kind; None where nobody knows."""
        from .catalog import load_types
        from .prices import list_prices

        kind = load_types().get(machine.type)
        if kind is None:
            return None
        key = (machine.region, machine.zone, machine.type, machine.market)
        with self._lock:
            at, price = self._prices.get(key, (0.0, None))
            if not at or time.monotonic() - at > PRICE_KEPT:
                tenant = self._tenant
                prices = list_prices(tenant.account, machine.region, [kind], [machine.market], tenant.state_dir)
                price = prices.find(machine.type, machine.zone, machine.market)
                self._prices[key] = (time.monotonic(), price)
        return price

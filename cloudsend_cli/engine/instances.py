"""Machines as users see them: one line each, whatever number of runs use it, and those that are claimed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloudsend_cli.core.costs import run_cost
from cloudsend_cli.core.giving_up import foretell_giving_up
from cloudsend_cli.core.machine_views import InstanceView, RentalView
from cloudsend_cli.core.model import HostAddress, HostView, Rented, list_known
from cloudsend_cli.core.offers import current_offer
from cloudsend_cli.core.paid import Paid, total_cost
from cloudsend_cli.core.renting import (
    ENDED,
    KEPT,
    Kind,
    describe_idle,
    find_excess,
    is_rented_node,
    machine_cost,
    parse_note,
)
from cloudsend_cli.core.silence import describe_silence
from cloudsend_cli.core.state import NodeRecord, RentalRecord, RunRecord
from cloudsend_cli.store.tables import JobRow

from .lookup import SHARED_TYPES

# Of several runs' states of one machine the first of these is told.
STATES = ("running", "creating", "wanted", "keeping", "releasing", "claimed", "failed", "released")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One run's node, with the run's jobs that are on it and how its machine is seen now."""

    run: RunRecord
    node: NodeRecord
    jobs: Sequence[JobRow]
    view: HostView | None
    rentals: Sequence[RentalRecord] = ()  # of the node
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A machine that is kept for this state directory without any run."""

    name: str
    provider: str
    instance_id: str
    address: HostAddress | None = None

    def nicknames(self) -> tuple[str, str]:
        short = self.name.removeprefix(f"{self.provider}-")
        return short, f"{self.provider}/{short}"


def list_machines(facts: Iterable[NodeFacts], claims: Iterable[Claim]) -> list[InstanceView]:
    """One view for each machine, in the order in which they are first met."""
    nodes: dict[tuple[str, ...], list[NodeFacts]] = {}
    for fact in facts:
        nodes.setdefault(_machine(fact), []).append(fact)
    kept = {(c.provider, c.name): c for c in claims}
    found = [_view(group, kept.pop((group[0].node.provider, group[0].node.name), None)) for group in nodes.values()]
    found += [InstanceView(c.name, c.provider, c.instance_id, "claimed", claimed=True) for c in kept.values()]
    return found


def _machine(fact: NodeFacts) -> tuple[str, ...]:
    """Nodes that agree in this are one machine. Rented machines belong to their run."""
    kinds = {p.name: p.type for p in fact.run.providers}
    if kinds.get(fact.node.provider, fact.node.provider) in SHARED_TYPES:
        return (fact.node.provider, fact.node.name)
    return (fact.node.provider, fact.node.name, fact.run.id)


def _view(group: Sequence[NodeFacts], claim: Claim | None) -> InstanceView:
    first = min(group, key=lambda f: STATES.index(f.node.state) if f.node.state in STATES else len(STATES))
    views = [f.view for f in group if f.view is not None]
    view = next((v for v in views if v.connected), views[0] if views else None)
    jobs = [job for f in group for job in f.jobs]
    executing = sum(1 for job in jobs if job.started_at is not None)
    known = (view.resources if view is not None else None) or first.node.capacity
    return InstanceView(
        name=first.node.name,
        provider=first.node.provider,
        instance_id=first.node.instance_id,
        state=first.node.state,
        runs=tuple(dict.fromkeys(f.run.id for f in group)),
        claimed=claim is not None,
        capacity=known if list_known(known) else None,
        free=view.vitals.free if view is not None and view.connected else None,
        load=view.vitals.load if view is not None and view.connected else None,
        others=view.vitals.others if view is not None else 0,
        running=executing,
        queued=len(jobs) - executing,
        connected=view.connected if view is not None else None,
        since=view.since if view is not None else None,
        remark=_remark(first.node, view) + ("" if jobs else foretell_giving_up(first.node, view)),
        rental=_rental(first),
    )


def _rental(fact: NodeFacts) -> RentalView | None:
    """What the run knows of a rented machine, without asking its provider."""
    node = fact.node
    if not is_rented_node(node):
        return None
    mine = [rental for rental in fact.rentals if rental.instance_id == node.instance_id]
    paid = mine if node.instance_id else fact.rentals  # without a machine: for all that it ever had
    return RentalView(
        kind=parse_note(current_offer(node).note),
        price=mine[-1].price if mine else node.price,
        since=min(rental.since for rental in mine) if mine else None,
        cost=run_cost(paid, fact.now) if paid else None,
        expires=node.lease,
        project=fact.run.project,
    )


def _remark(node: NodeRecord, view: HostView | None) -> str:
    if node.trouble:
        return f"not given back yet: {node.trouble}"
    if view is None:
        return node.reason
    if not view.connected:
        return describe_silence(node.name, view)
    others = view.vitals.others
    busy = f"executes {others} job{'' if others == 1 else 's'} of others" if others else ""
    return "; ".join(filter(None, (node.reason, busy, view.vitals.held, view.vitals.warning)))


def names_of(machine: InstanceView) -> Mapping[str, None]:
    """What a user may call it, the shortest first."""
    runs = [f"{run}/{machine.name}" for run in machine.runs]
    short = machine.name.removeprefix(f"{machine.provider}-")
    return dict.fromkeys(n for n in (machine.name, f"{machine.provider}/{short}", machine.instance_id, *runs) if n)


# ---- rented machines, as their providers list them -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Runs:
    """Of this state directory: those with something left to do, and all."""

    active: Collection[str]
    known: Collection[str]


def add_rented(
    views: Sequence[InstanceView],
    rented: Iterable[Rented],
    runs: Runs,
    now: float,
    *,
    bills: Mapping[str, Paid],
    ended: bool = False,
) -> list[InstanceView]:
    """What providers say of the machines in `views`, and machines of ours that are not among them.

    `ended`: also those that are shown for a while after their end. `bills`: of those that belong to no run.
    """
    told = {machine.instance_id: machine for machine in rented}
    found = []
    for view in views:
        machine = told.pop(view.instance_id or _find_new(view, told.values()), None)
        found.append(view if machine is None else _merge(view, machine, now))
    found += [
        rented_view(m, runs, now, bills.get(m.instance_id)) for m in told.values() if ended or m.state != "terminated"
    ]
    return found


def _find_new(view: InstanceView, machines: Iterable[Rented]) -> str:
    """The machine that was asked for last for a node whose maestro has not heard of it yet; "" if there is none."""
    if view.state != "creating":
        return ""
    mine = [m for m in machines if m.node == view.name and m.run in view.runs and m.state not in ENDED]
    newest = max(mine, key=lambda m: m.launched_at or 0.0, default=None)
    return newest.instance_id if newest is not None else ""


def _merge(view: InstanceView, machine: Rented, now: float) -> InstanceView:
    known = view.rental or RentalView()
    rental = replace(
        known,
        kind=_kind(machine, known.kind.place),
        price=known.price if known.price is not None else machine.price,
        since=known.since if known.since is not None else machine.launched_at,
        expires=min((t for t in (known.expires, machine.expires) if t is not None), default=None),
        idle=machine.idle,
        cost=known.cost if known.cost is not None else machine_cost(machine, now),
        project=machine.project or known.project,
    )
    return replace(view, instance_id=machine.instance_id, rental=rental)


def _kind(machine: Rented, place: str = "") -> Kind:
    return Kind(machine.type, place or machine.region, machine.market)


def rented_view(machine: Rented, runs: Runs, now: float, bill: Paid | None = None) -> InstanceView:
    """A machine of ours that no node of an active run stands for. `bill`: of all times that it was started."""
    leftover = find_excess(machine, runs.active, runs.known, now)
    kept = machine.run == KEPT and machine.state not in ENDED
    return InstanceView(
        name=name_rented(machine),
        provider=machine.provider,
        instance_id=machine.instance_id,
        state="kept" if kept and machine.state == "running" and not leftover else machine.state,
        runs=(machine.run,) if machine.run in runs.known else (),
        remark=_rented_remark(machine, leftover, kept),
        rental=RentalView(
            kind=_kind(machine),
            price=machine.price,
            since=machine.launched_at if bill is None else bill.since,
            cost=machine_cost(machine, now) if bill is None else total_cost(bill, now),
            expires=machine.expires,
            idle=machine.idle,
            project=machine.project,
            kept=kept,
            leftover=leftover,
        ),
    )


def _rented_remark(machine: Rented, leftover: str, kept: bool) -> str:
    if leftover:
        return f"left over: {leftover}; see `cloudsend gc`"
    if machine.state in {"stopping", "stopped"}:
        return "its disk is kept, and costs a little"
    if machine.state in ENDED:
        return machine.reason
    whose = machine.project or "any project"
    return f"waits for a run of {whose}; ends itself {describe_idle(machine.idle)}" if kept else ""


def name_rented(machine: Rented) -> str:
    """Machines of runs are numbered, and a number is not theirs any more once they are out of their run."""
    last = machine.node.rpartition("-")[2]
    numbered = last.removesuffix("b").isdigit()  # see naming.stand_in_name
    return machine.node if last and not numbered else machine.instance_id

"""Machines as users see them: one line each, whatever number of runs use it, and those that are claimed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloudsend_cli.core.machine_views import InstanceView
from cloudsend_cli.core.model import HostAddress, HostView, list_known
from cloudsend_cli.core.silence import describe_silence
from cloudsend_cli.core.state import NodeRecord, RunRecord
from cloudsend_cli.store.tables import JobRow

from .lookup import SHARED_TYPES

# Of several runs' states of one machine the first of these is told.
STATES = ("running", "creating", "wanted", "releasing", "claimed", "failed", "released")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One run's node, with the run's jobs that are on it and how its machine is seen now."""

    run: RunRecord
    node: NodeRecord
    jobs: Sequence[JobRow]
    view: HostView | None


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
        remark=_remark(first.node, view),
    )


def _remark(node: NodeRecord, view: HostView | None) -> str:
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

"""When a rented machine that does not answer is given back: what decide_nodes does, foretold. Pure."""

from __future__ import annotations

from .model import RUNNING, HostView, Policy
from .renting import is_rented_node
from .silence import SILENT, clock
from .state import FETCHED, NodeRecord, RunState


def describe_giving_up(state: RunState, node: NodeRecord, view: HostView | None) -> str:
    """Such as `; it may be starting, and is given back at 09:29:03Z if nobody reaches it`; "" where it is kept."""
    return "" if _is_used(state, node) else foretell_giving_up(node, view)


def foretell_giving_up(node: NodeRecord, view: HostView | None) -> str:
    """Of a machine that has nothing of the run."""
    if view is None or view.connected or view.error_code != SILENT or not view.since:
        return ""
    if node.state != "running" or not is_rented_node(node):
        return ""
    why = "" if view.boot else "it may be starting, and "
    return f"; {why}is given back at {clock(view.since + Policy().boot_limit)} if nobody reaches it"


def _is_used(state: RunState, node: NodeRecord) -> bool:
    """Whether an end, or a result, of something that was handed to it is waited for."""
    waited = (state.jobs[number] for number in state.to_fetch)
    builds = (build for (where, _), build in state.builds.items() if where == node.name)
    return (
        bool(state.on_node.get(node.name))
        or any(job.node == node.name and job.fetch in FETCHED for job in waited)
        or any(build.state == RUNNING for build in builds)
    )

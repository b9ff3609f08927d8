"""Which machines are on their way, and why no more are asked for, in the words of `explain`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .model import HostView, Observation, Policy
from .offers import choose_offer
from .renting import is_rented_node
from .state import NodeRecord, RunState

NAMED_MOST = 5
NOT_NEEDED = "not asked for: nothing that is ready needs it"


def list_unasked(state: RunState, views: Mapping[str, HostView], now: float) -> list[NodeRecord]:
    """Machines of the plan that are not asked for, as nothing that is ready needs them."""
    from .demand import plan_demand
    from .draft import Draft

    resting = [n for n in state.nodes.values() if n.state == "wanted" and not n.retired and is_rented_node(n)]
    if not resting:
        return []
    asked = plan_demand(Draft(state, Observation(now, hosts=views), Policy())).ask
    return [node for node in resting if node.name not in asked]


def describe_number(state: RunState, unasked: list[NodeRecord], now: float) -> Iterator[str]:
    """For a job that is ready and has no place."""
    rented = [n for n in state.nodes.values() if is_rented_node(n) and not n.retired]
    coming = [n.name for n in rented if n.state == "creating"]
    if coming:
        more = f" and {len(coming) - NAMED_MOST} more" if len(coming) > NAMED_MOST else ""
        yield f"on their way: {', '.join(coming[:NAMED_MOST])}{more}"
    there = [n for n in rented if n.state in {"creating", "running"}]
    if unasked and there:
        free = [n for n in unasked if choose_offer(n, state.run.shortages, now) is not None]
        if free:
            count = f"{len(free)} more machine{'s' if len(free) > 1 else ''} of the plan"
            yield f"{count} {'are' if len(free) > 1 else 'is'} not asked for: those that are there, or come, have room"
    elif there and len(there) == len(rented):
        yield f"no more machines are planned than the {len(there)} that are there or come: `number` says how many"

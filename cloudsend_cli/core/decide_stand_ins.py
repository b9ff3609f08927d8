"""Who takes the place of a rented machine that its provider takes back, while that one still ends what it has. Pure.

A node is one machine at a time: one connection, one generation that fences late news. So the machine that is asked for
early is a node of its own, and a planned node and its stand-in (`aws-0`, `aws-0b`) take turns.
INVARIANT: of such a pair exactly one is not `retired`: it serves. The other is followed until its machine is gone.
"""

from __future__ import annotations

from .decide_jobs import PREEMPTED
from .decide_money import pays_for
from .draft import Draft
from .explain import LEAVING
from .model import PENDING, UNBOUNDED
from .naming import stand_in_name
from .offers import list_offers, take_offer
from .records import replace
from .renting import is_rented_node
from .state import NodeRecord

GONE = frozenset({"released", "failed"})


def ask_stand_in(draft: Draft, node: NodeRecord) -> bool:
    """Let the other of the pair serve instead, where jobs are left for it; else the node waits for its own end."""
    if node.retired or node.crowded or not is_rented_node(node):
        return False
    if not pays_for(draft, node.price) or not _is_needed(draft, node):
        return False
    other = _other(draft, node)
    if other is None or not other.retired or other.state != "released":
        return False
    offers = list_offers(node)
    fresh = replace(
        other, state="wanted", retired=False, crowded=False, idle_since=0.0, reason=PREEMPTED, offers=offers
    )
    draft.put_node(take_offer(replace(fresh, not_before=0.0, unanswered=0), offers[0]))
    draft.put_node(replace(node, retired=True, reason=f"{LEAVING}: {other.name} takes its place"))
    return True


def _is_needed(draft: Draft, node: NodeRecord) -> bool:
    """Whether anything is to be executed again, or will be when this machine has ended it."""
    waiting = draft.state.counts.get(PENDING, 0)
    for number, job in draft.jobs.items():
        waiting += (job.state == PENDING) - (draft.state.jobs[number].state == PENDING)
    return waiting > 0 or any(not job.cancel for job in draft.running_jobs(node.name))


def make_room(draft: Draft, node: NodeRecord) -> bool:
    """A machine that is being taken back counts for the account's limit until it is gone. What was refused for that is
    asked for again then, instead of being noted as a limit that is used up."""
    other = _other(draft, node)
    if node.crowded or other is None or not other.retired or not _was_there(draft, node, other):
        return False
    if other.state == "running":
        draft.put_node(replace(node, state="released", retired=True, reason=""))
        draft.put_node(replace(other, retired=False, crowded=True, reason=""))
    else:
        later = draft.seen.now + draft.policy.create_retry
        draft.put_node(replace(node, state="wanted", crowded=other.state in GONE, not_before=later))
    return True


def _was_there(draft: Draft, node: NodeRecord, other: NodeRecord) -> bool:
    """Whether the other one's machine was still there when this one's was asked for."""
    spans = (rental for rental in draft.all_rentals() if rental.node == other.name)
    return other.state not in GONE or any(r.until is None or r.until > node.created_at for r in spans)


def _other(draft: Draft, node: NodeRecord) -> NodeRecord | None:
    """The other of its pair, as it is or would be; None where another machine has that name."""
    planned = node.stands_in_for or node.name
    name = planned if node.stands_in_for else stand_in_name(planned)
    unused = NodeRecord(name, node.provider, UNBOUNDED, "", state="released", stands_in_for=planned, retired=True)
    other = draft.nodes.get(name) or draft.state.nodes.get(name) or unused
    return other if (other.stands_in_for or other.name) == planned else None

"""Which of the machines that could be had is asked for next. Pure."""

from __future__ import annotations

from .model import UNBOUNDED, Offer
from .records import replace
from .state import NodeRecord, RunRecord

Shortages = tuple[tuple[str, float], ...]


def list_offers(node: NodeRecord) -> tuple[Offer, ...]:
    """What the node may be. A record of a version without offers has the one of its request."""
    return node.offers or (Offer(node.request, node.capacity, node.price),)


def current_offer(node: NodeRecord) -> Offer:
    """The one that the node's newest intent is for."""
    offers = list_offers(node)
    return next((offer for offer in offers if offer.request == node.request), offers[0])


def take_offer(node: NodeRecord, offer: Offer) -> NodeRecord:
    return replace(node, request=offer.request, capacity=offer.capacity or UNBOUNDED, price=offer.price)


def choose_offer(node: NodeRecord, shortages: Shortages, now: float) -> Offer | None:
    """The first that is not short of machines and within the account's limits, as far as is known."""
    short = {key for key, until in shortages if until > now}
    return next((o for o in list_offers(node) if o.pool not in short and o.quota not in short), None)


def next_chance(node: NodeRecord, shortages: Shortages, now: float) -> float:
    """When the first offer can be asked for again. INVARIANT: none can now, see choose_offer."""
    until = {key: at for key, at in shortages if at > now}
    return min(max(until.get(offer.pool, 0.0), until.get(offer.quota, 0.0)) for offer in list_offers(node))


def is_over_quota(node: NodeRecord, shortages: Shortages, now: float) -> bool:
    """Whether the account's limits alone stand in the way of every offer."""
    short = {key for key, until in shortages if until > now}
    return all(offer.quota in short for offer in list_offers(node))


def note_shortage(run: RunRecord, key: str, now: float, until: float) -> RunRecord:
    """Remember it, and forget those that are over."""
    others = tuple((k, at) for k, at in run.shortages if at > now and k != key)
    return replace(run, shortages=(*others, (key, until)))

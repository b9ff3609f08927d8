"""Which machines could be had for what is asked, in the order in which they are tried, and how each is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloudsend_cli.core.costs import describe_rate
from cloudsend_cli.core.model import Offer

from .catalog import Choice, InstanceType
from .images import Image
from .network import Place
from .prices import Prices
from .quotas import Quota, is_hopeless, quota_code
from .settings import IDLE, LEAST_SECONDS, SPOT, UNADOPTED, Amount, Wanted

MOST_OFFERS = 12  # for one machine
SHORT_LIFE = 900  # seconds; a budget that lasts less long is probably a mistake
REQUEST_VERSION = 1
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Facts:
    """What AWS said of one region."""

    region: str
    places: tuple[Place, ...]
    zones: Mapping[str, frozenset[str]]  # that have each type
    images: Mapping[str, Image]  # by type
    prices: Prices
    quotas: Mapping[str, Quota]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One machine that could be had."""

    choice: Choice
    place: Place
    market: str
    price: float | None

    @property
    def note(self) -> str:
        return f"{self.choice.type.name}, {self.place.zone}, {self.market}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why something that was asked for is not among the candidates."""

    dear: Candidate | None = None  # the cheapest that costs more than the user would pay
    hopeless: tuple[tuple[InstanceType, str], ...] = ()
    absent: tuple[str, ...] = ()  # types that the region, or the user's part of it, does not have
    no_spot: tuple[str, ...] = ()


# ---- explode -------------------------------------------------------------------------------------------------------


def split_machines(wanted: Wanted, known: Mapping[str, InstanceType]) -> list[Wanted]:
    """One entry for each machine. With `explode` the CPUs of each of `number` are spread over several machines."""
    parts = [wanted]
    kind = known.get(wanted.types[0]) if wanted.explode and wanted.types else None
    if kind is not None and wanted.cpus is not None:
        parts = [replace(wanted, cpus=Amount(count)) for count in split_cpus(kind, int(wanted.cpus.value))]
    return [part for _ in range(wanted.number) for part in parts]


def split_cpus(kind: InstanceType, cpus: int) -> list[int]:
    """Machines with the largest number of cores that the type can have, one thread each, and the rest in the last."""
    most = max(kind.cores, default=kind.cpus)
    full, rest = divmod(cpus, most)
    return [most] * full + ([rest] if rest else [])


def find_split_problem(wanted: Wanted, known: Mapping[str, InstanceType]) -> str:
    """Why `cpus` cannot be spread over machines of the type; "" where it can."""
    kind = known.get(wanted.types[0]) if wanted.explode and wanted.types else None
    if kind is None or wanted.cpus is None:
        return ""
    if _can_split(kind, int(wanted.cpus.value)):
        return ""
    asked = int(wanted.cpus.value)
    would_do = " or ".join(map(str, _near_splits(kind, asked)))
    if not kind.cores:
        has = f"which has {kind.cpus} and no other number"
        return f"cpus: {asked} cannot be spread over {kind.name}, {has}; write {would_do}"
    rest, choices = asked % max(kind.cores), ", ".join(map(str, kind.cores))
    return (
        f"cpus: {asked} on {kind.name} leaves {rest} for the last machine, which can have {choices}; write {would_do}"
    )


def _can_split(kind: InstanceType, cpus: int) -> bool:
    most = max(kind.cores, default=kind.cpus)
    return cpus % most == 0 or cpus % most in kind.cores


def _near_splits(kind: InstanceType, cpus: int) -> list[int]:
    """The next numbers of CPUs, below and above, that can be spread over machines of the type."""
    most = max(kind.cores, default=kind.cpus)
    below = next((n for n in range(cpus - 1, 0, -1) if _can_split(kind, n)), None)
    above = next(n for n in range(cpus + 1, cpus + most + 1) if _can_split(kind, n))
    return [above] if below is None else [below, above]


# ---- candidates ----------------------------------------------------------------------------------------------------


def plan_candidates(wanted: Wanted, choices: Sequence[Choice], facts: Facts) -> tuple[list[Candidate], Refused]:
    """At most MOST_OFFERS, by market in the user's order, then type, then zone by price.

    Types are in the user's order, or where he named none, the cheapest of that market first. With two markets each has
    half of the places, so that there is always something to fall back to.
    """
    pairs = [(choice, market) for market in wanted.markets for choice in choices]
    hopeless = [(c.type, market) for c, market in pairs if is_hopeless(c.type, market, facts.quotas, c.cpus)]
    found: list[Candidate] = []
    dear: list[Candidate] = []
    for market in wanted.markets:
        rows = []
        for choice in choices:
            usable = (choice.type.spot or market != SPOT) and (choice.type, market) not in hopeless
            row = _zones_of(choice, market, facts) if usable else []
            cheap = [c for c in row if wanted.max_price is None or c.price is None or c.price <= wanted.max_price]
            dear += [c for c in row if c not in cheap]
            if cheap:
                rows.append(cheap)
        if not wanted.types:
            rows.sort(key=lambda row: (row[0].price is None, row[0].price or 0.0))
        found += _spread(rows, MOST_OFFERS // len(wanted.markets))
    absent = [c.type.name for c in choices if not _zones_of(c, wanted.markets[0], facts)]
    no_spot = [c.type.name for c in choices if SPOT in wanted.markets and not c.type.spot]
    cheapest = min(dear, key=lambda c: c.price or 0.0, default=None)
    return found, Refused(cheapest, tuple(hopeless), tuple(absent), tuple(no_spot))


def _zones_of(choice: Choice, market: str, facts: Facts) -> list[Candidate]:
    name = choice.type.name
    if name not in facts.images:
        return []
    zones = facts.zones.get(name, frozenset())
    row = [
        Candidate(choice, place, market, facts.prices.find(name, place.zone, market))
        for place in facts.places
        if place.zone in zones
    ]
    return sorted(row, key=lambda c: (c.price is None, c.price or 0.0, c.place.zone))


def _spread(rows: Sequence[Sequence[Candidate]], most: int) -> list[Candidate]:
    """At most so many, in order. Rather fewer zones of each type than fewer types."""
    depth = max(1, most // len(rows)) if rows else 0
    kept = [list(row[:depth]) for row in rows][:most]
    spare = most - sum(map(len, kept))
    for at in range(len(kept)):
        more = rows[at][depth : depth + spare]
        kept[at] += more
        spare -= len(more)
    return [candidate for taken in kept for candidate in taken]


# ---- budget --------------------------------------------------------------------------------------------------------


def plan_lives(budget: float | None, first: Sequence[Candidate]) -> list[float | None]:
    """Dollars for each machine, in proportion to the prices of their first offers; None: no limit is known.

    The machines keep to it themselves when every client is dead: each ends when its share is spent.
    """
    prices = [candidate.price for candidate in first]
    if budget is None or any(price is None for price in prices):
        return [None for _ in first]
    total = sum(price or 0.0 for price in prices)
    return [budget * (price or 0.0) / total if total else None for price in prices]


def decide_life(wanted: Wanted, candidate: Candidate, share: float | None) -> int:
    """Seconds after which the machine ends itself whatever happens."""
    if share is None or not candidate.price:
        return wanted.life
    return max(1, min(wanted.life, int(share * 3600 / candidate.price + 1e-6)))


def explain_small_budget(budget: float | None, first: Sequence[Candidate]) -> str:
    """Why the budget does not even pay for what is charged for at the least; "" where it does."""
    prices = [candidate.price or 0.0 for candidate in first]
    least = sum(prices) * LEAST_SECONDS / 3600
    if budget is None or least <= budget:
        return ""
    what = "the machine" if len(first) == 1 else f"{len(first)} machines"
    return (
        f"budget: {_exactly(budget)} does not pay for the first minute of {what}, which costs {_exactly(least)} "
        f"at {describe_rate(sum(prices))} and is charged whole"
    )


def _exactly(amount: float) -> str:
    """With all digits that tell two amounts apart."""
    whole, _, digits = f"{amount:.8f}".rstrip("0").partition(".")
    return f"${whole}.{digits:0<2}"


def drop_dear(candidates: Sequence[Candidate], share: float | None) -> list[Candidate]:
    """Without those of which the first minute alone costs more than the machine may."""
    if share is None:
        return list(candidates)
    # A share is in proportion to prices, so that it may lie a rounding error below its machine's first minute.
    return [c for c in candidates if (c.price or 0.0) * LEAST_SECONDS / 3600 <= share * (1 + 1e-9)]


def explain_short_life(budget: float | None, lives: Sequence[int], machines: int) -> str:
    shortest = min(lives, default=SHORT_LIFE)
    if budget is None or shortest >= SHORT_LIFE:
        return ""
    what = "the machine" if machines == 1 else f"{machines} machines"
    return f"budget: ${budget:g} keeps {what} for {max(1, shortest // 60)} min"


# ---- offers --------------------------------------------------------------------------------------------------------


def render_offers(
    wanted: Wanted, candidates: Sequence[Candidate], facts: Facts, share: float | None
) -> tuple[Offer, ...]:
    return tuple(_render(wanted, candidate, facts, share) for candidate in candidates)


def _render(wanted: Wanted, candidate: Candidate, facts: Facts, share: float | None) -> Offer:
    choice, place, market = candidate.choice, candidate.place, candidate.market
    image = facts.images[choice.type.name]
    spot, life = market == SPOT, decide_life(wanted, candidate, share)
    request = {
        "v": REQUEST_VERSION,
        "region": facts.region,
        "zone": place.zone,
        "zoned": bool(wanted.zones or wanted.subnet),
        "vpc": place.vpc,
        "subnet": place.subnet,
        "public": place.public,
        "type": choice.type.name,
        "market": market,
        "max_price": wanted.max_price_text if spot and wanted.max_price else None,
        "image": image.id,
        "user": image.user,
        "root_device": image.root_device,
        "disk": {"size": max(wanted.disk, image.disk), "type": wanted.disk_type},
        "cores": choice.cores,
        "threads": choice.threads,
        "project": wanted.project,
        "idle": wanted.idle or IDLE,  # what it watches over itself with, also where its run gives it back at once
        "life": life,
        **({"bounded": True} if life < wanted.life else {}),  # by the budget
        "unadopted": UNADOPTED,
        "eco_life": wanted.eco_life if spot else None,
        "reuse": bool(wanted.project),
    }
    code = quota_code(choice.type.name, market)
    return Offer(
        request=json.dumps(request, sort_keys=True, separators=(",", ":")),
        capacity=choice.capacity,
        price=candidate.price,
        pool=f"aws {facts.region} {place.zone} {choice.type.name} {market}",
        quota=f"aws {facts.region} {code}" if code else "",
        keep=float(wanted.idle) if wanted.project else 0.0,
        note=candidate.note,
        least=LEAST_SECONDS,
    )


def describe_refusal(wanted: Wanted, refused: Refused, region: str) -> str:
    """Why there is no candidate at all."""
    if refused.dear is not None:
        price = f"${refused.dear.price:g}/h" if refused.dear.price is not None else "more"
        return f"max_price: ${wanted.max_price:g} is less than the cheapest costs: {price} ({refused.dear.note})"
    names = _join(refused.absent)
    if refused.no_spot and wanted.markets == (SPOT,):
        return f"spot: {_join(refused.no_spot)} cannot be had as spot machines"
    where = f"{', '.join(wanted.zones)}" if wanted.zones else f"the subnets of {region}"
    if not names:
        return f"region: nothing that fits can be had in {where}"
    return f"{'type' if wanted.types else 'region'}: {names} cannot be had in {where}"


def _join(names: Sequence[str]) -> str:
    each = list(dict.fromkeys(names))
    left = len(each) - _SHOWN
    return ", ".join(each[:_SHOWN]) + (f" and {left} more" if left > 0 else "")

"""How jobs are given to machines, as the config's `assign` says: best fit, spread, or drawn. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Final

FASTEST: Final = "fastest"  # spread; all other words but `random` mean best fit
RANDOM: Final = "random"
DRAWS: Final = 256  # by so many different draws jobs are given to machines, so that equal ones stay one class
NOT_DRAWN: Final = -1

Settings = tuple[tuple[str, str], ...]


def read_assign(settings: Settings) -> str:
    return dict(settings).get("assign", "")


def read_seed(settings: Settings) -> str | None:
    """What places are drawn by; None: they are not."""
    found = dict(settings)
    return found.get("seed", "0") if found.get("assign") == RANDOM else None


def draw(seed: str | None, number: int) -> int:
    """Of a job: it depends on nothing but the seed and its number."""
    return NOT_DRAWN if seed is None else _hash(seed, str(number)) % DRAWS


def pick(seed: str, drawn: int, names: Iterable[str]) -> str | None:
    """One of the machines: with one machine less, or more, only what was on it, or goes to it, is picked anew."""
    return max(names, key=lambda name: (_hash(seed, str(drawn), name), name), default=None)


def _hash(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")


def size_of(expected: float, cpus: float) -> int:
    """A class of work: each is a fifth larger than the one before. 0: not known."""
    work = expected * max(1.0, cpus)
    return max(1, 1 + round(math.log(max(work, 0.01) / 0.01) / math.log(1.2))) if expected > 0 else 0


def rank_of(size: int) -> int:
    """What is handed out first has the least: what nobody knows, as it may be the most, and then the most work."""
    return -size if size else -(1 << 30)

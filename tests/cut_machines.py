"""Machines cut up into needs, so that it is known how many machines hold them all."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from cloudsend_cli.core.model import Resources

MACHINE = Resources(16.0, 64, 4)


def allowed(least: int) -> int:
    """One machine above the least number, or 5 %."""
    return max(least + 1, int(least * 1.05))


def cut(rng: random.Random, machines: int, pieces: int, full: float) -> dict[Resources, int]:
    """Machines cut up into pieces, of which nothing is missing where `full` is 1: they need `machines` at the least
    where they are full in any dimension, as here in CPUs."""
    found: Counter[Resources] = Counter()
    for _ in range(machines):
        count = rng.randint(1, pieces)
        cpus = _parts(rng, 32, count)
        memory = [int(full * part) for part in _parts(rng, 64, count)]
        gpus = [int(full * part) for part in _parts(rng, 4, count, least=0)]
        found.update(Resources(c / 2, m, g) for c, m, g in zip(cpus, memory, gpus, strict=True))
    return dict(found)


def _parts(rng: random.Random, whole: int, count: int, least: int = 1) -> list[int]:
    if least:
        cuts = [0, *sorted(rng.sample(range(1, whole), count - 1)), whole]
    else:
        cuts = [0, *sorted(rng.randint(0, whole) for _ in range(count - 1)), whole]
    return [after - before for before, after in pairwise(cuts)]

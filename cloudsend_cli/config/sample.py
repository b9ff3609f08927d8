"""`sample:` in a matrix: some of its combinations, the same ones for the same seed.

What is drawn depends on the seed and on the combination, not on how many are drawn: a larger sample contains the
smaller one, so that a run which is continued with more of them keeps what it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .check import Field, Report, Table, check_mapping, whole_value
from .document import Mapping, Node, Place, Scalar
from .schema import MAX_JOBS, MAX_SEED, whole_schema

TRIES = 20  # for each combination that is wanted, of those that `exclude` may take away

SAMPLE = Table(
    "sample",
    (
        Field("number", (), whole_value(1, MAX_JOBS), whole_schema(1, MAX_JOBS), "How many combinations."),
        Field("seed", (), whole_value(0, MAX_SEED), whole_schema(0, MAX_SEED), "Default: `seed` of the top level."),
    ),
)


@dataclass(frozen=True, slots=True)
class Sample:
    number: int
    seed: int
    place: Place
    path: str


def is_sample(node: Node) -> bool:
    """Whether this is how many to draw. A list, a text or a range are the values of a parameter called `sample`."""
    if isinstance(node, Scalar):
        return node.kind in {"int", "float"}
    return isinstance(node, Mapping) and node.get("range", "log", "from_files") is None


def read_sample(report: Report, node: Node, path: str, seed: int) -> Sample | None:
    if isinstance(node, Scalar):
        node = Mapping([(Scalar("number", False, node.place), node)], node.place, 1)
        number_path = path
    else:
        number_path = f"{path}.number"
    values = check_mapping(report, node, SAMPLE, path)
    if "number" not in values:
        report.error(f"{path}: needs 'number'", node.place, "write sample: 20", path)
        return None
    number = values["number"].value
    own = values["seed"].value if "seed" in values else seed
    if not isinstance(number, int) or not isinstance(own, int):
        return None
    return Sample(number, own, node.place, number_path)


def _number_of(seed: int, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=32).digest(), "big")


def draw_rows(rows: list[tuple[str, ...]], sample: Sample) -> list[tuple[str, ...]]:
    """So many of `rows`, in their order."""
    if sample.number >= len(rows):
        return rows
    order = sorted(range(len(rows)), key=lambda at: (_number_of(sample.seed, "\0".join(rows[at])), at))
    return [rows[at] for at in sorted(order[: sample.number])]


def draw_numbers(total: int, sample: Sample, stays: Callable[[int], bool]) -> list[int]:
    """So many whole numbers below `total` that stay, in order; fewer where hardly any does."""
    found: set[int] = set()
    for number in _numbers(total, sample):
        if len(found) >= sample.number:
            break
        if number not in found and stays(number):
            found.add(number)
    return sorted(found)


def _numbers(total: int, sample: Sample) -> Iterator[int]:
    for attempt in range(TRIES * sample.number + 1000):
        yield _number_of(sample.seed, str(attempt)) % total

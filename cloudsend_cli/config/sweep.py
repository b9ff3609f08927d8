"""`matrix:` to rows of parameter texts: products, zips, ranges, excludes, includes. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from .check import Report, clip, describe_node, did_you_mean
from .document import Items, Mapping, Node, Scalar, describe_bad_text, is_null
from .schema import MAX_JOBS, is_variable
from .values import parse_whole

OPERATORS = ("exclude", "include", "zip")
RESERVED = frozenset(
    [
        "HOME",
        "IFS",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LOGNAME",
        "PATH",
        "PWD",
        "PYTHONHOME",
        "PYTHONPATH",
        "SHELL",
        "TMPDIR",
        "USER",
    ]
)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Parameters in the file's order and, for each job, their texts."""

    names: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ((),)


@dataclass(slots=True)
class _Axis:
    names: tuple[str, ...]
    values: list[tuple[str, ...]]


def parse_matrix(report: Report, node: Node, path: str) -> Sweep | None:
    """Rows in order, the first key slowest; None when something was reported. No two rows are equal."""
    if not isinstance(node, Mapping):
        message = f"{path}: expected a mapping of parameters and their values, not {describe_node(node)}"
        report.error(message, node.place, "write matrix: {lr: [1e-3, 1e-4]}", path)
        return None
    return _MatrixReader(report, path).read(node)


class _MatrixReader:
    def __init__(self, report: Report, path: str) -> None:
        self.report = report
        self.path = path
        self.before = len(report.problems)
        self.kinds: dict[str, Scalar] = {}  # where each parameter was declared

    def read(self, node: Mapping) -> Sweep | None:
        axes: list[_Axis] = []
        operators: dict[str, list[Node]] = {"exclude": [], "include": []}
        for key, value in node.entries:
            place = f"{self.path}.{key.text}"
            nodes = value.items if isinstance(value, Items) else [value]
            if key.text in operators:
                operators[key.text] += nodes
            elif key.text == "zip":
                axes += [axis for group in nodes for axis in self.zip(group, place)]
            elif self.declare(key, place):
                axes.append(_Axis((key.text,), [(text,) for text in self.values(value, place)]))
        includes = operators["include"]
        if not axes and includes and isinstance(includes[0], Mapping):
            for key, _ in includes[0].entries:
                self.declare(key, f"{self.path}.include[0]")
        names = tuple(name for axis in axes for name in axis.names) or tuple(self.kinds)
        total = (math.prod(len(axis.values) for axis in axes) if axes else 0) + len(includes)
        if not self.failed and not names:
            self.report.error(f"{self.path}: names no parameter", node.place, path=self.path)
        if total > MAX_JOBS:
            message = f"{self.path}: makes {total:,} jobs; the limit is {MAX_JOBS:,}"
            self.report.error(message, node.place, path=self.path)
        return None if self.failed else self.combine(axes, names, operators, node)

    @property
    def failed(self) -> bool:
        return len(self.report.problems) > self.before

    def combine(
        self, axes: list[_Axis], names: tuple[str, ...], operators: dict[str, list[Node]], node: Node
    ) -> Sweep | None:
        rows = self.rows(axes, names, operators["exclude"])
        for index, group in enumerate(operators["include"]):
            row = self.included(group, names, f"{self.path}.include[{index}]")
            if row is not None:
                rows[row] = None
        if not rows and not self.failed:
            self.report.warn(f"{self.path}: leaves no jobs", node.place, path=self.path)
        return None if self.failed else Sweep(names, tuple(rows))

    def declare(self, key: Scalar, path: str) -> bool:
        name = key.text
        if not is_variable(name):
            hint = "letters, digits and '_', not a digit first"
            self.report.error(f"{self.path}: {clip(name)} is not a parameter's name", key.place, hint, path)
            return False
        if name in RESERVED or name.startswith(("CLOUDSEND_", "LD_")):
            message = f"{self.path}: a parameter may not be called {name!r}"
            self.report.error(message, key.place, "every parameter is also an environment variable", path)
            return False
        if name in self.kinds:
            self.report.error(f"{self.path}: {name!r} is declared twice", key.place, path=path)
            return False
        self.kinds[name] = key
        return True

    # ---- values ------------------------------------------------------------------------------------------------

    def values(self, node: Node, path: str) -> list[str]:
        if isinstance(node, Mapping):
            return self.generated(node, path)
        found: list[str] = []
        for item in node.items if isinstance(node, Items) else [node]:
            text = self.text(item, path)
            if text is None:
                return []
            found.append(text)
        if not found:
            self.report.warn(f"{path}: an empty list makes no jobs", node.place, path=path)
        return list(dict.fromkeys(found))

    def text(self, node: Node, path: str) -> str | None:
        if not isinstance(node, Scalar) or is_null(node):
            message = f"{path}: a parameter's value is a text or a number, not {describe_node(node)}"
            self.report.error(message, node.place, path=path)
            return None
        bad = describe_bad_text(node.text)
        if bad:
            self.report.error(f"{path}: {clip(node.text)} {bad}", node.place, path=path)
            return None
        return node.text

    def generated(self, node: Mapping, path: str) -> list[str]:
        hint = "write {range: [first, last, step]} or {log: [first, last, how many]}"
        kind = node.entries[0][0].text if len(node.entries) == 1 else ""
        if kind not in ("range", "log"):
            self.report.error(f"{path}: expected values, 'range' or 'log'", node.place, hint, path)
            return []
        value = node.entries[0][1]
        numbers = value.items if isinstance(value, Items) else []
        wanted = (2, 3) if kind == "range" else (3,)
        texts = [item.text for item in numbers if isinstance(item, Scalar) and item.kind in ("int", "float")]
        if len(texts) != len(numbers) or len(texts) not in wanted:
            count = "2 or 3" if kind == "range" else "3"
            self.report.error(f"{path}: {kind!r} takes {count} numbers", value.place, hint, path)
            return []
        try:
            return expand_range(texts) if kind == "range" else expand_log(texts)
        except ValueError as problem:
            self.report.error(f"{path}: {problem}", value.place, hint, path)
            return []

    # ---- combinations --------------------------------------------------------------------------------------------

    def zip(self, node: Node, path: str) -> list[_Axis]:
        if not isinstance(node, Mapping) or not node.entries:
            hint = "write zip: {a: [1, 2], b: [x, y]}"
            self.report.error(f"{path}: expected a mapping of lists", node.place, hint, path)
            return []
        columns: list[list[str]] = []
        names: list[str] = []
        for key, value in node.entries:
            if self.declare(key, path):
                names.append(key.text)
                items = value.items if isinstance(value, Items) else None
                texts = [self.text(i, path) for i in items] if items is not None else self.values(value, path)
                columns.append([text for text in texts if text is not None])
        if len({len(column) for column in columns}) > 1:
            sizes = ", ".join(f"{n} has {len(c)}" for n, c in zip(names, columns, strict=True))
            self.report.error(f"{path}: lists side by side need equal lengths; {sizes}", node.place, path=path)
            return []
        return [_Axis(tuple(names), list(dict.fromkeys(zip(*columns, strict=True))))]

    def rows(self, axes: list[_Axis], names: tuple[str, ...], excludes: list[Node]) -> dict[tuple[str, ...], None]:
        conditions = [
            c
            for index, node in enumerate(excludes)
            if (c := self.condition(node, axes, names, f"{self.path}.exclude[{index}]")) is not None
        ]
        product: Iterator[tuple[str, ...]] = (
            tuple(itertools.chain.from_iterable(row)) for row in itertools.product(*(a.values for a in axes))
        )
        if not axes:
            return {}
        return {
            row: None
            for row in product
            if not any(all(row[at] in texts for at, texts in condition) for condition in conditions)
        }

    def condition(
        self, node: Node, axes: list[_Axis], names: tuple[str, ...], path: str
    ) -> list[tuple[int, set[str]]] | None:
        if not isinstance(node, Mapping) or not node.entries:
            hint = "write exclude: [{lr: 1e-3, seed: 4}]"
            self.report.error(f"{path}: expected a mapping of parameters and values", node.place, hint, path)
            return None
        found = []
        for key, value in node.entries:
            if key.text not in names:
                message = f"{path}: {clip(key.text)} is not a parameter of this matrix"
                self.report.error(message, key.place, did_you_mean(key.text, names), path)
                return None
            at = names.index(key.text)
            known = self.known(axes, at)
            wanted = [self.text(item, path) for item in (value.items if isinstance(value, Items) else [value])]
            texts = {k for k in known if any(w is not None and same_value(k, w) for w in wanted)}
            if not texts and None not in wanted:
                message = f"{path}: {key.text} has no value {clip(str(wanted[0]))}" if wanted else f"{path}: no value"
                self.report.error(message, value.place, "its values: " + ", ".join(known[:10]), path)
                return None
            found.append((at, texts))
        return found

    @staticmethod
    def known(axes: list[_Axis], at: int) -> list[str]:
        for axis in axes:
            if at < len(axis.names):
                return list(dict.fromkeys(values[at] for values in axis.values))
            at -= len(axis.names)
        return []

    def included(self, node: Node, names: tuple[str, ...], path: str) -> tuple[str, ...] | None:
        if not isinstance(node, Mapping):
            self.report.error(f"{path}: expected a mapping of parameters and values", node.place, path=path)
            return None
        given: dict[str, str] = {}
        for key, value in node.entries:
            if key.text not in names:
                message = f"{path}: {clip(key.text)} is not a parameter of this matrix"
                self.report.error(message, key.place, did_you_mean(key.text, names), path)
                return None
            text = self.text(value, path)
            if text is None:
                return None
            given[key.text] = text
        missing = [name for name in names if name not in given]
        if missing:
            message = f"{path}: needs a value of every parameter; missing: {', '.join(missing)}"
            self.report.error(message, node.place, path=path)
            return None
        return tuple(given[name] for name in names)


def same_value(left: str, right: str) -> bool:
    """Equal as texts, or equal as numbers (`1e-3` and `0.001`)."""
    if left == right:
        return True
    try:
        return Decimal(left) == Decimal(right)
    except InvalidOperation:
        return False


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{clip(text)} is not a number") from None
    if not value.is_finite() or len(text) > 40 or abs(value.adjusted()) > 30:
        raise ValueError(f"{clip(text)} is not a number that can be counted with")
    return value


def expand_range(texts: list[str]) -> list[str]:
    """From the first to the last, both included, exactly as decimals; the third is the step."""
    first, last = _decimal(texts[0]), _decimal(texts[1])
    step = _decimal(texts[2]) if len(texts) == 3 else Decimal(1 if last >= first else -1)
    if not step:
        raise ValueError("the step must not be 0")
    if (last - first) / step < 0:
        raise ValueError("the step leads away from the last value")
    count = int((last - first) / step) + 1
    if count > MAX_JOBS:
        raise ValueError(f"makes {count:,} values; the limit is {MAX_JOBS:,}")
    return [format(first + i * step, "f") for i in range(count)]


def expand_log(texts: list[str]) -> list[str]:
    """So many values evenly spaced in the logarithm; the ends keep their text."""
    first, last, count = float(_decimal(texts[0])), float(_decimal(texts[1])), parse_whole(texts[2])
    if first <= 0 or last <= 0:
        raise ValueError("'log' needs numbers above 0")
    if not 2 <= count <= MAX_JOBS:
        raise ValueError(f"'log' makes from 2 to {MAX_JOBS:,} values")
    ratio = (last / first) ** (1 / (count - 1))
    inner = [format(first * ratio**i, ".6g") for i in range(1, count - 1)]
    return list(dict.fromkeys([texts[0], *inner, texts[1]]))

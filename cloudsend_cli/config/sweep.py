"""`matrix:` to rows of parameter texts: products, zips, ranges, files, excludes, includes, samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .check import Report, clip, describe_node, did_you_mean
from .document import Items, Mapping, Node, Scalar, items_of
from .points import ListFiles, ValueReader, same_value
from .sample import Sample, draw_numbers, draw_rows, is_sample, read_sample
from .schema import MAX_JOBS, is_variable

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


def parse_matrix(
    report: Report, node: Node, path: str, *, list_files: ListFiles | None = None, seed: int = 0
) -> Sweep | None:
    """Rows in order, the first key slowest; None when something was reported. No two rows are equal."""
    if not isinstance(node, Mapping):
        message = f"{path}: expected a mapping of parameters and their values, not {describe_node(node)}"
        report.error(message, node.place, "write matrix: {lr: [1e-3, 1e-4]}", path)
        return None
    return _MatrixReader(report, path, ValueReader(report, list_files), seed).read(node)


class _MatrixReader:
    def __init__(self, report: Report, path: str, reader: ValueReader, seed: int) -> None:
        self.report = report
        self.path = path
        self.reader = reader
        self.seed = seed
        self.sample: Sample | None = None
        self.before = len(report.problems)
        self.kinds: dict[str, Scalar] = {}  # where each parameter was declared

    def read(self, node: Mapping) -> Sweep | None:
        axes: list[_Axis] = []
        operators: dict[str, list[Node]] = {"exclude": [], "include": []}
        for key, value in node.entries:
            place = f"{self.path}.{key.text}"
            nodes = items_of(value)
            if key.text in operators:
                operators[key.text] += nodes
            elif key.text == "sample" and is_sample(value):
                self.sample = read_sample(self.report, value, place, self.seed)
            elif key.text == "zip":
                axes += [axis for group in nodes for axis in self.zip(group, place)]
            elif self.declare(key, place):
                axes.append(_Axis((key.text,), [(text,) for text in self.values(value, place)]))
        includes = operators["include"]
        if not axes and not self.failed and includes and isinstance(includes[0], Mapping):
            for key, _ in includes[0].entries:
                self.declare(key, f"{self.path}.include[0]")
        names = tuple(name for axis in axes for name in axis.names) or tuple(self.kinds)
        total = (math.prod(len(axis.values) for axis in axes) if axes else 0) + len(includes)
        if not self.failed and not names:
            self.report.error(f"{self.path}: names no parameter", node.place, path=self.path)
        if total > MAX_JOBS and self.sample is None:
            message = f"{self.path}: makes {total:,} jobs; the limit is {MAX_JOBS:,}"
            self.report.error(message, node.place, path=self.path)
        return None if self.failed else self.combine(axes, names, operators, node)

    @property
    def failed(self) -> bool:
        return len(self.report.problems) > self.before

    def values(self, node: Node, path: str) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(self.reader.read(node, path) or ()))

    def combine(
        self, axes: list[_Axis], names: tuple[str, ...], operators: dict[str, list[Node]], node: Node
    ) -> Sweep | None:
        rows = self.rows(axes, names, operators["exclude"])
        for index, group in enumerate(operators["include"]):
            path = f"{self.path}.include[{index}]"
            row = self.included(group, names, path)
            if row is None:
                continue
            if row in rows and self.sample is None:
                message = f"{path}: this combination is there already, and counts once"
                self.report.warn(message, group.place, path=path)
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

    # ---- combinations --------------------------------------------------------------------------------------------

    def zip(self, node: Node, path: str) -> list[_Axis]:
        if not isinstance(node, Mapping) or not node.entries:
            hint = "write zip: {a: [1, 2], b: [x, y]}"
            self.report.error(f"{path}: expected a mapping of lists", node.place, hint, path)
            return []
        columns: list[list[str]] = []
        names: list[str] = []
        items: list[Node] = []
        for key, value in node.entries:
            if self.declare(key, path):
                names.append(key.text)
                if isinstance(value, Items):
                    items = items or value.items
                    texts = (self.reader.text(item, path) for item in value.items)
                    columns.append([text for text in texts if text is not None])
                else:
                    columns.append(self.values(value, path))
        if len({len(column) for column in columns}) > 1:
            sizes = ", ".join(f"{n} has {len(c)}" for n, c in zip(names, columns, strict=True))
            self.report.error(f"{path}: lists side by side need equal lengths; {sizes}", node.place, path=path)
            return []
        rows = list(zip(*columns, strict=True))
        if len(items) == len(rows):
            shown = [", ".join(f"{name}: {text}" for name, text in zip(names, row, strict=True)) for row in rows]
            self.reader.warn_repeated(items, shown, path)
        return [_Axis(tuple(names), list(dict.fromkeys(rows)))]

    def rows(self, axes: list[_Axis], names: tuple[str, ...], excludes: list[Node]) -> dict[tuple[str, ...], None]:
        conditions = [
            c
            for index, node in enumerate(excludes)
            if (c := self.condition(node, axes, names, f"{self.path}.exclude[{index}]")) is not None
        ]

        def stays(row: Sequence[str]) -> bool:
            return not any(all(row[at] in texts for at, texts in condition) for condition in conditions)

        if not axes or self.failed:
            return {}
        total = math.prod(len(axis.values) for axis in axes)
        if self.sample is None or total <= 2 * MAX_JOBS:
            product = itertools.product(*(axis.values for axis in axes))
            rows = [row for row in map(_joined, product) if stays(row)]
            return dict.fromkeys(rows if self.sample is None else self.drawn(self.sample, rows))
        return dict.fromkeys(self.drawn_from_many(self.sample, axes, total, stays))

    def drawn(self, sample: Sample, rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        if sample.number > len(rows):
            message = f"{sample.path}: {sample.number:,} of only {len(rows):,} combinations: all are taken"
            self.report.warn(message, sample.place, path=sample.path)
        return draw_rows(rows, sample)

    def drawn_from_many(
        self, sample: Sample, axes: list[_Axis], total: int, stays: Callable[[Sequence[str]], bool]
    ) -> list[tuple[str, ...]]:
        """Of a product that is too large to be written out."""

        def row_of(number: int) -> tuple[str, ...]:
            parts = []
            for axis in reversed(axes):
                number, at = divmod(number, len(axis.values))
                parts.append(axis.values[at])
            return _joined(reversed(parts))

        found = [row_of(number) for number in draw_numbers(total, sample, lambda number: stays(row_of(number)))]
        if len(found) < sample.number:
            message = (
                f"{sample.path}: found only {len(found):,} of {sample.number:,} combinations that 'exclude' leaves"
            )
            self.report.error(message, sample.place, "exclude less, or name the values that stay", sample.path)
        return found

    def condition(
        self, node: Node, axes: list[_Axis], names: tuple[str, ...], path: str
    ) -> list[tuple[int, set[str]]] | None:
        if not isinstance(node, Mapping) or not node.entries:
            hint = "write exclude: [{lr: 1e-3, seed: 4}]"
            self.report.error(f"{path}: expected a mapping of parameters and values", node.place, hint, path)
            return None
        found = []
        for key, value in node.entries:
            if not self.is_declared(key, names, path):
                return None
            at = names.index(key.text)
            known = self.known(axes, at)
            wanted = [self.reader.text(item, path) for item in items_of(value)]
            texts = {k for k in known if any(w is not None and same_value(k, w) for w in wanted)}
            if not texts and None not in wanted:
                message = f"{path}: {key.text} has no value {clip(str(wanted[0]))}" if wanted else f"{path}: no value"
                self.report.error(message, value.place, "its values: " + ", ".join(known[:10]), path)
                return None
            found.append((at, texts))
        return found

    def is_declared(self, key: Scalar, names: tuple[str, ...], path: str) -> bool:
        if key.text not in names:
            message = f"{path}: {clip(key.text)} is not a parameter of this matrix"
            self.report.error(message, key.place, did_you_mean(key.text, names), path)
        return key.text in names

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
            if not self.is_declared(key, names, path):
                return None
            text = self.reader.text(value, path)
            if text is None:
                return None
            given[key.text] = text
        missing = [name for name in names if name not in given]
        if missing:
            message = f"{path}: needs a value of every parameter; missing: {', '.join(missing)}"
            self.report.error(message, node.place, path=path)
            return None
        return tuple(given[name] for name in names)


def _joined(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(itertools.chain.from_iterable(parts))

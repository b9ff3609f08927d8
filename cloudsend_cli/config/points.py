"""The values of one parameter: written out, counted up, or the names of files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

from .check import Report, clip, describe_node, did_you_mean
from .document import SHORTER, Items, Mapping, Node, Place, Scalar, describe_bad_text, describe_long, is_null, items_of
from .files import FileProblem
from .schema import MAX_JOBS
from .values import parse_whole

ListFiles = Callable[[str], list[str]]  # of a glob; raises FileProblem

_EXPRESSION = re.compile(r"(?:np\.|numpy\.)?(?:range|arange|linspace|logspace)\(.*\)", re.DOTALL)
_KINDS = ("range", "log", "from_files")
_HINT = "write {range: [first, last, step]}, {log: [first, last, how many]} or {from_files: data/*.csv}"


class ValueReader:
    """Reads values as they were written. With `spelled`, Python's values are texts as `str` makes them, also None.

    `empty` and `repeated` say what an empty list does, and a value that is given several times; "": what is wanted.
    """

    def __init__(
        self,
        report: Report,
        list_files: ListFiles | None = None,
        *,
        spelled: bool = False,
        empty: str = "makes no jobs",
        repeated: str = "counts once",
    ) -> None:
        self.report = report
        self.list_files = list_files
        self.spelled = spelled
        self.empty = empty
        self.repeated = repeated

    def read(self, node: Node, path: str) -> list[str] | None:
        """The values in order, None when something was reported. One value stands for a list of one."""
        if isinstance(node, Mapping):
            return self._made(node, path)
        items = items_of(node)
        if isinstance(node, Scalar) and _EXPRESSION.fullmatch(node.text):
            message = f"{path}: {clip(node.text)} is one value, as it stands"
            self.report.warn(message, node.place, "write {range: [0, 9]}, both ends included", path)
        found: list[str] = []
        for item in items:
            text = self.text(item, path)
            if text is None:
                return None
            found.append(text)
        if not found:
            self.report.warn(f"{path}: an empty list {self.empty}", node.place, path=path)
        self.warn_repeated(items, found, path)
        return found

    def warn_repeated(self, items: Sequence[Node], texts: Sequence[str], path: str) -> None:
        """Of each of `texts` that is there several times, where it stands for the second time."""
        if not self.repeated or len(set(texts)) == len(texts):
            return
        places: dict[str, list[Place]] = {}
        for item, text in zip(items, texts, strict=True):
            places.setdefault(text, []).append(item.place)
        for text, given in places.items():
            if len(given) > 1:
                message = f"{path}: {describe_repeated(text, len(given))}, and {self.repeated}"
                self.report.warn(message, given[1], given[0].first_given, path)

    def text(self, node: Node, path: str) -> str | None:
        said = node.said if isinstance(node, Scalar) and self.spelled else ""
        if not isinstance(node, Scalar) or (is_null(node) and not said):
            message = f"{path}: a parameter's value is a text or a number, not {describe_node(node)}"
            hint = "write 'null' in quotes for the word" if isinstance(node, Scalar) else ""
            if isinstance(node, Items):
                hint = "write one list; what is several words in one value stands in quotes"
            self.report.error(message, node.place, hint, path)
            return None
        text = said or node.text
        bad = describe_bad_text(text)
        long = describe_long(text)
        if bad or long:
            self.report.error(f"{path}: {clip(text)} {bad or long}", node.place, SHORTER if long else "", path)
            return None
        return text

    def _made(self, node: Mapping, path: str) -> list[str] | None:
        kind = node.entries[0][0].text if len(node.entries) == 1 else ""
        if kind not in _KINDS:
            message = f"{path}: expected values, 'range', 'log' or 'from_files'"
            self.report.error(message, node.place, did_you_mean(kind, _KINDS) or _HINT, path)
            return None
        value = node.entries[0][1]
        if kind == "from_files":
            return self._named(value, path)
        numbers = value.items if isinstance(value, Items) else []
        wanted = (2, 3) if kind == "range" else (3,)
        texts = [item.text for item in numbers if isinstance(item, Scalar) and item.kind in ("int", "float")]
        if len(texts) != len(numbers) or len(texts) not in wanted:
            count = "2 or 3" if kind == "range" else "3"
            self.report.error(f"{path}: {kind!r} takes {count} numbers", value.place, _HINT, path)
            return None
        try:
            found = expand_range(texts) if kind == "range" else expand_log(texts)
        except ValueError as problem:
            self.report.error(f"{path}: {problem}", value.place, _HINT, path)
            return None
        if kind == "log" and len(found) < parse_whole(texts[2]):
            message = f"{path}: makes only {len(found):,} values that differ in six digits"
            self.report.warn(message, value.place, path=path)
        return found

    def _named(self, node: Node, path: str) -> list[str] | None:
        """Files of one glob, or of several in their order, each once."""
        if self.list_files is None:
            self.report.error(f"{path}: 'from_files' cannot be used here", node.place, "write the values", path)
            return None
        found: dict[str, None] = {}
        before = len(self.report.problems)
        for item in items_of(node):
            text = self.text(item, path)
            try:
                found.update(dict.fromkeys(self.list_files(text) if text else ()))
            except FileProblem as problem:
                self.report.error(f"{path}: {problem.message}", item.place, problem.hint, path)
        if not found and len(self.report.problems) == before:
            self.report.error(f"{path}: 'from_files' takes a path or a glob", node.place, _HINT, path)
        return list(found) if len(self.report.problems) == before else None


def describe_repeated(text: str, count: int) -> str:
    return f"{clip(text)} is given {'twice' if count == 2 else f'{count:,} times'}"


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

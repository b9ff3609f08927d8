"""Jobs as rows of a table: a column for each parameter and each metric, cells that a spreadsheet only shows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

COLUMNS_MOST = 1000  # of parameters, and of metrics; what a table leaves out, the JSON form has
MORE_MOST = 10_000  # names that are told apart only to say how many there are
_FORMULA = "=+-@\t\r"
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE)
_OPTION = re.compile(r"--?[A-Za-z0-9][A-Za-z0-9_.-]*")


class Names:
    """Names in the order in which they are first seen, no more than so many."""

    def __init__(self, most: int = COLUMNS_MOST) -> None:
        self.kept: dict[str, None] = {}
        self.most = most
        self._others: set[str] = set()

    def take(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self.kept:
                continue
            if len(self.kept) < self.most:
                self.kept[name] = None
            elif len(self._others) < MORE_MOST:
                self._others.add(name)

    @property
    def more(self) -> int:
        """How many are not kept, or MORE_MOST."""
        return len(self._others)


def plain_cell(text: str) -> str:
    """The same text where a spreadsheet would not reckon with it, else with a quote before it, which makes it text.

    Numbers stay numbers, and so do words such as `--verbose`.
    """
    if not text or text[0] not in _FORMULA or _NUMBER.fullmatch(text):
        return text
    return text if _OPTION.fullmatch(text) else f"'{text}"


def printable(text: str) -> str:
    """The same text without what a terminal obeys; newlines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def spread_rows(rows: Sequence[Mapping[str, object]], keys: Mapping[str, str]) -> list[dict[str, object]]:
    """The rows with each mapping under one of `keys` made into columns, of which all rows have the same."""
    names = {key: Names() for key in keys}
    for row in rows:
        for key, seen in names.items():
            seen.take(_mapping(row, key))
    spread = []
    for row in rows:
        wide: dict[str, object] = {}
        for key, value in row.items():
            if key in names:
                found = _mapping(row, key)
                wide.update((keys[key] + name, found.get(name)) for name in names[key].kept)
            else:
                wide[key] = value
        spread.append(wide)
    return spread


def _mapping(row: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = row.get(key)
    return value if isinstance(value, Mapping) else {}

"""All that is printed: data to stdout in the format asked for, talk to stderr. Foreign text is made safe here."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TextIO

from cloudsend_cli.errors import UsageError

from .sanitise import one_line, untrusted
from .settings import OUTPUTS, Settings

_SGR = re.compile(r"\x1b\[[0-9;]*m")
_COLORS: Final = {"red": "31;1", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
_WORD_COLORS: Final = {
    **dict.fromkeys(("DONE", "succeeded", "yes"), "green"),
    **dict.fromkeys(("ABORTED", "failed", "no"), "red"),
    **dict.fromkeys(("UNKNOWN", "cancelled"), "yellow"),
    **dict.fromkeys(("RUNNING", "running"), "cyan"),
}
# WHY NOT tabulate for all: its import takes 30 ms and each thousand rows 20 ms. Both ways give the same bytes
# (test_cli_render.py::test_all_tables_are_as_tabulate_makes_them).
_TABULATE_ROWS: Final = 50
_CELL_MOST: Final = 60
_PROSE_MOST: Final = 100


class AsJson(Protocol):
    def as_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. `cell` gets the view and the screen; a `wide` one is shown only by `-o wide`.

    `prose`: sentences, of providers too, which are cut in every table; `info` and the other formats have all of them.
    """

    header: str
    cell: Callable[[Any, Screen], str]
    wide: bool = False
    prose: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """How a kind of thing is listed: its plural, its columns, and what `-o name` prints.

    `more`: columns that depend on what is listed, for `-o wide`, and how many are left out. `spread`: mappings of the
    JSON form whose entries are columns in CSV, with what the names of these begin with.
    """

    plural: str
    columns: tuple[Column, ...]
    name: Callable[[Any], str]
    more: Callable[[Sequence[Any]], tuple[tuple[Column, ...], int]] = lambda views: ((), 0)
    spread: Mapping[str, str] = field(default_factory=dict)


def column(header: str, attribute: str, *, wide: bool = False, prose: bool = False) -> Column:
    """A column that shows one attribute as it is."""
    return Column(header, lambda view, screen: text_of(getattr(view, attribute)), wide, prose)


def text_of(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


class Screen:
    """Where a command prints. It knows the format, the terminal and whether colours are wanted."""

    def __init__(self, settings: Settings, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.format = settings.output
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self.begun = self.now = time.time()
        self.out_tty = is_terminal(self.out)
        self.err_tty = is_terminal(self.err)
        wanted = settings.color is not False and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.out_color = wanted and self.out_tty
        self.err_color = wanted and self.err_tty

    @property
    def machine(self) -> bool:
        """A program reads the output."""
        return self.format in {"json", "yaml", "csv", "name"}

    def refuse(self, *formats: str) -> None:
        """UsageError if one of these is asked for: what the command prints has no such form."""
        if self.format in formats:
            taken = ", ".join(name for name in OUTPUTS if name not in formats)
            raise UsageError(f"this command has no output format '{self.format}'", hint=f"it takes {taken}")

    # ---- talk ---------------------------------------------------------------------------------------------------

    def say(self, text: str, *, color: str = "") -> None:
        """A line for the person at the keyboard, on stderr."""
        print(paint(untrusted(text), color if self.err_color else ""), file=self.err, flush=True)

    def warn(self, text: str) -> None:
        print(paint("warning:", "yellow" if self.err_color else ""), untrusted(text), file=self.err, flush=True)

    # ---- data ---------------------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Finished text to stdout. What is foreign in it has been made safe."""
        if text:
            self.out.write(text if text.endswith("\n") else text + "\n")

    def list(self, views: Sequence[AsJson], listing: Listing) -> None:
        """Several things of one kind, in any format."""
        if self.format == "name":
            self.write("".join(one_line(listing.name(view)) + "\n" for view in views))
        elif self.format == "csv":
            rows = [view.as_json() for view in views]
            self.write(csv_text(_spread(rows, listing.spread) if listing.spread else rows))
        elif self.machine:
            self.data([view.as_json() for view in views])
        elif views:
            self.table(listing, views)
        else:
            self.say(f"no {listing.plural}")

    def table(self, listing: Listing, views: Sequence[object]) -> None:
        columns = [c for c in listing.columns if not c.wide]
        if self.format == "wide":
            some, left_out = listing.more(views)
            columns += [*some, *(c for c in listing.columns if c.wide)]
            if left_out:
                self.say(f"+{left_out:,} more columns: -o csv or -o json has them")
        cut = _CELL_MOST if self.out_tty and self.format != "wide" else 0
        most = [cut or (_PROSE_MOST if c.prose and self.format != "wide" else 0) for c in columns]
        rows = [[self._cell(c.cell(view, self), m) for c, m in zip(columns, most, strict=True)] for view in views]
        self.write(table_text([one_line(c.header) for c in columns], rows))

    def rows(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A small table of plain text."""
        self.write(table_text(list(headers), [[self._cell(cell, most=0) for cell in row] for row in rows]))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """One thing as lines of `key  value`; empty values are left out."""
        shown = [(key, value) for key, value in pairs if value]
        width = max((len(key) for key, _ in shown), default=0)
        self.write("".join(f"{key:<{width}}  {self._cell(value, most=0)}\n" for key, value in shown))

    def data(self, value: object) -> None:
        """A JSON value as JSON or YAML: a list has one item a line. Objects, or one object, also as CSV."""
        if self.format == "csv":
            self.write(csv_text(value if isinstance(value, list) else [value]))  # type: ignore[list-item]
            return
        self.write(yaml_text(value) if self.format == "yaml" else json_text(value))

    def _cell(self, text: str, most: int) -> str:
        text = one_line(text)
        if 0 < most < len(text):
            text = text[: most - 1] + "…"
        return paint(text, _WORD_COLORS.get(text.split(" ", 1)[0], "")) if self.out_color else text

    def moment(self, at: float | None) -> str:
        """`3m ago` for a person, ISO 8601 for anything else."""
        if at is None:
            return ""
        if self.out_tty and self.format == "table":
            return f"{duration(self.now - at)} ago"
        return iso_seconds(at)


# ---- pieces --------------------------------------------------------------------------------------------------------


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def paint(text: str, color: str) -> str:
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m" if color and text else text


def duration(seconds: float) -> str:
    """`0.4s`, `12s`, `1m02s`, `3h05m`, `2d04h`."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def iso_seconds(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table_text(headers: list[str], rows: list[list[str]]) -> str:
    """Columns two spaces apart. Nothing is drawn, so that `awk` and `cut` can read it."""
    table = [[cell.strip() for cell in row] for row in rows]
    plain = all(cell.isascii() and cell.isprintable() for row in table for cell in row)
    if not plain and len(rows) <= _TABULATE_ROWS:
        from tabulate import tabulate

        return tabulate(rows, headers, tablefmt="plain", disable_numparse=True) + "\n"
    measure: Callable[[str], int] = len if plain else display_width
    # tabulate gives a header two columns more than it needs.
    widths = [
        max(len(h) + 2, *map(measure, cells)) for h, cells in zip(headers, zip(*table, strict=True), strict=True)
    ]
    lines = []
    for row in [headers, *table]:
        padded = [cell + " " * (width - measure(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def display_width(text: str) -> int:
    """Columns on a terminal: wide letters count two, colours nothing."""
    text = _SGR.sub("", text)
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    width = wcswidth(text)
    return width if width >= 0 else len(text)


def json_text(value: object) -> str:
    """JSON in ASCII: a list has one item a line, an object one key a line."""
    from json import JSONEncoder

    encode = JSONEncoder(separators=(", ", ": "), default=str).encode
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(map(encode, value)) + "\n]\n"
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            lines.append(f"{encode(key)}: {json_text(item).rstrip() if isinstance(item, list) else encode(item)}")
        return "{\n" + ",\n".join(lines) + "\n}\n"
    return encode(value) + "\n"


def yaml_text(value: object) -> str:
    import json

    import yaml

    plain = json.loads(json_text(value))  # the same values as in JSON, whatever the views hold
    try:
        return str(yaml.dump(plain, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False))
    except UnicodeEncodeError:  # the quick one knows no lone surrogates
        return str(yaml.dump(plain, Dumper=yaml.SafeDumper, sort_keys=False))


def _spread(rows: Sequence[dict[str, Any]], keys: Mapping[str, str]) -> list[dict[str, Any]]:
    from cloudsend_cli.core.result_rows import spread_rows

    return spread_rows(rows, keys)


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """The JSON objects as rows; a value that is not plain is JSON in its cell."""
    import csv
    import io
    from json import dumps

    from cloudsend_cli.core.result_rows import plain_cell

    def cell(value: object) -> str | None:
        if value is None:
            return None
        return plain_cell(untrusted(value)) if isinstance(value, str) else dumps(value, default=str)

    out = io.StringIO()
    if rows:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(map(cell, rows[0]))
        writer.writerows(map(cell, row.values()) for row in rows)
    return out.getvalue()

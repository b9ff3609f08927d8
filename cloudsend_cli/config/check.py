"""Nodes against tables of fields: all problems at once, each with its place, its path and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cloudsend_cli.errors import Problem

from .document import Items, Mapping, Node, Place, Scalar, describe_bad_text, is_null, items_of, problem_at, show_text
from .given import Given, Values
from .values import parse_number, parse_whole

MOST_PROBLEMS = 200  # a file of a million mistakes is explained by its first


@dataclass(slots=True)
class Report:
    """What is wrong and what is worth knowing, collected while a config is read."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def error(self, message: str, place: Place, hint: str = "", path: str = "") -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem_at(message, place, hint, path))

    def warn(self, message: str, place: Place, hint: str = "", path: str = "") -> None:
        if len(self.warnings) < MOST_PROBLEMS:
            self.warnings.append(problem_at(message, place, hint, path))


Parse = Callable[[Report, Node, str], object]
Schema = dict[str, object]


@dataclass(frozen=True, slots=True)
class Field:
    """One key: its names, what it takes, what editors are told, and what holds when it is absent."""

    name: str
    aliases: tuple[str, ...]
    parse: Parse
    schema: Schema
    doc: str
    default: str = ""
    counts: tuple[tuple[str, float], ...] = ()  # names under which a bare number counts so many seconds

    def spell_out(self, key: str, node: Node) -> Node:
        """The value with its unit, where the name says which: what is layered is read again under the main name."""
        unit = dict(self.counts).get(key)
        if unit is None or not isinstance(node, Scalar):
            return node
        try:
            text = f"{parse_number(node.text) * unit:.3f}".rstrip("0").rstrip(".")
        except ValueError:
            return node
        return Scalar(f"{text}s", False, node.place)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The keys of one kind of mapping."""

    where: str  # as the user would say it: "instances", "" for the top level
    fields: tuple[Field, ...]
    by_name: dict[str, Field] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.fields:
            for name in (entry.name, *entry.aliases):
                self.by_name[name] = entry


def check_mapping(
    report: Report, node: Node, table: Table, path: str, elsewhere: Sequence[Table] = (), free: str = ""
) -> Values:
    """The known keys of `node` that have a value, by canonical name; everything else is reported.

    Keys that start with `free` are skipped. A key that came with `<<` gives way to its synonym written here.
    """
    if not isinstance(node, Mapping):
        report.error(f"{path}: expected a mapping of keys, not {describe_node(node)}", node.place, path=path)
        return {}
    values: Values = {}
    given: dict[str, Scalar] = {}
    for index, (key, value) in enumerate(node.entries):
        if free and key.text.startswith(free):
            continue
        entry = table.by_name.get(key.text)
        if entry is None:
            _report_unknown(report, key, table, path, elsewhere)
            continue
        if is_null(value):
            continue
        first = given.setdefault(entry.name, key)
        if first is not key:
            if index < max(node.own, 1):
                _report_synonyms(report, first, key, path)
            continue
        place = f"{path}.{key.text}" if path else key.text
        if entry.counts:
            value = entry.spell_out(key.text, value)  # noqa: PLW2901
        parsed = entry.parse(report, value, place)
        values[entry.name] = Given(entry.name, parsed, value, key, place)
    return values


def _report_synonyms(report: Report, first: Scalar, key: Scalar, path: str) -> None:
    message = f"{first.text!r} and {key.text!r} mean the same; give only one"
    report.error(message, key.place, first.place.first_given, f"{path}.{key.text}" if path else key.text)


def _report_unknown(report: Report, key: Scalar, table: Table, path: str, elsewhere: Sequence[Table]) -> None:
    where = f" in {path}" if path else ""
    name = show_text(key.text)
    message = f"unknown key {name!r}{where}"
    home = next((other.where for other in elsewhere if key.text in other.by_name), None)
    near = suggest(key.text, table.by_name)
    if home is not None:
        hint = f"{name!r} belongs under {home!r}" if home else f"{name!r} belongs at the top level"
    elif near:
        hint = f"did you mean {near!r}?"
    else:
        hint = "known keys: " + ", ".join(sorted(entry.name for entry in table.fields))
    report.error(message, key.place, hint, f"{path}.{name}" if path else name)


def suggest(word: str, known: Iterable[str]) -> str:
    """The known name that `word` was probably meant to be, or ""."""
    if len(word) > 60:
        return ""
    near = difflib.get_close_matches(word.lower(), [k for k in known if len(k) < 100], 1, 0.6)
    return near[0] if near else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    near = suggest(word, known)
    return f"did you mean {near!r}?" if near else ""


def describe_node(node: Node) -> str:
    """A short name of what stands there, for messages."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    return "nothing" if is_null(node) else clip(node.text)


def clip(text: str) -> str:
    """`text` quoted, on one line and short."""
    shown = show_text(text)
    return repr(shown if len(shown) <= 60 else shown[:57] + "...").replace("\\\\", "\\")


# ---- parsers of single values ---------------------------------------------------------------------------------------


def text_value(report: Report, node: Node, path: str) -> str | None:
    """Any scalar as it was written."""
    if not isinstance(node, Scalar):
        report.error(f"{path}: expected a text, not {describe_node(node)}", node.place, path=path)
        return None
    bad = describe_bad_text(node.text)
    if bad:
        report.error(f"{path}: {clip(node.text)} {bad}", node.place, path=path)
        return None
    return node.text


def word_value(report: Report, node: Node, path: str) -> str | None:
    """A text on one line, not empty, without control characters."""
    text = text_value(report, node, path)
    if text is None:
        return None
    if not text.strip():
        report.error(f"{path}: must not be empty", node.place, path=path)
        return None
    if not text.isprintable() and any(ord(c) < 32 or ord(c) == 127 for c in text):
        report.error(f"{path}: {clip(text)} contains a control character", node.place, path=path)
        return None
    return text


def flag_value(report: Report, node: Node, path: str) -> bool | None:
    """Strictly true or false."""
    if isinstance(node, Scalar) and node.kind == "bool":
        return node.text.lower() == "true"
    meant = ""
    if isinstance(node, Scalar) and node.text.lower() in ("yes", "on", "1", "y", "true"):
        meant = "write true"
    elif isinstance(node, Scalar) and node.text.lower() in ("no", "off", "0", "n", "false"):
        meant = "write false"
    report.error(f"{path}: {describe_node(node)} is not true or false", node.place, meant, path)
    return None


def choice_value(*choices: str) -> Parse:
    def parse(report: Report, node: Node, path: str) -> str | None:
        text = text_value(report, node, path)
        if text is None or text in choices:
            return text
        words = " or ".join(repr(c) for c in choices)
        if len(choices) > 2:
            words = ", ".join(repr(c) for c in choices[:-1]) + f" or {choices[-1]!r}"
        message = f"{path}: {clip(text)} is not one of {words}"
        report.error(message, node.place, did_you_mean(text, choices), path)
        return None

    return parse


def read_value(read: Callable[[str], object]) -> Parse:
    """A parser of one scalar by a function that raises ValueError with the rest of the sentence."""

    def parse(report: Report, node: Node, path: str) -> object:
        if not isinstance(node, Scalar):
            report.error(f"{path}: expected one value, not {describe_node(node)}", node.place, path=path)
            return None
        try:
            return read(node.text)
        except ValueError as problem:
            report.error(f"{path}: {clip(node.text)} {problem}", node.place, path=path)
            return None

    return parse


def whole_value(least: int, most: int) -> Parse:
    def read(text: str) -> int:
        value = parse_whole(text)
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}")
        return value

    return read_value(read)


def list_value(one: Parse) -> Parse:
    """One item or a list of them; bad items are reported and left out. The result pairs each value with its node."""

    def parse(report: Report, node: Node, path: str) -> list[tuple[object, Node]]:
        found = []
        for index, item in enumerate(items_of(node)):
            place = f"{path}[{index}]" if isinstance(node, Items) else path
            if is_null(item):
                report.error(f"{place}: expected a value, not nothing", item.place, path=place)
                continue
            value = one(report, item, place)
            if value is not None:
                found.append((value, item))
        return found

    return parse

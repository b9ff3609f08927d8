"""A config file as nodes that keep their text and their place. Knows nothing of what the keys mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from cloudsend_cli.core.limits import WORD_MOST
from cloudsend_cli.errors import ConfigError, Problem

MAX_BYTES = 10_000_000
MAX_DEPTH = 60
MAX_ALIASED = 200_000  # nodes that exist only because an alias repeats them
SHORTER = "write it to a file, name that in 'upload', and give its path"


class Place(NamedTuple):
    """Where a node stands. `line` and `column` count from 1; line 0 = known only by file."""

    file: str
    line: int = 0
    column: int = 0
    width: int = 1

    @property
    def origin(self) -> str:
        """Such as `config.yml:12`, for `config show`."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def first_given(self) -> str:
        """The hint of what is given a second time elsewhere."""
        return f"first given on line {self.line}" if self.line else ""


@dataclass(slots=True, eq=False)
class Scalar:
    """One value as it was written. `plain` means that it was not quoted, so that it may be a number or null."""

    text: str
    plain: bool
    place: Place
    said: str = ""  # of a value of Python: what `str` makes of it, where that is not its text

    @property
    def kind(self) -> str:
        """null, bool, int, float or str by the core rules of YAML 1.2."""
        return scalar_kind(self.text) if self.plain else "str"


@dataclass(slots=True, eq=False)
class Items:
    """A list."""

    items: list[Node]
    place: Place


@dataclass(slots=True, eq=False)
class Mapping:
    """Keys and values in the file's order; the first `own` entries were written here, the rest came with `<<`."""

    entries: list[tuple[Scalar, Node]]
    place: Place
    own: int = 0

    def get(self, *names: str) -> Node | None:
        return next((value for key, value in self.entries if key.text in names), None)


Node = Scalar | Items | Mapping

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {"": "null", "~": "null"}
_WORDS.update(dict.fromkeys(("null", "Null", "NULL"), "null"))
_WORDS.update(dict.fromkeys(("true", "True", "TRUE", "false", "False", "FALSE"), "bool"))


def scalar_kind(text: str) -> str:
    """The kind of an unquoted scalar: `no`, `on` and `1:30:00` are texts, `1e-3` is a number."""
    known = _WORDS.get(text)
    if known is not None:
        return known
    if text[0] in "+-.0123456789":
        if _INT.fullmatch(text):
            return "int"
        if _FLOAT.fullmatch(text):
            return "float"
    return "str"


def is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.text in _WORDS and _WORDS[node.text] == "null"


def items_of(node: Node) -> list[Node]:
    """The items of a list, or the one item that stands for a list of one."""
    return node.items if isinstance(node, Items) else [node]


def null_at(place: Place) -> Scalar:
    return Scalar("null", True, place)


def fail(message: str, place: Place, hint: str = "", path: str = "") -> ConfigError:
    return ConfigError([problem_at(message, place, hint, path)])


def problem_at(message: str, place: Place, hint: str = "", path: str = "") -> Problem:
    return Problem(message, place.file, place.line, place.column, place.width, hint, path)


def describe_bad_text(text: str) -> str:
    """What makes `text` unusable as an argument, a name or a path anywhere; "" when nothing does."""
    if "\0" in text:
        return "contains a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "is not valid Unicode"
    return ""


def describe_long(text: str, name: str = "") -> str:
    """Why no program can be given `text` as an argument, or as the variable `name`; "" when one can."""
    if len(text) + len(name) < WORD_MOST // 4:
        return ""
    size = len((f"{name}={text}" if name else text).encode("utf-8", "surrogatepass"))
    if size <= WORD_MOST:
        return ""
    kind = "variable, with its name" if name else "argument"
    return f"takes {size:,} bytes; Linux passes at most {WORD_MOST:,} as one {kind}"


def show_text(text: str) -> str:
    """`text` with what cannot be encoded or would break a line replaced by escapes."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


# ---- text to nodes ------------------------------------------------------------------------------------------------

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")


def decode_file(data: bytes, file: str) -> str:
    """The text of a config file, without a byte order mark; what no editor shows is refused with its place."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        before = data[: problem.start].decode("utf-8", "replace")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise fail(
            f"not valid UTF-8: byte 0x{data[problem.start]:02x} at offset {problem.start}",
            Place(file, line, column),
            "this looks like UTF-16; save the file as UTF-8" if utf16 else "save the file as UTF-8",
        ) from None
    found = _CONTROL.search(text)
    if found:
        start = found.start()
        line = text.count("\n", 0, start) + 1
        what = "a NUL character" if found.group() == "\0" else f"the control character U+{ord(found.group()):04X}"
        raise fail(f"contains {what}", Place(file, line, start - text.rfind("\n", 0, start)), "remove it")
    return text


@dataclass(slots=True)
class _Frame:
    node: Items | Mapping
    anchor: str | None
    count_before: int
    key: Scalar | None = None
    seen: dict[str, Scalar] = field(default_factory=dict)
    merges: list[tuple[Scalar, Node]] = field(default_factory=list)


class _YamlReader:
    """Builds nodes from parser events, so that depth and repetition are limited before anything is expanded."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._anchors: dict[str, tuple[Node | None, int]] = {}
        self._stack: list[_Frame] = []
        self._count = 0
        self._aliased = 0
        self._documents = 0
        self.root: Node | None = None

    def place(self, event: object) -> Place:
        start, end = event.start_mark, event.end_mark  # type: ignore[attr-defined]
        width = end.column - start.column if end.line == start.line else 1
        return Place(self.file, start.line + 1, start.column + 1, max(1, width))

    def read(self, text: str) -> Node | None:
        import yaml

        loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
        try:
            for event in yaml.parse(text, Loader=loader):
                self._take(event, yaml)
        except yaml.MarkedYAMLError as problem:
            raise self._explain(problem, text) from None
        except (yaml.YAMLError, ValueError) as problem:  # ValueError: a character that the parser cannot read
            raise fail(f"not valid YAML: {problem}", Place(self.file)) from None
        return self.root

    def _take(self, event: object, yaml: object) -> None:
        name = type(event).__name__
        if name == "ScalarEvent":
            self._count += 1
            place = self.place(event)
            plain = bool(event.implicit[0]) and event.style in (None, "")  # type: ignore[attr-defined]
            node = Scalar(event.value, self._plain(event, plain, place), place)  # type: ignore[attr-defined]
            self._finish(node, event.anchor, 1)  # type: ignore[attr-defined]
        elif name in ("MappingStartEvent", "SequenceStartEvent"):
            self._open(event, name == "MappingStartEvent")
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            frame = self._stack.pop()
            if isinstance(frame.node, Mapping):
                self._merge(frame, frame.node)
            self._finish(frame.node, frame.anchor, self._count - frame.count_before)
        elif name == "AliasEvent":
            self._alias(event)
        elif name == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise fail("a second document starts here; a config is one document", self.place(event))

    def _plain(self, event: object, plain: bool, place: Place) -> bool:
        tag = event.tag  # type: ignore[attr-defined]
        if tag is None:
            return plain
        short = tag.removeprefix("tag:yaml.org,2002:")
        if short in ("str", "!"):
            return False
        if short in ("int", "float", "bool", "null"):
            return True
        raise fail(f"the tag {show_text(tag)!r} is not supported", place, "write the value without a tag")

    def _open(self, event: object, mapping: bool) -> None:
        place = self.place(event)
        tag = event.tag  # type: ignore[attr-defined]
        if tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise fail(f"the tag {show_text(tag)!r} is not supported", place, "write the value without a tag")
        if len(self._stack) >= MAX_DEPTH:
            raise fail(f"nested deeper than {MAX_DEPTH} levels", place)
        place = place._replace(width=1)
        node: Items | Mapping = Mapping([], place) if mapping else Items([], place)
        anchor = event.anchor  # type: ignore[attr-defined]
        if anchor is not None:
            self._anchors[anchor] = (None, 0)
        self._stack.append(_Frame(node, anchor, self._count))
        self._count += 1

    def _alias(self, event: object) -> None:
        name = event.anchor  # type: ignore[attr-defined]
        place = self.place(event)
        node, size = self._anchors.get(name, (None, -1))
        if size < 0:
            raise fail(f"the alias *{name} has no anchor &{name} before it", place)
        if node is None:
            raise fail(f"the alias *{name} stands inside what it repeats", place)
        self._count += size
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            raise fail(f"aliases repeat more than {MAX_ALIASED:,} values", place, "is this file an alias bomb?")
        self._finish(node, None, size)

    def _finish(self, node: Node, anchor: str | None, size: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (node, size)
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        if isinstance(frame.node, Items):
            frame.node.items.append(node)
        elif frame.key is None:
            if not isinstance(node, Scalar):
                raise fail("a key must be a word, not a list or a mapping", node.place)
            frame.key = node
        else:
            self._entry(frame, frame.node, frame.key, node)
            frame.key = None

    def _entry(self, frame: _Frame, mapping: Mapping, key: Scalar, value: Node) -> None:
        if key.text == "<<" and key.plain:
            frame.merges.append((key, value))
            return
        first = frame.seen.setdefault(key.text, key)
        if first is not key:
            message = f"{show_text(key.text)!r} is given twice"
            self.problems.append(problem_at(message, key.place, first.place.first_given))
            return
        mapping.entries.append((key, value))

    def _merge(self, frame: _Frame, mapping: Mapping) -> None:
        mapping.own = len(mapping.entries)
        for key, value in frame.merges:
            for source in items_of(value):
                if not isinstance(source, Mapping):
                    raise fail("'<<' takes an alias of a mapping, or a list of them", key.place)
                for name, entry in source.entries:
                    if name.text not in frame.seen:
                        frame.seen[name.text] = name
                        mapping.entries.append((name, entry))

    def _explain(self, problem: object, text: str) -> ConfigError:
        mark = problem.problem_mark or problem.context_mark  # type: ignore[attr-defined]
        words = problem.problem or problem.context or "cannot be read"  # type: ignore[attr-defined]
        context = problem.context or ""  # type: ignore[attr-defined]
        opened = problem.context_mark  # type: ignore[attr-defined]
        lines = text.splitlines()
        line = lines[mark.line] if mark and mark.line < len(lines) else ""
        hint = ""
        if "\t" in line[: len(line) - len(line.lstrip())] and ("tab" in words or "any token" in words):
            words, hint = "found a tab character that violates indentation", "use spaces, not tabs, for indentation"
        elif opened and ("expected ',' or" in words or "end of stream" in words):
            mark, hint = opened, f"opened here ({context}) and never closed"
        elif "mapping values" in words:
            hint = "a text that contains ': ' needs quotes"
        elif "any token" in words:
            hint = "a text that starts with this character needs quotes"
        elif context:
            hint = context
        place = Place(self.file, mark.line + 1, mark.column + 1) if mark else Place(self.file)
        return fail(f"not valid YAML: {words}", place, hint)


def parse_yaml(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """The root (None for an empty file) and the doubled keys. Raises ConfigError where the text cannot be read."""
    reader = _YamlReader(file)
    root = reader.read(text)
    return root, reader.problems


def render_inline(node: Node) -> str:
    """The node on one line, as `config show` prints values."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Items):
        return "[" + ", ".join(render_inline(item) for item in node.items) + "]"
    return "{" + ", ".join(f"{key.text}: {render_inline(value)}" for key, value in node.entries) + "}"

"""JSON as nodes with places, with the text of numbers kept and errors that a person can act on."""

from __future__ import annotations

import re
from bisect import bisect_right

from cloudsend_cli.errors import ConfigError, Problem

from .document import MAX_DEPTH, Items, Mapping, Node, Place, Scalar, fail, problem_at, show_text

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


class _JsonReader:
    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.problems: list[Problem] = []
        self._starts = [0, *(m.end() for m in re.finditer("\n", text))]

    def place(self, start: int, width: int = 1) -> Place:
        line = bisect_right(self._starts, start)
        return Place(self.file, line, start - self._starts[line - 1] + 1, max(1, width))

    def fail(self, message: str, at: int, hint: str = "") -> ConfigError:
        return fail(f"not valid JSON: {message}", self.place(min(at, len(self.text))), hint)

    def skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        at = found.end() if found else at
        if self.text.startswith(("//", "/*", "#"), at):
            raise self.fail("comments are not allowed", at, "a file that ends in .yml may have comments")
        return at

    def value(self, at: int, depth: int) -> tuple[Node, int]:
        at = self.skip(at)
        char = self.text[at : at + 1]
        if char in ("{", "["):
            if depth >= MAX_DEPTH:
                raise fail(f"nested deeper than {MAX_DEPTH} levels", self.place(at))
            return self.object(at, depth) if char == "{" else self.array(at, depth)
        if char == '"':
            return self.string(at)
        number = _NUMBER.match(self.text, at)
        if number:
            return Scalar(number.group(), True, self.place(at, number.end() - at)), number.end()
        word = _WORD.match(self.text, at)
        if word and word.group() in ("true", "false", "null"):
            return Scalar(word.group(), True, self.place(at, word.end() - at)), word.end()
        if not char:
            raise self.fail("the file ends where a value is expected", at)
        if char == "'":
            raise self.fail("texts stand in double quotes", at)
        hint = "texts stand in double quotes" if word else ""
        raise self.fail(f"expected a value, found {show_text(word.group() if word else char)!r}", at, hint)

    def string(self, at: int) -> tuple[Scalar, int]:
        from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]

        try:
            text, end = scanstring(self.text, at + 1, True)
        except JSONDecodeError as problem:
            raise self.fail(problem.msg[0].lower() + problem.msg[1:], problem.pos) from None
        return Scalar(text, False, self.place(at, end - at)), end

    def array(self, at: int, depth: int) -> tuple[Node, int]:
        node = Items([], self.place(at))
        start, at = at, self.skip(at + 1)
        while self.text[at : at + 1] != "]":
            item, at = self.value(at, depth + 1)
            node.items.append(item)
            at = self.separator(at, "]", start)
        return node, at + 1

    def object(self, at: int, depth: int) -> tuple[Node, int]:
        node = Mapping([], self.place(at))
        seen: dict[str, Scalar] = {}
        start, at = at, self.skip(at + 1)
        while self.text[at : at + 1] != "}":
            if self.text[at : at + 1] != '"':
                raise self.fail("a key stands in double quotes", at)
            key, at = self.string(at)
            at = self.skip(at)
            if self.text[at : at + 1] != ":":
                raise self.fail(f"expected ':' after the key {show_text(key.text)!r}", at)
            value, at = self.value(at + 1, depth + 1)
            first = seen.setdefault(key.text, key)
            if first is key:
                node.entries.append((key, value))
            else:
                message = f"{show_text(key.text)!r} is given twice"
                self.problems.append(problem_at(message, key.place, first.place.first_given))
            at = self.separator(at, "}", start)
        node.own = len(node.entries)
        return node, at + 1

    def separator(self, at: int, end: str, start: int) -> int:
        at = self.skip(at)
        char = self.text[at : at + 1]
        if char == end:
            return at
        if char == ",":
            after = self.skip(at + 1)
            if self.text[after : after + 1] == end:
                raise self.fail(f"a comma before {end!r}", at, "remove the comma")
            return after
        if not char:
            raise self.fail(f"{'[' if end == ']' else '{'!r} is never closed", start, "opened here")
        raise self.fail(f"expected ',' or {end!r}, found {show_text(char)!r}", at)


def parse_json(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """The root (None for an empty file) and the doubled keys. Raises ConfigError where the text cannot be read."""
    reader = _JsonReader(text, file)
    at = reader.skip(0)
    if at == len(text):
        return None, []
    root, at = reader.value(at, 0)
    at = reader.skip(at)
    if at != len(text):
        raise reader.fail("something follows the end of the document", at)
    return root, reader.problems

"""`{name}` in texts: replaced only where `name` is a declared parameter, quoted by where it stands in a shell line.

Values are arguments, never shell text: inserted into a `run` line, a value that is not a plain word is quoted for the
place: bare, in double or in single quotes. Where no quoting is safe (backticks, here-documents, `${…}`, `$'…'`) it is
refused; `$name`, the variable, works everywhere.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
BARE, DOUBLE, SINGLE, UNSAFE = "bare", "double", "single", "unsafe"


class UnsafeValue(ValueError):
    """A value that cannot be inserted where its placeholder stands."""


@dataclass(frozen=True, slots=True)
class Template:
    """Literal texts around the indices of parameters; `contexts` is empty where no shell reads the result."""

    literals: tuple[str, ...]  # one more than there are parameters
    parameters: tuple[int, ...] = ()
    contexts: tuple[str, ...] = ()

    def fill(self, row: Sequence[str]) -> str:
        """The text with this row's values. Raises UnsafeValue for a shell line that cannot take one."""
        if not self.parameters:
            return self.literals[0]
        out = [self.literals[0]]
        for at, index in enumerate(self.parameters):
            value = row[index]
            out.append(quote_for(self.contexts[at], value) if self.contexts else value)
            out.append(self.literals[at + 1])
        return "".join(out)


def parse_template(text: str, names: Sequence[str], *, quoted: bool = False) -> Template:
    """`text` cut at the placeholders of declared names; everything else in braces stays as it is."""
    literals: list[str] = []
    parameters: list[int] = []
    start = 0
    if names and "{" in text:
        positions = {name: index for index, name in enumerate(names)}
        for found in _PLACEHOLDER.finditer(text):
            dollar = found.start() and text[found.start() - 1] == "$"
            if found.group(1) in positions and not dollar:
                literals.append(text[start : found.start()])
                parameters.append(positions[found.group(1)])
                start = found.end()
    literals.append(text[start:])
    contexts = shell_contexts(literals) if quoted and parameters else ()
    return Template(tuple(literals), tuple(parameters), contexts)


def list_placeholders(text: str) -> list[str]:
    """Every `{word}` that is not `${word}`."""
    return [m.group(1) for m in _PLACEHOLDER.finditer(text) if not m.start() or text[m.start() - 1] != "$"]


def quote_for(context: str, value: str) -> str:
    """`value` so that a POSIX shell reads exactly it at a place of this kind."""
    quoted = shlex.quote(value)
    if quoted == value:
        return value
    if context == BARE:
        return quoted
    if context == SINGLE:
        return value.replace("'", "'\\''")
    if context == DOUBLE:
        return re.sub(r'([\\"$`])', r"\\\1", value)
    raise UnsafeValue(value)


class ShellScanner:
    """Follows quoting through a shell line, a piece at a time, and says what a value inserted next would meet."""

    def __init__(self) -> None:
        self.stack = [BARE]  # BARE, DOUBLE, SINGLE, "(", "{", "`", "$'"
        self.heredoc = False
        self.comment = False
        self.word_start = True
        self.escaped = False  # a backslash ends the text before the value

    @property
    def context(self) -> str:
        if self.heredoc or self.comment or self.escaped or any(mark in ("`", "{", "$'") for mark in self.stack):
            return UNSAFE
        return BARE if self.stack[-1] in (BARE, "(") else self.stack[-1]

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            at += self.step(text, at)
        self.escaped = at > len(text)

    def step(self, text: str, at: int) -> int:
        """Read one thing; return how many characters it took."""
        char, top = text[at], self.stack[-1]
        if self.comment:
            self.comment = char != "\n"
            self.word_start = not self.comment
            return 1
        if top in (SINGLE, "$'"):
            if char == "\\" and top == "$'":
                return 2
            if char == "'":
                self.stack.pop()
            return 1
        if char == "\\":
            self.word_start = False
            return 2
        if top == DOUBLE:
            return self._step_double(text, at, char)
        return self._step_bare(text, at, char)

    def _step_double(self, text: str, at: int, char: str) -> int:
        if char == '"':
            self.stack.pop()
        elif text.startswith(("$(", "${"), at):
            self.stack.append(text[at + 1])
            self.word_start = True
            return 2
        elif char == "`":
            self._backtick()
        return 1

    def _step_bare(self, text: str, at: int, char: str) -> int:
        size = 1
        if char == "#" and self.word_start:
            self.comment = True
        elif char == '"':
            self.stack.append(DOUBLE)
        elif char == "'":
            self.stack.append(SINGLE)
        elif text.startswith(("$'", "$(", "${"), at):
            self.stack.append("$'" if text[at + 1] == "'" else text[at + 1])
            size = 2
        elif char == "(":
            self.stack.append("(")
        elif char in ")}" and self.stack[-1] == {")": "(", "}": "{"}[char]:
            self.stack.pop()
        elif char == "`":
            self._backtick()
        elif text.startswith("<<", at):
            self.heredoc = True  # also for `1 << 2`: refusing a value there is safe
            size = 2
        self.word_start = char in " \t\n;&|()" or (size == 2 and char == "$")
        return size

    def _backtick(self) -> None:
        if "`" in self.stack:
            while self.stack.pop() != "`":
                pass
        else:
            self.stack.append("`")


def shell_contexts(literals: Sequence[str]) -> tuple[str, ...]:
    """Where in the shell's quoting each parameter between two of `literals` stands."""
    scanner = ShellScanner()
    contexts = []
    for literal in literals[:-1]:
        scanner.feed(literal)
        contexts.append(scanner.context)
        scanner.word_start = False
    return tuple(contexts)

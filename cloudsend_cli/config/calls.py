"""`Call` of a group: a shell line that is given arguments. Values are arguments, never shell text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .check import clip
from .commands import ScriptProblem
from .templates import BARE, DOUBLE, ShellScanner

ARGUMENTS = '"$@"'
PLACE = f"write {ARGUMENTS} where the arguments belong"
_CLOSES = re.compile(r"(?:^|[;&\n])\s*(done|fi|esac|\})$")


@dataclass(frozen=True, slots=True)
class Call:
    """`line` is what the shell executes with the arguments as its own; `shown` is the text around them."""

    line: str
    shown: tuple[str, ...]


def parse_call(text: str) -> Call:
    """Arguments go where the line says "$@", else behind its last word. Raises ScriptProblem."""
    pieces = text.split("$@")
    placed = _find_placed(pieces)
    if not placed:
        end = find_end(text)
        return Call(f"{end} {ARGUMENTS}", (f"{end} ", ""))
    shown = [pieces[0]]
    for at, piece in enumerate(pieces[1:]):
        if at in placed:
            shown[-1] = shown[-1][:-1]
            shown.append(piece[1:])
        else:
            shown[-1] += "$@" + piece
    return Call(text, tuple(shown))


def _find_placed(pieces: Sequence[str]) -> set[int]:
    """Which of the places between pieces are arguments of the line itself, not of a shell that it starts."""
    scanner = ShellScanner()
    placed = set()
    for at, piece in enumerate(pieces[:-1]):
        scanner.feed(piece)
        if scanner.context == BARE:
            raise ScriptProblem("has $@ without quotes, which would split the arguments", f"write {ARGUMENTS}")
        if scanner.context == DOUBLE:
            if not piece.endswith('"') or not pieces[at + 1].startswith('"'):
                raise ScriptProblem("has $@ inside of a longer text", f"write {ARGUMENTS} as a word of its own")
            placed.add(at)
        scanner.word_start = False
    return placed


def find_end(text: str) -> str:
    """The line up to its last word: without comments, spaces and line ends behind it. Raises ScriptProblem."""
    scanner = ShellScanner()
    substitutions: list[bool] = []  # of the brackets that are open: whether one began with $
    at = end = 0
    closed = True  # whether the last bracket that closed was one of a substitution
    while at < len(text):
        start, depth = at, len(scanner.stack)
        at += scanner.step(text, at)
        if len(scanner.stack) > depth:
            substitutions.append(text[start] == "$")
        elif len(scanner.stack) < depth:
            closed = substitutions[len(scanner.stack) - 1]
            del substitutions[len(scanner.stack) - 1 :]
        if not scanner.comment and not text[start].isspace() and text[start : start + 2] != "\\\n":
            end = at
    line = text[:end]
    if at > len(text):
        raise ScriptProblem("ends with a backslash", "remove it")
    if scanner.heredoc:
        raise ScriptProblem("has a here-document, behind which no arguments can stand", PLACE)
    if scanner.stack != [BARE]:
        raise ScriptProblem("has quotes or brackets that do not match", "check them")
    last = _CLOSES.search(line)
    if line[-1:] in tuple(";&|<>({") or (line[-1:] == ")" and not closed) or last:
        word = last.group(1) if last else line[-1]
        if not line.endswith("\\" + word):
            raise ScriptProblem(f"ends with {clip(word)}, so that no command would get the arguments", PLACE)
    return line

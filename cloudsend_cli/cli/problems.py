"""Errors as text: what happened, the line of the file with carets, what to do next; and the same as JSON."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cloudsend_cli.errors import CloudsendError, ConfigError, Problem

from .sanitise import one_line, untrusted

# No part of either may try a letter more than a bounded number of times: lines are hostile, and megabytes long.
_SECRET = re.compile(
    r"(?i)(?:secret|passw|passphrase|token|access_?key|api_?key|private_?key|credential)"
    r"[\w-]{0,64}[\"']?[ \t]{0,64}[:=][ \t]{0,64}(\"(?:[^\"\\]|\\.)*\"?|'[^']*'?|[^\s,}\]#][^,}\]#]*)"
)
_PASSWORD = re.compile(r"(?<=[\w.-]:)([^\s:@/]+)@")
_PROBLEMS_MOST = 50
_SOURCE_MOST = 160  # letters of a source line
_BESIDE_MOST = 60  # carets beside which a hint still stands

Paint = Callable[[str, str], str]


def error_text(error: CloudsendError, paint: Paint) -> str:
    """The whole text of an error, ending in a newline; the most useful line is the last."""
    if isinstance(error, ConfigError) and error.problems:
        return _config_error_text(error, paint)
    lines = [paint("error:", "red") + " " + untrusted(error.message)]
    lines.extend("  " + line for line in untrusted(error.context).splitlines())
    if error.hint:
        lines.append("  help: " + untrusted(error.hint).replace("\n", "\n        "))
    return "\n".join(lines) + "\n"


def error_json(error: CloudsendError) -> dict[str, Any]:
    """The same for programs. Keys are only ever added."""
    problems = error.problems if isinstance(error, ConfigError) else []
    return {
        "error": error.code,
        "message": error.message,
        "hint": error.hint or None,
        "context": error.context or None,
        "exit_status": error.exit_status,
        "problems": [problem_json(problem) for problem in problems],
    }


def problem_json(problem: Problem | str) -> dict[str, Any]:
    if isinstance(problem, str):
        problem = Problem(problem)
    return {
        "file": problem.file or None,
        "line": problem.line or None,
        "column": problem.column or None,
        "path": problem.path or None,
        "message": problem.message,
        "hint": problem.hint or None,
    }


def problem_text(problem: Problem | str, paint: Paint, *, title: str = "warning", color: str = "yellow") -> str:
    """One problem, such as a warning, with its line of source."""
    if isinstance(problem, str):
        problem = Problem(problem)
    return _problem_text(problem, _source_lines([problem]), paint, title, color)


def _config_error_text(error: ConfigError, paint: Paint) -> str:
    problems = error.problems
    shown = problems[:_PROBLEMS_MOST]
    sources = _source_lines(shown)
    texts = [_problem_text(problem, sources, paint, "error", "red") for problem in shown]
    count = f"{len(problems):,} problem{'' if len(problems) == 1 else 's'}"
    if len(shown) < len(problems):
        count += f" ({len(problems) - len(shown):,} more than are shown)"
    files = {problem.file for problem in problems if problem.file}
    where = f" in {one_line(_short(files.pop()))}" if len(files) == 1 else ""
    texts.append(f"{count}{where}; nothing was started.\n")
    if error.hint and all(problem.hint != error.hint for problem in shown):
        texts[-1] += f"  help: {untrusted(error.hint)}\n"
    return "\n".join(texts)


def _problem_text(problem: Problem, sources: dict[tuple[str, int], str], paint: Paint, title: str, color: str) -> str:
    lines = [f"{paint(title + ':', color)} {untrusted(problem.message)}"]
    margin = " " * len(str(problem.line))
    if problem.file:
        place = Problem("", _short(problem.file), problem.line, problem.column).place
        lines.append(f"{margin if problem.line else ' '}--> {one_line(place)}")
    source = sources.get((problem.file, problem.line))
    if source is None:
        if problem.hint:
            lines.append(f"  help: {untrusted(problem.hint)}")
        return "\n".join(lines) + "\n"
    shown, indent, carets = _mark(source, problem.column, problem.width)
    lines.append(f"{margin} |")
    lines.append(f"{problem.line} | {shown}".rstrip())
    beside = problem.column and len(carets) <= _BESIDE_MOST
    if problem.column:
        hint = untrusted(problem.hint) if beside else ""
        lines.append(f"{margin} | {indent}{paint(carets, color)} {hint}".rstrip())
    if problem.hint and not beside:
        lines.append(f"{margin} = {untrusted(problem.hint)}")
    return "\n".join(lines) + "\n"


def _mark(source: str, column: int, width: int) -> tuple[str, str, str]:
    """The line as it is shown, the blanks before its carets, and the carets."""
    start = max(0, column - 1)
    skip = start - _SOURCE_MOST // 2 if start > _SOURCE_MOST * 3 // 4 else 0
    before, rest = source[skip:start], source[start : skip + _SOURCE_MOST]
    marked, after = rest[:width], rest[width:]
    head = ("…" if skip else "") + one_line_of_source(before)
    body = one_line_of_source(marked)
    tail = one_line_of_source(after) + ("…" if len(source) > skip + _SOURCE_MOST else "")
    indent = "".join("\t" if letter == "\t" else " " for letter in head)
    return head + body + tail, indent, "^" * max(1, len(body))


def one_line_of_source(text: str) -> str:
    """Tabs stay tabs, so that the carets stand below what they mark."""
    return untrusted(text).replace("\n", "\\n")


def _short(file: str) -> str:
    """A path as the user would type it: relative when it lies below here."""
    if os.path.isabs(file):
        try:
            relative = os.path.relpath(file)
        except (OSError, ValueError):
            return file
        if not relative.startswith(".."):
            return relative
    return file


def _source_lines(problems: Sequence[Problem]) -> dict[tuple[str, int], str]:
    """The lines that the problems point at. Each file is read once, and only as far as is needed."""
    found: dict[tuple[str, int], str] = {}
    for file in {problem.file for problem in problems if problem.file and problem.line}:
        wanted = {problem.line for problem in problems if problem.file == file}
        for number, text in _read_lines(file, max(wanted)):
            if number in wanted:
                found[file, number] = hide_secrets(text)
    return found


def hide_secrets(line: str) -> str:
    """The line with stars for what stands behind a secret's name, and for a password before an `@`; no wider."""
    for pattern in (_SECRET, _PASSWORD):
        line = pattern.sub(_with_stars, line)
    return line


def _with_stars(found: re.Match[str]) -> str:
    whole, value = found[0], found[1].rstrip()
    start = found.start(1) - found.start()
    return whole[:start] + "*" * len(value) + whole[start + len(value) :]


def _read_lines(file: str, last: int) -> Iterable[tuple[int, str]]:
    try:
        if not os.path.isfile(file):
            return
        with open(file, encoding="utf-8", errors="replace", newline="") as stream:
            # Lines as YAML counts them, and not as `str.splitlines` does.
            text = stream.read(32 << 20).replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    except OSError:
        return
    yield from enumerate(text.split("\n", last)[:last], 1)

"""`.cloudsendignore`: which files of a directory are not sent.

One pattern a line, as in `.gitignore`: `#` starts a comment, a trailing `/` means directories only, a pattern with `/`
elsewhere is relative to the config's directory, one without fits a name at any depth, `**` crosses directories, and
`!` takes back what an earlier line ignored. Always ignored: `.git` and `__pycache__`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FILE_NAME = ".cloudsendignore"
ALWAYS = frozenset({".git", "__pycache__"})


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: re.Pattern[str]
    directory_only: bool
    take_back: bool
    whole_path: bool


def parse_ignore(lines: Iterable[str]) -> Callable[[str, bool], bool]:
    """A function of (path below the config's directory, is a directory): True where it is ignored."""
    rules = [rule for line in lines if (rule := _parse_rule(line)) is not None]

    def ignored(path: str, directory: bool) -> bool:
        name = path.rpartition("/")[2]
        if name in ALWAYS:
            return True
        result = False
        for rule in rules:
            if (directory or not rule.directory_only) and rule.regex.fullmatch(path if rule.whole_path else name):
                result = not rule.take_back
        return result

    return ignored


def _parse_rule(line: str) -> _Rule | None:
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    take_back = text.startswith("!")
    text = text.removeprefix("!")
    directory_only = text.endswith("/")
    text = text.rstrip("/")
    whole_path = "/" in text
    text = text.removeprefix("/")
    return _Rule(compile_glob(text), directory_only, take_back, whole_path) if text else None


def compile_glob(pattern: str) -> re.Pattern[str]:
    """A path's glob: `*` and `?` stay within one name, `**/` crosses any number of directories."""
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
            continue
        if pattern.startswith("**", at):
            out.append(".*")
            at += 2
            continue
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and "]" in pattern[at + 2 :]:
            end = pattern.index("]", at + 2)
            body = pattern[at + 1 : end]
            negate = body[0] in "!^"
            body = re.sub(r"([\\\[\]^&~|])", r"\\\1", body[1:] if negate else body)
            out.append(f"[{'^' if negate else ''}{body}]")
            at = end
        else:
            out.append(re.escape(char))
        at += 1
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error:  # such as a range that runs backwards: it fits itself alone
        return re.compile(re.escape(pattern))

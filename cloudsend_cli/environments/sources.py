"""The user's files and lists, read and checked: every problem is collected, none ends the reading of the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cloudsend_cli.errors import Problem

Read = Callable[[str], bytes]
ListNames = Callable[[str], Iterable[str]]


def read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@dataclass(slots=True)
class Sources:
    """What the rendering of one environment reads, and what it finds wrong."""

    name: str
    read: Read = read_file
    list_names: ListNames = os.listdir
    elsewhere: bool = False  # it is built on other machines than this one
    problems: list[Problem] = field(default_factory=list)

    def problem(self, key: str, message: str, *, file: str = "", line: int = 0, hint: str = "") -> None:
        text = f"environment {self.name!r}: {message}"
        self.problems.append(Problem(text, file=file, line=line, hint=hint, path=f"environments.{self.name}.{key}"))

    def keep_here(self, key: str, path: str, *, file: str = "", line: int = 0) -> None:
        """A problem if a build elsewhere would look for `path`, which only this machine has."""
        if self.elsewhere:
            hint = "give its name, its URL, or the whole path if the others have it too"
            text = f"{path!r} is a path of this machine, and jobs run on others"
            self.problem(key, text, file=file, line=line, hint=hint)

    def text(self, key: str, path: str) -> str:
        """The text of a file; "" and a problem if it cannot be read as text."""
        try:
            text = self.read(path).decode("utf-8-sig")
        except OSError as error:
            self.problem(key, f"cannot read {path}: {error.strerror or error}")
        except UnicodeDecodeError:
            self.problem(key, f"{path} is not UTF-8 text", hint="save it as UTF-8")
        else:
            if "\0" not in text:
                return text.replace("\r\n", "\n").replace("\r", "\n")
            self.problem(key, f"{path} is not a text file: it holds a NUL byte")
        return ""

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; none if it cannot be read."""
        try:
            return sorted(self.list_names(path))
        except OSError:
            return []

    def bytes_or_none(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except OSError:
            return None

    def one_line(self, key: str, value: str) -> bool:
        """Whether `value` is one line of visible text; a problem if not."""
        if value.strip() and value.isprintable():
            return True
        self.problem(key, f"{value!r} is not one line of text")
        return False

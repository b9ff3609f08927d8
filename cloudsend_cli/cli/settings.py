"""The options that every command takes, before or after its name, and what `run` and `ssh` get after `--`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cloudsend_cli.errors import UsageError

OUTPUTS: Final = ("table", "wide", "json", "yaml", "csv", "name")
TAKES_COMMAND: Final = frozenset({"run", "ssh"})  # the words after its `--` are a command, kept exactly


@dataclass(frozen=True, slots=True)
class Settings:
    """How one command line is to be carried out and shown."""

    output: str = "table"
    state_dir: str | None = None
    color: bool | None = None  # None: what the terminal and NO_COLOR say
    command: tuple[str, ...] = ()
    has_command: bool = False


def take_settings(argv: Sequence[str], start: Settings = Settings()) -> tuple[Settings, list[str]]:
    """Take the options of every command out of `argv`, wherever they stand before `--`."""
    settings = replace(start, command=(), has_command=False)
    words = list(argv)
    tail: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, tail = words[:cut], words[cut:]
    rest: list[str] = []
    while words:
        word = words.pop(0)
        name, value = _split(word)
        if name in {"-o", "--output"}:
            settings = replace(settings, output=_output(_value(name, value, words)))
        elif name == "--state-dir":
            settings = replace(settings, state_dir=_value(name, value, words))
        elif word == "--wide":
            settings = replace(settings, output="wide")
        elif word == "--no-color":
            settings = replace(settings, color=False)
        else:
            rest.append(word)
    if tail and rest and rest[0] in TAKES_COMMAND:
        return replace(settings, command=tuple(tail[1:]), has_command=True), rest
    return settings, rest + tail


def _split(word: str) -> tuple[str, str | None]:
    """`--output=json` and `-ojson` as name and value."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    if word.startswith("-o") and len(word) > 2:
        return "-o", word[2:].removeprefix("=")
    return word, None


def _value(name: str, value: str | None, words: list[str]) -> str:
    if value is None:
        if not words:
            raise UsageError(f"option '{name}' needs a value")
        value = words.pop(0)
    if not value:
        raise UsageError(f"option '{name}' needs a value")
    return value


def _output(word: str) -> str:
    if word not in OUTPUTS:
        from difflib import get_close_matches

        near = get_close_matches(word, OUTPUTS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(OUTPUTS)}"
        raise UsageError(f"there is no output format '{word}'", hint=hint)
    return word

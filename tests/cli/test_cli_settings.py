"""Options that stand before or after a command, and the words that are left alone."""

from __future__ import annotations

import pytest

from cloudsend_cli.cli.settings import Settings, take_settings
from cloudsend_cli.errors import UsageError


@pytest.mark.parametrize(
    "argv",
    [
        ["-o", "json", "list", "jobs"],
        ["list", "-o", "json", "jobs"],
        ["list", "jobs", "--output", "json"],
        ["list", "jobs", "--output=json"],
        ["list", "-ojson", "jobs"],
    ],
)
def test_output_is_taken_from_anywhere(argv: list[str]) -> None:
    settings, rest = take_settings(argv)
    assert settings.output == "json"
    assert rest == ["list", "jobs"]


def test_every_option_at_once() -> None:
    settings, rest = take_settings(["--no-color", "tail", "x", "--state-dir=/a b", "-f"])
    assert settings == Settings(state_dir="/a b", color=False)
    assert rest == ["tail", "x", "-f"]


def test_a_command_after_two_dashes_is_kept_exactly() -> None:
    command = ["sh", "-c", "echo $0 '*'", "-o", "json", "--", "--fresh", "", "é\n"]
    settings, rest = take_settings(["run", "--name", "n", "-o", "yaml", "--", *command])
    assert settings.command == tuple(command)
    assert settings.has_command
    assert settings.output == "yaml"
    assert rest == ["run", "--name", "n"]


def test_two_dashes_of_another_command_stay() -> None:
    assert take_settings(["tail", "--", "-odd"]) == (Settings(), ["tail", "--", "-odd"])


def test_a_line_of_the_shell_starts_from_the_settings_of_the_shell() -> None:
    start = Settings(output="json", state_dir="/s", command=("old",), has_command=True)
    assert take_settings(["list"], start)[0] == Settings(output="json", state_dir="/s")


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["list", "-o"], "option '-o' needs a value", ""),
        (["list", "--state-dir="], "option '--state-dir' needs a value", ""),
        (["list", "-o", "jsn"], "there is no output format 'jsn'", "did you mean 'json'?"),
        (["list", "-o", "?"], "there is no output format '?'", "one of table, wide, json, yaml, csv, name"),
    ],
)
def test_mistakes_are_named(argv: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        take_settings(argv)
    assert (caught.value.message, caught.value.hint) == (message, hint)

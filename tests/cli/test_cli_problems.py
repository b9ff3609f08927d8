"""Errors as users read them, letter by letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudsend_cli.cli.problems import error_json, error_text, problem_text
from cloudsend_cli.errors import CapacityError, ConfigError, NotFoundError, Problem

CONFIG = """\
project: demo
maestro: remot
jobs:
  - run: "true"
\tx: 1
  - nmber: 日本 wide
"""


def plain(text: str, color: str) -> str:
    return text


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yml"
    path.write_text(CONFIG)
    return str(path)


def test_all_problems_of_a_config_at_once(config: str) -> None:
    error = ConfigError(
        [
            Problem("maestro: 'remot' is not one of 'local' or 'remote'", config, 2, 10, 5, "did you mean 'remote'?"),
            Problem("not valid YAML: found a tab character", config, 5, 2, 1, "use spaces, not tabs, for indentation"),
            Problem("unknown key 'nmber' in jobs[1]", config, 6, 5, 5, "did you mean 'name'?", "jobs[1].nmber"),
            Problem("the file has no jobs", config),
        ]
    )
    assert error_text(error, plain) == (
        "error: maestro: 'remot' is not one of 'local' or 'remote'\n"
        " --> config.yml:2:10\n"
        "  |\n"
        "2 | maestro: remot\n"
        "  |          ^^^^^ did you mean 'remote'?\n"
        "\n"
        "error: not valid YAML: found a tab character\n"
        " --> config.yml:5:2\n"
        "  |\n"
        "5 | \tx: 1\n"
        "  | \t^ use spaces, not tabs, for indentation\n"
        "\n"
        "error: unknown key 'nmber' in jobs[1]\n"
        " --> config.yml:6:5\n"
        "  |\n"
        "6 |   - nmber: 日本 wide\n"
        "  |     ^^^^^ did you mean 'name'?\n"
        "\n"
        "error: the file has no jobs\n"
        " --> config.yml\n"
        "\n"
        "4 problems in config.yml; nothing was started.\n"
    )


def test_one_problem_without_a_place() -> None:
    error = ConfigError([Problem("no such file: 'x.yml'", hint="`cloudsend init` writes one")])
    assert error_text(error, plain) == (
        "error: no such file: 'x.yml'\n"
        "  help: `cloudsend init` writes one\n"
        "\n"
        "1 problem; nothing was started.\n"
    )  # fmt: skip


def test_a_thousand_problems_are_counted_and_not_all_shown() -> None:
    text = error_text(ConfigError([Problem(f"number {n}") for n in range(1000)]), plain)
    assert text.endswith("1,000 problems (950 more than are shown); nothing was started.\n")
    assert text.count("error:") == 50


def test_a_very_long_line_is_cut_around_the_place(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text("x" * 100_000 + "BAD" + "y" * 100_000)
    text = problem_text(Problem("bad", str(path), 1, 100_001, 3), plain)
    line, carets = text.splitlines()[3:5]
    assert len(line) < 200
    assert line[carets.index("^") : carets.index("^") + 3] == "BAD"


def test_the_hint_of_what_is_very_long_stands_below_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(f"jobs: {'a' * 1000}\n")
    lines = problem_text(Problem("too long", str(path), 1, 7, 1000, "make it shorter"), plain).splitlines()
    assert (lines[-2].strip("^"), lines[-1]) == ("  |       ", "  = make it shorter")


def test_hostile_source_and_messages_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "bad\n\x1b[2J.yml"
    path.write_bytes(b"a: \x1b]0;x\x07 \xff\n")
    text = error_text(ConfigError([Problem("what \x1b[31m", str(path), 1, 4, 2, "\u202e")]), plain)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\x07" not in text


@pytest.mark.parametrize(("line", "column"), [(99, 1), (1, 99_999), (2, 0)])
def test_places_that_are_not_there(config: str, line: int, column: int) -> None:
    assert "error: odd" in error_text(ConfigError([Problem("odd", config, line, column, 5)]), plain)


def test_other_errors_end_with_what_to_do() -> None:
    error = CapacityError(
        "AWS has no t3.xlarge spot capacity in eu-west-3a",
        hint="allow other types with `cpus: 4+` instead of `type:`",
        context="InsufficientInstanceCapacity: We currently do not have\nsufficient capacity",
    )
    assert error_text(error, plain) == (
        "error: AWS has no t3.xlarge spot capacity in eu-west-3a\n"
        "  InsufficientInstanceCapacity: We currently do not have\n"
        "  sufficient capacity\n"
        "  help: allow other types with `cpus: 4+` instead of `type:`\n"
    )


def test_errors_for_programs() -> None:
    error = NotFoundError("no job 'x'", hint="did you mean y?")
    assert error_json(error) == {
        "error": "not-found",
        "message": "no job 'x'",
        "hint": "did you mean y?",
        "context": None,
        "exit_status": 3,
        "problems": [],
    }
    problems = error_json(ConfigError([Problem("m", "f.yml", 2, 3, 1, "h", "jobs[0].x")]))["problems"]
    assert problems == [{"file": "f.yml", "line": 2, "column": 3, "path": "jobs[0].x", "message": "m", "hint": "h"}]
    json.dumps(problems)

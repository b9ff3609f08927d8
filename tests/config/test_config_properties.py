"""Whatever the text: a run or a ConfigError, with places inside the file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cloudsend_cli.config.document import decode_file, parse_yaml
from cloudsend_cli.config.json_document import parse_json
from cloudsend_cli.config.load import load_command
from cloudsend_cli.config.schema import GROUP, TABLES
from cloudsend_cli.config.templates import UnsafeValue, parse_template
from cloudsend_cli.core.naming import job_hash
from cloudsend_cli.errors import ConfigError

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
KEYS = sorted(
    {name for table in (*TABLES, GROUP) for name in table.by_name}
    | {"range", "log", "zip", "exclude", "include", "<<"}
)
WORDS = [
    "",
    "~",
    "true",
    "no",
    "1e-3",
    "-1",
    "8+",
    "16GB",
    "2h",
    "1:30",
    "*",
    "a*",
    "../x",
    "/",
    ".",
    "{lr}",
    "a b",
    "'",
]
SCALARS = st.one_of(st.sampled_from(WORDS), st.text(max_size=8), st.integers().map(str))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def render(value: object) -> str:
    """Flow YAML of a nested value whose leaves are texts written plainly."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {render(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(render, value)) + "]"
    return str(value)


DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=12,
)


def check(desk, text: str | bytes, name: str = "config.yml") -> None:
    try:
        loaded = desk.load(text, name)
    except ConfigError as error:
        lines = (text if isinstance(text, str) else text.decode("utf-8", "replace")).split("\n")
        assert error.problems
        for problem in error.problems:
            assert problem.message
            assert "\n" not in problem.message
            problem.message.encode()
            assert 0 <= problem.line <= len(text) + 1, lines
    else:
        names = [job.name for job in loaded.spec.jobs]
        assert len(set(names)) == len(names)
        for job in loaded.spec.jobs:
            job_hash(job)
            job.name.encode()


@QUICK
@given(TEXTS)
@example("jobs: {<<: &a {run: x}, a: *a}")
@example("\ufeff")
@example("a: \x85b")
@example("? ")
@example("- - - -")
def test_arbitrary_text_is_a_run_or_a_config_error(desk, text: str) -> None:
    check(desk, text)


@QUICK
@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_a_config_error(desk, data: bytes) -> None:
    check(desk, data)


@QUICK
@given(TEXTS)
@example('{"jobs": "\\ud800"}')
@example('{"a": 1e')
def test_arbitrary_json_is_a_run_or_a_config_error(desk, text: str) -> None:
    check(desk, text, "config.json")


@QUICK
@given(st.dictionaries(st.sampled_from(KEYS), DOCUMENTS, max_size=5))
def test_known_keys_with_arbitrary_values(desk, document: dict[str, object]) -> None:
    check(desk, "\n".join(f"{key}: {render(value)}" for key, value in document.items()) + "\njobs: echo\n")


@QUICK
@given(st.dictionaries(st.sampled_from(KEYS), DOCUMENTS, max_size=6))
def test_jobs_with_arbitrary_values(desk, job: dict[str, object]) -> None:
    check(desk, "jobs:\n- run: echo {lr}\n" + "".join(f"  {key}: {render(value)}\n" for key, value in job.items()))


@QUICK
@given(st.dictionaries(st.sampled_from(KEYS), DOCUMENTS, max_size=6))
def test_groups_with_arbitrary_values(desk, group: dict[str, object]) -> None:
    lines = "".join(f"      {key}: {render(value)}\n" for key, value in group.items())
    check(desk, f"sections:\n  S:\n    G:\n      Call: echo\n{lines}    H: {{Call: echo}}\n")


@QUICK
@given(DOCUMENTS)
def test_sections_with_arbitrary_values(desk, document: object) -> None:
    check(desk, f"jobs: echo\nsections: {render(document)}\n")


@QUICK
@given(st.lists(TEXTS, max_size=3))
def test_arbitrary_overrides(desk, overrides: list[str]) -> None:
    try:
        desk.load("jobs: echo\n", overrides=overrides)
    except ConfigError as error:
        assert all(problem.message for problem in error.problems)


@QUICK
@given(st.lists(st.text(max_size=10), max_size=4))
def test_arbitrary_commands_are_kept_exactly_or_refused(desk, argv: list[str]) -> None:
    try:
        loaded = load_command(argv, desk.options(environ={}), cwd=desk.folder)
    except ConfigError as error:
        assert all(problem.message for problem in error.problems)
    else:
        assert loaded.spec.jobs[0].argv == tuple(argv)


@QUICK
@given(st.text(st.sampled_from("\"'`$(){}\\#<> ;\nap"), max_size=20), st.text(max_size=6))
def test_templates_never_break_on_any_line(line: str, value: str) -> None:
    with contextlib.suppress(UnsafeValue):
        parse_template(line + "{p}" + line, ("p",), quoted=True).fill((value,))


@QUICK
@given(TEXTS)
def test_both_readers_agree_on_json(text: str) -> None:
    import json

    try:
        expected = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return
    if expected is None:
        return
    decode_file(text.encode(), "x")
    assert parse_json(text, "x")[0] is not None
    assert parse_yaml(text, "x") is not None


def _refuse(text: str) -> object:
    raise ValueError(text)


@pytest.mark.parametrize("name", ["config.yml", "config.json"])
def test_loading_changes_nothing_beside_the_config(desk, name: str) -> None:
    desk.write("a.py")
    desk.write(name, '{"jobs": [{"run": "python a.py", "upload": "."}]}')
    before = sorted(os.listdir(desk.folder))
    desk.load(name=name)
    assert sorted(os.listdir(desk.folder)) == before
    assert Path(desk.folder, "results").exists() is False

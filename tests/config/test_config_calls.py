"""`Call` of a group as a shell gets it: where arguments stand, and values that arrive as they are."""

from __future__ import annotations

import itertools
import json
import subprocess

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cloudsend_cli.config.calls import parse_call
from cloudsend_cli.config.commands import ScriptProblem
from cloudsend_cli.errors import ConfigError

WORDS = "printf '%s\\0'"  # shows each of its arguments

LINES = [
    ("python a.py", 'python a.py "$@"'),
    ("cd x && python a.py\n", 'cd x && python a.py "$@"'),
    ("python a.py  # why\n\n  # and more\n", 'python a.py "$@"'),
    ("echo a\necho b", 'echo a\necho b "$@"'),
    ("python a.py \\\n", 'python a.py "$@"'),
    ("python a.py \\\n  -v", 'python a.py \\\n  -v "$@"'),
    ("echo \\ ", 'echo \\  "$@"'),
    ("echo \\;", 'echo \\; "$@"'),
    ("echo 'a # b'", "echo 'a # b' \"$@\""),
    ("echo a#b", 'echo a#b "$@"'),
    ("python $(which a.py)", 'python $(which a.py) "$@"'),
    ("echo $((1 + 2))", 'echo $((1 + 2)) "$@"'),
    ("echo ${A}", 'echo ${A} "$@"'),
    ("echo `date`", 'echo `date` "$@"'),
    ("awk '{print $1}'", "awk '{print $1}' \"$@\""),
    ("echo done", 'echo done "$@"'),
    ("a > log", 'a > log "$@"'),
    ("a 2>&1 | tee log", 'a 2>&1 | tee log "$@"'),
    ('for x in 1 2; do a "$@"; done', 'for x in 1 2; do a "$@"; done'),
    ('a "$@" > log &', 'a "$@" > log &'),
    ("sh -c 'a \"$@\"' name", 'sh -c \'a "$@"\' name "$@"'),
    ('sh -c "a \\"\\$@\\"" name', 'sh -c "a \\"\\$@\\"" name "$@"'),
]


@pytest.mark.parametrize(("text", "line"), LINES)
def test_where_arguments_stand(text: str, line: str) -> None:
    assert parse_call(text).line == line
    assert subprocess.run(["/bin/sh", "-n", "-c", line], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a &", "ends with '&', so that no command would get the arguments"),
        ("a;", "ends with ';', so that no command would get the arguments"),
        ("a |", "ends with '|', so that no command would get the arguments"),
        ("a >", "ends with '>', so that no command would get the arguments"),
        ("(cd x; a)", "ends with ')', so that no command would get the arguments"),
        ("(cd x; $(a))", "ends with ')', so that no command would get the arguments"),
        ("for x in 1; do a; done", "ends with 'done', so that no command would get the arguments"),
        ("if a\nthen b\nfi\n", "ends with 'fi', so that no command would get the arguments"),
        ("{ a; }", "ends with '}', so that no command would get the arguments"),
        ("cat <<EOF\nx\nEOF", "has a here-document, behind which no arguments can stand"),
        ("a \\", "ends with a backslash"),
        ("echo 'a", "has quotes or brackets that do not match"),
        ("echo $(a", "has quotes or brackets that do not match"),
        ("echo $@", "has $@ without quotes, which would split the arguments"),
        ('echo "a $@"', "has $@ inside of a longer text"),
    ],
)
def test_calls_that_cannot_be_given_arguments(desk, text: str, problem: str) -> None:
    with pytest.raises(ScriptProblem, match=r"^(ends|has) ") as caught:
        parse_call(text)
    assert str(caught.value) == problem and caught.value.hint
    with pytest.raises(ConfigError) as refused:
        desk.group({"Call": text, "Param": {"-a": 1}})
    assert refused.value.problems[0].message.startswith("sections.S.G.Call: ")
    (job,), _ = desk.group({"Call": text})  # without arguments it is the user's line, as in `run`
    assert job.argv == ("/bin/sh", "-c", text)


def test_arguments_stand_where_a_call_says(desk) -> None:
    (job,), _ = desk.group({"Call": f'{WORDS} "$@" end', "Param": {"-a": "b c"}, "Async": {"-g": [1]}})
    assert desk.words_of([*job.argv, "-g", "1"]) == ["-a", "b c", "-g", "1", "end"]
    assert job.display == f"{WORDS} -a 'b c' end"


def test_a_shell_that_the_call_starts_keeps_its_own(desk) -> None:
    inner = """sh -c 'printf "%s\\0" "$@"' name"""
    (job,), _ = desk.group({"Call": f'{inner} "$@"', "Param": {"-a": "b c"}})
    assert desk.words_of(job.argv) == ["-a", "b c"]
    assert job.display == f"{inner} -a 'b c'"


PIECES = [
    "a", "b c", " ", "\n", ";", "&&", "|", "&", "(", ")", "{ ", "; }", "$(", "`", "'", '"', "#", " # x", "\\", "\\\n",
    "<<E\nE\n", "if x; then y; fi", "for i in 1; do z; done", "$@", '"$@"', "${x}", "$((1+2))", "x=1", "done", "\t",
]  # fmt: skip


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join))
def test_what_a_shell_understands_it_understands_with_arguments(text: str) -> None:
    def is_good(line: str) -> bool:
        return subprocess.run(["/bin/sh", "-n", "-c", line], check=False, capture_output=True).returncode == 0

    try:
        call = parse_call(text)
    except ScriptProblem:
        return
    assert is_good(call.line) or not is_good(text)


def test_arguments_go_to_the_command_and_not_to_what_is_before_it(desk) -> None:
    (job,), _ = desk.group({"Call": f'cd / && {WORDS} "$PWD"', "Param": {"-a": 1}})
    assert desk.words_of(job.argv) == ["/", "-a", "1"]


# ---- values are arguments ------------------------------------------------------------------------------------------

HOSTILE = [
    "; touch owned", "$(touch owned)", "`touch owned`", "a'b", 'a"b', "a\nb", "\n", "-rf", "--", "*", "~", "$HOME",
    "\\", "#", "a b  c", "&& false", "> owned", "{lr}", "é漢😀", "!x", "%s", "\t", "|", "\u2028",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_values_arrive_as_they_are(desk, value: str) -> None:
    config = {"sections": {"S": {"G": {"Call": WORDS, "Param": {"--x": [value], "": [value]}}}}}
    for name, text in (("config.json", json.dumps(config)), ("config.yml", yaml.safe_dump(config, sort_keys=False))):
        (job,) = desk.load(text, name).spec.jobs
        assert desk.words_of(job.argv) == ["--x", value, value]
        assert dict(job.params) == {"x": value, "args": value}
        assert desk.words_of(["/bin/sh", "-c", job.display]) == ["--x", value, value]
    assert not (desk.folder / "owned").exists()


def test_nul_is_refused(desk) -> None:
    config = {"sections": {"S": {"G": {"Call": "a", "Param": {"-x": ["a\0b"], "-\0": 1}, "Async": {"-y": "\0"}}}}}
    with pytest.raises(ConfigError) as caught:
        desk.load_data(config)
    assert [p.message for p in caught.value.problems] == [
        "sections.S.G.Async.-y: '\\x00' contains a NUL character",
        "sections.S.G.Param.-x: 'a\\x00b' contains a NUL character",
        "sections.S.G.Param.-\\x00: the argument contains a NUL character",
    ]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(st.dictionaries(TEXTS, st.lists(TEXTS, max_size=3, unique=True), max_size=3))
@example({"": ["", "a"], "--x": ["$(id)"]})
def test_each_combination_is_a_task_once(desk, param: dict[str, list[str]]) -> None:
    jobs = desk.load_data({"sections": {"S": {"G": {"Call": WORDS, "Param": param}}}}).jobs
    points = list(itertools.product(*param.values()))
    assert [tuple(text for _, text in job.params) for job in jobs] == points
    assert len({job.name for job in jobs}) == len(points)
    for job, point in list(zip(jobs, points, strict=True))[:2]:
        words = [
            w
            for key, value in zip(param, point, strict=True)
            for w in ((key, value) if key else (value,) * bool(value))
        ]
        assert desk.words_of(job.argv) == (words or [""])

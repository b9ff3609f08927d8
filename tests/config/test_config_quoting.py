"""Parameter values through a real /bin/sh: a value arrives as exactly one piece of text, wherever it stands."""

from __future__ import annotations

import subprocess

import pytest

from cloudsend_cli.config.templates import UnsafeValue, list_placeholders, parse_template, shell_contexts

VALUES = [
    "plain",
    "1e-3",
    "a b",
    "it's",
    'say "x"',
    "$HOME",
    "$(touch pwned)",
    "`touch pwned`",
    "a; touch pwned",
    "a && touch pwned",
    "a\nb",
    "*",
    "~",
    "back\\slash",
    "trailing\\",
    "",
    "!",
    "#x",
    "é 🦄",
    "-n",
    "{p}",
    "'\"'\"'",
    '"; touch pwned; "',
]
LINES = [
    ("printf %s {p}", ""),
    ("printf %s pre{p}post", "pre|post"),
    ('printf %s "{p}"', ""),
    ('printf %s "pre {p} post"', "pre | post"),
    ("printf %s '{p}'", ""),
    ("printf %s 'pre {p} post'", "pre | post"),
    ('x={p}; printf %s "$x"', ""),
    ('x="$(printf %s. {p})"; printf %s "${x%.}"', ""),
    ('printf %s "$(printf %s "{p}"; printf .)"', "|."),
    ("printf %s \"a\"'b'{p}'c'", "ab|c"),
    ("# it's a comment\nprintf %s {p} # \"", ""),
    ("(printf %s {p})", ""),
    ("if true; then printf %s {p}; fi", ""),
    ("printf %s \\'{p}", "'|"),
]


def run(line: str) -> str:
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("line", "around"), LINES, ids=[line for line, _ in LINES])
def test_a_value_arrives_as_it_is(line: str, around: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    template = parse_template(line, ("p",), quoted=True)
    before, _, after = around.partition("|")
    for value in VALUES:
        assert run(template.fill((value,))) == before + value + after, (line, value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "echo `echo {p}`",
        'echo "`echo {p}`"',
        "cat <<EOF\n{p}\nEOF",
        "echo ${x:-{p}}",
        'echo "${x:-{p}}"',
        "echo $'{p}'",
        "echo # {p}",
        "echo \\{p}",
    ],
)
def test_where_no_quoting_is_safe_only_plain_words_go_in(line: str) -> None:
    template = parse_template(line, ("p",), quoted=True)
    assert "word" in template.fill(("word",))
    for value in ("a b", "$x", "", "`"):
        with pytest.raises(UnsafeValue):
            template.fill((value,))


def test_contexts_follow_a_line_to_its_end() -> None:
    literals = ["echo ", ' "', "\" '", "' \"$(a ", " '", "')\" `", "` ", ""]
    assert shell_contexts(literals) == ("bare", "double", "single", "bare", "single", "unsafe", "bare")


def test_several_values_do_not_read_each_other() -> None:
    template = parse_template("{a}{b} {c} {a}", ("a", "b"))
    assert template.fill(("{b}", "x")) == "{b}x {c} {b}"


def test_shell_variables_are_no_placeholders() -> None:
    assert parse_template("${p} {p}", ("p",)).fill(("1",)) == "${p} 1"
    assert list_placeholders("{a} ${b} {c-d} {e}") == ["a", "e"]


def test_parameters_are_variables_too(desk) -> None:
    job = desk.job("jobs: {run: 'printf %s \"$p\"', matrix: {p: ['a b; \"']}}\n")
    out = subprocess.run(job.argv, env=dict(job.env), capture_output=True, text=True, check=True).stdout
    assert out == 'a b; "'

"""Hostile configs: each gives a clear error or a right result, and never another kind of exception."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from cloudsend_cli.errors import ConfigError

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
MERGES = "x-a: &a {cpus: 1}\n" + "".join(
    f"x-{i}: &n{i} [{', '.join([f'*n{i - 1}' if i else '*a'] * 9)}]\n" for i in range(9)
)

# name -> (content, words that the error must contain)
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a number": ("3\n", "expected keys such as 'jobs:'"),
    "jobs a number": ("jobs: {a: 1}\n", "unknown key 'a' in jobs"),
    "jobs a bool inside": ("jobs: [{run: {x: 1}}]\n", "expected a shell command, not a mapping"),
    "unknown keys": ("jobs: echo\nfoo: 1\nbar: 2\n", "unknown key 'bar'"),
    "empty key": ("'': 1\njobs: echo\n", "unknown key ''"),
    "null key": ("~: 1\njobs: echo\n", "unknown key '~'"),
    "cycle of two": ("jobs:\n- {run: a, name: a, after: b}\n- {run: b, name: b, after: a}\n", "wait for each other"),
    "cycle by globs": (
        "jobs:\n- {run: a, name: a1, after: 'b*'}\n- {run: b, name: b1, after: 'a*'}\n",
        "a1 -> b1 -> a1",
    ),
    "impossible cpus": ("jobs: {run: a, cpus: 1000}\n", "wants 1000 CPUs"),
    "impossible memory": ("jobs: {run: a, memory: 1PB}\n", "wants 1 PB of memory"),
    "huge int": (f"jobs: {{run: a, cpus: {'9' * 4000}}}\n", "is not a number of CPUs"),
    "huge repeat": (f"jobs: {{run: a, repeat: {'9' * 400}}}\n", "is too large"),
    "huge exponent": ("jobs: {run: a, repeat: 1e999}\n", "is not a number"),
    "NaN": ("jobs: {run: a, cpus: .nan}\n", "is not a number of CPUs"),
    "infinity": ("jobs: {run: a, timeout: .inf}\n", "is not a duration"),
    "negative": ("jobs: {run: a, retries: -1}\n", "must be from 0 to 1000"),
    "too many jobs": ("jobs:\n- {run: a, repeat: 600000}\n- {run: a, repeat: 600000}\n", "1,200,000 jobs"),
    "too large product": (
        "jobs: {run: a, repeat: 1000000, matrix: {a: {range: [1, 1000]}}}\n",
        "1,000,000,000 jobs",
    ),
    "ten megabytes": (b"# " + b"x" * 10_000_000, "the limit is 10 MB"),
    "billion laughs": (LAUGHS + "jobs: *j\n", "aliases repeat more than 200,000 values"),
    "laughing merges": (MERGES + "jobs: {<<: *n8, run: a}\n", "aliases repeat more than 200,000 values"),
    "recursive alias": ("jobs: &j {run: a, vars: *j}\n", "stands inside what it repeats"),
    "duplicate keys": ("jobs: {run: a, run: b}\n", "'run' is given twice"),
    "duplicate job key": ("jobs: echo\n'jobs': echo\n", "'jobs' is given twice | first given on line 1"),
    "no as a flag": ("recover: no\njobs: echo\n", "'no' is not true or false | write false"),
    "newline in a name": ('jobs: {run: a, name: "a\\nb"}\n', "contains a control character"),
    "escape in a name": ('jobs: {run: a, name: "\\e[2J"}\n', "contains a control character"),
    "right-to-left in a name": ("jobs: {run: a, name: a\u202eb}\n", "contains a control character"),
    "NUL in a name": ('jobs: {run: a, name: "a\\0b"}\n', "contains a NUL character"),
    "NUL in a command": ('jobs: "echo \\0"\n', "contains a NUL character"),
    "NUL in a path": ('jobs: {run: a, upload: "a\\0b"}\n', "contains a NUL character"),
    "NUL in a variable": ('jobs: {run: a, vars: {A: "\\0"}}\n', "contains a NUL character"),
    "NUL in the file": (b"jobs: echo\0\n", "contains a NUL character"),
    "control character": (b"jobs: echo \x1b[2J\n", "contains the control character U+001B"),
    "up and away": ("jobs: {run: a, output: ../../x}\n", "leaves the run directory"),
    "name with dots": ("jobs: {run: a, name: a/../b}\n", "'.' or '..' as a part of a path"),
    "name of 201 letters": (f"jobs: {{run: a, name: {'x' * 201}}}\n", "is longer than 200 characters"),
    "latin-1": ("jobs: é\n".encode("latin-1"), "config.yml:1:7: not valid UTF-8: byte 0xe9 at offset 6"),
    "utf-16": ("jobs: a\n".encode("utf-16"), "this looks like UTF-16"),
    "deep lists": ("jobs: " + "[" * 100_000, "nested deeper than 60 levels"),
    "deep mappings": ("jobs: " + "{a: " * 100_000, "nested deeper than 60 levels"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(500)), "nested deeper than 60 levels"),
    "dashes": ("jobs:\n" + "- " * 5000 + "a\n", "nested deeper than 60 levels"),
    "upload of a missing file": ("jobs: {run: a, upload: nope}\n", "no such file: 'nope'"),
    "upload of everything": ("jobs: {run: a, upload: /proc/self}\n", "jobs.upload: "),
    "upload of a device": ("jobs: {run: a, upload: /dev/zero}\n", "is a device"),
    "empty upload": ("jobs: {run: a, upload: ''}\n", "must not be empty"),
    "list in a list": ("jobs: {run: a, upload: [[a]]}\n", "expected a text, not a list"),
    "null in a list": ("jobs: {run: a, upload: [~]}\n", "expected a value, not nothing"),
    "mapping for a text": ("project: {a: 1}\njobs: echo\n", "expected a text, not a mapping"),
    "vars as a list": ("jobs: {run: a, vars: [A]}\n", "expected a mapping of names and values"),
    "environment unknown": ("jobs: {run: a, env: x}\n", "unknown environment 'x'"),
    "environments of numbers": ("environments: [1]\njobs: echo\n", "expected a mapping of keys, not '1'"),
    "instances of numbers": ("instances: 3\njobs: echo\n", "expected a mapping of keys, not '3'"),
    "bomb of a glob": ("jobs: {run: a, upload: '" + "**/" * 30 + "nope'}\n", "no file fits"),
    "binary": (bytes(range(256)), "not valid UTF-8"),
    "tag of python": ("jobs: !!python/object/apply:os.system ['x']\n", "is not supported"),
    "directive": ("%YAML 3.0\n---\njobs: a\n", "not valid YAML"),
    "two documents": ("jobs: a\n--- \njobs: b\n", "a second document starts here"),
    "bad escape": ('jobs: "\\q"\n', "not valid YAML"),
    "a section called ..": ("sections: {..: {G: {Call: a}}}\n", "'.' or '..' as a part of a path"),
    "newline in a section": (
        'sections: {"a\\nb": {G: {Call: a}}}\n',
        "sections.a\\nb: the name of a section contains a control",
    ),
    "escape in a group": (
        'sections: {S: {"\\e[2J": {Call: a}}}\n',
        "the name of a group contains a control character",
    ),
    "a group called like an option": ("sections: {-rf: {G: {Call: a}}}\n", "the name of a section begins with '-'"),
    "too many tasks": (
        "sections: {S: {G: {Call: a, Param: {x: {range: [1, 1000000]}, y: {range: [1, 1000000]}}}}}\n",
        "makes 1,000,000,000,000 tasks; the limit is 1,000,000",
    ),
    "too many tasks in groups": (
        "sections: {S: {G: &g {Call: a, Param: {x: {range: [1, 600000]}}}, H: *g}}\n",
        "1,200,000 jobs are more than one run can hold",
    ),
    "too many places": ("sections: {S: {G: {Call: a, Async: {x: {range: [1, 10001]}}}}}\n", "makes 10,001 places"),
    "NUL in a value": ('sections: {S: {G: {Call: a, Param: {x: "\\0"}}}}\n', "contains a NUL character"),
    "NUL in a call": ('sections: {S: {G: {Call: "\\0f"}}}\n', "contains a NUL character"),
    "files of another user": (
        "jobs: {run: a, matrix: {x: {from_files: /srv/others/*}}}\n",
        "leads out of the config's directory",
    ),
    "bomb of files": ("jobs: {run: a, matrix: {x: {from_files: '" + "**/" * 30 + "nope'}}}\n", "no file fits"),
    "sample of everything": ("jobs: {run: a, matrix: {x: 1, sample: 1e9}}\n", "must be from 1 to 1000000"),
    "anchor of nothing": ("jobs: &\n", "not valid YAML"),
}

# name -> (content, what each job executes)
ACCEPTED: dict[str, tuple[str | bytes, list[str]]] = {
    "no is a text": ("jobs: {run: echo, vars: {A: no, B: on, C: 1:30:00}}\n", ["echo"]),
    "a command called true": ("jobs: true\n", ["true"]),
    "a command called no": ("jobs: [no, 0x1f]\n", ["no", "0x1f"]),
    "byte order mark": (b"\xef\xbb\xbfjobs: echo\n", ["echo"]),
    "windows lines": (b"jobs:\r\n  - echo\r\n", ["echo"]),
    "json in a yaml file": ('{"jobs": ["echo"]}', ["echo"]),
    "tabs in flow": ("jobs: {run:\techo}\n", ["echo"]),
    "emoji": ("jobs: echo 🦄\n", ["echo 🦄"]),
    "a word of 100 KB": (f"jobs: echo {'x' * 100_000}\n", [f"echo {'x' * 100_000}"]),
    "quotes that do not match": ('jobs: "echo \'a"\n', ["echo 'a"]),
    "a word that is a directory": ("jobs: ls . .. / ~\n", ["ls . .. / ~"]),
    "braces of awk": ("jobs: awk '{print $1}' x\n", ["awk '{print $1}' x"]),
    "tag of a text": ("jobs: !!str 3\n", ["3"]),
    "block text": ("jobs: |\n  a\n  b\n", ["a\nb\n"]),
    "name of 200 letters": (f"jobs: {{run: a, name: {'x' * 200}}}\n", ["a"]),
    "a call of 100 KB": (f"sections: {{S: {{G: {{Call: echo {'x' * 100_000}}}}}}}\n", [f"echo {'x' * 100_000}"]),
    "laughing sections": ("x-a: &a {Call: a}\nsections: {S: {G: *a, H: *a}}\n", ["a", "a"]),
    "anchors without use": ("x-a: &a {b: c}\njobs: echo\n", ["echo"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(desk, name: str) -> None:
    content, words = REFUSED[name]
    assert words in desk.problems(content)


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(desk, name: str) -> None:
    content, commands = ACCEPTED[name]
    assert [job.argv[2] for job in desk.jobs(content)] == commands


def _directory(desk) -> str:
    (desk.folder / "d.yml").mkdir()
    return "d.yml"


def _fifo(desk) -> str:
    os.mkfifo(desk.folder / "f.yml")
    return "f.yml"


def _loop(desk) -> str:
    (desk.folder / "l.yml").symlink_to("l.yml")
    return "l.yml"


def _dangling(desk) -> str:
    (desk.folder / "g.yml").symlink_to("nowhere")
    return "g.yml"


def _not_utf8(desk) -> str:
    (desk.folder / "x").mkdir()
    os.rename(os.fsencode(desk.folder) + b"/x", os.fsencode(desk.folder) + b"/\xff")
    name = os.fsdecode(b"\xff/config.yml")
    with open(name, "w") as file:
        file.write("jobs: echo\n")
    return name


PATHS: dict[str, tuple[Callable[[object], str], str]] = {
    "a directory": (_directory, "d.yml: is a directory, not a config"),
    "a fifo": (_fifo, "f.yml: is not a regular file, not a config"),
    "a loop of links": (_loop, "l.yml: cannot be read: Too many levels of symbolic links"),
    "a link to nothing": (_dangling, "g.yml: no such file"),
    "a device": (lambda desk: "/dev/null", "/dev/null: is not a regular file, not a config"),
    "unreadable": (lambda desk: "/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error"),
    "a NUL": (lambda desk: "a\0b", "a\\x00b: the path contains a NUL character"),
    "a long name": (lambda desk: "x" * 300, "cannot be read: File name too long"),
    "a path that is not UTF-8": (_not_utf8, "the path of the config is not valid UTF-8"),
    "empty": (lambda desk: "", "is a directory, not a config"),
    "a file as a directory": (lambda desk: str(desk.write("a.yml")) + "/b.yml", "cannot be read: Not a directory"),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_of_configs(desk, name: str) -> None:
    make, words = PATHS[name]
    assert words in desk.problems(name=make(desk))


def test_shell_variables_that_are_not_text_are_left_out(desk) -> None:
    desk.environ = {"PATH": "/bin:\udcff", "HOME": "/h"}
    loaded = desk.load("jobs: echo\n")
    assert loaded.spec.base_env == (("HOME", "/h"),)
    assert [w.message for w in loaded.warnings] == ["PATH of your shell is not valid UTF-8; jobs do not get it"]


def test_python_configs_leave_no_trace(desk, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    desk.write("near.py", "VALUE = 'echo near'\n")
    before = list(sys.path)
    job = desk.job("import near\nprint('talk')\nconfig = {'jobs': near.VALUE}\n", name="c.py")
    assert job.argv[2] == "echo near"
    assert sys.path == before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "talk\n")
    sys.modules.pop("near")


def test_a_python_config_runs_only_when_it_is_named(desk) -> None:
    desk.write("config.py", "raise SystemExit\n")
    assert desk.job("jobs: echo\n").argv[2] == "echo"


def test_arrays_and_numbers_of_python(desk) -> None:
    text = """\
class Array:
    def __init__(self, values): self.values = values
    def tolist(self): return self.values
config = {'jobs': {'run': 'x {lr}', 'cpus': Array(2), 'matrix': {'lr': Array([0.0002, 1e-05, True])}}}
"""
    assert [j.argv[2] for j in desk.jobs(text, name="c.py")] == ["x 0.0002", "x 1e-05", "x True"]


def test_exceptions_that_cannot_be_shown(desk) -> None:
    text = "class E(Exception):\n    def __str__(self): raise ValueError\nraise E\n"
    assert desk.problems(text, "c.py") == "c.py:3:1: the config raised E: (no message)"


def test_json_numbers_keep_their_text(desk) -> None:
    text = json.dumps({"jobs": {"run": "x {a}", "matrix": {"a": [1.10, "1.10"]}}}).replace("1.1,", "1.10,")
    assert [j.argv[2] for j in desk.jobs(text, name="c.json")] == ["x 1.10"]


def test_the_corpus_is_large_enough(summary_line) -> None:
    count = len(REFUSED) + len(ACCEPTED) + len(PATHS)
    assert count >= 80
    summary_line(f"hostile configs: {count}")


def test_problems_are_never_anything_but_problems(desk) -> None:
    with pytest.raises(ConfigError) as caught:
        desk.load("jobs: [\n")
    assert caught.value.exit_status == 2
    assert all(p.message and p.file == "config.yml" for p in caught.value.problems)

"""What is wrong with `sections:` is told with its place."""

from __future__ import annotations

import pytest

PROBLEMS = [
    ("{}", "1:11", "there are no jobs"),
    ("[a]", "1:11", "sections: expected a mapping of sections, not a list"),
    ("{S: a}", "1:15", "sections.S: expected a mapping of groups, not 'a'"),
    ("{S: [a]}", "1:15", "sections.S: expected a mapping of groups, not a list"),
    ("{S: {Call: a, Param: {-x: 1}}}", "1:16", "sections.S: 'Call' is a key of a group, and this is a section"),
    ("{S: {G: a}}", "1:19", "sections.S.G: expected keys such as 'Call', not 'a'"),
    ("{S: {G: }}", "1:19", "sections.S.G: expected keys such as 'Call', not nothing"),
    ("{S: {G: {Call: [a]}}}", "1:26", "sections.S.G.Call: expected a shell command, not a list"),
    ("{S: {G: {Call: ''}}}", "1:26", "sections.S.G.Call: must not be empty"),
    ("{S: {G: {Call: }}}", "1:19", "sections.S.G: a group needs 'Call', a shell command"),
    ("{S: {G: {Call: a, Parm: {}}}}", "1:29", "unknown key 'Parm' in sections.S.G"),
    ("{S: {G: {Call: a, jobs: 1}}}", "1:29", "unknown key 'jobs' in sections.S.G"),
    ("{S: {G: {Call: a, call: b}}}", "1:29", "'Call' and 'call' mean the same; give only one"),
    ("{S: {G: {Call: a, Remote: 10.0.0.1}}}", "1:29", "sections.S.G.Remote: tasks are not sent to a Python server"),
    ("{S: {G: {Call: a, port: 1}}}", "1:29", "sections.S.G.port: tasks are not sent to a Python server"),
    ("{S: {G: {Call: a, run: b}}}", "1:29", "sections.S.G.run: the command of a group is 'Call'"),
    ("{S: {G: {Call: a, repeat: 2}}}", "1:29", "sections.S.G.repeat: tasks are repeated by Param"),
    ("{S: {G: {Call: a, Param: [1]}}}", "1:36",
     "sections.S.G.Param: expected a mapping of arguments and their values, not a list"),
    ("{S: {G: {Call: a, Param: {-x: {}}}}}", "1:41",
     "sections.S.G.Param.-x: expected values, 'range', 'log' or 'from_files'"),
    ("{S: {G: {Call: a, Param: {-x: [[1]]}}}}", "1:42",
     "sections.S.G.Param.-x: a parameter's value is a text or a number, not a list"),
    ("{S: {G: {Call: a, Param: {-x: [null]}}}}", "1:42",
     "sections.S.G.Param.-x: a parameter's value is a text or a number, not nothing"),
    ("{S: {G: {Call: a, Param: {-x: {from_files: '*.none'}}}}}", "1:54",
     "sections.S.G.Param.-x: no file fits '*.none'"),
    ("{S: {G: {Call: a, Async: {-x: {from_files: '*'}}}}}", "1:54",
     "sections.S.G.Async.-x: 'from_files' cannot be used here"),
    ("{S: {G: {Call: a, Param: {-x: {range: [1, 2000]}, -y: {range: [1, 2000]}}}}}", "1:29",
     "sections.S.G.Param: makes 4,000,000 tasks; the limit is 1,000,000"),
    ("{S: {G: {Call: a, Async: {-x: {range: [1, 2000]}, -y: {range: [1, 2000]}}}}}", "1:29",
     "sections.S.G.Async: makes 4,000,000 places; the limit is 10,000"),
    ("{S: {G: {Call: a, gpu: 1, Async: {--gpu: [0]}}}}", "1:29",
     "sections.S.G.gpu: the places of 'Async' say '--gpu' already"),
    ("{S: {G: {Call: a, Param: {-x: 1}, matrix: {y: 1}}}}", "1:45",
     "sections.S.G.matrix: a group has 'Param' or 'matrix', not both"),
    ("{S: {G: {Call: a, vars: {x: 1}, Param: {-x: 1}}}}", "1:29",
     "sections.S.G.vars: 'x' is also a parameter of Param"),
    ("{'': {G: {Call: a}}}", "1:12", "sections.: the name of a section is empty or begins or ends with a space"),
    ("{S: {'a*': {Call: a}}}", "1:16",
     "sections.S.a*: the name of a group contains one of * ? [, which mark a pattern of names"),
    ("{a/b: {c: {Call: a}}, a: {b/c: {Call: a}}}", "1:37", "sections.a.b/c: a second group is called 'a/b/c'"),
    ("{S: {G: {Call: a, memory: 64GB}}}", "1:37",
     "sections.S.G wants 64 GB of memory; the largest machine has 8 CPUs, 32 GB of memory and 1 GPUs"),
    ("{S: {G: {Call: a, cpus: 1, gpu: 5, memory: 1GB}}}", "1:43",
     "sections.S.G wants 5 GPUs; the largest machine has 8 CPUs, 32 GB of memory and 1 GPUs"),
    ("{S: {G: {Call: a, env: x}}}", "1:34", "sections.S.G.env: unknown environment 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "message"), PROBLEMS)
def test_what_is_wrong_is_told_with_its_place(desk, text: str, place: str, message: str) -> None:
    problems = desk.problems(f"sections: {text}\n").split("\n")
    assert problems[0].split(" | ")[0] == f"config.yml:{place}: {message}"
    assert len(problems) == 1


def test_everything_wrong_is_told_at_once(desk) -> None:
    text = """
sections:
  S:
    G: {Call: a, Remote: gpu1, Port: 1, parm: {}}
    H: {Param: 3, Async: [1]}
jobs: {run: a, name: S/I/0}
"""
    assert desk.problems(text) == (
        "config.yml:4:18: sections.S.G.Remote: tasks are not sent to a Python server"
        " | hosts are machines of a provider: at the top level write provider: ssh:gpu1\n"
        "config.yml:4:32: sections.S.G.Port: tasks are not sent to a Python server"
        " | the port of a host stands in providers.yml\n"
        "config.yml:4:41: unknown key 'parm' in sections.S.G | did you mean 'param'?\n"
        "config.yml:5:8: sections.S.H: a group needs 'Call', a shell command\n"
        "config.yml:5:16: sections.S.H.Param: expected a mapping of arguments and their values, not '3'"
        " | write Param: {--gpu: [0, 1]}\n"
        "config.yml:5:26: sections.S.H.Async: expected a mapping of arguments and their values, not a list"
        " | write Async: {--gpu: [0, 1]}"
    )


def test_a_job_may_not_take_the_name_of_a_task(desk) -> None:
    text = "jobs: {run: a, name: S/G/0}\nsections: {S: {G: {Call: a}}}\n"
    assert desk.problems(text).split(" | ")[0] == "config.yml:1:22: jobs.name: a second job is called 'S/G/0'"
    repeated = desk.load("jobs: {run: a, name: S/G, repeat: 2}\nsections: {S: {G: {Call: a}}}\n").spec
    assert [job.name for job in repeated.jobs] == ["S/G-0", "S/G-1", "S/G/0"]


def test_doubled_names_and_long_ones(desk) -> None:
    assert "'G' is given twice" in desk.problems("sections:\n  S:\n    G: {Call: a}\n    G: {Call: b}\n")
    long = "x" * 198
    assert "is longer than 200 characters" in desk.problems(f"sections: {{S: {{{long}: {{Call: a}}}}}}\n")


def test_sections_outside_of_sections_are_known(desk) -> None:
    """As in a dict for the TaskRunner."""
    text = "Search:\n  GPU: {Call: a}\nx-more: {GPU: {Call: b}}\nbudgt: {a: {b: 1}}\n"
    assert desk.problems(text) == (
        "config.yml:1:1: 'Search' is a section, and stands outside of 'sections' | "
        "write 'sections:' above it, and indent it\n"
        "config.yml:1:1: a config needs 'jobs' or 'sections' | write at least: jobs: python train.py\n"
        "config.yml:4:1: unknown key 'budgt' | did you mean 'budget'?"
    )
    assert [job.name for job in desk.jobs("sections: {S: {Call: {Call: a}}}\n")] == ["S/Call/0"]


@pytest.mark.parametrize(
    ("matrix", "problems"),
    [
        (
            "{x: {rang: [1, 2]}}",
            "1:28: jobs.matrix.x: expected values, 'range', 'log' or 'from_files' | did you mean 'range'?",
        ),
        (
            "{x: [[1, 2]]}",
            "1:29: jobs.matrix.x: a parameter's value is a text or a number, not a list | "
            "write one list; what is several words in one value stands in quotes",
        ),
        (
            "{zip: {a: [1, 2], b: 3}, include: [{a: 1}]}",
            "1:30: jobs.matrix.zip: lists side by side need equal lengths; a has 2, b has 1",
        ),
    ],
)
def test_what_is_wrong_with_a_matrix_is_told_once(desk, matrix: str, problems: str) -> None:
    assert desk.problems(f"jobs: {{run: a, matrix: {matrix}}}\n") == f"config.yml:{problems}"


def test_what_looks_like_an_expression_is_a_value_and_told(desk) -> None:
    loaded = desk.load("sections: {S: {G: {Call: a, Param: {-x: 'range(3)', -y: ['range(3)']}}}}\n")
    assert loaded.spec.jobs[0].argv[4:] == ("-x", "range(3)", "-y", "range(3)")
    assert [(str(w.place), w.message, w.hint) for w in loaded.warnings] == [
        (
            "config.yml:1:41",
            "sections.S.G.Param.-x: 'range(3)' is one value, as it stands",
            "write {range: [0, 9]}, both ends included",
        )
    ]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("Call: 'a {lr}', Param: {--lr: [1]}", "{lr} is an argument of 'Param', and stays as it is"),
        ("Call: 'a {lrr}', Param: {--lr: [1]}", "{lrr} is not a parameter and stays as it is"),
        ("Call: 'a {lrr}', matrix: {lr: [1]}", "{lrr} is not a parameter and stays as it is"),
        ("Call: 'a {lr}', matrix: {lr: [1]}", ""),
        ("Call: 'a ${lr} {x}', Param: {--lr: [1]}", ""),
        ("Call: 'a {lr}'", ""),
    ],
)
def test_braces_that_nothing_fills_in_are_told(desk, keys: str, told: str) -> None:
    expected = f"config.yml:1:26: sections.S.G.Call: {told}" if told else ""
    assert desk.warnings(f"sections: {{S: {{G: {{{keys}}}}}}}\n") == expected

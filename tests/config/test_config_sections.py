"""`sections:`: groups of tasks as the TaskRunner of the seeds had them, and values that arrive as they are."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
from collections.abc import Sequence

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cloudsend_cli.config.calls import parse_call
from cloudsend_cli.config.commands import ScriptProblem
from cloudsend_cli.config.context import FunctionTask, FunctionTasks
from cloudsend_cli.config.load import load_mapping
from cloudsend_cli.config.sections import name_parameters
from cloudsend_cli.core.model import JobGroup, JobSpec, Output, Resources, RunSpec, Upload
from cloudsend_cli.core.naming import match_names, safe_component
from cloudsend_cli.core.refs import parse_job_ref
from cloudsend_cli.errors import ConfigError

SEARCH = "Section: Search for Decay, Epoch, and Dataset Size"
README = f"""
sections:
  '{SEARCH}':
    GTX 2080:
      Call: python train.py
      Param:
        --decay: [exp, anneal, static]
        --epoch: [100, 1000, 10000]
        --dataset_size: [1e3, 2e3, 3e3]
      Async: {{--machine: [0, 1], --gpu: [0, 1]}}
    CPU:
      Call: ls
      Param: {{'': ['-l', '-a', '-la']}}
      Async: {{'': []}}
  Another Section:
    A dummy group:
      Call: ls
      Param: {{'': ['-a']}}
"""
WORDS = "printf '%s\\0'"  # shows each of its arguments


def load(desk, config: dict[str, object], **options: object) -> RunSpec:
    context = desk.context(**options)
    return load_mapping(config, folder=desk.folder, environ=desk.environ, context=context).spec


def group(desk, keys: dict[str, object], **options: object) -> tuple[tuple[JobSpec, ...], JobGroup]:
    spec = load(desk, {"sections": {"S": {"G": keys}}}, **options)
    return spec.jobs, spec.groups[0]


def run(argv: Sequence[str]) -> list[str]:
    """What the command is given, by the words that a real shell hands to it."""
    done = subprocess.run(argv, check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    return done.stdout.decode().split("\0")[:-1]


# ---- tasks ---------------------------------------------------------------------------------------------------------


def test_the_config_of_the_seed(desk) -> None:
    spec = desk.load(README).spec
    gpu, cpu, dummy = f"{SEARCH}/GTX 2080", f"{SEARCH}/CPU", "Another Section/A dummy group"
    assert [job.name for job in spec.jobs] == [
        *(f"{gpu}/{n}" for n in range(27)), *(f"{cpu}/{n}" for n in range(3)), f"{dummy}/0",
    ]  # fmt: skip
    points = itertools.product(["exp", "anneal", "static"], ["100", "1000", "10000"], ["1e3", "2e3", "3e3"])
    for job, (decay, epoch, size) in zip(spec.jobs, points, strict=False):
        assert job.params == (("decay", decay), ("epoch", epoch), ("dataset_size", size)) == job.env
        assert job.display == f"python train.py --decay {decay} --epoch {epoch} --dataset_size {size}"
        assert job.argv == ("/bin/sh", "-c", 'python train.py "$@"', "sh", *shlex.split(job.display)[2:])
    assert [job.argv[3:] for job in spec.jobs[27:]] == [("sh", f) for f in ("-l", "-a", "-la", "-a")]
    assert [job.params for job in spec.jobs[27:29]] == [(("args", "-l"),), (("args", "-a"),)]
    assert [job.stage for job in spec.jobs] == [1] * 30 + [2]
    assert {job.group for job in spec.jobs} == {gpu, cpu, dummy}
    assert {job.resources for job in spec.jobs} == {Resources(0)}
    assert [job.slot_args for job in spec.jobs] == [True] * 27 + [False] * 4
    four = tuple((("--machine", m), ("--gpu", g)) for m in "01" for g in "01")
    assert [(g.name, g.slots, g.max_parallel) for g in spec.groups] == [
        (gpu, four, None), (cpu, ((),), None), (dummy, ((),), None),
    ]  # fmt: skip
    assert [g.section for g in spec.groups] == [name.rpartition("/")[0] for name in (gpu, cpu, dummy)]


def test_its_names_can_be_used_wherever_names_are(desk) -> None:
    names = [job.name for job in desk.load(README).spec.jobs]
    last = names[26]
    reference = parse_job_ref(last)
    assert (reference.text, reference.pattern, reference.run, reference.last) == (last, False, "", False)
    assert match_names(last, names) == [last]
    assert match_names(f"{SEARCH}/GTX*", names) == names[:27]
    places = ["/".join(map(safe_component, name.split("/"))) for name in names]
    assert len(set(places)) == 31 and all(p.isascii() and " " not in p and ":" not in p for p in places)
    after = desk.load(README + f"jobs: {{run: echo, after: '{SEARCH}/CPU/*'}}\n").spec.jobs[0].after
    assert after == (f"{SEARCH}/CPU/*",)


@pytest.mark.parametrize("spelling", ["Call Param Async", "call param async"])
def test_a_group_takes_the_keys_of_a_job(desk, spelling: str) -> None:
    call, param, places = spelling.split()
    desk.write("a.py")
    desk.write("data/x.csv")
    text = f"""
    environments: [{{name: ml}}, {{name: other}}]
    sections:
      S:
        G:
          {call}: python a.py
          {param}: {{--lr: [1e-3, 0.10], -v: 1}}
          {places}: {{-m: [a]}}
          env: ml
          cpus: 2
          memory: 1GB
          upload: data/
          output: out-{{lr}}/
          timeout: 1h
          grace: 3
          retries: 2
          retries_lost: 5
          vars: {{A: 'x{{lr}}'}}
          workdir: w{{v}}
          persist: keep/
          on_preempt: echo {{lr}}
          max_parallel: 3
          slots: [licence]
          retry_memory_factor: 1.5
    """
    jobs, pool = (spec := desk.load(text.replace("\n    ", "\n")).spec).jobs, spec.groups[0]
    assert [job.env for job in jobs] == [
        (("A", f"x{lr}"), ("lr", lr), ("v", "1")) for lr in ("1e-3", "0.10")
    ]  # fmt: skip
    assert [job.outputs for job in jobs] == [(Output("out-1e-3"),), (Output("out-0.10"),)]
    assert [job.on_preempt for job in jobs] == ["echo 1e-3", "echo 0.10"]
    (job, _), paths = jobs, [u.path for u in jobs[0].uploads]
    assert (job.workdir, job.environment, job.timeout, job.grace, job.retries) == ("w1", "key-ml", 3600, 3, 2)
    assert (job.retries_lost, job.persist, job.resources) == (5, ("keep",), Resources(2, 1_000_000_000))
    assert (job.slots, job.memory_factor, paths) == (("licence",), 1.5, ["data/x.csv"])
    assert pool == JobGroup("S/G", ((("-m", "a"),),), 3, "S")


def test_words_of_a_call_and_values_name_files(desk) -> None:
    for name in ("a.py", "x.csv", "y.csv"):
        desk.write(name)
    jobs, _ = group(desk, {"Call": "python a.py", "Param": {"--data": {"from_files": "*.csv"}, "": ["a.py", ""]}})
    assert [[u.path for u in job.uploads] for job in jobs] == [["a.py", f"{n}.csv"] for n in "xxyy"]
    assert [job.argv[4:] for job in jobs[:2]] == [("--data", "x.csv", "a.py"), ("--data", "x.csv")]


@pytest.mark.parametrize(
    ("param", "rows"),
    [
        ({}, [[]]),
        (None, [[]]),
        ({"-a": 1}, [["-a", "1"]]),
        ({"-a": [1, 1]}, [["-a", "1"], ["-a", "1"]]),
        ({"": ["-l", "-la"]}, [["-l"], ["-la"]]),
        ({"": ["", "-v"], "-x": [""]}, [["-x", ""], ["-v", "-x", ""]]),
        ({"-a": [2e-4, True, None, float("inf"), 3]}, [["-a", v] for v in ("0.0002", "True", "None", "inf", "3")]),
        ({"-a": {"range": [1, 3]}}, [["-a", "1"], ["-a", "2"], ["-a", "3"]]),
        ({"-a": {"log": [1, 100, 3]}}, [["-a", "1"], ["-a", "10"], ["-a", "100"]]),
        ({"-a": ["x", "y"], "-b": [1, 2]}, [["-a", x, "-b", y] for x in "xy" for y in "12"]),
        ({"a b": ["c d"]}, [["a b", "c d"]]),
    ],
)
def test_arguments_of_tasks(desk, param: object, rows: list[list[str]]) -> None:
    jobs, _ = group(desk, {"Call": WORDS, "Param": param})
    assert [list(job.argv[4:]) for job in jobs] == rows
    for job, row in zip(jobs, rows, strict=True):
        assert run(job.argv) == (row or [""])
        assert run(["/bin/sh", "-c", job.display]) == (row or [""])


def test_numbers_of_yaml_are_as_they_were_written(desk) -> None:
    jobs = desk.jobs("sections: {S: {G: {Call: a, Param: {-a: [1e-3, 3.10, 007, True, no, 1_000]}}}}\n")
    assert [job.argv[-1] for job in jobs] == ["1e-3", "3.10", "007", "True", "no", "1_000"]


def test_parameters_are_variables_where_they_can_be(desk) -> None:
    keys = ["--lr", "-lr", "learning-rate", "", "--HOME", "--LD_X", "--CLOUDSEND_X", "--BASH_ENV", "--gpu"]
    (job,), _ = group(desk, {"Call": "a", "Param": dict.fromkeys(keys, 1)})
    names = ["lr", "-lr", "learning-rate", "args", "HOME", "LD_X", "CLOUDSEND_X", "BASH_ENV", "gpu"]
    assert [name for name, _ in job.params] == names
    assert [name for name, _ in job.env] == ["lr", "args", "gpu"]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["--a", "-a", "a"], ("a", "-a", "a-2")),
        (["", "args", "--args"], ("args", "args-2", "--args")),
        (["-", "--"], ("args", "--")),
    ],
)
def test_names_of_parameters_differ(keys: list[str], names: tuple[str, ...]) -> None:
    assert name_parameters(keys) == names


def test_empty_lists_make_no_tasks_and_their_section_is_no_stage(desk) -> None:
    text = """
sections:
  A: {G: {Call: a, Param: {-x: [1, 2], -y: []}}}
  B:
  C: {}
  D: {G: {Call: d}, H: {Call: h, Param: {'': []}}}
  E: {G: {Call: e}}
"""
    loaded = desk.load(text)
    assert [(job.name, job.stage) for job in loaded.spec.jobs] == [("D/G/0", 1), ("E/G/0", 2)]
    assert [g.name for g in loaded.spec.groups] == ["D/G", "E/G"]
    assert [(str(w.place), w.message) for w in loaded.warnings] == [
        ("config.yml:3:44", "sections.A.G.Param.-y: an empty list makes no tasks"),
        ("config.yml:4:3", "sections.B: has no groups and is left out"),
        ("config.yml:5:3", "sections.C: has no groups and is left out"),
        ("config.yml:6:46", "sections.D.H.Param.: an empty list makes no tasks"),
    ]
    only = desk.load("sections: {A: {G: {Call: a, Param: {-x: []}}}}\n")
    assert only.spec.jobs == () and len(only.warnings) == 1


def test_jobs_and_sections_together(desk) -> None:
    spec = desk.load("jobs: [{run: x, name: prepare}]\nsections: {S: {G: {Call: y, after: prepare}}}\n").spec
    assert [(job.name, job.stage, job.after) for job in spec.jobs] == [("prepare", 0, ()), ("S/G/0", 1, ("prepare",))]


def test_a_matrix_fills_in_a_call(desk) -> None:
    matrix = {"lr": ["1e-3", "a b"], "n": [1, 2], "exclude": {"lr": "1e-3", "n": 2}}
    jobs, pool = group(desk, {"Call": f"{WORDS} {{lr}} '{{n}}'", "matrix": matrix, "Async": {"--gpu": [0]}})
    assert [job.params for job in jobs] == [
        (("lr", a), ("n", b)) for a, b in (("1e-3", "1"), ("a b", "1"), ("a b", "2"))
    ]
    assert [run([*job.argv, "--gpu", "0"]) for job in jobs] == [
        [a, b, "--gpu", "0"] for a, b in (("1e-3", "1"), ("a b", "1"), ("a b", "2"))
    ]
    assert jobs[1].display == f"{WORDS} 'a b' '1'" and jobs[0].slot_args and len(pool.slots) == 1
    jobs, _ = group(desk, {"Call": f"{WORDS} {{lr}}", "matrix": {"lr": [1, 2]}})
    assert [(job.argv, job.slot_args) for job in jobs] == [
        (("/bin/sh", "-c", f"{WORDS} {n}"), False) for n in (1, 2)
    ]  # fmt: skip


# ---- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "slots"),
    [
        (None, [[]]),
        ({}, [[]]),
        ({"": []}, [[]]),
        ({"--gpu": 0}, [[("--gpu", "0")]]),
        ({"--gpu": ["0", "0"]}, [[("--gpu", "0")], [("--gpu", "0")]]),
        ({"--gpu": ["0,1"]}, [[("--gpu", "0,1")]]),
        ({"--gpu": [0, 1], "": ["x"]}, [[("--gpu", "0"), ("", "x")], [("--gpu", "1"), ("", "x")]]),
        ({"": ["", "-v"]}, [[], [("", "-v")]]),
        ({"-m": {"range": [0, 2]}}, [[("-m", str(n))] for n in range(3)]),
        ({"-m": [0, 1], "-g": [0, 1]}, [[("-m", m), ("-g", g)] for m in "01" for g in "01"]),
    ],
)
def test_places_of_a_pool(desk, places: object, slots: list[list[tuple[str, str]]]) -> None:
    (job,), pool = group(desk, {"Call": "a", "Async": places})
    assert [list(slot) for slot in pool.slots] == slots
    assert job.slot_args is any(slots)
    assert job.argv == (("/bin/sh", "-c", 'a "$@"', "sh") if any(slots) else ("/bin/sh", "-c", "a"))


def test_no_places_are_told(desk) -> None:
    text = "sections: {A: {G: {Call: a, Async: {--gpu: []}}}}\n"
    assert desk.warnings(text) == "config.yml:1:44: sections.A.G.Async.--gpu: an empty list makes no places"
    assert desk.load(text).spec.groups[0].slots == ((),)


# ---- calls ---------------------------------------------------------------------------------------------------------

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
        group(desk, {"Call": text, "Param": {"-a": 1}})
    assert refused.value.problems[0].message.startswith("sections.S.G.Call: ")
    (job,), _ = group(desk, {"Call": text})  # without arguments it is the user's line, as in `run`
    assert job.argv == ("/bin/sh", "-c", text)


def test_arguments_stand_where_a_call_says(desk) -> None:
    (job,), _ = group(desk, {"Call": f'{WORDS} "$@" end', "Param": {"-a": "b c"}, "Async": {"-g": [1]}})
    assert run([*job.argv, "-g", "1"]) == ["-a", "b c", "-g", "1", "end"]
    assert job.display == f"{WORDS} -a 'b c' end"


def test_a_shell_that_the_call_starts_keeps_its_own(desk) -> None:
    inner = """sh -c 'printf "%s\\0" "$@"' name"""
    (job,), _ = group(desk, {"Call": f'{inner} "$@"', "Param": {"-a": "b c"}})
    assert run(job.argv) == ["-a", "b c"]
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
    (job,), _ = group(desk, {"Call": f'cd / && {WORDS} "$PWD"', "Param": {"-a": 1}})
    assert run(job.argv) == ["/", "-a", "1"]


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
        assert run(job.argv) == ["--x", value, value]
        assert dict(job.params) == {"x": value, "args": value}
        assert run(["/bin/sh", "-c", job.display]) == ["--x", value, value]
    assert not (desk.folder / "owned").exists()


def test_nul_is_refused(desk) -> None:
    config = {"sections": {"S": {"G": {"Call": "a", "Param": {"-x": ["a\0b"], "-\0": 1}, "Async": {"-y": "\0"}}}}}
    with pytest.raises(ConfigError) as caught:
        load(desk, config)
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
    jobs, _ = group_or_none(desk, {"Call": WORDS, "Param": param})
    points = list(itertools.product(*param.values()))
    assert [tuple(text for _, text in job.params) for job in jobs] == points
    assert len({job.name for job in jobs}) == len(points)
    for job, point in list(zip(jobs, points, strict=True))[:2]:
        words = [
            w
            for key, value in zip(param, point, strict=True)
            for w in ((key, value) if key else (value,) * bool(value))
        ]
        assert run(job.argv) == (words or [""])


def group_or_none(desk, keys: dict[str, object]) -> tuple[tuple[JobSpec, ...], tuple[JobGroup, ...]]:
    spec = load(desk, {"sections": {"S": {"G": keys}}})
    return spec.jobs, spec.groups


# ---- what is wrong -------------------------------------------------------------------------------------------------

PROBLEMS = [
    ("{}", "1:11", "there are no jobs"),
    ("[a]", "1:11", "sections: expected a mapping of sections, not a list"),
    ("{S: a}", "1:15", "sections.S: expected a mapping of groups, not 'a'"),
    ("{S: [a]}", "1:15", "sections.S: expected a mapping of groups, not a list"),
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


def test_where_keys_of_groups_come_from(desk) -> None:
    loaded = desk.load(
        "sections:\n  S:\n    G:\n      Call: a\n      Param: {-x: [1, 2]}\n", overrides=["sections.S.G.Call=b"]
    )
    assert {k: v for k, v in loaded.origins.items() if k.startswith("sections")} == {
        "sections.S.G.Call": ("b", "--set"),
        "sections.S.G.Param": ("{-x: [1, 2]}", "config.yml:5"),
    }
    assert loaded.spec.jobs[1].argv[2] == 'b "$@"'


# ---- functions -----------------------------------------------------------------------------------------------------


def test_a_function_brings_its_tasks(desk) -> None:
    desk.write("data.csv")
    sent = (Upload("call.pkl", "0" * 64, 1, 0o600, "/kept/call"),)
    tasks = tuple(
        FunctionTask(("python3", "call.py", str(n)), f"fit(x={n})", (("x", str(n)),), sent) for n in range(2)
    )
    functions = {"\0fit": FunctionTasks(tasks, ((("gpu", "0"),), (("gpu", "1"),)), (Output("value.pkl"),))}
    keys = {"Call": "\0fit", "upload": "data.csv", "output": "more/", "cpus": 2, "vars": {"A": 1}, "max_parallel": 1}
    jobs, pool = group(desk, keys, functions=functions)
    assert pool == JobGroup("S/G", ((("gpu", "0"),), (("gpu", "1"),)), 1, "S")
    assert [(job.name, job.argv, job.display, job.params) for job in jobs] == [
        (f"S/G/{n}", task.argv, task.display, task.params) for n, task in enumerate(tasks)
    ]
    job = jobs[0]
    assert [u.path for u in job.uploads] == ["call.pkl", "data.csv"]
    assert [o.pattern for o in job.outputs] == ["value.pkl", "more"]
    assert (job.env, job.resources, job.stage, job.group, job.slot_args) == (
        (("A", "1"),),
        Resources(2),
        1,
        "S/G",
        False,
    )
    assert load(desk, {"sections": {"S": {"G": {"Call": "\0fit"}}}}, functions={"\0fit": FunctionTasks(())}).jobs == ()


def test_a_function_that_nobody_expanded_is_refused(desk) -> None:
    with pytest.raises(ConfigError, match="NUL"):
        group(desk, {"Call": "\0fit"})
    with pytest.raises(ConfigError, match=r"sections\.S\.G\.Call: a builtin_function_or_method cannot be used here"):
        group(desk, {"Call": print})


# ---- Python data ---------------------------------------------------------------------------------------------------


def test_python_data_is_read_below_its_folder(desk) -> None:
    desk.write("sub/a.py")
    config = {"project": "p", "jobs": {"run": "python a.py", "vars": {"A": None}}}
    context = desk.context()
    loaded = load_mapping(
        config, folder=desk.folder / "sub", config_path="/x/run.py", environ={**desk.environ, "A": "1"},
        context=context, overrides=["jobs.cpus=2"], name="q", max_parallel=3,
    )  # fmt: skip
    spec = loaded.spec
    assert (spec.project, spec.config_path, spec.max_parallel) == ("q", "/x/run.py", 3)
    assert (spec.jobs[0].secrets, spec.jobs[0].resources.cpus) == (("A",), 2)
    assert [u.path for u in spec.jobs[0].uploads] == ["a.py"]
    assert spec.results_dir == str(desk.folder / "sub" / "results")
    with pytest.raises(ConfigError) as caught:
        load_mapping({"job": 1}, folder=".", file="config of train()", environ={}, context=context)
    assert str(caught.value.problems[0].place) == "config of train()"
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_mapping(["jobs"], folder=".", environ={}, context=context)  # type: ignore[arg-type]

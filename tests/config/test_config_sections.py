"""`sections:`: groups of tasks as the TaskRunner of the seeds had them, and the places where they run."""

from __future__ import annotations

import itertools
import json
import shlex

import pytest

from cloudsend_cli.config.sections import name_parameters
from cloudsend_cli.core.model import JobGroup, Output, Resources
from cloudsend_cli.core.naming import match_names, safe_component
from cloudsend_cli.core.refs import parse_job_ref
from cloudsend_cli.engine.wire import render_slot

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
    jobs, _ = desk.group({"Call": "python a.py", "Param": {"--data": {"from_files": "*.csv"}, "": ["a.py", ""]}})
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
    jobs, _ = desk.group({"Call": WORDS, "Param": param})
    assert [list(job.argv[4:]) for job in jobs] == rows
    for job, row in zip(jobs, rows, strict=True):
        assert desk.words_of(job.argv) == (row or [""])
        assert desk.words_of(["/bin/sh", "-c", job.display]) == (row or [""])


def test_numbers_of_yaml_are_as_they_were_written(desk) -> None:
    jobs = desk.jobs("sections: {S: {G: {Call: a, Param: {-a: [1e-3, 3.10, 007, True, no, 1_000]}}}}\n")
    assert [job.argv[-1] for job in jobs] == ["1e-3", "3.10", "007", "True", "no", "1_000"]


def test_parameters_are_variables_where_they_can_be(desk) -> None:
    keys = ["--lr", "-lr", "learning-rate", "", "--HOME", "--LD_X", "--CLOUDSEND_X", "--BASH_ENV", "--gpu"]
    (job,), _ = desk.group({"Call": "a", "Param": dict.fromkeys(keys, 1)})
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
    jobs, pool = desk.group({"Call": f"{WORDS} {{lr}} '{{n}}'", "matrix": matrix, "Async": {"--gpu": [0]}})
    assert [job.params for job in jobs] == [
        (("lr", a), ("n", b)) for a, b in (("1e-3", "1"), ("a b", "1"), ("a b", "2"))
    ]
    assert [desk.words_of([*job.argv, "--gpu", "0"]) for job in jobs] == [
        [a, b, "--gpu", "0"] for a, b in (("1e-3", "1"), ("a b", "1"), ("a b", "2"))
    ]
    assert jobs[1].display == f"{WORDS} 'a b' '1'" and jobs[0].slot_args and len(pool.slots) == 1
    jobs, _ = desk.group({"Call": f"{WORDS} {{lr}}", "matrix": {"lr": [1, 2]}})
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
    (job,), pool = desk.group({"Call": "a", "Async": places})
    assert [list(slot) for slot in pool.slots] == slots
    assert job.slot_args is any(slots)
    assert job.argv == (("/bin/sh", "-c", 'a "$@"', "sh") if any(slots) else ("/bin/sh", "-c", "a"))


def test_an_argument_of_a_task_and_of_its_place_is_given_twice(desk) -> None:
    text = """
sections:
  S:
    G:
      Call: %s
      Param:
        --gpu: [a, b]
        '': [own]
      Async: {--gpu: [0, 1], '': [place]}
"""
    loaded = desk.load(text % json.dumps(WORDS))
    places = loaded.spec.groups[0].slots
    assert [desk.words_of([*job.argv, *render_slot(places[1])]) for job in loaded.spec.jobs] == [
        ["--gpu", "a", "own", "--gpu", "1", "place"],
        ["--gpu", "b", "own", "--gpu", "1", "place"],
    ]
    (warning,) = loaded.warnings
    assert (str(warning.place), warning.message) == (
        "config.yml:9:15",
        "sections.S.G.Async.--gpu: 'Param' has it too on line 7: tasks get both, that of their place last",
    )


def test_no_places_are_told(desk) -> None:
    text = "sections: {A: {G: {Call: a, Async: {--gpu: []}}}}\n"
    assert desk.warnings(text) == "config.yml:1:44: sections.A.G.Async.--gpu: an empty list makes no places"
    assert desk.load(text).spec.groups[0].slots == ((),)


# ---- where it is said -----------------------------------------------------------------------------------------------


def test_where_keys_of_groups_come_from(desk) -> None:
    loaded = desk.load(
        "sections:\n  S:\n    G:\n      Call: a\n      Param: {-x: [1, 2]}\n", overrides=["sections.S.G.Call=b"]
    )
    assert {k: v for k, v in loaded.origins.items() if k.startswith("sections")} == {
        "sections.S.G.Call": ("b", "--set"),
        "sections.S.G.Param": ("{-x: [1, 2]}", "config.yml:5"),
    }
    assert loaded.spec.jobs[1].argv[2] == 'b "$@"'

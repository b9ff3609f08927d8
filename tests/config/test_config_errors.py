"""Error texts as users see them: place, message, what to do."""

from __future__ import annotations

import pytest


def test_all_problems_of_a_config_come_at_once_in_the_order_of_the_file(desk) -> None:
    text = """\
project: x
maestro: remot
instances:
  - type: t3.medium
    nmber: 4
    spot: yes
    eco_life: two hours
environments:
  - name: ml
    pip: [torch]
jobs:
  - name: a
    run: python train.py {lr}
    cpus: 4
    cpus_req: 3
    matrix: {lr: [1e-3, 1e-4]}
  - upload_files: data/
    env: mll
    image: ami-0123
    cpus: 16
  - run: x
    after: [b]
"""
    looked = f"looked in {desk.folder}; relative paths start at the config's directory"
    assert (
        desk.problems(text)
        == f"""\
config.yml:2:10: maestro: 'remot' is not one of 'local', 'remote' or 'lambda' | did you mean 'remote'?
config.yml:5:5: unknown key 'nmber' in instances[0] | did you mean 'number'?
config.yml:6:11: instances[0].spot: 'yes' is not true, false or prefer | write true
config.yml:7:15: instances[0].eco_life: 'two hours' is not a duration; write 90m, 2h, 1d12h or 1:30:00
config.yml:15:5: 'cpus' and 'cpus_req' mean the same; give only one | first given on line 14
config.yml:17:5: jobs[1]: a job needs 'run' (a shell command) or 'script' (a .py, .jl, .sh or .R file)
config.yml:17:19: jobs[1].upload_files: no such file: 'data/' | {looked}
config.yml:18:10: jobs[1].env: unknown environment 'mll' | did you mean 'ml'?
config.yml:19:5: unknown key 'image' in jobs[1] | 'image' belongs under 'instances'
config.yml:20:11: jobs[1] wants 16 CPUs; the largest machine has 8 CPUs, 32 GB of memory and 1 GPUs
config.yml:22:13: jobs[2].after: no job is called 'b'"""
    )


CASES = [
    ("", "config.yml: the file is empty | write at least: jobs: python train.py"),
    ("# nothing\n", "config.yml: the file is empty | write at least: jobs: python train.py"),
    ("null\n", "config.yml: the file is empty | write at least: jobs: python train.py"),
    ("jobs\n",
     "config.yml:1:1: expected keys such as 'jobs:', found one text | write at least: jobs: python train.py"),
    ("- a\n", "config.yml:1:1: expected keys such as 'jobs:', found a list | write at least: jobs: python train.py"),
    ("project: x\n", "config.yml:1:1: a config needs 'jobs' or 'sections' | write at least: jobs: python train.py"),
    ("jobs: []\n", "config.yml:1:7: there are no jobs | write at least: jobs: python train.py"),
    (
        "project: p\n\njobs: [python a.py\n",
        "config.yml:3:7: not valid YAML: did not find expected ',' or ']' | "
        "opened here (while parsing a flow sequence) and never closed",
    ),
    (
        "jobs:\n\tname: x\n",
        "config.yml:2:1: not valid YAML: found a tab character that violates indentation | "
        "use spaces, not tabs, for indentation",
    ),
    (
        "jobs: 'echo\n",
        "config.yml:1:7: not valid YAML: found unexpected end of stream | "
        "opened here (while scanning a quoted scalar) and never closed",
    ),
    (
        "jobs:\n  - run: echo a: b\n",
        "config.yml:2:16: not valid YAML: mapping values are not allowed in this context | "
        "a text that contains ': ' needs quotes",
    ),
    (
        "jobs: @x\n",
        "config.yml:1:7: not valid YAML: found character that cannot start any token | "
        "a text that starts with this character needs quotes",
    ),
    ("jobs: a\njobs: b\n", "config.yml:2:1: 'jobs' is given twice | first given on line 1"),
    ("jobs: *x\n", "config.yml:1:7: the alias *x has no anchor &x before it"),
    ("jobs: &a [*a]\n", "config.yml:1:11: the alias *a stands inside what it repeats"),
    ("? [a]\n: b\n", "config.yml:1:3: a key must be a word, not a list or a mapping"),
    ("jobs: a\n---\njobs: b\n", "config.yml:2:1: a second document starts here; a config is one document"),
    (
        "jobs: !!python/object:os.system x\n",
        "config.yml:1:7: the tag 'tag:yaml.org,2002:python/object:os.system' is not supported | "
        "write the value without a tag",
    ),
    ("jobs: !x {run: a}\n", "config.yml:1:7: the tag '!x' is not supported | write the value without a tag"),
    ("jobs: {<<: 3, run: x}\n", "config.yml:1:8: '<<' takes an alias of a mapping, or a list of them"),
    (
        "jbos: x\njobs: echo\n",
        "config.yml:1:1: unknown key 'jbos' | did you mean 'jobs'?",
    ),
    ("cpus: 2\njobs: echo\n", "config.yml:1:1: unknown key 'cpus' | 'cpus' belongs under 'jobs'"),
    (
        "jobs: {run: echo, budget: 3}\n",
        "config.yml:1:19: unknown key 'budget' in jobs | 'budget' belongs at the top level",
    ),
    ("jobs: [[a]]\n", "config.yml:1:8: jobs[0]: expected a job, not a list | "
                       "a text is a command; a mapping has 'run' or 'script'"),
    (
        "jobs: [~]\n",
        "config.yml:1:8: jobs[0]: a job needs 'run' (a shell command) or 'script' (a .py, .jl, .sh or .R file) | "
        "a text is a command; a mapping has 'run' or 'script'",
    ),
    (
        "jobs: {run: [a, b]}\n",
        "config.yml:1:13: jobs.run: expected a shell command, not a list | "
        "one job runs one command; give several jobs, or join commands with && in one text",
    ),
    ("jobs: ''\n", "config.yml:1:7: jobs.run: must not be empty"),
    ("recover: no\njobs: a\n", "config.yml:1:10: recover: 'no' is not true or false | write false"),
    ("debug: 9\njobs: a\n", "config.yml:1:8: debug: '9' must be from 0 to 3"),
    ("max_parallel: 0\njobs: a\n", "config.yml:1:15: max_parallel: '0' must be from 1 to 1000000"),
    ("provider: awss\njobs: a\n", "config.yml:1:11: unknown provider 'awss' | did you mean 'aws'?"),
    (
        "provider: cluster\njobs: a\n",
        "config.yml:1:11: provider 'cluster': provider type 'slurm' arrives in a later version | use --provider local",
    ),
    (
        "sections: {S: {G: {Param: {}}}}\n",
        "config.yml:1:19: sections.S.G: a group needs 'Call', a shell command",
    ),
    ("jobs: {run: a, memory: 16}\n", "config.yml:1:24: jobs.memory: '16' has no unit; write 16GB or 16MB"),
    ("jobs: {run: a, repeat: 0}\n", "config.yml:1:24: jobs.repeat: '0' must be from 1 to 1000000"),
    ("jobs: {run: a, timeout: 0}\n", "config.yml:1:25: jobs.timeout: '0' must be more than nothing"),
    ("jobs: {run: a, gpu: 4}\n",
     "config.yml:1:21: jobs wants 4 GPUs; the largest machine has 8 CPUs, 32 GB of memory and 1 GPUs"),
    ("jobs: {run: a, vars: {A B: 1}}\n",
     "config.yml:1:23: jobs.vars: 'A B' is not a variable's name | letters, digits and '_', not a digit first"),
    ("jobs: {run: a, vars: {CLOUDSEND_X: 1}}\n",
     "config.yml:1:23: jobs.vars: 'CLOUDSEND_X' is set by cloudsend itself"),
    ("jobs: {run: a, vars: {NOPE: null}}\n",
     "config.yml:1:23: jobs.vars: NOPE has no value here and is not set in your shell | "
     "export NOPE=… and try again, or give a value"),
    ("jobs: {run: a, vars: {a: 1}, matrix: {a: [1]}}\n",
     "config.yml:1:16: jobs.vars: 'a' is also a parameter of the matrix | rename one of them"),
    ("jobs: {run: a, workdir: ../x}\n",
     "config.yml:1:25: jobs.workdir: '../x' leaves the run directory | use a path below it, or an absolute one"),
    ("jobs: {run: a, output: /etc/passwd}\n",
     "config.yml:1:24: jobs.output: '/etc/passwd' is an absolute path | outputs are paths in the run directory"),
    ("jobs: {run: a, output: [b/../../c]}\n",
     "config.yml:1:25: jobs.output: 'b/../../c' leaves the run directory | outputs are paths in the run directory"),
    ("jobs: {run: a, output: {optional: true}}\n", "config.yml:1:24: jobs.output: an output needs 'path'"),
    ("jobs:\n- {run: a, name: x}\n- {run: b, name: x}\n",
     "config.yml:3:18: jobs[1].name: a second job is called 'x' | first given on line 2"),
    ("jobs: {run: a, name: 'a\\nb'}\n".replace("'", '"'),
     "config.yml:1:22: jobs.name: 'a\\nb' contains a control character"),
    ("jobs: {run: a, name: 'a*'}\n",
     "config.yml:1:22: jobs.name: the name 'a*' contains one of * ? [, which mark a pattern of names"),
    ("jobs: {run: a, name: ../x}\n",
     "config.yml:1:22: jobs.name: the name '../x' contains '.' or '..' as a part of a path"),
    ("jobs: {run: a, name: -x}\n", "config.yml:1:22: jobs.name: the name '-x' begins with '-'"),
    ("jobs: {run: a, name: /x}\n", "config.yml:1:22: jobs.name: the name '/x' begins with '/'"),
    ("jobs:\n- {run: a, name: a, after: a}\n", "config.yml:2:28: jobs[0].after: the job 'a' waits for itself"),
    ("jobs:\n- {run: a, name: a, after: c}\n- {run: a, name: b, after: [a]}\n- {run: a, name: c, after: ['b*']}\n",
     "config.yml:3:29: jobs wait for each other: a -> c -> b -> a | an arrow means 'runs after'"),
    ("jobs:\n- {run: a, name: a, after: 'x*'}\n", "config.yml:2:28: jobs[0].after: no job fits 'x*'"),
    ("jobs:\n- {run: a, name: train}\n- {run: a, after: trian}\n",
     "config.yml:3:19: jobs[1].after: no job is called 'trian' | did you mean 'train'?"),
    ("jobs: {run: a, repeat: 3, name: x, after: 'x-*'}\n",
     "config.yml:1:43: jobs.after: 'x-*' fits jobs of the same entry, which would wait for each other"),
    ("environments: [{name: a}, {name: b}]\njobs: echo\n",
     "config.yml:2:7: jobs: which environment? Set 'env' to one of 'a', 'b' | 'env: none' for none"),
    ("environments: [{name: a}, {pip: b}]\njobs: {run: a, env: a}\n",
     "config.yml:1:27: environments[1]: one of several environments needs a name"),
    ("environments: [{name: a}, {name: a}]\njobs: {run: a, env: a}\n",
     "config.yml:1:34: environments[1]: a second environment is called 'a' | first given on line 1"),
    ("environments: {pip: [requirements.txt]}\njobs: a\n",
     "config.yml:1:22: environments[0].pip: 'requirements.txt' is a file, not a package | "
     "write pip: requirements.txt (one file, no list)"),
    ("jobs: {run: 'x `echo {p}`', matrix: {p: [a b]}}\n",
     "config.yml:1:13: jobs.run: the value 'a b' cannot be inserted safely where its parameter stands | "
     'in backticks, here-documents, comments and ${…} write "$name": each parameter is a variable too'),
    ("jobs: {run: a, matrix: [1]}\n",
     "config.yml:1:24: jobs.matrix: expected a mapping of parameters and their values, not a list | "
     "write matrix: {lr: [1e-3, 1e-4]}"),
    ("jobs: {run: a, matrix: {PATH: [1]}}\n",
     "config.yml:1:25: jobs.matrix: a parameter may not be called 'PATH' | "
     "every parameter is also an environment variable"),
    ("jobs: {run: a, matrix: {a-b: [1]}}\n",
     "config.yml:1:25: jobs.matrix: 'a-b' is not a parameter's name | letters, digits and '_', not a digit first"),
    ("jobs: {run: a, matrix: {a: [[1]]}}\n",
     "config.yml:1:29: jobs.matrix.a: a parameter's value is a text or a number, not a list | "
     "write one list; what is several words in one value stands in quotes"),
    ("jobs: {run: a, matrix: {a: {range: [1]}}}\n",
     "config.yml:1:36: jobs.matrix.a: 'range' takes 2 or 3 numbers | "
     "write {range: [first, last, step]}, {log: [first, last, how many]} or {from_files: data/*.csv}"),
    ("jobs: {run: a, matrix: {zip: {a: [1, 2], b: [1]}}}\n",
     "config.yml:1:30: jobs.matrix.zip: lists side by side need equal lengths; a has 2, b has 1"),
    ("jobs: {run: a, matrix: {a: [1, 2], exclude: {b: 1}}}\n",
     "config.yml:1:46: jobs.matrix.exclude[0]: 'b' is not a parameter of this matrix"),
    ("jobs: {run: a, matrix: {a: [1, 2], exclude: {a: 3}}}\n",
     "config.yml:1:49: jobs.matrix.exclude[0]: a has no value '3' | its values: 1, 2"),
    ("jobs: {run: a, matrix: {a: [1], b: [1], include: {a: 3}}}\n",
     "config.yml:1:50: jobs.matrix.include[0]: needs a value of every parameter; missing: b"),
    ("jobs: {run: a, matrix: {a: {range: [1, 9999]}, b: {range: [1, 9999]}}}\n",
     "config.yml:1:24: jobs.matrix: makes 99,980,001 jobs; the limit is 1,000,000"),
    ("jobs: {run: a, matrix: {}}\n", "config.yml:1:24: jobs.matrix: names no parameter"),
    ("jobs: {run: a, matrix: {a: [1], zip: {a: [2]}}}\n",
     "config.yml:1:39: jobs.matrix: 'a' is declared twice"),
    ("jobs: {run: a, matrix: {a: {foo: 1}}}\n",
     "config.yml:1:28: jobs.matrix.a: expected values, 'range', 'log' or 'from_files' | "
     "write {range: [first, last, step]}, {log: [first, last, how many]} or {from_files: data/*.csv}"),
    ("jobs: {run: a, matrix: {a: {range: [1, 2, 0]}}}\n",
     "config.yml:1:36: jobs.matrix.a: the step must not be 0 | "
     "write {range: [first, last, step]}, {log: [first, last, how many]} or {from_files: data/*.csv}"),
    ('jobs: {run: a, matrix: {a: ["\\0"]}}\n', "config.yml:1:29: jobs.matrix.a: '\\x00' contains a NUL character"),
    ("jobs: {run: a, matrix: {a: [1], zip: [1]}}\n",
     "config.yml:1:39: jobs.matrix.zip: expected a mapping of lists | write zip: {a: [1, 2], b: [x, y]}"),
    ("jobs: {run: a, matrix: {a: [1], exclude: [1]}}\n",
     "config.yml:1:43: jobs.matrix.exclude[0]: expected a mapping of parameters and values | "
     "write exclude: [{lr: 1e-3, seed: 4}]"),
    ("jobs: {run: a, matrix: {a: [1], include: [1]}}\n",
     "config.yml:1:43: jobs.matrix.include[0]: expected a mapping of parameters and values"),
    ("jobs: {run: a, matrix: {seed: [1], include: {sed: 1}}}\n",
     "config.yml:1:46: jobs.matrix.include[0]: 'sed' is not a parameter of this matrix | did you mean 'seed'?"),
    ("jobs:\n- {run: a, name: p, matrix: {s: [1]}}\n- {run: b, after: 'p-{s}'}\n",
     "config.yml:3:19: jobs[1].after: no job is called 'p-{s}' | "
     "parameters are not replaced in 'after'; use a glob such as train-*"),
    ("jobs: {run: a, name: ' '}\n", "config.yml:1:22: jobs.name: must not be empty"),
    ("jobs: {run: a, name: 'a '}\n",
     "config.yml:1:22: jobs.name: the name 'a ' is empty or begins or ends with a space"),
    ("environments: {name: none}\njobs: a\n",
     "config.yml:1:22: environments[0]: an environment may not be called 'none' | 'env: none' means none at all"),
    ("instances: {provider: locl}\njobs: a\n",
     "config.yml:1:23: instances[0].provider: unknown provider 'locl' | did you mean 'local'?"),
    ("instances: {provider: cluster}\njobs: a\n",
     "config.yml:1:23: instances[0].provider: provider 'cluster': provider type 'slurm' arrives in a later version | "
     "use --provider local"),
    ("sections: 3\n",
     "config.yml:1:11: sections: expected a mapping of sections, not '3' | "
     "write sections: {Search: {GPU: {Call: python train.py}}}"),
    ("jobs: {script: \"a.py 'x\"}\n",
     "config.yml:1:16: jobs.script: \"a.py 'x\" cannot be split into words: No closing quotation | check its quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [case for case in CASES if case[1]], ids=lambda value: value[:50])
def test_error_texts(desk, text: str, expected: str) -> None:
    assert desk.problems(text) == expected


JSON_CASES = [
    ('{"jobs": "echo"', "config.json:1:1: not valid JSON: '{' is never closed | opened here"),
    ('{"jobs": "echo",}', "config.json:1:16: not valid JSON: a comma before '}' | remove the comma"),
    ("{'jobs': 1}", "config.json:1:2: not valid JSON: a key stands in double quotes"),
    ('{"jobs": echo}',
     "config.json:1:10: not valid JSON: expected a value, found 'echo' | texts stand in double quotes"),
    ('{"jobs": \'a\'}', "config.json:1:10: not valid JSON: texts stand in double quotes"),
    ('{"jobs" "a"}', "config.json:1:9: not valid JSON: expected ':' after the key 'jobs'"),
    ('{"jobs": "a" "b"}', "config.json:1:14: not valid JSON: expected ',' or '}', found '\"'"),
    ('{"jobs": "a"} x', "config.json:1:15: not valid JSON: something follows the end of the document"),
    ('{"jobs": "a\nb"}', "config.json:1:12: not valid JSON: invalid control character at"),
    (
        '{\n// c\n"jobs": "a"}',
        "config.json:2:1: not valid JSON: comments are not allowed | a file that ends in .yml may have comments",
    ),
    ('{"jobs": "a",\n "jobs": "b"}', "config.json:2:2: 'jobs' is given twice | first given on line 1"),
    ('{"jobs": {"run": "a", "cpus": NaN}}',
     "config.json:1:31: not valid JSON: expected a value, found 'NaN' | texts stand in double quotes"),
    ('{"jobs": "\\ud800"}', "config.json:1:10: jobs.run: '\\ud800' is not valid Unicode"),
    ("", "config.json: the file is empty | write at least: jobs: python train.py"),
    ("[" * 100_000, "config.json:1:61: nested deeper than 60 levels"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), JSON_CASES, ids=lambda value: value[:30])
def test_json_error_texts(desk, text: str, expected: str) -> None:
    assert desk.problems(text, "config.json") == expected


PYTHON_CASES = [
    ("x = 1\n", "config.py: the file does not set `config` | write: config = {'jobs': 'python train.py'}"),
    ("a = (\n", "config.py:1:5: not valid Python: '(' was never closed"),
    ("\n1 / 0\n", "config.py:2:1: the config raised ZeroDivisionError: division by zero"),
    ("def f():\n    raise KeyError('x')\nf()\n", "config.py:2:1: the config raised KeyError: 'x'"),
    ("import sys\nsys.exit(3)\n", "config.py:2:1: the config ended the program with exit(3)"),
    ("import json\njson.loads('')\n",
     "config.py:2:1: the config raised JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
    ("def f(): f()\nf()\n", "config.py:1:1: the config raised RecursionError: maximum recursion depth exceeded"),
    ("config = {'jobs': print}\n",
     "config.py: jobs: a builtin_function_or_method cannot be used here | "
     "use texts, numbers, true and false, lists and dicts"),
    ("config = {'jobs': 'a'}\nconfig['x-me'] = config\n",
     "config.py: " + ("x-me." * 12)[:57] + "...: nested deeper than 60 levels | does it contain itself?"),
    ("config = {None: 1}\n", "config.py: config: the key None is not a text"),
    ("config = 3\n",
     "config.py: expected keys such as 'jobs:', found one text | write at least: jobs: python train.py"),
    ("config = {'jobs': {'run': 'a', 'cpus': float('nan')}}\n",
     "config.py: jobs.cpus: '.nan' is not a number of CPUs; write 8 or 8+"),
    ("config = {'jobs': {'run': 'a', 'cpus': 10 ** 5000}}\n", None),
    ("config = {'jobs': 'a', 'jbos': 1}\n", "config.py: unknown key 'jbos' | did you mean 'jobs'?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [case for case in PYTHON_CASES if case[1]], ids=lambda v: v[:30])
def test_python_error_texts(desk, text: str, expected: str) -> None:
    found = desk.problems(text, "config.py")
    assert found.replace(":1:6:", ":1:5:") in (expected, expected + " while calling a Python object")


def test_a_missing_config_names_its_neighbour(desk) -> None:
    desk.write("config.yml", "jobs: a\n")
    assert desk.problems(name="confg.yml") == "confg.yml: no such file | did you mean 'config.yml'?"
    desk.write("sub/train.yml", "jobs: a\n")
    assert desk.problems(name="sub/tran.yml") == "sub/tran.yml: no such file | did you mean 'sub/train.yml'?"
    assert desk.problems(name="zzz") == "zzz: no such file | 'cloudsend init' writes a first config"


def test_a_job_that_needs_another_jobs_output_is_told_so(desk) -> None:
    text = "jobs:\n- {run: make, name: a, output: clean/}\n- {run: use, input: clean/s1.fq, after: a}\n"
    assert desk.problems(text) == (
        "config.yml:3:21: jobs[1].input: no such file: 'clean/s1.fq' | "
        "it is an output of jobs[0]; handing results from job to job comes in a later version"
    )


def test_problems_of_an_environment_get_the_place_of_their_key(desk) -> None:
    from cloudsend_cli.errors import ConfigError, Problem

    def refuse(spec, folder, elsewhere):
        raise ConfigError([Problem("bad package", path="pip[0]"), Problem("bad at all")])

    text = "environments:\n- name: a\n  env_pypi: ['-x']\njobs: a\n"
    assert desk.problems(text, context=desk.context(render_environment=refuse)) == (
        "config.yml:2:3: environments[0]: bad at all\nconfig.yml:3:13: environments[0]: bad package"
    )


def test_thousands_of_mistakes_are_explained_by_the_first(desk) -> None:
    text = "jobs:\n" + "- {rnu: a}\n" * 5000
    assert len(desk.problems(text).splitlines()) == 200


def test_a_job_whose_name_is_taken_has_its_other_mistakes_told_as_well(desk) -> None:
    text = "jobs:\n  - {name: x, run: 'true'}\n  - {name: x, run: 'true', after: [nosuch], output: ../p}\n"
    found = desk.problems(text)
    assert "a second job is called 'x'" in found
    assert "no job is called 'nosuch'" in found
    assert "'../p' leaves the run directory" in found


@pytest.mark.parametrize("name", ["name: 'count-{file}', ", "name: 'count-{file}/x', ", ""])
@pytest.mark.parametrize("after", ["count-*", "c*", "count-a"])
def test_who_waits_for_jobs_that_a_mistake_has_cost_is_not_blamed(desk, name: str, after: str) -> None:
    text = "jobs:\n- {NAMErun: wc, matrix: {file: {from_files: none/*}}}\n- {run: a, after: AFTER}\n"
    found = desk.problems(text.replace("NAME", name).replace("AFTER", f"'{after}'"))
    assert "no file fits" in found and "jobs[1]" not in found, found


def test_who_waits_for_jobs_whose_names_are_refused_is_not_blamed(desk) -> None:
    found = desk.problems(
        "jobs:\n- {name: 'n-{x}', run: a, matrix: {x: [LONG]}}\n- {run: a, after: n-*}\n".replace("LONG", "x" * 300)
    )
    assert "is longer than 200 characters" in found and "jobs[1]" not in found, found


def test_who_waits_for_what_is_called_otherwise_is_told_beside_another_mistake(desk) -> None:
    text = (
        "jobs:\n- {name: 'count-{file}', run: wc, matrix: {file: {from_files: none/*}}}\n- {run: a, after: 'sum-*'}\n"
    )
    assert "jobs[1].after: no job fits 'sum-*'" in desk.problems(text)

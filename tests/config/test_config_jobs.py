"""From `jobs:` to JobSpecs: commands, names, sweeps, environments, machines."""

from __future__ import annotations

import pytest

from cloudsend_cli.core.model import InstanceSpec, Output, Resources
from cloudsend_cli.core.naming import job_hash


def names(jobs) -> list[str]:
    return [job.name for job in jobs]


def test_a_text_is_a_command_and_several_are_several_jobs(desk) -> None:
    jobs = desk.jobs("jobs: [echo a, echo b, python -u train.py]\n")
    assert [j.argv for j in jobs] == [
        ("/bin/sh", "-c", "echo a"),
        ("/bin/sh", "-c", "echo b"),
        ("/bin/sh", "-c", "python -u train.py"),
    ]
    assert names(jobs) == ["echo", "echo-2", "train"]
    assert jobs[0].display == "echo a"


def test_the_run_keeps_what_the_config_says(desk) -> None:
    text = """\
project: p
max_parallel: 3
results_dir: out
recover: false
auto_stop: false
mutualize_uploads: false
debug: 2
jobs:
  run: "true"
  cpus: 2
  memory: 1GiB
  gpu: 1
  timeout: 1:30:00
  grace: 3
  retries: 2
  retries_lost: 0
  workdir: ./sub//dir/
  vars: {A: 1e-3, B: no, C: true, TOKEN: null}
  output: [a/, {path: ./b.txt, optional: true}, a]
"""
    loaded = desk.load(text)
    spec, job = loaded.spec, loaded.spec.jobs[0]
    assert (spec.project, spec.max_parallel, spec.recover, spec.auto_stop) == ("p", 3, False, False)
    assert spec.results_dir == str(desk.folder / "out")
    assert spec.config_path == str(desk.folder / "config.yml")
    assert spec.settings == (("debug", "2"),)
    assert spec.base_env == (("HOME", "/home/me"), ("LC_ALL", "C.UTF-8"), ("PATH", "/usr/bin:/bin"))
    assert spec.instances == (InstanceSpec("local"),)
    assert job.resources == Resources(2, 1024**3, 1)
    assert (job.timeout, job.grace, job.retries, job.retries_lost) == (5400, 3, 2, 0)
    assert job.workdir == "sub/dir"
    assert job.env == (("A", "1e-3"), ("B", "no"), ("C", "true"))
    assert job.secrets == ("TOKEN",)
    assert "s3cret" not in repr(loaded)
    assert job.outputs == (Output("a"), Output("b.txt", True))
    assert job.private_uploads


def test_defaults(desk) -> None:
    job = desk.job("jobs: 'true'\n")
    assert job.resources == Resources(1, 0, 0)
    assert (job.timeout, job.grace, job.retries, job.retries_lost) == (None, 10, 0, 1)
    assert desk.load().spec.results_dir == str(desk.folder / "results")


def test_null_means_the_default_everywhere(desk) -> None:
    keys = (
        "name run_script env cpus cpus_req memory gpu upload input_file output_file workdir repeat matrix after vars"
    )
    nulls = "\n".join(f"  {key}: null" for key in keys.split())
    job = desk.job(f"instances: null\nenvironments: ~\nproject:\njobs:\n  run: echo\n{nulls}\n")
    assert job == desk.job("jobs: echo\n")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("echo hi", "echo"),
        ("python train.py --lr 1", "train"),
        ("python3 -u -m pkg.train", "pkg"),
        ("OMP_NUM_THREADS=1 nice python3.11 a/b/fit.py", "fit"),
        ("./run.sh x", "run"),
        ("bash -c 'x'", "bash"),
        ("cd x && make", "cd"),
        ("awk '{print $1}' x", "awk"),
        ("'a b' c", "a-b"),
        ("$(x)", "job"),
        ("echo 'unbalanced", "echo"),
    ],
)
def test_default_names(desk, line: str, name: str) -> None:
    assert desk.job(f"jobs: {quote(line)}\n").name == name


def quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def test_made_names_give_way_to_written_ones(desk) -> None:
    jobs = desk.jobs("jobs:\n- echo 1\n- echo 2\n- {run: x, name: echo}\n- {run: x, name: echo-2}\n")
    assert names(jobs) == ["echo-3", "echo-4", "echo", "echo-2"]


def test_repeats_share_all_but_their_index(desk) -> None:
    jobs = desk.jobs("jobs: {run: echo, repeat: 3, name: x}\n")
    assert names(jobs) == ["x-0", "x-1", "x-2"]
    assert [j.repeat_index for j in jobs] == [0, 1, 2]
    assert [dict(j.env)["CLOUDSEND_REPEAT"] for j in jobs] == ["0", "1", "2"]
    assert len({job_hash(j) for j in jobs}) == 3


def test_a_sweep_is_a_product_with_the_first_key_slowest_and_texts_as_written(desk) -> None:
    text = """\
jobs:
  name: t-{lr}-{seed}
  run: train --lr {lr} --seed {seed} --x {other} ${lr} {{seed}}
  matrix:
    lr: [1e-3, 3.10]
    seed: {range: [1, 3]}
    exclude: [{lr: 0.001, seed: [2, 3]}]
    include: {lr: 7, seed: 0o10}
  output: out/{lr}/
  workdir: w{seed}
  vars: {V: "{lr}!"}
"""
    jobs = desk.jobs(text)
    assert names(jobs) == ["t-1e-3-1", "t-3.10-1", "t-3.10-2", "t-3.10-3", "t-7-0o10"]
    assert jobs[0].argv[2] == "train --lr 1e-3 --seed 1 --x {other} ${lr} {1}"
    assert jobs[1].env == (("V", "3.10!"), ("lr", "3.10"), ("seed", "1"))
    assert jobs[1].params == (("lr", "3.10"), ("seed", "1"))
    assert jobs[1].outputs == (Output("out/3.10"),)
    assert jobs[1].workdir == "w1"


def test_values_missing_in_the_name_are_appended(desk) -> None:
    jobs = desk.jobs("jobs: {run: 'echo {a}', name: 'x-{a}', matrix: {a: [1], b: ['p q', 'p/q']}, repeat: 2}\n")
    assert names(jobs) == ["x-1-p-q-0", "x-1-p-q-1", "x-1-p-q-0-2", "x-1-p-q-1-2"]


def test_zip_takes_lists_side_by_side_and_include_alone_is_enough(desk) -> None:
    jobs = desk.jobs("jobs: {run: x, matrix: {a: [1, 2], zip: {b: [p, q], c: [r, s]}}}\n")
    assert [dict(j.params) for j in jobs] == [
        {"a": a, "b": b, "c": c} for a in "12" for b, c in (("p", "r"), ("q", "s"))
    ]
    jobs = desk.jobs("jobs: {run: x, matrix: {include: [{a: 1, b: 2}, {b: 3, a: 4}]}}\n")
    assert [j.params for j in jobs] == [(("a", "1"), ("b", "2")), (("a", "4"), ("b", "3"))]


def test_an_empty_list_makes_no_jobs_and_a_warning(desk) -> None:
    text = "jobs:\n- echo\n- {run: x, matrix: {a: []}}\n"
    assert len(desk.jobs(text)) == 1
    assert desk.warnings(text) == (
        "config.yml:3:24: jobs[1].matrix.a: an empty list makes no jobs\n"
        "config.yml:3:20: jobs[1].matrix: leaves no jobs"
    )


def test_a_word_that_is_almost_a_parameter_is_a_warning(desk) -> None:
    text = "jobs: {run: 'echo {sed} {x}', matrix: {seed: [1]}}\n"
    assert desk.warnings(text) == "config.yml:1:13: jobs.run: {sed} is not a parameter and stays as it is"


def test_script_takes_arguments_and_is_sent(desk) -> None:
    desk.write("src/train.py")
    job = desk.job("jobs: {script: \"src/train.py --name 'a b' {p}\", matrix: {p: ['x; y']}}\n")
    assert job.argv == ("python3", "src/train.py", "--name", "a b", "x; y")
    assert job.display == "src/train.py --name 'a b' x; y"
    assert [u.path for u in job.uploads] == ["src/train.py"]
    assert job.name == "train-x-y"


@pytest.mark.parametrize(
    ("name", "content", "mode", "argv"),
    [
        ("a.py", "", 0o644, ("python3", "a.py")),
        ("a.R", "", 0o644, ("Rscript", "a.R")),
        ("a.jl", "", 0o644, ("julia", "a.jl")),
        ("a.sh", "", 0o644, ("sh", "a.sh")),
        ("a.sh", "#!/bin/bash\n", 0o644, ("bash", "a.sh")),
        ("a.sh", "#!/usr/bin/env bash\n", 0o644, ("bash", "a.sh")),
        ("a.sh", "#!/bin/sh\n", 0o755, ("./a.sh",)),
        ("a.py", "#!/usr/bin/env python3.12\n", 0o755, ("./a.py",)),
        ("a", "#!/usr/bin/perl -w\n", 0o644, ("/usr/bin/perl", "-w", "a")),
        ("-a.py", "", 0o644, ("python3", "./-a.py")),
    ],
)
def test_what_runs_a_script(desk, name: str, content: str, mode: int, argv: tuple[str, ...]) -> None:
    desk.write(name, content).chmod(mode)
    assert desk.job(f"jobs: {{script: {name}}}\n").argv == argv


def test_a_script_of_unknown_kind_is_refused(desk) -> None:
    desk.write("a.foo")
    desk.write("d/x")
    assert "cannot tell what runs 'a.foo' | use a name that ends in .py" in desk.problems("jobs: {script: a.foo}\n")
    assert "jobs.script: 'd' is a directory" in desk.problems("jobs: {script: d}\n")
    assert "no such file: 'a.fo' | did you mean 'a.foo'?" in desk.problems("jobs: {script: a.fo}\n")


def test_a_script_runs_from_its_workdir(desk) -> None:
    desk.write("src/a.py")
    assert desk.job("jobs: {script: src/a.py, workdir: src}\n").argv == ("python3", "a.py")
    assert desk.job("jobs: {script: src/a.py, workdir: other}\n").argv == ("python3", "../src/a.py")
    assert "cannot be used with an absolute workdir" in desk.problems("jobs: {script: src/a.py, workdir: /tmp}\n")


def test_script_wins_over_run_with_a_warning(desk) -> None:
    desk.write("a.py")
    text = "jobs: {script: a.py, run: echo}\n"
    assert desk.job(text).argv == ("python3", "a.py")
    assert desk.warnings(text) == "config.yml:1:22: jobs.run is ignored: the job has a script"


def test_the_only_environment_is_everybodys(desk) -> None:
    text = "environments: {pip: numpy, vars: {A: 1, TOKEN: null}}\njobs:\n- echo\n- {run: x, env: none}\n"
    loaded = desk.load(text)
    assert [j.environment for j in loaded.spec.jobs] == ["key-default", ""]
    assert [j.secrets for j in loaded.spec.jobs] == [("TOKEN",), ()]
    assert [e.name for e in loaded.spec.environments] == ["default"]
    assert loaded.environments[0].vars == (("A", "1"),)


def test_environments_take_files_lists_and_directories(desk) -> None:
    desk.write("requirements.txt")
    desk.write("env/bin/python")
    desk.write("install.sh")
    text = """\
allow_system_packages: true
environments:
  - {name: a, env_pypi: requirements.txt, env_aptget: git curl, command: ./install.sh}
  - {name: b, pip: env, conda: [numpy, scipy], env_conda_channels: bioconda, env_julia: Wavelets}
  - {name: c, pip: "torch >= 2", setup: "echo a\\necho b", allow_system_packages: false}
jobs:
- {run: x, env: a}
- {run: x, env_name: b}
"""
    loaded = desk.load(text)
    a, b, c = loaded.environments
    assert (a.pip_file, a.apt) == (str(desk.folder / "requirements.txt"), ("git", "curl"))
    assert (a.setup, a.setup_is_file, a.allow_system_packages) == (str(desk.folder / "install.sh"), True, True)
    assert (b.pip_directory, b.conda, b.conda_channels, b.julia) == (
        str(desk.folder / "env"),
        ("numpy", "scipy"),
        ("bioconda",),
        ("Wavelets",),
    )
    assert (c.pip, c.setup, c.setup_is_file, c.allow_system_packages) == (
        ("torch >= 2",),
        "echo a\necho b",
        False,
        False,
    )
    assert [w.message for w in loaded.warnings] == ["no job uses the environment 'c'"]


def test_missing_files_of_environments(desk) -> None:
    desk.write("i.sh")
    text = "environments: {pip: reqs.txt, conda: ./env, setup: %s}\njobs: echo\n"
    assert "pip: no such file: 'reqs.txt'" in desk.problems(text % "nope.sh")
    assert "conda: no such file: './env'" in desk.problems(text % "nope.sh")
    assert "setup: no such file: 'nope.sh'" in desk.problems(text % "nope.sh")
    assert "setup: a script here takes no arguments" in desk.problems(text % "i.sh --all")


def test_every_key_of_the_seeds_works(desk) -> None:
    desk.write("run_local.py")
    desk.write("input.dat")
    desk.write("upload.txt")
    desk.write(
        "seed.py",
        """\
from datetime import timedelta
config = {
    'project': 'test', 'profile': None, 'dev': False, 'debug': 1, 'maestro': 'local', 'auto_stop': True,
    'provider': None, 'job_assign': None, 'recover': True, 'print_deploy': False, 'mutualize_uploads': True,
    'instances': [{
        'region': None, 'cloud_id': None, 'img_id': None, 'img_username': 'ubuntu', 'type': 't3.micro', 'cpus': None,
        'gpu': None, 'disk_size': 16, 'disk_type': None, 'eco': True, 'eco_life': timedelta(hours=6),
        'max_bid': '0.02', 'number': 3, 'explode': True}],
    'environments': [{
        'name': None, 'command': None, 'env_aptget': ['openssh-client'], 'env_conda': None,
        'env_conda_channels': None, 'env_pypi': ['numpy'], 'env_julia': ['Wavelets']}],
    'jobs': [{
        'env_name': None, 'cpus_req': None, 'run_script': 'run_local.py 1 10', 'run_command': None,
        'upload_files': ['upload.txt'], 'input_files': 'input.dat', 'output_files': 'output.dat', 'repeat': 2}],
}
""",
    )
    loaded = desk.load(name="seed.py")
    first, second = loaded.spec.jobs
    assert first.argv == ("python3", "run_local.py", "1", "10")
    assert [u.path for u in first.uploads] == ["input.dat", "run_local.py", "upload.txt"]
    assert first.outputs == (Output("output.dat"),)
    assert (first.name, second.name) == ("run_local-0", "run_local-1")
    assert first.uploads is second.uploads
    assert [w.message for w in loaded.warnings] == [
        f"instances[0].{key} has no effect: machines of type 'local' are not rented"
        for key in ("img_username", "type", "disk_size", "eco", "eco_life", "max_bid", "explode")
    ] + ["instances[0]: there is one machine here; 3 were asked for"]
    assert dict(loaded.spec.instances[0].settings)["eco_life"] == "21600"


def test_keys_without_effect_are_warnings_with_their_place(desk) -> None:
    text = "maestro: lambda\nbudget: 20\ndev: true\nnotify: me@x.org\njobs: echo\n"
    assert desk.warnings(text) == (
        "config.yml:1:1: maestro has no effect yet: other maestros come in a later version; "
        "this machine watches the run\n"
        "config.yml:4:1: notify has no effect yet: notices come in a later version\n"
        "config.yml:3:1: dev has no effect: this run rents no machines\n"
        "config.yml:2:1: budget has no effect: this run rents no machines"
    )
    assert desk.load(text).spec.warnings[3] == "config.yml:2:1: budget has no effect: this run rents no machines"


def test_every_key_without_effect_is_a_key(desk) -> None:
    from cloudsend_cli.config.effects import HARMLESS, NO_EFFECT_YET, RENTING, RENTING_RUN
    from cloudsend_cli.config.schema import TABLES

    keys = {(table.where, field.name) for table in TABLES for field in table.fields}
    rented = {*(("instances", name) for name in RENTING), *(("", name) for name in RENTING_RUN)}
    assert set(NO_EFFECT_YET) | rented <= keys
    assert set(HARMLESS) <= set(NO_EFFECT_YET) | rented | {("instances", "labels")}


def test_instances_limit_this_machine_and_never_more_than_it_has(desk) -> None:
    def capacity(text: str) -> Resources | None:
        return desk.load(f"instances: {text}\njobs: echo\n").spec.instances[0].capacity

    assert capacity("{}") is None
    assert capacity("{cpus: 2}") == Resources(2, 32_000_000_000, 1)
    assert capacity("{cpus: 2+, memory: 1GB}") == Resources(8, 1_000_000_000, 1)
    assert capacity("{cpus: 99, gpu: A10G:1}") == Resources(8, 32_000_000_000, 1)
    assert desk.warnings("instances: {cpus: 99}\njobs: echo\n") == (
        "config.yml:1:19: instances[0].cpus: 99 is more than provider 'local' has: 8; 8 is used"
    )
    assert "wants 3 CPUs; the largest machine has 2 CPUs" in desk.problems(
        "instances: {cpus: 2}\njobs: {run: a, cpus: 3}\n"
    )


def test_a_provider_of_a_later_version_is_left_out_when_another_can_be_used(desk) -> None:
    text = "provider: [cluster, local]\njobs: echo\n"
    assert desk.load(text).spec.instances == (InstanceSpec("local"),)
    assert desk.warnings(text) == (
        "config.yml:1:12: provider 'cluster' is left out: provider type 'slurm' arrives in a later version"
    )
    assert desk.load("provider: cluster\njobs: echo\n", provider="local").spec.instances == (InstanceSpec("local"),)
    assert desk.problems("jobs: echo\n", provider="nope").startswith("--provider: unknown provider 'nope'")


def test_globs_of_after_do_not_count_the_job_itself(desk) -> None:
    text = "jobs:\n- {run: a, name: t, matrix: {x: [1, 2]}}\n- {run: b, name: all, after: ['*']}\n"
    assert desk.jobs(text)[-1].after == ("*",)
    assert "fits only the job itself" in desk.problems("jobs: {run: a, name: x, after: '*'}\n")


def test_long_chains_of_jobs_are_no_problem(desk) -> None:
    lines = "".join(f"- {{run: x, name: j{i}, after: j{i - 1}}}\n" for i in range(1, 3000))
    assert len(desk.jobs(f"jobs:\n- {{run: x, name: j0}}\n{lines}")) == 3000


def test_anchors_and_merges(desk) -> None:
    text = """\
x-shared: &shared {cpus: 2, retries: 1, memory: 1GB}
jobs:
- <<: *shared
  run: a
  cpus_req: 3
- <<: [{cpus: 1}, *shared]
  run: b
"""
    a, b = desk.jobs(text)
    assert (a.resources, a.retries) == (Resources(3, 10**9, 0), 1)
    assert (b.resources, b.retries) == (Resources(1, 10**9, 0), 1)


def test_the_hash_follows_contents_and_not_names_or_limits(desk) -> None:
    desk.write("train.py", "1")
    first = job_hash(desk.job("jobs: python train.py\n"))
    assert job_hash(desk.job("jobs: {run: python train.py, name: x, retries: 3, timeout: 2h}\n")) == first
    desk.write("train.py", "2")
    assert job_hash(desk.job("jobs: python train.py\n")) != first


def test_names_of_points_are_as_the_guide_says(desk) -> None:
    fit = "{name: 'fit-{size}', run: a, matrix: {steps: [100, 200], size: [1e-3], note: [a/b c]}}"
    odd = "{name: q, run: a, matrix: {x: ['*', 'ü', '', ' ', '--', other]}}"
    again = "{run: wc x, repeat: 2}"
    assert [job.name for job in desk.jobs(f"jobs:\n- {fit}\n- {odd}\n- {again}\n")] == [
        "fit-1e-3-100-a-b-c",
        "fit-1e-3-200-a-b-c",
        "q-other",
        "q-other-2",
        "q-empty",
        "q-empty-2",
        "q-other-3",
        "q-other-4",
        "wc-0",
        "wc-1",
    ]

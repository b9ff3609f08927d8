"""The command line's overrides, plain commands, origins, providers.yml, the starter, the schema, and scale."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cloudsend_cli.config
from cloudsend_cli.config.json_schema import config_schema
from cloudsend_cli.config.load import load_command
from cloudsend_cli.config.providers import list_search_paths, load_providers
from cloudsend_cli.config.schema import TABLES
from cloudsend_cli.config.starter import starter_config
from cloudsend_cli.errors import ConfigError

ROOT = Path(cloudsend_cli.config.__file__).parent.parent.parent


# ---- --set -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "override", "path", "value"),
    [
        ("jobs: echo\n", "jobs[0].cpus=2", "resources.cpus", 2.0),
        ("jobs: [{run: a, cpus_req: 4}]\n", "jobs[0].cpus=2", "resources.cpus", 2.0),
        ("jobs: {run: a}\n", "jobs.retries=3", "retries", 3),
        ("jobs: {run: a, vars: {A: 1}}\n", "jobs.vars.A=1e-3", "env", (("A", "1e-3"),)),
        ("jobs: {run: a}\n", "jobs.vars.B=x=y", "env", (("B", "x=y"),)),
        ("jobs: {run: a, matrix: {p: [1, 2]}}\n", "jobs.matrix.p=[7]", "params", (("p", "7"),)),
        ("jobs: {run: a}\n", "jobs.name=no", "name", "no"),
        ("jobs: {run: a}\n", "jobs.name='q'", "name", "q"),
        ("jobs: {run: a}\n", "jobs[0].run=echo: 'it'", "display", "echo: 'it'"),
        ("jobs: {run: a, timeout: 3}\n", "jobs.timeout=null", "timeout", None),
    ],
)
def test_set(desk, text: str, override: str, path: str, value: object) -> None:
    found: object = desk.job(text, overrides=[override])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_set_at_the_top_and_twice(desk) -> None:
    spec = desk.load("jobs: echo\n", overrides=["max_parallel=2", "project=a", "project=b"]).spec
    assert (spec.max_parallel, spec.project) == (2, "b")
    assert desk.load("jobs: echo\n", project="mine", max_parallel=7).spec.project == "mine"
    assert desk.load("max_parallel: 2\njobs: echo\n", max_parallel=7).spec.max_parallel == 7


def test_set_wins_over_what_was_merged_or_doubled(desk) -> None:
    text = "x-a: &a {cpus: 1, retries: 2}\njobs: {<<: *a, run: a, cpus_req: 3}\n"
    job = desk.job(text, overrides=["jobs[0].cpus=2", "jobs[0].memory=1GB"])
    assert (job.resources.cpus, job.resources.memory, job.retries) == (2, 10**9, 2)


def test_options_are_checked(desk) -> None:
    assert desk.problems("jobs: echo\n", project="a\nb", max_parallel=0) == (
        "--max-parallel: '0' must be at least 1\n--name: name: 'a\\nb' contains a control character"
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("jobs[0].cpu=2", "--set: unknown key 'cpu' in jobs[0] | did you mean 'cpus'?"),
        ("jobs[0].cpus=two", "--set: jobs[0].cpus: 'two' is not a number of CPUs; write 8 or 8+"),
        ("max_parallel", "--set: --set max_parallel: has no '=' | write --set jobs[0].cpus=2"),
        ("=3", "--set: --set =3: '' is not a key | write --set jobs[0].cpus=2"),
        ("a..b=3", "--set: --set a..b=3: 'a..b' is not a key | write --set jobs[0].cpus=2"),
        ("jobs[5].cpus=1", "--set: --set jobs[5].cpus=1: there is no [5]; the list has 1"),
        ("jobs[0].upload=[a", "--set: --set: jobs[0].upload=[a"),
        ("retries=2", "--set: unknown key 'retries' | 'retries' belongs under 'jobs'"),
    ],
)
def test_set_explains_itself(desk, override: str, expected: str) -> None:
    found = desk.problems("jobs: [echo]\n", overrides=[override])
    assert found.startswith(expected) or "[a: not valid YAML" in found


def test_set_on_a_list_asks_which(desk) -> None:
    assert "before 'cpus' stands a list | say which: [0]" in desk.problems("jobs: [a]\n", overrides=["jobs.cpus=1"])


def test_origins_say_where_each_value_comes_from(desk) -> None:
    text = "project: p\nx-a: 1\njobs:\n- run: a\n  cpus_req: 2\n- echo\n"
    origins = desk.load(text, overrides=["jobs[0].retries=3", "debug=0"]).origins
    assert origins["project"] == ("p", "config.yml:1")
    assert origins["provider"] == ("local", "default")
    assert origins["debug"] == ("0", "--set")
    assert origins["jobs[0].cpus"] == ("2", "config.yml:5")
    assert origins["jobs[0].retries"] == ("3", "--set")
    assert origins["jobs[0].grace"] == ("10s", "default")
    assert origins["jobs[1]"] == ("echo", "config.yml:6")
    assert not any(key.startswith("x-") for key in origins)


# ---- run -- CMD --------------------------------------------------------------------------------------------


def test_a_command_is_one_job_of_exactly_these_arguments(desk) -> None:
    desk.write("train.py")
    argv = ["python", "train.py", "--name", "a b", "$HOME", "{x}", ""]
    loaded = load_command(argv, desk.options(name="mine"), cwd=desk.folder)
    (job,) = loaded.spec.jobs
    assert job.argv == tuple(argv)
    assert job.display == "python train.py --name 'a b' '$HOME' '{x}' ''"
    assert (job.name, [u.path for u in job.uploads]) == ("mine", ["train.py"])
    assert loaded.spec.config_path == ""
    assert loaded.spec.results_dir == str(desk.folder / "results")
    options = desk.options(environ={}, overrides=["jobs[0].cpus=2"], max_parallel=3)
    loaded = load_command(argv, options, cwd=str(desk.folder))
    assert (loaded.spec.jobs[0].name, loaded.spec.jobs[0].resources.cpus) == ("train", 2)
    assert loaded.spec.max_parallel == 3


@pytest.mark.parametrize("argv", [[], [""], ["a\0b"], ["\udcff"]])
def test_commands_that_cannot_be(desk, argv: list[str]) -> None:
    with pytest.raises(ConfigError):
        load_command(argv, desk.options(environ={}), cwd=desk.folder)


# ---- providers.yml -----------------------------------------------------------------------------------------


def test_without_a_file_local_exists(tmp_path: Path) -> None:
    found = load_providers([str(tmp_path / "providers.yml")])
    assert [(p.name, p.type, p.unavailable, p.implicit) for p in found.values()] == [
        ("local", "local", "", False),
        ("aws", "aws", "", True),
    ]
    assert list_search_paths("/p", {"HOME": "/h"}) == ["/p/providers.yml", "/h/.config/cloudsend/providers.yml"]


def test_defaults_are_layered(desk) -> None:
    desk.write(
        "providers.yml",
        """\
defaults:
  all: {cpus: 1, memory: 1GB, disk: 30GB}
  local: {memory: 2GB}
providers:
- {name: local, type: local, defaults: {cpus_req: 3}}
""".replace("cpus_req", "cpus"),
    )
    local = load_providers(["providers.yml"])["local"]
    assert {key: node.text for key, node in local.defaults.items()} == {"cpus": "3", "memory": "2GB", "disk": "30GB"}
    context = desk.context(providers={"local": local})
    spec = desk.load("instances: {memory: 3GB}\njobs: echo\n", context=context).spec
    assert spec.instances[0].capacity is not None
    assert (spec.instances[0].capacity.cpus, spec.instances[0].capacity.memory) == (3, 3_000_000_000)


def test_providers_of_later_versions_are_data(desk) -> None:
    desk.write("providers.yml", "providers:\n- {type: gcp, region: eu-west-3, tags: [a, b]}\n")
    found = load_providers(["providers.yml"])
    assert list(found) == ["local", "gcp", "aws"]
    assert found["gcp"].settings == (("region", "eu-west-3"), ("tags", "[a, b]"))
    assert "provider 'gcp': provider type 'gcp' arrives in a later version" in desk.problems(
        "jobs: echo\n", context=desk.context(providers=found)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("providers: [{name: a}]\n", "providers.yml:1:13: providers[0]: a provider needs 'type'"),
        ("providers: [{type: asw}]\n", "providers[0].type: 'asw' is not one of"),
        ("providers: [3]\n", "expected a provider with 'name' and 'type'"),
        ("providers: [{type: aws}, {type: aws}]\n", "a second provider is called 'aws'"),
        ("defaults: {asw: {cpus: 1}}\n", "'asw' is neither 'all', a type nor a provider"),
        ("defaults: {all: {cpu: 1}}\n", "unknown key 'cpu' in defaults.all"),
        ("defaults: 3\n", "expected a mapping such as"),
        ("provider: 3\n", "unknown key 'provider' | did you mean 'providers'?"),
    ],
)
def test_problems_of_providers(desk, text: str, expected: str) -> None:
    desk.write("providers.yml", text)
    with pytest.raises(ConfigError) as caught:
        load_providers(["providers.yml"])
    shown = "\n".join(f"{p.place}: {p.message} | {p.hint}" for p in caught.value.problems)
    assert expected in shown


def test_the_example_of_providers_loads() -> None:
    found = load_providers([str(ROOT / "providers.yml.example")])
    assert list(found) == ["local", "aws"]


# ---- the starter and the schema ----------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["/srv/my project", "a: b", ".", "/", "it's"])
def test_the_starter_loads_without_problems_or_warnings(desk, directory: str) -> None:
    loaded = desk.load(starter_config(directory))
    assert loaded.warnings == ()
    assert [job.name for job in loaded.spec.jobs] == [
        "echo",
        "train-1e-3-1",
        "train-1e-3-2",
        "train-1e-4-1",
        "train-1e-4-2",
        "report",
    ]


def test_the_starter_takes_scripts_that_were_found(desk) -> None:
    desk.write("train.py")
    desk.write("it's a: script.sh")
    loaded = desk.load(starter_config("p", ["train.py", "it's a: script.sh"]))
    assert [job.argv[-1] for job in loaded.spec.jobs] == ["train.py", "it's a: script.sh"]


def test_the_packaged_schema_is_current() -> None:
    path = Path(cloudsend_cli.config.__file__).parent / "config.schema.json"
    command = "from cloudsend_cli.config.json_schema import write_schema; write_schema()"
    assert json.loads(path.read_text()) == config_schema(), f"run: python -c '{command}'"


def test_the_schema_knows_every_key() -> None:
    schema = config_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    homes = {"": schema, **{f"{name}s": value for name, value in schema["$defs"].items()}}
    for table in TABLES:
        assert set(homes[table.where]["properties"]) == set(table.by_name)


# ---- cost --------------------------------------------------------------------------------------------------


def test_importing_the_package_is_light() -> None:
    code = "import sys, cloudsend_cli.config; print([m for m in ('yaml', 'pydantic', 'difflib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys, cloudsend_cli.config.load; print([m for m in ('yaml', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "text",
    [
        "jobs: {run: python train.py, repeat: 100000, vars: {A: 1}}\n",
        "jobs: {run: 'python train.py {a} {b}', matrix: {a: {range: [1, 1000]}, b: {range: [1, 100]}}}\n",
    ],
)
def test_a_hundred_thousand_jobs_share_what_they_can(desk, text: str, summary_line) -> None:
    desk.write("train.py")
    started = time.perf_counter()
    jobs = desk.jobs(text)
    summary_line(f"100,000 jobs of a config load in {time.perf_counter() - started:.1f} s")
    assert len(jobs) == 100_000
    assert len({job.name for job in jobs}) == 100_000
    assert len({id(job.uploads) for job in jobs}) == 1
    assert len({id(job.outputs) for job in jobs}) == 1
    assert len({id(job.resources) for job in jobs}) == 1

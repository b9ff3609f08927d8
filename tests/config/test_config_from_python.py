"""Configs that are Python data: dicts, and functions in their sections."""

from __future__ import annotations

import pytest

from cloudsend_cli.config.context import FunctionTask, FunctionTasks
from cloudsend_cli.config.load import load_mapping
from cloudsend_cli.core.model import JobGroup, Output, Resources, Upload
from cloudsend_cli.errors import ConfigError

# ---- functions -----------------------------------------------------------------------------------------------------


def test_a_function_brings_its_tasks(desk) -> None:
    desk.write("data.csv")
    sent = (Upload("call.pkl", "0" * 64, 1, 0o600, "/kept/call"),)
    tasks = tuple(
        FunctionTask(("python3", "call.py", str(n)), f"fit(x={n})", (("x", str(n)),), sent) for n in range(2)
    )
    functions = {"\0fit": FunctionTasks(tasks, ((("gpu", "0"),), (("gpu", "1"),)), (Output("value.pkl"),))}
    keys = {"Call": "\0fit", "upload": "data.csv", "output": "more/", "cpus": 2, "vars": {"A": 1}, "max_parallel": 1}
    jobs, pool = desk.group(keys, functions=functions)
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
    assert (
        desk.load_data({"sections": {"S": {"G": {"Call": "\0fit"}}}}, functions={"\0fit": FunctionTasks(())}).jobs
        == ()
    )


def test_a_function_that_nobody_expanded_is_refused(desk) -> None:
    with pytest.raises(ConfigError, match="NUL"):
        desk.group({"Call": "\0fit"})
    with pytest.raises(ConfigError, match=r"sections\.S\.G\.Call: a builtin_function_or_method cannot be used here"):
        desk.group({"Call": print})


# ---- Python data ---------------------------------------------------------------------------------------------------


def test_python_data_is_read_below_its_folder(desk) -> None:
    desk.write("sub/a.py")
    config = {"project": "p", "jobs": {"run": "python a.py", "vars": {"A": None}}}
    options = desk.options(environ={**desk.environ, "A": "1"}, overrides=["jobs.cpus=2"], name="q", max_parallel=3)
    loaded = load_mapping(config, options, folder=desk.folder / "sub", config_path="/x/run.py")
    spec = loaded.spec
    assert (spec.project, spec.config_path, spec.max_parallel) == ("q", "/x/run.py", 3)
    assert (spec.jobs[0].secrets, spec.jobs[0].resources.cpus) == (("A",), 2)
    assert [u.path for u in spec.jobs[0].uploads] == ["a.py"]
    assert spec.results_dir == str(desk.folder / "sub" / "results")
    with pytest.raises(ConfigError) as caught:
        load_mapping({"job": 1}, desk.options(), folder=".", file="config of train()")
    assert str(caught.value.problems[0].place) == "config of train()"
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_mapping(["jobs"], desk.options(), folder=".")  # type: ignore[arg-type]

"""The programs of the READMEs of CloudRun, CloudSend and Katapult run here, with only their imports changed.

CLOUDSEND_PROVIDER makes this machine of their `aws`; tests/ec2/test_ec2_seed_readme.py runs one in its cloud.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from real_stack import Stack
from seed_scripts import (
    AGES,
    CLOUDRUN_SUMMARY,
    CLOUDSEND,
    CONFIG,
    FIRST_AWAITED,
    KATAPULT,
    MINIMUM_CONFIG,
    OLD_CONFIG,
    run_snippet,
    write_example,
)

TOOLS = {
    # Makes the prefix that it is asked for, as the real one does.
    "micromamba": 'echo "$0 $*" >>"$NOTES"\nwhile [ "$1" != --prefix ]; do shift; done\nmkdir -p "$2/bin"\n'
    'ln -s "$(command -v python3)" "$2/bin/python"\n',
    "julia": 'echo "$0 $*" >>"$NOTES"\n',
    "dpkg-query": "echo 'ii  1.0'\n",
}


@pytest.fixture
def surroundings(stack: Stack) -> dict[str, str]:
    """Of whoever runs such a program."""
    tools = stack.directory / "tools"
    tools.mkdir()
    notes = stack.directory / "notes"
    for name, body in TOOLS.items():
        (tools / name).write_text(f"#!/bin/sh\nNOTES={notes}\n{body}")
        (tools / name).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    return {**os.environ, "CLOUDSEND_HOME": str(stack.state), "PATH": path, "CLOUDSEND_PROVIDER": "local"}


def lines_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("age", AGES)
def test_the_program_of_each_age_runs_to_its_end(stack: Stack, surroundings: dict[str, str], age: str) -> None:
    config = OLD_CONFIG if AGES[age] is FIRST_AWAITED else CONFIG
    if AGES[age] is KATAPULT:
        config = config.replace("'input_file' ", "'input_files'").replace("'output_file' ", "'output_files'")
    write_example(stack.files, config)
    jobs, printed = run_snippet(stack.files, AGES[age], surroundings)
    count = 2 if AGES[age] is FIRST_AWAITED else 3
    assert [job["rank"] for job in jobs] == list(range(count))
    assert [job["script"] for job in jobs[-2:]] == ["example/run_remote.py 1 10", "example/run_remote.py 2 12"]
    for job in jobs:
        assert [(name, value) for _, name, value in job["processes"]] == [("DONE", 16)]
        assert job["instance"] == "local-0" and job["env"] == "default" and len(job["hash"]) == 32
    if "print_jobs_summary" in AGES[age]:
        assert [line.split(" ")[0] for line in printed.splitlines() if line] == [
            "-" * 72, *(word for _ in jobs for word in ("Job", "|_")),
        ]  # fmt: skip
        assert printed.count("STATE = DONE") == count
    else:
        assert printed == ""
    if "fetch_results" in AGES[age]:
        assert lines_of(stack.files / "tmp") == {
            "job_000_output.dat": "1 10 sent\n",
            "job_001_output.dat": "1 10 sent\n",
            "job_002_output.dat": "2 12 sent\n",
        }
    notes = (stack.directory / "notes").read_text()
    assert "Wavelets" in notes and "micromamba create" in notes


def test_the_minimum_config_of_the_documents(stack: Stack, surroundings: dict[str, str]) -> None:
    write_example(stack.files, MINIMUM_CONFIG)
    jobs, _ = run_snippet(stack.files, CLOUDRUN_SUMMARY, surroundings)
    assert [state for job in jobs for _, state, _ in job["processes"]] == ["DONE", "DONE"]


def test_with_recover_what_is_done_is_not_done_again(stack: Stack, surroundings: dict[str, str]) -> None:
    write_example(stack.files)
    first, _ = run_snippet(stack.files, CLOUDSEND, surroundings)
    again, _ = run_snippet(stack.files, CLOUDSEND, surroundings)
    assert again == first
    (stack.files / "config.py").write_text(CONFIG.replace("'recover'      : True", "'recover'      : False"))
    anew, _ = run_snippet(stack.files, CLOUDSEND, surroundings)
    assert {job["id"].split(".")[0] for job in anew}.isdisjoint(job["id"].split(".")[0] for job in first)


def test_two_programs_of_one_directory_do_not_share_a_run(stack: Stack, surroundings: dict[str, str]) -> None:
    write_example(stack.files, MINIMUM_CONFIG.replace("'debug'", "'recover' : True , 'debug'"))
    first, _ = run_snippet(stack.files, CLOUDSEND, surroundings)
    again, _ = run_snippet(stack.files, CLOUDSEND, surroundings)
    assert again == first
    other, _ = run_snippet(stack.files, CLOUDSEND, surroundings, "other.py")
    assert {job["id"].split(".")[0] for job in other}.isdisjoint(job["id"].split(".")[0] for job in first)

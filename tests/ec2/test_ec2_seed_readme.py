"""A program of CloudSend's README in the cloud of these tests, with only its imports changed.

Of its config the image is one that this cloud has, and the environment installs nothing: its machines reach no
packages of conda, apt, Julia or PyPI. The type, spot, `explode` and all the rest are as documented.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloud_command import desk_of
from ec2lab import Cloud
from seed_scripts import CLOUDSEND, CONFIG, run_snippet, write_example

PACKAGES = re.compile(r"            '(env_aptget|env_conda|env_pypi|env_julia)' .*\n")


def test_the_program_of_the_readme_rents_runs_and_fetches(ec2: Cloud, state_dir: Path, tmp_path: Path) -> None:
    config, removed = PACKAGES.subn("", CONFIG.replace("ami-077fd75cd229c811b", ec2.image()))
    assert removed == 4
    write_example(tmp_path, config)
    with desk_of(ec2, state_dir, tmp_path) as desk:
        jobs, printed = run_snippet(tmp_path, CLOUDSEND, desk.environ)
        assert [[name for _, name, _ in job["processes"]] for job in jobs] == [["DONE"]] * 3
        assert {job["instance"] for job in jobs} == {"aws-0"}
        assert printed.count("STATE = DONE") == 3
        results = {path.name: path.read_text() for path in (tmp_path / "tmp").iterdir()}
        assert results == {
            "job_000_output.dat": "1 10 sent\n",
            "job_001_output.dat": "1 10 sent\n",
            "job_002_output.dat": "2 12 sent\n",
        }
        assert [(row.type, row.market) for row in ec2.ledger()] == [("t2.micro", "spot")]
    assert ec2.failures == []

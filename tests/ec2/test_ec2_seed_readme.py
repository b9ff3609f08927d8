"""A program of CloudSend's README in the cloud of these tests, with only its imports changed.

Of its config the image is one that this cloud has, and the environment installs nothing: its machines reach no
packages of conda, apt, Julia or PyPI. The type, spot, `explode` and all the rest are as documented.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cloud_command import desk_of
from cloud_user import surroundings
from ec2lab import Cloud
from seed_scripts import CLOUDSEND, CONFIG, run_snippet, write_example

from cloudsend_cli.api.seeds import CloudSendInstanceState, CloudSendJobState, get_client

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


def test_a_rented_machine_by_its_getters(
    ec2: Cloud, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with desk_of(ec2, state_dir, tmp_path) as desk, surroundings(ec2):
        monkeypatch.chdir(tmp_path)
        work = f"python3 work.py a {desk.witness.address} {desk.witness.port}"
        config = {
            "provider": "aws",
            "instances": [{"type": "t2.micro", "eco": True, "number": 2, "region": None}],
            "jobs": [{"run_command": work, "upload_files": "work.py"}],
        }
        with get_client(config, state_dir=state_dir, environ=desk.environ) as client:
            client.assign()
            first, second = client.get_instances()
            (job,) = client.get_jobs()
            assert job.get_instance() is first and second.get_jobs() == []
            assert (first.get_rank(), second.get_rank(), first.get_cpus()) == ("1.1", "1.2", 1)
            assert ec2.calls_of("RunInstances") == [] and first.get_state() == CloudSendInstanceState.UNKNOWN
            session = client.run_jobs()
            client.wait_for_jobs_state(CloudSendJobState.RUNNING, session)
            (machine,) = session.get_instances()
            (rented,) = ec2.alive
            assert (machine.get_id(), machine.get_state()) == (rented.id, CloudSendInstanceState.RUNNING)
            assert str(machine.get_ip_addr()).endswith(f".{rented.number}")
            assert str(machine.get_region()).startswith("eu-west-3")
            assert machine.get_config("type") == "t2.micro" and machine.get_data("market") == "spot"
            client.hard_reset_instance(machine)
            ec2.wait(rented.id, "terminated")
            desk.witness.let(lambda words: True)
            (process,) = client.finalize()
            assert (process.get_state(), process.attempt) == (CloudSendJobState.DONE, 2)
            (replacement,) = ec2.alive
            assert process.get_instance() is machine and machine.get_id() == replacement.id != rented.id
            client.terminate_instance(machine)
            ec2.wait(replacement.id, "terminated")
    assert ec2.failures == []

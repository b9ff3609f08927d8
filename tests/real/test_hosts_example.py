"""The example for SSH hosts, as its first lines say: sixty jobs with a package, an upload and an output each."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_cluster import PROVIDER, Cluster
from sshlab import LabHost

from cloudsend_cli.core.submission import SubmitOptions

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the example's environment needs from the package index: the hosts of the lab have no way there."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "tabulate"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package index here: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.timeout(240)
def test_sixty_jobs_come_home_and_a_second_run_does_nothing(
    cluster: Callable[..., Cluster], wheels: Path, summary_line: Callable[[str], None]
) -> None:
    lab = cluster(3)
    for host in lab.hosts:
        for wheel in wheels.iterdir():
            host.write(f"wheels/{wheel.name}", wheel.read_bytes())
        host.write(".config/pip/pip.conf", "[global]\nno-index = true\nfind-links = /home/lab/wheels\n")
    shutil.copytree(EXAMPLES, lab.files, dirs_exist_ok=True, ignore=shutil.ignore_patterns("results"))
    config = str(lab.files / "hosts.yml")
    options = SubmitOptions(provider=PROVIDER)
    run = lab.client.submit(config, options=options).run
    lab.settle(run, 200)
    jobs = lab.jobs(run)
    assert {j.state for j in jobs.values()} == {"succeeded"}, {j.reason for j in jobs.values()}
    assert len(jobs) == 60
    assert {j.instance for j in jobs.values()} == {lab.node(h) for h in lab.hosts}
    results = next(lab.files.rglob(run))
    assert all((results / name / "forecast.txt").stat().st_size > 0 for name in jobs)

    before = {host.name: state_of(host) for host in lab.hosts}
    again = lab.client.submit(config, options=options)
    assert again.run == run
    assert again.continued is not None and len(again.continued.kept) == 60
    lab.settle(run)
    assert {host.name: state_of(host) for host in lab.hosts} == before
    summary_line("hosts example: 60 jobs on 3 hosts; a second run sent, built and started nothing")


def state_of(host: LabHost) -> str:
    """Every attempt, environment and file that a host has."""
    places = "-path '*/attempts/*' -o -path '*/envs/*' -o -path '*/files/*'"
    found = host.sh(f"cd ~/.cloudsend && find . {places} | sort")
    assert len(found.splitlines()) > 60
    return found


def received(host: LabHost) -> int:
    """Bytes that the host's interface has taken in since it was made."""
    lines = host.sh("cat /proc/net/dev").splitlines()
    return sum(int(line.split()[1]) for line in lines if ":" in line and not line.strip().startswith("lo:"))


def test_an_edited_file_is_sent_again_and_an_unchanged_one_never(
    cluster: Callable[..., Cluster], summary_line: Callable[[str], None]
) -> None:
    lab = cluster(1)
    (host,) = lab.hosts
    data = lab.files / "data.bin"
    size = 5_000_000
    counts = []

    def bytes_of_a_run(step: str) -> int:
        before = received(host)
        job = {"name": "sum", "run": f"sha256sum data.bin; : {step}", "upload": "data.bin"}
        lab.run(job)
        digest = lab.tail("sum").split()[0].decode()
        assert digest == hashlib.sha256(data.read_bytes()).hexdigest()
        counts.append(received(host) - before)
        return counts[-1]

    data.write_bytes(os.urandom(size))
    assert bytes_of_a_run("first") > size
    assert bytes_of_a_run("another job, the same file") < size / 10
    data.write_bytes(os.urandom(size))
    assert bytes_of_a_run("an edited file") > size
    summary_line(f"a file of {size} bytes: {counts[0]} sent, {counts[1]} when unchanged, {counts[2]} when edited")

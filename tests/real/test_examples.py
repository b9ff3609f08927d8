"""The example of hosts, by the commands that its page gives: sixty jobs on three machines, and then nothing more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm_commands
from sshlab import Lab, LabHost, NotHere

ROOT = Path(__file__).parent.parent.parent
MakeHosts = Callable[..., list[LabHost]]
Command = Callable[..., str]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The package of the example, for hosts that have no way to PyPI."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "tabulate"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise NotHere("PyPI cannot be reached")
    return list(folder.iterdir())


def give_package(host: LabHost, wheels: list[Path]) -> None:
    for wheel in wheels:
        host.write(f"wheels/{wheel.name}", wheel.read_bytes())
    home = host.sh("echo ~").strip()
    host.write(".config/pip/pip.conf", f"[install]\nno-index = true\nfind-links = {home}/wheels\n")


@pytest.fixture
def cloudsend(state_dir: Path, tmp_path: Path, shared_lab: Lab) -> Iterator[Command]:
    """Run a command beside a copy of the examples; what it printed."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("results"))
    (tmp_path / "ssh_config").touch()
    environ = {
        **os.environ,
        "CLOUDSEND_HOME": str(state_dir),
        "CLOUDSEND_MAESTRO_LINGER": "1",
        "CLOUDSEND_SSH_CONFIG": str(tmp_path / "ssh_config"),
        "XDG_CONFIG_HOME": str(tmp_path / "settings"),
    }

    def run(*words: str, wanted: int = 0) -> str:
        shutil.copyfile(shared_lab.known_hosts, state_dir / "known_hosts")
        (state_dir / "known_hosts").chmod(0o600)
        done = warm_commands.run(words, environ=environ, folder=tmp_path, timeout=300)
        assert done.returncode == wanted, f"$ {' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout

    yield run
    run("maestro", "stop")


def write_providers(folder: Path, hosts: list[LabHost], **settings: object) -> None:
    entries = [{"name": host.name, **host.provider_entry(), **settings} for host in hosts]
    entries = [{key: value if isinstance(value, int) else str(value) for key, value in e.items()} for e in entries]
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"providers": [{"name": "lab", "type": "ssh", "hosts": entries}]})
    (folder / "providers.yml").write_text(text, encoding="utf-8")


def test_sixty_jobs_on_three_hosts_and_a_second_run_that_does_nothing(
    cloudsend: Command, tmp_path: Path, lab_hosts: MakeHosts, wheels: list[Path]
) -> None:
    hosts = lab_hosts(3)
    for host in hosts:
        give_package(host, wheels)
    write_providers(tmp_path / "settings" / "cloudsend", hosts, cpus=4)

    first = json.loads(cloudsend("run", "examples/hosts.yml", "-p", "lab", "-o", "json"))
    assert (first["state"], first["counts"]["succeeded"], len(first["jobs"])) == ("succeeded", 60, 60)
    results = tmp_path / "examples" / "results" / first["run"]
    for day in range(1, 61):
        assert f" {day} " in (results / f"day-{day}" / "forecast.txt").read_text(encoding="utf-8")
    jobs = json.loads(cloudsend("list", "jobs", "-o", "json"))
    where = Counter(job["instance"] for job in jobs)
    assert set(where) == {f"lab-{host.name}" for host in hosts}
    assert {job["attempt"] for job in jobs} == {1}
    for host in hosts:
        assert host.sh("find ~/.cloudsend -name .cloudsend-environment | wc -l").strip() == "1"

    logins = [host.sshd_log() for host in hosts]
    second = json.loads(cloudsend("run", "examples/hosts.yml", "-p", "lab", "-o", "json"))
    assert (second["run"], second["state"], second["counts"]) == (first["run"], "succeeded", first["counts"])
    assert {job["attempt"] for job in json.loads(cloudsend("list", "jobs", "-o", "json"))} == {1}
    assert [host.sshd_log() for host in hosts] == logins, "nothing was left to do, and somebody logged in"


def test_hosts_that_are_named_on_the_spot_need_no_file(
    cloudsend: Command, lab_hosts: MakeHosts, shared_lab: Lab, tmp_path: Path
) -> None:
    one, other = lab_hosts(2)
    (tmp_path / "ssh_config").write_text(shared_lab.ssh_config())
    cloudsend("run", "-p", f"ssh:{one.name}", "--", "uname", "-n")
    assert cloudsend("tail", "@last").strip() == one.sh("uname -n").strip()
    (tmp_path / "both.json").write_text(
        json.dumps(
            {
                "instances": [{"provider": f"ssh:{one.name}"}, {"provider": f"ssh:{other.user}@{other.name}"}],
                "jobs": {"run": "uname -n; sleep 0.5", "cpus": 0.01, "repeat": 8},
            }
        )
    )
    cloudsend("run", "both.json")
    jobs = json.loads(cloudsend("list", "jobs", "-o", "json"))
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert {job["provider"] for job in jobs[:8]} <= {f"ssh:{one.name}", f"ssh:{other.user}@{other.name}"}

"""The benchmark of a database, whole, with tiny measurements: here and on a host. Its table against its reports."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from lab_probes import MakeHosts
from sshlab import Lab, NotHere

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "db_bench"
SWEEP = ("--scales", "1,2", "--clients", "1,2", "--seconds", "1")
POINTS = [(1, 1), (1, 2), (2, 1), (2, 2)]


def load_runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("db_runner_of_the_example", EXAMPLE / "db_runner.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def needs_postgresql() -> None:
    try:
        load_runner().find_programs()
    except RuntimeError as problem:
        raise NotHere(str(problem)) from None


@pytest.fixture
def workspace() -> Iterator[Path]:
    """Where the server's user can go: the directories of tests are closed to others."""
    path = Path(f"/var/tmp/cloudsend-db-bench-test-{os.getpid()}")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def environ(state_dir: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    settings = {
        "CLOUDSEND_HOME": str(state_dir),
        "CLOUDSEND_MAESTRO_LINGER": "1",
        "CLOUDSEND_SSH_CONFIG": str(tmp_path / "ssh_config"),
        "XDG_CONFIG_HOME": str(tmp_path / "settings"),
    }
    (tmp_path / "ssh_config").touch(mode=0o600)
    yield {**os.environ, **settings}
    stop = [sys.executable, "-m", "cloudsend_cli", "maestro", "stop"]
    subprocess.run(stop, env={**os.environ, **settings}, check=False, capture_output=True, timeout=60)


def measure(tmp_path: Path, environ: dict[str, str], *words: str, status: int = 0) -> str:
    command = [sys.executable, str(EXAMPLE / "bench.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def check_table(output: str) -> None:
    """Each line of the table has the numbers of the report that it names, as pgbench wrote them."""
    *table, where = output.strip().splitlines()
    reports = Path(where.removeprefix("reports: "))
    assert table[0].split() == ["scale", "clients", "tps", "latency_ms", "transactions", "report"]
    rows = [line.split() for line in table[1:]]
    assert [(int(row[0]), int(row[1])) for row in rows] == POINTS
    assert sorted(path.name for path in reports.iterdir()) == sorted(row[5] for row in rows)
    for scale, clients, tps, latency, transactions, report in rows:
        assert report == f"scale_{scale}-clients_{clients}"
        text = (reports / report / "pgbench.txt").read_text()
        for line in (
            f"scaling factor: {scale}",
            f"number of clients: {clients}",
            f"number of transactions actually processed: {transactions}",
            "number of failed transactions: 0",
        ):
            assert line in text, text
        exact = [float(re.findall(p, text)[0]) for p in (r"tps = ([\d.]+)", r"latency average = ([\d.]+)")]
        assert [f"{value:.3f}" for value in exact] == [tps, latency]
        assert json.loads((reports / report / "summary.json").read_text())["transactions"] == int(transactions) > 0


def servers(workspace: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(workspace) in line and "postgres" in line:
            found.append(line)
    return found


def test_a_benchmark_here(tmp_path: Path, environ: dict[str, str], workspace: Path) -> None:
    check_table(measure(tmp_path, environ, *SWEEP, "--workspace", str(workspace)))
    assert not workspace.exists() and not servers(workspace)
    listing = [sys.executable, "-m", "cloudsend_cli", "list", "jobs", "-o", "json"]
    jobs = json.loads(subprocess.run(listing, env=environ, check=True, capture_output=True, timeout=60).stdout)
    assert [job["name"].rpartition("/")[0] for job in sorted(jobs, key=lambda job: str(job["started_at"]))] == [
        "prepare/cluster",
        *["load/test bed"] * 2,
        *["bench/pgbench"] * 4,
        "collect/reports",
    ]
    times = sorted((job["started_at"], job["ended_at"]) for job in jobs)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times)), "one at a time"


def test_a_benchmark_of_a_host(
    tmp_path: Path, environ: dict[str, str], lab_hosts: MakeHosts, shared_lab: Lab, state_dir: Path
) -> None:
    (host,) = lab_hosts(1)
    (tmp_path / "ssh_config").write_text(shared_lab.ssh_config())
    shutil.copyfile(shared_lab.known_hosts, state_dir / "known_hosts")
    (state_dir / "known_hosts").chmod(0o600)
    workspace = f"{host.home}/bench"
    check_table(measure(tmp_path, environ, *SWEEP, "--provider", f"ssh:{host.name}", "--workspace", workspace))
    assert not host.exists(workspace)


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path, environ: dict[str, str], workspace: Path) -> None:
    workspace.mkdir()
    (workspace / "thesis").write_text("years of work")
    output = measure(tmp_path, environ, *SWEEP, "--workspace", str(workspace), status=1)
    assert "prepare/cluster/0: " in output and "is not of this benchmark" in output
    assert (workspace / "thesis").read_text() == "years of work" and os.listdir(workspace) == ["thesis"]

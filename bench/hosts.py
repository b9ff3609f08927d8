"""Short jobs over several sshd hosts: cloudsend, GNU parallel over ControlMaster, and Dask's SSHCluster, in turn."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.measuring import RUN_LIMIT, NotInstalled, Table, in_child, median, ms, scratch
from bench.peers import need
from bench.ssh_hosts import PLACES, HostsCloudsend, Lab, make_lab

DASK = ("dask==2026.8.0", "distributed==2026.8.0", "asyncssh==2.24.1")
# Hosts see the machine's files, but neither its /tmp nor its homes.
DASK_FOLDER = Path("/var/tmp/cloudsend-bench-dask")
DASK_PYTHON = "/usr/bin/python3"
TARGET_RATE, TARGET_TIMES = 800.0, 10.0
BASE = "GNU parallel, ControlMaster"


def run_warm(lab: Lab, jobs: int, directory: Path) -> float:
    """The maestro, the links and the agents are there since an earlier job."""
    with HostsCloudsend(directory, lab, lab.hosts) as cloudsend:
        cloudsend.run_jobs(len(lab.hosts) * PLACES)
        return cloudsend.run_jobs(jobs)[2]


def run_cold(lab: Lab, jobs: int, directory: Path) -> float:
    """The maestro is started and connects within the time; the agents' daemons may run since an earlier round."""
    with HostsCloudsend(directory, lab, lab.hosts) as cloudsend:
        return cloudsend.run_jobs(jobs)[2]


def run_parallel(lab: Lab, jobs: int, directory: Path) -> float:
    """Its connections are warm: masters are opened before the time begins."""
    need("parallel", "parallel")
    config = directory / "ssh_config"
    text = lab.ssh_config()
    config.write_text(f"{text}\nHost *\n  ControlMaster auto\n  ControlPath {directory}/%C\n  ControlPersist 60\n")
    ssh = f"ssh -F {config}"
    names = [host.name for host in lab.hosts]
    for name in names:
        subprocess.run([*ssh.split(), name, "true"], check=True, stdin=subprocess.DEVNULL, timeout=60)
    logins = ",".join(f"{PLACES}/{ssh} {name}" for name in names)
    script = 'seq "$1" | parallel --will-cite --joblog joblog --sshlogin "$2" true {} >/dev/null'
    environ = {**os.environ, "PARALLEL_HOME": str(directory / "home"), "PARALLEL_SHELL": "/bin/sh"}
    begun = time.monotonic()
    subprocess.run(
        ["sh", "-c", script, "sh", str(jobs), logins], cwd=directory, env=environ, check=True, timeout=RUN_LIMIT
    )
    seconds = time.monotonic() - begun
    for name in names:
        subprocess.run([*ssh.split(), "-O", "exit", name], check=False, capture_output=True, timeout=60)
    lines = (directory / "joblog").read_text().splitlines()[1:]
    good = sum(line.split("\t")[6] == "0" for line in lines)
    if good != jobs:
        raise RuntimeError(f"{good} of {jobs} in the job log")
    return seconds


def run_dask(lab: Lab, jobs: int, directory: Path) -> float:
    """Each task runs `true` in a subprocess. The cluster is made before the time begins."""
    if not (DASK_FOLDER / "distributed").exists():
        print(f"installing {' '.join(DASK)} in {DASK_FOLDER}", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "--python", DASK_PYTHON, "install", "--quiet", "--target"]
        done = subprocess.run([*command, str(DASK_FOLDER), *DASK], check=False, capture_output=True, timeout=300)
        if done.returncode:
            raise NotInstalled(f"not installed: pip install --target {DASK_FOLDER} {' '.join(DASK)}")
    driver = Path(__file__).with_name("dask_driver.py")
    host = lab.hosts[0]
    command = [DASK_PYTHON, str(driver), str(jobs), str(PLACES), str(lab.key_path), host.user, str(lab.known_hosts)]
    command += [h.address for h in lab.hosts]
    environ = {**os.environ, "PYTHONPATH": str(DASK_FOLDER)}
    ran = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=RUN_LIMIT, cwd=directory, env=environ
    )
    if ran.returncode:
        raise NotInstalled("not run: " + (ran.stderr.strip().splitlines() or ["no reason given"])[-1])
    return float(ran.stdout.strip().splitlines()[-1])


SYSTEMS: dict[str, Callable[[Lab, int, Path], float]] = {
    "cloudsend, warm": run_warm,
    "cloudsend, cold": run_cold,
    BASE: run_parallel,
    "Dask SSHCluster": run_dask,
}


def measure(count: int, jobs: int, rounds: int) -> Table:
    seconds: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    cpu: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    missing: dict[str, str] = {}
    with make_lab(count) as lab:
        for done in range(rounds):
            names = list(SYSTEMS)
            for name in names[done % len(names) :] + names[: done % len(names)]:
                if name in missing:
                    continue
                with scratch() as directory:
                    try:
                        wall, used = in_child(partial(SYSTEMS[name], lab, jobs, directory))
                    except NotInstalled as why:
                        missing[name] = str(why)
                        continue
                    print(f"  round {done + 1}: {name}: {jobs / wall:.0f} jobs/s", file=sys.stderr, flush=True)
                    seconds[name].append(wall)
                    cpu[name].append(used)
    headers = [f"{jobs:,} jobs of `true`, {count} hosts, {rounds} rounds", "jobs/s", "least", "most"]
    table = Table("hosts", [*headers, f"times {BASE}", "client CPU ms a job", ""])
    table.raw = {"seconds": seconds, "cpu": cpu, "missing": missing}
    for name in SYSTEMS:
        if name in missing:
            table.rows.append([name, missing[name], "", "", "", "", ""])
            continue
        rates = [jobs / s for s in seconds[name]]
        times = median([b / a for a, b in zip(seconds[name], seconds[BASE], strict=False)]) if seconds[BASE] else 0.0
        word = ""
        if name == "cloudsend, warm":
            word = "kept" if median(rates) >= TARGET_RATE and times >= TARGET_TIMES else "MISSED"
            word = f"{TARGET_RATE:.0f} jobs/s and {TARGET_TIMES:.0f} times: {word}"
        cells = [f"{median(rates):.0f}", f"{min(rates):.0f}", f"{max(rates):.0f}", f"{times:.1f}"]
        table.rows.append([name, *cells, ms(median(cpu[name]) / jobs, 2), word])
    return table

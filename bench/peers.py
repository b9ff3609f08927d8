"""The systems that cloudsend is timed beside. Each runs N jobs of `true` in a directory and returns seconds.

NotInstalled tells how to get the peer. All state is in the directory; sockets are unix sockets or in a network
namespace of their own.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.measuring import CORES, RESULTS, RUN_LIMIT, NotInstalled

HYPERQUEUE = "hyperqueue==0.27.0"
HYPERQUEUE_VENV = RESULTS / "hyperqueue"
TASK_SPOOLER_LOOP = (
    'i=0; while [ $i -lt "$1" ]; do tsp true || exit 1; i=$((i+1)); done >ids; '
    'tail -n "$2" ids | while read id; do tsp -w "$id"; done'
)


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise NotInstalled(f"not installed: apt-get install {package}")


def run_xargs(jobs: int, directory: Path) -> float:
    return _shell('seq "$1" | xargs -P "$2" -n 1 true', jobs, directory)


def run_parallel(jobs: int, directory: Path) -> float:
    need("parallel", "parallel")
    command = 'seq "$1" | parallel --will-cite -j "$2" --joblog joblog --results results true {} >/dev/null'
    seconds = _shell(command, jobs, directory, PARALLEL_HOME=str(directory / "home"), PARALLEL_SHELL="/bin/sh")
    lines = (directory / "joblog").read_text().splitlines()[1:]
    _expect(jobs, sum(line.split("\t")[6] == "0" for line in lines), "successes in the job log")
    return seconds


def run_task_spooler(jobs: int, directory: Path) -> float:
    need("tsp", "task-spooler")
    environ = {"TMPDIR": str(directory), "TS_SOCKET": str(directory / "socket")}
    subprocess.run(["tsp", "-S", str(CORES)], env={**os.environ, **environ}, check=True, timeout=10)
    try:
        # Its queue is first in, first out: when the last ones have ended, all have.
        seconds = _shell(TASK_SPOOLER_LOOP, jobs, directory, **environ)
        _expect(jobs, len(list(directory.glob("ts-out.*"))), "output files")
        return seconds
    finally:
        subprocess.run(["tsp", "-K"], env={**os.environ, **environ}, check=False, timeout=10)


def run_hyperqueue(jobs: int, directory: Path) -> float:
    python = HYPERQUEUE_VENV / "bin" / "python"
    _install_hyperqueue(python)
    # Its server listens on all addresses, so it gets a network in which there is nothing but loopback.
    alone = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    driver = [
        str(python),
        str(Path(__file__).with_name("hyperqueue_driver.py")),
        str(jobs),
        str(CORES),
        str(directory),
    ]
    script = 'ip link set lo up && exec "$@"'
    ran = subprocess.run(
        [*alone, "sh", "-c", script, "sh", *driver],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT,
        cwd=directory,
    )
    if ran.returncode:
        raise NotInstalled("not run: " + (ran.stderr.strip().splitlines() or ["no reason given"])[-1])
    found = json.loads(ran.stdout.strip().splitlines()[-1])
    _expect(2 * jobs, found["logs"], "log files")
    return float(found["seconds"])


def _install_hyperqueue(python: Path) -> None:
    if not python.exists():
        print(f"installing {HYPERQUEUE} in {HYPERQUEUE_VENV}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(HYPERQUEUE_VENV)], check=True, timeout=120)
    if subprocess.run(
        [str(python), "-c", "import hyperqueue"], check=False, capture_output=True, timeout=60
    ).returncode:
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", HYPERQUEUE]
        try:
            done = subprocess.run(command, check=False, capture_output=True, timeout=180).returncode == 0
        except subprocess.TimeoutExpired:
            done = False
        if not done:
            raise NotInstalled(
                f"not installed: pip install {HYPERQUEUE} (into {HYPERQUEUE_VENV.relative_to(RESULTS)})"
            )


def _shell(script: str, jobs: int, directory: Path, **environ: str) -> float:
    command = ["sh", "-c", script, "sh", str(jobs), str(CORES)]
    begun = time.monotonic()
    subprocess.run(command, cwd=directory, env={**os.environ, **environ}, check=True, timeout=RUN_LIMIT)
    return time.monotonic() - begun


def _expect(wanted: int, found: int, what: str) -> None:
    if wanted != found:
        raise RuntimeError(f"{wanted} {what} were expected, {found} found")


PEERS = {
    "GNU parallel": run_parallel,
    "task-spooler": run_task_spooler,
    "HyperQueue": run_hyperqueue,
    "xargs": run_xargs,
}

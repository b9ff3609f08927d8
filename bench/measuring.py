"""What the benchmarks share: tables, timing of processes, a cloudsend of their own, and what it left in /proc."""

import ctypes
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from cloudsend_cli.api import Client

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
CORES = len(os.sched_getaffinity(0))
RUN_LIMIT = 600.0  # seconds that one run of one system may take


@dataclass
class Table:
    """A table for people, and in `raw` every single measurement."""

    name: str
    headers: list[str]
    rows: list[list[object]] = field(default_factory=list)
    raw: dict[str, object] = field(default_factory=dict)

    def render(self) -> str:
        return tabulate(self.rows, self.headers, tablefmt="github", disable_numparse=True)


def save(name: str, machine: dict[str, object], tables: list[Table]) -> None:
    RESULTS.mkdir(exist_ok=True)
    for table in tables:
        record = {"benchmark": name, "machine": machine, **vars(table)}
        (RESULTS / f"{table.name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def describe_machine() -> dict[str, object]:
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    text = f"{when}, {CORES} cores, {system}, Python {platform.python_version()}, commit {_commit()}"
    return {"text": text, "load": round(os.getloadavg()[0], 1), "inode_us": round(probe_files())}


def probe_files(folders: int = 500) -> float:
    """Microseconds for a new file or folder in the directory that is measured in.

    Ordinary are 10 to 30. An ext4 without a journal looks at everything that was deleted in the last minutes before
    it gives a number to a new file: then it is hundreds, and every system here is slow by the files that it makes.
    """
    with scratch() as directory:
        begun = time.monotonic()
        for number in range(folders):
            (directory / str(number) / "work").mkdir(parents=True)
            for name in "abcd":
                (directory / str(number) / name).touch()
        return 1e6 * (time.monotonic() - begun) / (6 * folders)


def _commit() -> str:
    given = os.environ.get("BENCH_COMMIT")  # for a tree that was exported from git
    if given:
        return given
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    return asked.stdout.strip() or "unknown"


def ms(seconds: float, digits: int = 1) -> str:
    return f"{1000 * seconds:.{digits}f}"


def median(values: list[float]) -> float:
    return statistics.median(values)


def verdict(value: float, limit: float) -> str:
    return "kept" if value <= limit else "MISSED"


class NotInstalled(Exception):
    """A peer is not here; the text says how to install it."""


def in_child(function: Callable[[], float]) -> tuple[float, float]:
    """What the function returns, called in a child, and the CPU seconds of all processes that it left or waited for.

    The child adopts what its descendants leave behind (background processes), so that nothing escapes the account.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: dict[str, object] = {}
        try:
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
            try:
                answer["value"] = function()
            except NotInstalled as why:
                answer["missing"] = str(why)
            _reap()
            used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            answer["cpu"] = sum(u.ru_utime + u.ru_stime for u in used)
        except BaseException:  # noqa: BLE001 - it must not return into the parent's code
            answer["failed"] = traceback.format_exc()
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = json.loads(pipe.read() or b'{"failed": "the child died"}')
    os.waitpid(pid, 0)
    if "failed" in found:
        raise RuntimeError(found["failed"])
    if "missing" in found:
        raise NotInstalled(found["missing"])
    return found["value"], found["cpu"]


def _reap() -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
        except ChildProcessError:
            return
    raise RuntimeError("processes were left behind")


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="cloudsend-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def run_timed(command: list[str], **options: object) -> tuple[float, float]:
    """(wall, CPU) of a command and the children it waited for. RuntimeError if it fails."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} exited with {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime


def cloudsend_command(state_dir: Path, *words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("cloudsend")), "--state-dir", str(state_dir), *words]


class Cloudsend:
    """A state directory of its own, with all processes that belong to it; they are ended on leaving."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.client = Client(self.state_dir)

    def __enter__(self) -> "Cloudsend":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.maestro_stop()
        self.client.close()
        # What names this state directory on its command line was started by this benchmark.
        for _round in range(3):
            left = self.processes()
            for pid in left:
                try:
                    os.kill(pid, signal.SIGTERM if _round < 2 else signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not left:
                return
            time.sleep(0.3)

    def write_config(self, jobs: int, command: str = "true") -> str:
        path = self.directory / f"jobs-{jobs}.yml"
        path.write_text(f"project: bench\nrecover: false\njobs:\n  - run: '{command}'\n    repeat: {jobs}\n")
        return str(path)

    def run_jobs(self, jobs: int) -> tuple[str, float, float]:
        """Run so many jobs of `true`: (run, seconds until submitted, seconds until settled)."""
        config = self.write_config(jobs)
        begun = time.monotonic()
        run = self.client.submit(config).run
        submitted = time.monotonic() - begun
        counts: dict[str, int] = {}
        for progress in self.client.follow(run, timeout=RUN_LIMIT * max(1, jobs // 30_000)):
            counts = dict(progress.counts)
        settled = time.monotonic() - begun
        if counts.get("succeeded") != jobs:
            raise RuntimeError(f"{jobs} jobs, but {counts}")
        return run, submitted, settled

    def processes(self) -> dict[int, str]:
        """pid and role (maestro, agent, runner, attach) of every process of this state directory."""
        found: dict[int, str] = {}
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if not any(word == str(self.state_dir) or word.startswith(f"{self.state_dir}/") for word in words):
                continue
            pid = int(entry.name)
            parents[pid] = parent
            if "cloudsend_cli.maestro.local" in words:
                found[pid] = "maestro"
            elif "attach" in words:
                found[pid] = "attach"
            elif "serve" in words:
                found[pid] = "agent"
        return {p: "runner" if r == "agent" and found.get(parents[p]) == "agent" else r for p, r in found.items()}

    def memory(self, key: str) -> dict[str, float]:
        """Megabytes by role (several runners: the largest): VmHWM is the peak, VmRSS what it is now."""
        found: dict[str, float] = {}
        for pid, role in self.processes().items():
            try:
                text = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            kilobytes = next((line.split()[1] for line in text.splitlines() if line.startswith(key)), "0")
            found[role] = max(found.get(role, 0.0), int(kilobytes) * 1024 / 1e6)
        return found

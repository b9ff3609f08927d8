"""H10 and H11: logs that are huge or odd, and logs that their own job cuts off, deletes or replaces."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import pick
from real_stack import DEADLINE
from ssh_cluster import Cluster
from ssh_faults import LEDGER, Tail, agent_home, until_file

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
MEMORY = 100 << 20  # the bound for a maestro, and for a command
HUGE = pick(MEMORY + (10 << 20), 200 << 20)
# A line of 20 MB, then NULs, what is no UTF-8, what terminals obey, carriage returns, and no newline at the end.
ODD = rb"""
import sys
for piece in b"x" * (20 << 20) + b"\n", bytes(1 << 20), b"\xff\xfe\xc3\x28\xed\xa0\x80\n", b"\x1b[2J\x1b]0;evil\x07":
    sys.stdout.buffer.write(piece)
for n in range(100000):
    sys.stdout.buffer.write(b"%d of 99999\r" % n)
"""


# The command, which tells at its end how much memory it has taken. What wait4 tells includes its parent's.
MEASURED = """
import atexit, pathlib, runpy, sys
atexit.register(lambda: sys.stderr.write(pathlib.Path("/proc/self/status").read_text()))
runpy.run_module("cloudsend_cli", run_name="__main__", alter_sys=True)
"""


def peak_memory(status: str) -> int:
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def tail_by_command(stack: Cluster, job: str) -> tuple[str, int]:
    """(sha256 of what `cloudsend tail JOB` prints into a pipe, the most memory that it took)"""
    words = ["--state-dir", str(stack.state), "tail", job, "-n", "1000000000"]
    argv = [sys.executable, "-c", MEASURED, *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=stack.files) as command:
        assert command.stdout is not None and command.stderr is not None
        digest = hashlib.sha256()
        while block := command.stdout.read(1 << 20):
            digest.update(block)
        said = command.stderr.read().decode()
    assert command.returncode == 0, said
    return digest.hexdigest(), peak_memory(said)


@pytest.mark.campaign("huge log")
def test_h10_huge_and_odd_logs_arrive_to_the_byte_with_little_memory(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    stack.files.joinpath("odd.py").write_bytes(ODD)
    huge = f"yes 'a line of a log that is long enough to be one, and then some' | head -c {HUGE}\n" + until_file(
        "~/go"
    )
    odd = "python3 odd.py\n" + until_file("~/go")
    jobs = [{"name": "huge", "run": LEDGER + huge}, {"name": "odd", "run": LEDGER + odd, "upload": "odd.py"}]
    run = stack.submit(jobs=jobs)
    tail = Tail(stack, "odd")
    tail.until(lambda data: data.endswith(b"99999 of 99999\r"))  # read while it runs
    maestro = stack.maestro()
    assert maestro is not None
    host.write("go", "")
    stack.settle(run)
    memory = peak_memory(Path(f"/proc/{maestro}/status").read_text())
    seen = stack.jobs(run)
    assert {job.state for job in seen.values()} == {"succeeded"}
    digest = {}
    for name, job in seen.items():
        path = f"{agent_home(host)}/attempts/{job.uid}/stdout"
        digest[name] = host.sh('sha256sum <"$1"', path).split()[0]
        assert int(host.sh('stat -c %s "$1"', path)) >= (HUGE if name == "huge" else 21 << 20)
    assert hashlib.sha256(tail.result()).hexdigest() == digest["odd"]
    taken = {name: tail_by_command(stack, name) for name in digest}
    assert {name: found for name, (found, _) in taken.items()} == digest
    most = max(size for _, size in taken.values())
    assert memory < MEMORY and most < MEMORY
    summary_line(
        f"H10: {HUGE >> 20} MiB of log and a line of 20 MiB: maestro {memory >> 20} MiB, tail {most >> 20} MiB"
    )


def test_h11_a_log_that_its_own_job_cuts_off_deletes_or_replaces_harms_nobody(cluster: MakeCluster) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    log = "log=$(readlink /proc/$$/fd/1)\n"
    breaks = {
        "well": ":",
        "cut": ": >/proc/self/fd/1",
        "deleted": log + "rm $log",
        "moved": log + "mv $log $log.1; echo another >$log",
        "folder": log + "rm $log; mkdir $log",
        "pipe": log + "rm $log; mkfifo $log",
        "link": log + "rm $log; ln -s /etc/shadow $log",
        "endless": log + "rm $log; ln -s /dev/zero $log",
        "everything": 'cd /; rm -rf "${CLOUDSEND_RUN_DIR%/work}"',
    }
    begin, end = (
        f"{LEDGER}echo one; echo two\n{until_file('~/break')}",
        f"\necho 3\n{until_file('~/go')}echo 4; exit 5",
    )
    jobs = [{"name": name, "run": begin + text + end, "cpus": 0.1} for name, text in breaks.items()]
    run = stack.submit(jobs=jobs)
    tails = {name: Tail(stack, name) for name in breaks}
    for tail in tails.values():
        tail.until(lambda data: data == b"one\ntwo\n")
    host.write("break", "")
    tails["well"].until(lambda data: data == b"one\ntwo\n3\n")
    tails["cut"].until(lambda data: data == b"one\ntwo\n3\n")
    assert "cut off its log" in str(tails["cut"].notes)
    host.write("go", "")
    stack.settle(run)
    seen = stack.jobs(run)
    assert {(job.reason, job.attempt) for job in seen.values()} == {("exit 5", 1)}, seen
    assert sorted(stack.ledger(host)) == sorted(str(job.uid) for job in seen.values())
    shown = {name: tail.result(DEADLINE) for name, tail in tails.items()}
    assert shown["well"] == shown["cut"] == b"one\ntwo\n3\n4\n"
    assert stack.tail("cut") == b"3\n4\n"
    for name in ("deleted", "folder", "pipe", "link", "endless", "everything"):
        assert shown[name] == b"one\ntwo\n"

"""What happens to those who rent while something is on its way: uploads, starts, results, commits; and to the laptop.

Numbers of the catalogue of faults: C of the client and its maestro. Kills around calls of AWS:
test_ec2_faults_clients.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ec2_stack import CLOUDSEND, LEDGER, PATIENCE, AtOnce, Ec2Stack, play_together, together, wait_for
from ec2lab import Cloud
from sshlab import clock
from sshlab.namespace_host import NamespaceHost

from cloudsend_cli.core.views import JobView
from cloudsend_cli.maestro.client import ensure_maestro

pytestmark = pytest.mark.slow
HELD = f"{LEDGER}; until [ -e ~/go ]; do sleep 0.05; done"
FIRST: dict[str, object] = {"name": "first", "run": f"{HELD}; touch ~/ended"}
UNTIL_ENDED = "until [ -e ~/ended ]; do sleep 0.05; done"
BYTES = 3_000_000
SLOW = "3mbit"  # eight seconds for that much
NIGHT = 8 * 3600
SLEEPER = "AKIASLEEPS0000000000"


@pytest.fixture(scope="module")
def at_once(one_cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[AtOnce]:
    one_cloud.reset()
    chosen = [getattr(item, "obj", None) for item in request.session.items if item.path == request.path]
    with play_together(one_cloud, chosen) as made:
        yield made


def submit(stack: Ec2Stack, *jobs: dict[str, object]) -> str:
    """The same project and file: later ones go on with the same run."""
    return stack.submit(instances=stack.machine(idle="0"), jobs=[*jobs])


def job_of(stack: Ec2Stack, run: str, name: str) -> JobView:
    return stack.jobs(run)[name]


def host_of(stack: Ec2Stack) -> NamespaceHost:
    (machine,) = stack.alive
    return stack.ec2.host(machine.id)


def count_received(host: NamespaceHost) -> int:
    """Bytes that came to the machine over the network."""
    (number,) = re.findall(r"eth0:\s*(\d+)", host.sh("cat /proc/net/dev"))
    return int(number)


def begin(stack: Ec2Stack) -> str:
    run = submit(stack, FIRST)
    wait_for(lambda: job_of(stack, run, "first").phase == "RUNNING" and len(stack.ledger()) == 1)
    return run


def finish(stack: Ec2Stack, run: str, jobs: int, earlier: int = 0) -> None:
    stack.follow_to_end(run)
    stack.check_jobs(run, jobs, earlier)


# ---- killed, and another one comes --------------------------------------------------------------------------------


@together
def test_c5_killed_in_the_middle_of_an_upload(stack: Ec2Stack) -> None:
    """No job begins with half of a file, and what has arrived is not sent again."""
    data = os.urandom(BYTES)
    (stack.files / "data").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    run = begin(stack)
    host = host_of(stack)
    before = count_received(host)
    host.throttle(SLOW)
    check = f'{LEDGER}; echo "{digest}  data" | sha256sum -c - && until [ -e ~/go ]; do sleep 0.05; done'
    assert submit(stack, FIRST, {"name": "second", "run": check, "upload": "data"}) == run
    wait_for(lambda: host.sh(f"find ~ -name .part-{digest} -size +{BYTES * 8 // 10 // 1024}k"))
    assert stack.kill_maestro()
    assert not host.sh(f"find ~ -name {digest}")
    assert job_of(stack, run, "second").started_at is None
    host.throttle(None)
    ensure_maestro(stack.state).close()
    wait_for(lambda: len(stack.ledger()) == 2)
    assert count_received(host) - before < BYTES * 1.5
    host.write("go", "")
    finish(stack, run, 2)
    stack.check_nothing_left(1)


@together
def test_c6_killed_between_a_start_and_its_answer(stack: Ec2Stack) -> None:
    """The machine hears the start, nobody hears the machine: the same attempt is asked for again, and is one."""
    run = begin(stack)
    host = host_of(stack)
    host.partition_out()
    assert submit(stack, FIRST, {"name": "second", "run": HELD}) == run
    wait_for(lambda: len(stack.ledger()) == 2)
    assert stack.kill_maestro()
    told = job_of(stack, run, "second")
    assert (told.state, told.attempt, told.started_at) == ("running", 1, None)
    host.heal()
    host.write("go", "")
    finish(stack, run, 2)
    assert stack.ledger() == {f"{run}.1.1": 1, f"{run}.2.1": 1}
    stack.check_nothing_left(1)


@together
def test_c7_killed_between_an_end_and_the_fetch_of_its_results(stack: Ec2Stack) -> None:
    """They wait on the machine and come home whole, and the job is not done again."""
    make = f"head -c {BYTES} /dev/urandom > out; sha256sum < out"
    run = submit(stack, {"name": "first", "run": f"{HELD}; {make}", "output": "out"})
    wait_for(lambda: len(stack.ledger()) == 1)
    host = host_of(stack)
    host.throttle(SLOW)
    host.write("go", "")
    wait_for(lambda: job_of(stack, run, "first").outputs == "wanted")
    assert stack.kill_maestro()
    left = job_of(stack, run, "first")
    assert (left.outputs, left.attempt) == ("wanted", 1)
    assert len(stack.alive) == 1
    host.throttle(None)
    finish(stack, run, 1)
    assert stack.ledger() == {f"{run}.1.1": 1}
    homes = (stack.files / "results" / run).iterdir()
    (out,) = [path for home in homes if home.is_dir() for path in home.rglob("*") if path.name[0] != "."]
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert b"".join(stack.client.read_log(f"{run}.1")).split() == [digest.encode(), b"-"]
    stack.check_nothing_left(1)


# ---- the laptop ---------------------------------------------------------------------------------------------------


@together
def test_c10_commands_that_are_ended_by_signals_leave_the_jobs_alone(stack: Ec2Stack) -> None:
    """Ctrl-C says what goes on; an end by kill or by a terminal that is closed leaves the same behind."""
    config = stack.config(instances=stack.machine(idle="0"), jobs=[HELD])
    for number, times in ((signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGHUP, 1)):
        with stack.start_cli("run", config) as command:
            assert command.stderr is not None
            said = [next(line for line in command.stderr if "running" in line)]
            for _ in range(times):
                command.send_signal(number)
            said.append(command.stderr.read())
        (run,) = stack.client.list_runs()
        if times == 2:
            assert command.returncode in {130, -number}, said
        elif number == signal.SIGINT:
            assert command.returncode == 130
            assert f"detached; 1 job of run {run.id} goes on." in said[1]
        else:
            assert command.returncode == -number
        assert "Traceback" not in said[1]
        assert [job.phase for job in stack.client.list_jobs(run.id)] == ["RUNNING"]
    host_of(stack).write("go", "")
    finish(stack, run.id, 1)
    stack.check_nothing_left(1)


def start_with_clock(stack: Ec2Stack, config: str) -> Path:
    """A maestro whose wall clock is ahead by what the file that is returned says."""
    library, offset = stack.directory / "clock.so", stack.directory / "offset"
    offset.write_bytes(clock.encode(0))
    source = ["cc", "-shared", "-fPIC", "-O1", f'-DOFFSET_FILE="{offset}"', "-o", str(library), str(clock.SOURCE)]
    subprocess.run([*source, "-ldl"], check=True, capture_output=True, timeout=PATIENCE)
    environ = {**os.environ, "CLOUDSEND_HOME": str(stack.state), "AWS_ACCESS_KEY_ID": SLEEPER}
    environ["LD_PRELOAD"] = str(library)
    command = [*CLOUDSEND, "run", config, "-d"]
    subprocess.run(command, check=True, env=environ, cwd=stack.files, capture_output=True, timeout=PATIENCE)
    return offset


@pytest.mark.skipif(shutil.which("cc") is None, reason="a clock that jumps: no C compiler on this machine")
@together
def test_c11_laptop_sleeps_for_a_night(stack: Ec2Stack) -> None:
    """What ended meanwhile is taken as it ended, what runs is still running; nothing is lost or rented again."""
    stack.use_key(SLEEPER).most_skew = 2 * NIGHT  # the night is the maestro's alone
    jobs = [FIRST, {"name": "second", "run": HELD.replace("~/go", "~/morning")}]
    offset = start_with_clock(stack, stack.config(instances=stack.machine(idle="0"), jobs=jobs))
    wait_for(lambda: len(stack.ledger()) == 2)
    (run,) = stack.client.list_runs()
    wait_for(lambda: all(job.phase == "RUNNING" for job in stack.jobs(run.id).values()))
    host, maestro = host_of(stack), stack.maestro()
    assert maestro is not None
    os.kill(maestro, signal.SIGSTOP)
    host.write("go", "")
    host.sh(UNTIL_ENDED)
    with offset.open("r+b") as file:
        file.write(clock.encode(NIGHT))
    os.kill(maestro, signal.SIGCONT)
    wait_for(lambda: job_of(stack, run.id, "first").state == "succeeded")
    assert job_of(stack, run.id, "second").phase == "RUNNING"
    assert stack.maestro() == maestro
    host.write("morning", "")
    finish(stack, run.id, 2)
    assert stack.ledger() == {f"{run.id}.1.1": 1, f"{run.id}.2.1": 1}
    stack.check_nothing_left(1)


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))


@together
def test_c12_disk_of_the_state_directory_is_full(stack: Ec2Stack) -> None:
    """Nothing more is rented, in words; what runs ends as it does, and comes home when there is room again."""
    with small_disk(stack.state):
        run = begin(stack)
        host = host_of(stack)
        fill(stack.state / "ballast")
        other = stack.config("other.json", project="other", instances=stack.machine(idle="0"), jobs=[LEDGER])
        said = stack.cli("run", other, "-d", status=None)
        assert "no space" in said.lower(), said
        host.write("go", "")
        host.sh(UNTIL_ENDED)
        assert len(stack.calls_of("RunInstances")) == 1
        (stack.state / "ballast").unlink()
        finish(stack, run, 1)
        assert [one.id for one in stack.client.list_runs()] == [run]
        stack.check_nothing_left(1)
        stack.client.close()
        stack.kill_maestro()


@together
def test_c18_submitted_twice(stack: Ec2Stack) -> None:
    """The same again is the same run, whose job is attached to; what is asked for as another one is shown as such."""
    config = stack.config(instances=stack.machine(idle="0"), jobs=[FIRST])
    first = stack.cli("run", config, "-d")
    (run,) = stack.client.list_runs()
    wait_for(lambda: len(stack.ledger()) == 1)
    second = stack.cli("run", config, "-d")
    assert f"run {run.id} submitted" in first and f"run {run.id} continued: 1 attached" in second, second
    stack.cli("run", config, "-d", "--fresh")
    wait_for(lambda: len(stack.ledger()) == 2)
    other, same = stack.client.list_runs()
    listed = stack.cli("list", "runs")
    assert same.id == run.id and run.id in listed and other.id in listed
    for one in stack.alive:
        stack.ec2.host(one.id).write("go", "")
    finish(stack, other.id, 1, earlier=1)
    finish(stack, run.id, 1, earlier=1)
    assert stack.ledger() == {f"{run.id}.1.1": 1, f"{other.id}.1.1": 1}
    stack.check_nothing_left(2)

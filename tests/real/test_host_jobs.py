"""H5-H9 and H19: jobs that end in odd ways, leave things behind, or take what they can get.

One file, so that they do not run beside each other: the kernel counts what it killed for memory for all hosts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import LEDGER, agent_pid, record_of
from sshlab import LabHost

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
EXITS = (0, 1, 2, 42, 126, 127, 128, 130, 137, 143, 254, 255)
SIGNALS = {
    "HUP": "SIGHUP",
    "INT": "SIGINT",
    "QUIT": "SIGQUIT",
    "ABRT": "SIGABRT",
    "KILL": "SIGKILL",
    "SEGV": "SIGSEGV",
    "TERM": "SIGTERM",
    "XCPU": "SIGXCPU",
    "34": "signal 34",
}
DEAF = "trap '' TERM HUP INT QUIT; while :; do sleep 0.0777; done"
# Deaf, it forks without end in as many processes as its limit allows: of those of its user, all of this host.
BOMB = """exec python3 -c '
import os, resource, signal
bomb = signal.signal(signal.SIGTERM, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))
while True:
    try:
        os.fork()
    except OSError:
        pass
'"""


def deaf_ones(host: LabHost) -> list[int]:
    return host.pids(r"0\.0777")


def test_h9_every_exit_status_and_signal_is_told_exactly(cluster: MakeCluster) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    jobs = [{"name": f"exit-{n}", "run": f"{LEDGER}exit {n}", "cpus": 0.1} for n in EXITS]
    jobs += [{"name": f"signal-{s}", "run": f"{LEDGER}kill -{s} $$", "cpus": 0.1} for s in SIGNALS]
    run = stack.run(*jobs)
    seen = stack.jobs(run)
    expected = {f"exit-{n}": ("failed", f"exit {n}", n) for n in EXITS} | {"exit-0": ("succeeded", "", 0)}
    expected |= {f"signal-{s}": ("failed", f"killed by {name}", None) for s, name in SIGNALS.items()}
    assert {name: (job.state, job.reason, job.exit_code) for name, job in seen.items()} == expected
    assert sorted(stack.ledger(host)) == sorted(str(job.uid) for job in seen.values())


def test_h19_a_job_that_somebody_else_kills_is_told_as_such_and_not_tried_again_unasked(cluster: MakeCluster) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    script = LEDGER + "echo mine; [ $CLOUDSEND_ATTEMPT = ${CLOUDSEND_ATTEMPT%.2} ] || exit 0; sleep 1000"
    jobs = [{"name": "victim", "run": script, "cpus": 0.5}, {"name": "stubborn", "run": script, "retries": 1}]
    run = stack.submit(jobs=jobs)
    for name in ("victim", "stubborn"):
        stack.until_phase(run, name, "RUNNING")
        host.kill(record_of(host, str(stack.jobs(run)[name].uid))["pid"])
    stack.settle(run)
    seen = stack.jobs(run)
    assert (seen["victim"].state, seen["victim"].reason, seen["victim"].attempt) == ("failed", "killed by SIGKILL", 1)
    assert (seen["stubborn"].state, seen["stubborn"].attempt) == ("succeeded", 2)
    assert stack.tail("victim") == b"mine\n"
    assert sorted(stack.ledger(host)) == [f"{run}.1.1", f"{run}.2.1", f"{run}.2.2"]
    wait_for(lambda: not host.pids("sleep 1000"))


def test_h7_jobs_that_daemonise_or_are_deaf_to_term_are_killed_whole(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    ways = {
        "deaf": DEAF,
        "forks": f'(setsid sh -c "{DEAF}" &) ; {DEAF}',
        "clears": f'(setsid env -i /bin/sh -c "{DEAF}" &) ; {DEAF}',
        "stops": f'sh -c "kill -STOP \\$\\$; {DEAF}" & {DEAF}',
    }
    jobs = [{"name": name, "run": LEDGER + text, "cpus": 0.2, "grace": "1s"} for name, text in ways.items()]
    run = stack.submit(jobs=jobs)
    for name in ways:
        stack.until_phase(run, name, "RUNNING")
    wait_for(lambda: len(deaf_ones(host)) >= 7)
    begun = time.monotonic()
    stack.client.cancel(list(ways))
    stack.settle(run)
    assert {(job.state, job.attempt) for job in stack.jobs(run).values()} == {("cancelled", 1)}
    assert not deaf_ones(host)
    summary_line(
        f"H7: four deaf and hidden trees were gone {time.monotonic() - begun:.1f} s after the kill, grace 1 s"
    )


def test_h8_the_end_of_a_job_is_told_although_a_child_holds_its_output_open(cluster: MakeCluster) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    jobs = [
        {"name": "leaves", "run": f'{LEDGER}echo out; echo err >&2; sh -c "{DEAF}" & exit 3'},
        {"name": "detaches", "run": f'{LEDGER}echo out; (setsid sh -c "{DEAF}" &) ; exit 0'},
    ]
    run = stack.run(*jobs)
    seen = stack.jobs(run)
    assert (seen["leaves"].reason, seen["detaches"].state) == ("exit 3", "succeeded")
    assert (stack.tail("leaves"), stack.tail("leaves", "stderr")) == (b"out\n", b"err\n")
    assert len(stack.ledger(host)) == 2
    wait_for(lambda: not deaf_ones(host))


def test_h6_a_fork_bomb_within_bounds_neither_stops_the_agent_nor_survives_the_kill(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    run = stack.submit(jobs=[{"name": "bomb", "run": LEDGER + BOMB, "cpus": 0.5, "grace": "1s"}])
    wait_for(lambda: len(host.pids("bomb")) > 70)
    begun = time.monotonic()
    other = stack.run({"name": "other", "run": LEDGER, "cpus": 0.5}, name="other.json")
    answered = time.monotonic() - begun
    assert stack.jobs(other)["other"].state == "succeeded"
    begun = time.monotonic()
    stack.client.cancel(["bomb"])
    stack.settle(run)
    summary_line(
        f"H6: beside a fork bomb a job was done in {answered:.1f} s; killed in {time.monotonic() - begun:.1f} s"
    )
    assert stack.jobs(run)["bomb"].state == "cancelled"
    assert not host.pids("bomb")
    assert len(stack.ledger(host)) == 2


def test_h5_a_job_that_takes_too_much_memory_is_told_as_such_and_its_neighbours_go_on(cluster: MakeCluster) -> None:
    stack = cluster(1, memory="200m")
    host = stack.hosts[0]
    eats = LEDGER + "exec python3 -c 'x = [b\"x\" * (1 << 20) for _ in range(600)]'"
    waits = LEDGER + "while ! [ -e ~/go ]; do sleep 0.05; done"
    run = stack.submit(jobs=[{"name": "waits", "run": waits, "cpus": 0.5}, {"name": "eats", "run": eats, "cpus": 0.5}])
    stack.until_phase(run, "waits", "RUNNING")
    agent = agent_pid(host)
    stack.until_phase(run, "eats", "ABORTED")
    assert (stack.jobs(run)["eats"].reason, stack.jobs(run)["eats"].attempt) == ("oom", 1)
    assert stack.phase(run, "waits") == "RUNNING" and agent_pid(host) == agent
    host.write("go", "")
    stack.settle(run)
    assert (stack.jobs(run)["waits"].state, stack.jobs(run)["waits"].attempt) == ("succeeded", 1)
    assert len(stack.ledger(host)) == 2


def test_a_job_that_took_too_much_memory_is_given_more_when_it_is_tried_again(cluster: MakeCluster) -> None:
    stack = cluster(1, memory="200m")
    eats = "exec python3 -c 'x = [b\"x\" * (1 << 20) for _ in range(600)]'"
    job = {"name": "grows", "run": f"[ $CLOUDSEND_ATTEMPT_NUMBER = 2 ] || {eats}", "memory": "100MB", "retries": 1}
    run = stack.run({**job, "retry_memory_factor": 1.5})
    assert (stack.jobs(run)["grows"].state, stack.jobs(run)["grows"].attempt) == ("succeeded", 2)
    told = "oom with 95.4 MiB; the next attempt is given 143.1 MiB"
    assert [attempt["reason"] for attempt in stack.client.attempts("grows")] == [told, ""]

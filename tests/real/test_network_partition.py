"""N1, N2, N6: networks that go away without a word, all at once, each between the client and one host of one run.

Every host runs a job that writes numbered lines without end. `run --follow` and one `tail -f` for each job read them.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from network_faults import RESUMED_WITHIN, UNKNOWN_WITHIN, FaultyCluster, Reader, Watch, forget_flows
from real_stack import wait_for
from sshlab import Lab, LabHost, NotHere

PARTITION = 15.0  # at the least
HEALED = ("full", "inwards", "outwards", "swallowed")  # cases whose fault is taken back
UNHEALED = ("forgotten", "half-open")  # whose old connection never works again, while new ones do
BRIEF = 5.0


@dataclass(frozen=True)
class Outcome:
    """Seconds: from the fault until it was seen, from its end until the job's lines came again."""

    unknown: float  # shown as UNKNOWN by `list jobs`
    told: float  # said by `run --follow`
    tail: float
    follow: float


@dataclass
class Faults:
    """The run, and what became of each host."""

    cluster: FaultyCluster
    hosts: dict[str, LabHost]  # by case
    watch: Watch
    follower: Reader
    tails: dict[str, Reader]
    futures: dict[str, Future[Outcome]]
    begun: float
    ended: float

    def outcome(self, case: str) -> Outcome:
        return self.futures[case].result()


@pytest.fixture(scope="module")
def faults(shared_lab: Lab) -> Iterator[Faults]:
    if shared_lab.level != "namespaces":
        raise NotHere(shared_lab.leaves_out)
    directory = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    cases = ("well", "brief", *HEALED, *UNHEALED)
    hosts = dict(zip(cases, shared_lab.add(len(cases)), strict=True))
    way = shared_lab.proxy(hosts["swallowed"])
    cluster = FaultyCluster(directory, shared_lab, list(hosts.values()), {hosts["swallowed"].name: way})
    config = cluster.config(jobs=[cluster.writer(host) for host in cluster.hosts])
    readers = [follower := cluster.command("run", "--follow", config)]
    watch = None
    try:
        wait_for(lambda: "submitted" in follower.said)
        watch = Watch(cluster.state, follower.said.split()[1])
        for host in cluster.hosts:
            watch.until(host.name, "RUNNING", 0.0)
        tails = {case: cluster.command("tail", "-f", host.name) for case, host in hosts.items()}
        readers += tails.values()
        wait_for(lambda: all(tail.data for tail in tails.values()))
        made = Faults(cluster, hosts, watch, follower, tails, {}, time.monotonic(), 0.0)

        def swallow(on: bool) -> None:
            way.up.blackhole = on

        begins: dict[str, Callable[[], None]] = {
            "full": hosts["full"].partition,
            "inwards": hosts["inwards"].partition_in,
            "outwards": hosts["outwards"].partition_out,
            "swallowed": lambda: swallow(True),
            "forgotten": lambda: forget_flows(hosts["forgotten"]),
            "half-open": lambda: half_open(hosts["half-open"]),
        }
        with ThreadPoolExecutor(len(begins) + 1) as threads:
            made.futures["brief"] = threads.submit(break_briefly, made)
            for case, begin in begins.items():
                end = (lambda: swallow(False)) if case == "swallowed" else hosts[case].heal
                made.futures[case] = threads.submit(break_one, made, case, begin, end if case in HEALED else None)
        made.ended = time.monotonic()
        for host in cluster.hosts:
            host.write("stop", "")
        for reader in readers:
            assert reader.finish() == 0, reader.said
        for host in cluster.hosts:
            watch.until(host.name, "DONE", 0.0)
        yield made
    finally:
        if watch is not None:
            watch.close()
        for reader in readers:
            reader.close()
        cluster.close()
        shared_lab.remove(*hosts.values())
        shutil.rmtree(directory, ignore_errors=True)


def half_open(host: LabHost) -> None:
    """The other end is gone without a FIN that arrives, and the way to it is good again."""
    host.partition()
    host.kill_sshd_sessions()
    threading.Timer(2.0, host.heal).start()


def break_briefly(made: Faults) -> Outcome:
    host = made.hosts["brief"]
    host.partition()
    threading.Event().wait(BRIEF)
    host.heal()
    healed = time.monotonic()
    tail = wait_for(lambda: made.tails["brief"].printed(healed)) - healed
    return Outcome(
        0.0, 0.0, tail, wait_for(lambda: made.follower.printed(healed, f"{host.name} | ".encode())) - healed
    )


def break_one(made: Faults, case: str, begin: Callable[[], None], end: Callable[[], None] | None) -> Outcome:
    name = made.hosts[case].name
    mark = f"{name} | ".encode()
    begun = time.monotonic()
    begin()
    try:
        unknown = made.watch.until(name, "UNKNOWN", begun)
        told = wait_for(lambda: made.follower.told(begun, f"lab-{name}: no answer")) - begun
        threading.Event().wait(max(0.0, begun + PARTITION - time.monotonic()) if end is not None else 0.0)
    finally:
        if end is not None:
            end()
    healed = time.monotonic() if end is not None else begun + unknown
    tail = wait_for(lambda: made.tails[case].printed(healed)) - healed
    follow = wait_for(lambda: made.follower.printed(healed, mark)) - healed
    made.watch.until(name, "RUNNING", begun)
    return Outcome(unknown, told, tail, follow)


@pytest.mark.parametrize("case", [*HEALED, *UNHEALED])
def test_n1_n2_n6_a_job_behind_it_is_shown_as_unknown_within_30_s_and_as_running_again(
    faults: Faults, case: str, summary_line: Callable[[str], None]
) -> None:
    outcome = faults.outcome(case)
    assert outcome.unknown <= UNKNOWN_WITHIN
    assert outcome.told <= UNKNOWN_WITHIN
    shown = [phase for phase in faults.watch.seen(faults.hosts[case].name) if phase not in {"WAIT", "QUEUE", "IDLE"}]
    assert shown == ["RUNNING", "UNKNOWN", "RUNNING", "DONE"]
    summary_line(
        f"network {case}: unknown after {outcome.unknown:.1f} s, told after {outcome.told:.1f} s; "
        f"tail -f goes on {outcome.tail:.1f} s after healing, run --follow {outcome.follow:.1f} s"
    )


def test_n1_a_partition_of_5_s_is_not_even_seen(faults: Faults) -> None:
    assert "UNKNOWN" not in faults.watch.seen(faults.hosts["brief"].name)


@pytest.mark.parametrize("case", ["brief", *HEALED])
def test_n1_n2_tail_f_and_run_follow_go_on_5_s_after_healing(faults: Faults, case: str) -> None:
    outcome = faults.outcome(case)
    assert outcome.tail <= RESUMED_WITHIN
    assert outcome.follow <= RESUMED_WITHIN


@pytest.mark.parametrize("case", ["well", "brief", *HEALED, *UNHEALED])
def test_n1_n2_n6_every_reader_gets_the_log_byte_for_byte(faults: Faults, case: str) -> None:
    host = faults.hosts[case]
    truth = faults.cluster.truth(host)
    assert truth.count(b"\n") > 500
    assert faults.tails[case].data == truth
    mark = f"{host.name} | ".encode()
    lines = [line for line in faults.follower.data.splitlines(keepends=True) if line.startswith(mark)]
    assert b"".join(line.removeprefix(mark) for line in lines) == truth
    assert faults.cluster.tail(host.name) == truth


def test_n1_n2_n6_no_job_is_lost_or_executed_twice(faults: Faults) -> None:
    jobs = faults.cluster.jobs(faults.follower.said.split()[1])
    for host in faults.cluster.hosts:
        job = jobs[host.name]
        assert (job.state, job.attempt) == ("succeeded", 1)
        assert faults.cluster.ledger(host) == [job.uid]


def test_n1_the_logs_of_other_hosts_are_not_held_up_by_those_that_are_silent(
    faults: Faults, summary_line: Callable[[str], None]
) -> None:
    name = faults.hosts["well"].name
    assert "UNKNOWN" not in faults.watch.seen(name)
    gap = faults.follower.longest_gap(faults.begun, faults.ended, f"{name} | ".encode())
    assert gap <= RESUMED_WITHIN
    summary_line(f"network: run --follow shows the other hosts' lines at least every {gap:.1f} s meanwhile")

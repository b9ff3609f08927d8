"""N3, N4, N11: networks that lose, delay, dribble or flap, each between the client and a host of one run."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from network_faults import FaultyCluster, Watch
from sshlab import Lab, LabHost, NotHere

LOSSES = {"loses 1 %": 1.0, "loses 10 %": 10.0, "loses 30 %": 30.0}
SLOW = ("2 s away", "50 kbit/s")
FLAPS = ("silent", "silent inwards", "reset")
CASES = (*LOSSES, *SLOW, *FLAPS, "dribble")
FLAPPING = 16.0  # seconds in all, of which each second one is bad
CONVERGED_WITHIN = 60.0  # after calm, as the catalogue of faults has it
JOBS = 3  # of each host that is not flapping
FLAP_JOBS = 40
LARGE = 150_000  # bytes: 24 s on the slowest line, in one piece
DEADLINE = 150.0


@dataclass
class Weather:
    """A run through all of it, and when the last job of each host was done, with its results at home."""

    cluster: FaultyCluster
    hosts: dict[str, LabHost]
    run: str
    watch: Watch
    digests: dict[str, str]
    begun: float
    done: dict[str, float] = field(default_factory=dict)
    calm: dict[str, float] = field(default_factory=dict)
    dribble: Future[tuple[float, float]] | None = None


def count(case: str) -> int:
    return FLAP_JOBS if case in FLAPS else JOBS


@pytest.fixture(scope="module")
def weather(shared_lab: Lab) -> Iterator[Weather]:
    if shared_lab.level != "namespaces":
        raise NotHere(shared_lab.leaves_out)
    directory = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    hosts = dict(zip(CASES, shared_lab.add(len(CASES)), strict=True))
    far, narrow, drip = (shared_lab.proxy(hosts[case]) for case in (*SLOW, "dribble"))
    ways = {hosts["2 s away"].name: far, hosts["50 kbit/s"].name: narrow, hosts["dribble"].name: drip}
    cluster = FaultyCluster(directory, shared_lab, list(hosts.values()), ways)
    watch = None
    try:
        cluster.run(
            *(cluster.job(host, f"first-{host.name}", "true") for host in cluster.hosts)
        )  # leaves the agent there
        digests = write_uploads(cluster)
        for case, percent in LOSSES.items():
            hosts[case].loss(percent)
        for way in (far.up, far.down):
            way.delay = 1.0
        for way in (narrow.up, narrow.down):
            way.rate = 6250.0
        far.cut()
        narrow.cut()
        begun = time.monotonic()
        run = cluster.submit(name="weather.json", jobs=list_jobs(cluster, hosts))
        watch = Watch(cluster.state, run)
        made = Weather(cluster, hosts, run, watch, digests, begun)
        with ThreadPoolExecutor() as threads:
            for place, case in enumerate(FLAPS):
                threads.submit(flap, made, case, place / len(FLAPS))
            made.dribble = threads.submit(dribble, made, [drip.up, drip.down])
            look_on(made)
        yield made
    finally:
        if watch is not None:
            watch.close()
        cluster.close()
        shared_lab.remove(*hosts.values())
        shutil.rmtree(directory, ignore_errors=True)


def write_uploads(cluster: FaultyCluster) -> dict[str, str]:
    digests = {}
    for name, size in (("small", 20_000), ("large", LARGE)):
        data = os.urandom(size)
        (cluster.files / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def upload_of(case: str) -> str:
    return "large" if case == "50 kbit/s" else "small"


def list_jobs(cluster: FaultyCluster, hosts: dict[str, LabHost]) -> list[dict[str, object]]:
    jobs: list[dict[str, object]] = []
    for case, host in hosts.items():
        if case == "dribble":
            jobs.append(cluster.writer(host))
            continue
        name = upload_of(case)
        pause = "sleep 0.4;" if case in FLAPS else ""
        script = f'echo "$CLOUDSEND_ATTEMPT" >>~/ledger; {pause} sha256sum <{name}; head -c 2000 {name} >out'
        jobs += [cluster.job(host, f"{host.name}-{n}", script, upload=name, output="out") for n in range(count(case))]
    return jobs


def flap(made: Weather, case: str, offset: float) -> None:
    host = made.hosts[case]
    bad = {"silent": host.partition, "silent inwards": host.partition_in, "reset": host.refuse}[case]
    pause = threading.Event()
    pause.wait(offset)
    until = time.monotonic() + FLAPPING
    while time.monotonic() < until:
        bad()
        pause.wait(1.0)
        host.heal()
        pause.wait(1.0)
    made.calm[case] = time.monotonic()


def dribble(made: Weather, ways: list[object]) -> tuple[float, float]:
    """A byte a second, until it is noticed, and then all again: how long it took to notice, and to go on."""
    host = made.hosts["dribble"]
    made.watch.until(host.name, "RUNNING", 0.0)
    begun = time.monotonic()
    for way in ways:
        way.rate = 1.0  # type: ignore[attr-defined]
    noticed = made.watch.until(host.name, "UNKNOWN", begun)
    for way in ways:
        way.rate = None  # type: ignore[attr-defined]
    lifted = time.monotonic()
    back = made.watch.until(host.name, "RUNNING", lifted)
    host.write("stop", "")
    return noticed, back


def look_on(made: Weather) -> None:
    """Until all is settled. What loses most is healed when nothing else is left to wait for."""
    worst = made.hosts["loses 30 %"]
    left = dict(made.hosts)
    for _ in made.cluster.client.follow(made.run, timeout=DEADLINE):
        jobs = made.cluster.jobs(made.run)
        for case, host in list(left.items()):
            own = [job for name, job in jobs.items() if name.startswith(f"{host.name}-") or name == host.name]
            if all(job.state == "succeeded" and job.outputs in {"", "home"} for job in own):
                made.done[case] = time.monotonic()
                del left[case]
        if list(left) == ["loses 30 %"]:
            worst.heal()


def check(made: Weather, case: str) -> None:
    """Every job was executed once, and what it wrote is here."""
    host, name = made.hosts[case], upload_of(case)
    jobs = made.cluster.jobs(made.run)
    uids = []
    for number in range(count(case)):
        job = jobs[f"{host.name}-{number}"]
        assert (job.state, job.attempt, job.outputs) == ("succeeded", 1, "home"), job
        assert made.cluster.tail(job.id) == f"{made.digests[name]}  -\n".encode()
        [home] = made.cluster.client.fetch(job.id)
        assert (home / "out").read_bytes() == (made.cluster.files / name).read_bytes()[:2000]
        uids.append(job.uid)
    assert sorted(made.cluster.ledger(host)) == sorted(uids)


@pytest.mark.parametrize("case", LOSSES)
def test_n3_over_a_line_that_loses_packets_all_is_slower_and_right(
    weather: Weather, case: str, summary_line: Callable[[str], None]
) -> None:
    check(weather, case)
    summary_line(f"network {case}: {JOBS} jobs with a file each way in {weather.done[case] - weather.begun:.1f} s")


@pytest.mark.parametrize("case", SLOW)
def test_n4_over_a_line_that_is_far_or_narrow_all_is_slower_and_right(
    weather: Weather, case: str, summary_line: Callable[[str], None]
) -> None:
    """Nothing is given up while it makes progress."""
    check(weather, case)
    host = weather.hosts[case]
    assert weather.cluster.count_connections(host) == 2  # the first one was cut by the test
    summary_line(f"network {case}: {JOBS} jobs with a file each way in {weather.done[case] - weather.begun:.1f} s")


def test_n4_a_line_that_brings_a_byte_a_second_is_unknown_until_it_brings_more(
    weather: Weather, summary_line: Callable[[str], None]
) -> None:
    assert weather.dribble is not None
    noticed, back = weather.dribble.result()
    host = weather.hosts["dribble"]
    job = weather.cluster.jobs(weather.run)[host.name]
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert weather.cluster.ledger(host) == [job.uid]
    assert weather.cluster.tail(host.name) == weather.cluster.truth(host)
    summary_line(f"network dribble: unknown after {noticed:.1f} s, running {back:.1f} s after it ended")


@pytest.mark.parametrize("case", FLAPS)
def test_n11_over_a_line_that_flaps_nothing_is_doubled_and_all_is_done_60_s_after_calm(
    weather: Weather, case: str, summary_line: Callable[[str], None]
) -> None:
    check(weather, case)
    late = weather.done[case] - weather.calm[case]
    assert late <= CONVERGED_WITHIN
    connections = weather.cluster.count_connections(weather.hosts[case])
    summary_line(f"network {case} each second second: {connections} connections, done {late:.1f} s after calm")

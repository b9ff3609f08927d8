"""N5, D6: connections that are reset, or carry a flipped bit, at one place after another of what goes over them."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_hello import ask_hello
from campaigns import pick
from network_faults import FaultyCluster
from real_stack import wait_for
from sshlab import Lab, LabHost, Proxy, Way

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import UnreachableError
from cloudsend_cli.hosts.ssh import SshHost

MakeHosts = Callable[..., list[LabHost]]
JOBS = 24  # for each host
LEAST_CUTS = 10  # of each host
DENSE, SPARSE = pick((8, 4), (16, 8))
OUTPUT = 60_000
SILENT = 2.0  # seconds after which a connection has no more to carry


def attach(lab: Lab, host: LabHost, way: Proxy, home: str) -> None:
    """Put the agent into a home of its own, and have it answer."""
    settings = (("key", str(host.key_path)),)
    address = HostAddress("ssh", home, f"~/homes/{home}", way.host, way.port, host.user, settings)
    stream = SshHost(address, lab.known_hosts).open_agent(agent_source(), agent_sha256())
    try:
        assert ask_hello(stream)["ok"] is True
    finally:
        stream.close()


def spread(total: int, dense: int) -> list[int]:
    """Places in `total` bytes: more among the first `dense` ones, in which most is said, than among the rest."""
    return [*range(0, dense, dense // DENSE), *range(dense, total, (total - dense) // SPARSE + 1)]


@pytest.mark.campaign("cuts of connections")
def test_n5_a_connection_that_is_cut_anywhere_while_it_is_made_is_unreachable_and_nothing_else(
    shared_lab: Lab, lab_hosts: MakeHosts, summary_line: Callable[[str], None]
) -> None:
    """As every other error would give up the machine, or its jobs."""
    [host] = lab_hosts()
    way = shared_lab.proxy(host)
    attach(shared_lab, host, way, "whole")
    totals = {"up": way.up.count, "down": way.down.count}
    count = 0
    for name, dense in (("up", 16_000), ("down", 3_000)):
        one: Way = getattr(way, name)
        for place in spread(totals[name] - 40, dense):  # the end of the farewell is not waited for
            count += 1
            one.cut_after = one.count + place
            with pytest.raises(UnreachableError):
                attach(shared_lab, host, way, f"{name}{place}")
            wait_for(lambda way=one: way.cut_after is None)
    for home in host.sh("ls homes").split():
        # A file that is not whole is never left under the agent's name.
        for path in host.sh(f"find homes/{home} -name 'agent-*.pyz'").split():
            assert hashlib.sha256(host.read(path)).hexdigest() == agent_sha256()
    attach(shared_lab, host, way, f"up{spread(totals['up'] - 40, 16_000)[-1]}")
    summary_line(f"network: connections cut at {count} places while they were made")


class Sweep:
    """Harms each connection of one way a little later than the one before, until it is told to stop."""

    def __init__(self, way: Proxy, harm: str) -> None:
        self.harms = 0
        self._way, self._harm = way, harm
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        seen = 0
        for size, one in zip(self._sizes(), itertools.cycle((self._way.up, self._way.down)), strict=False):
            while self._way.connections == seen:
                if self._stop.wait(0.005):
                    return
            seen = self._way.connections
            setattr(one, self._harm, one.count + size)
            passed, moved = -1, 0.0
            while getattr(one, self._harm) is not None:
                count = self._way.up.count + self._way.down.count
                if count != passed:
                    passed, moved = count, time.monotonic()
                if time.monotonic() > moved + SILENT or self._stop.wait(0.005):
                    break
            harmed = getattr(one, self._harm) is None
            setattr(one, self._harm, None)
            self.harms += harmed
            # A connection that did not come so far would be harmed no more: the next one is to come. One with a
            # damaged byte is ended by whoever sees that.
            if not self._stop.is_set() and not (harmed and self._harm == "corrupt_at"):
                self._way.cut()

    @staticmethod
    def _sizes() -> Iterator[int]:
        """Of what a connection may carry; the agent's file goes over the first."""
        yield from (200_000, 200_000)
        yield from (2_000 + 1_700 * n for n in itertools.count())

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def test_n5_d6_all_comes_home_whole_over_connections_that_are_cut_or_damaged_one_after_another(
    state_dir: Path, shared_lab: Lab, lab_hosts: MakeHosts, summary_line: Callable[[str], None]
) -> None:
    hosts = lab_hosts(3)
    ways = {host.name: shared_lab.proxy(host) for host in hosts}
    cluster = FaultyCluster(state_dir, shared_lab, hosts, ways)
    shared = cluster.files / "shared.bin"
    shared.write_bytes(bytes(range(256)) * 800)
    jobs = []
    for host, number in itertools.product(hosts, range(JOBS)):
        own = cluster.files / f"own-{host.name}-{number}.txt"
        own.write_text(f"{host.name} {number}\n" * 100)
        script = (
            f'echo "$CLOUDSEND_ATTEMPT" >>~/ledger; cat {own.name}; sleep 0.1; sha256sum <shared.bin;'
            f" head -c {OUTPUT} shared.bin >out.bin; cat {own.name} >>out.bin"
        )
        upload = ["shared.bin", own.name]
        jobs.append(cluster.job(host, f"{host.name}-{number}", script, upload=upload, output="out.bin"))
    sweeps = [
        Sweep(ways[host.name], harm)
        for host, harm in zip(hosts, ("cut_after", "cut_after", "corrupt_at"), strict=True)
    ]
    try:
        run = cluster.submit(jobs=jobs)
        wait_for(lambda: all(sweep.harms >= LEAST_CUTS for sweep in sweeps) or cluster.client.find_run(run).ended_at)
    finally:
        for sweep in sweeps:
            sweep.close()
    try:
        cluster.settle(run)
        harms = [sweep.harms for sweep in sweeps]
        assert min(harms) >= LEAST_CUTS
        ended = cluster.jobs(run)
        results = Path(cluster.client.find_run(run).results_dir)
        digest = hashlib.sha256(shared.read_bytes()).hexdigest()
        for host in hosts:
            uids = []
            for number in range(JOBS):
                job = ended[f"{host.name}-{number}"]
                assert (job.state, job.attempt, job.outputs) == ("succeeded", 1, "home"), job
                own = f"{host.name} {number}\n".encode() * 100
                assert cluster.tail(job.id) == own + f"{digest}  -\n".encode()
                assert (results / job.name / "out.bin").read_bytes() == shared.read_bytes()[:OUTPUT] + own
                uids.append(job.uid)
            assert sorted(cluster.ledger(host)) == sorted(uids)
        summary_line(
            f"network: {3 * JOBS} jobs whole over {harms[0] + harms[1]} cut and {harms[2]} damaged connections"
        )
    finally:
        cluster.close()

"""N7: servers that are reloaded, restarted or stopped, and those that let in only few at a time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from network_faults import RESUMED_WITHIN, UNKNOWN_WITHIN, FaultyCluster, begin_writers, end_writers
from real_stack import wait_for
from sshlab import Lab, LabHost, sshd

MakeHosts = Callable[..., list[LabHost]]
MakeFaulty = Callable[..., FaultyCluster]


@pytest.fixture
def make(state_dir: Path, shared_lab: Lab) -> Iterator[MakeFaulty]:
    """A cluster over these hosts, whose sshd says in its log who knocked."""
    made: list[FaultyCluster] = []

    def make_one(*hosts: LabHost, **options: str) -> FaultyCluster:
        for host in hosts:
            host.sshd(LogLevel="VERBOSE", **options)
        directory = state_dir / str(len(made))
        directory.mkdir()
        made.append(FaultyCluster(directory, shared_lab, hosts))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def test_n7_jobs_and_logs_go_on_while_sshd_is_reloaded_restarted_stopped_and_its_sessions_are_killed(
    lab_hosts: MakeHosts, make: MakeFaulty, summary_line: Callable[[str], None]
) -> None:
    [host] = lab_hosts()
    cluster = make(host)
    run = begin_writers(cluster)
    reader = cluster.command("tail", "-f", host.name)
    try:
        wait_for(lambda: reader.data)
        host.restart_sshd()
        [listener] = host.pids(sshd.LISTENER)
        host.kill(listener, signal.SIGHUP)
        assert wait_for(lambda: reader.printed(time.monotonic() - 0.1))
        assert cluster.count_connections(host) == 1  # sessions outlive their listener

        host.kill_sshd_sessions()
        killed = time.monotonic()
        wait_for(lambda: cluster.count_connections(host) == 2)
        back = time.monotonic() - killed

        host.stop_sshd()
        host.kill_sshd_sessions()
        unknown = cluster.until_phase(run, host.name, "UNKNOWN")
        assert unknown <= UNKNOWN_WITHIN
        wait_for(lambda: "refused" in cluster.log_of_maestro())
        host.start_sshd()
        started = time.monotonic()
        refused = wait_for(lambda: reader.printed(started)) - started
        assert refused <= RESUMED_WITHIN
        end_writers(cluster, run)
        assert reader.finish() == 0
        assert reader.data == cluster.truth(host)
        summary_line(
            f"sshd: back {back:.1f} s after its sessions were killed, {refused:.1f} s after it listened again"
        )
    finally:
        reader.close()


def test_n7_max_startups_1_lets_every_client_in_one_after_another(
    shared_lab: Lab, lab_hosts: MakeHosts, make: MakeFaulty, summary_line: Callable[[str], None]
) -> None:
    [host] = lab_hosts()
    clusters = [make(host, MaxStartups="1") for _ in range(5)]
    way = shared_lab.proxy(host, delay=0.1)  # logins take long enough to meet
    runs = []
    for cluster in clusters:
        cluster.ways[host.name] = way
        cluster.trust()
        cluster.write_providers()
        script = 'echo "$CLOUDSEND_ATTEMPT" >>~/ledger'
        runs.append(cluster.submit(jobs=[cluster.job(host, f"j{n}", script) for n in range(3)]))
    uids = []
    for cluster, run in zip(clusters, runs, strict=True):
        cluster.settle(run)
        uids += [job.uid for job in cluster.jobs(run).values() if job.state == "succeeded"]
        assert cluster.count_connections(host) == 1
    assert len(uids) == 15
    assert sorted(clusters[0].ledger(host)) == sorted(uids)
    log = host.sshd_log()
    dropped, accepted = log.count("drop connection"), log.count("Accepted publickey")
    assert accepted == len(clusters)
    assert 0 < dropped < 10 * len(clusters)
    summary_line(f"sshd: {accepted} clients at MaxStartups 1 after {dropped} dropped logins")


def test_n7_max_sessions_1_is_enough_for_everything(lab_hosts: MakeHosts, make: MakeFaulty) -> None:
    [host] = lab_hosts()
    cluster = make(host, MaxSessions="1")
    (cluster.files / "sent").write_text("sent\n")
    script = "cat sent; cp sent out; touch ~/begun; while ! [ -e ~/stop ]; do sleep 0.05; done; echo end"
    run = cluster.submit(jobs=[cluster.job(host, "j", script, upload="sent", output="out")])
    reader = cluster.command("tail", "-f", "j")
    try:
        wait_for(lambda: reader.data == b"sent\n")
        [home] = cluster.client.fetch("j")
        assert (home / "out").read_text() == "sent\n"
        shell = cluster.command("ssh", host.name, "--", "echo", "from a shell")
        assert shell.finish() == 0, shell.said
        assert shell.data == b"from a shell\n"
        host.write("stop", "")
        cluster.settle(run)
        assert reader.finish() == 0
        assert reader.data == b"sent\nend\n"
    finally:
        reader.close()
    assert cluster.jobs(run)["j"].outputs == "home"
    assert cluster.count_connections(host) == 1

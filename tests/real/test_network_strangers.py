"""N7 to N10: doors that are shut for good, strangers behind them, names that do not resolve, machines in between."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from network_faults import (
    RESUMED_WITHIN,
    UNKNOWN_WITHIN,
    FaultyCluster,
    Reader,
    Watch,
    begin_writers,
    end_writers,
)
from real_stack import wait_for
from sshlab import Lab, LabHost, NotHere, Proxy

MakeHosts = Callable[..., list[LabHost]]
KEYS = ".ssh/authorized_keys"
NO_HAMMERING = 3.0  # seconds between two tries at a door that is shut for good
LOGINS = ("publickey", "Accepted", "Failed", "Starting session", "authenticating user")  # in the words of sshd
ATTEMPTS = "find .cloudsend/agent/*/attempts | sort"


@dataclass
class Strangers:
    """One run on a host that takes our key no more, one with another key of its own, two with swapped addresses.

    All are as they were before in the end. What each was seen like in between is kept here.
    """

    cluster: FaultyCluster
    run: str
    shut: LabHost
    changed: LabHost
    swapped: list[LabHost]
    watch: Watch
    begun: float
    logs: dict[str, str] = field(default_factory=dict)  # by host, what sshd wrote meanwhile
    attempts: dict[str, bool] = field(default_factory=dict)  # whether they are as before
    commands: dict[str, tuple[int, Reader]] = field(default_factory=dict)
    knocks: list[float] = field(default_factory=list)  # when the host that is shut was asked


@pytest.fixture(scope="module")
def strangers(shared_lab: Lab) -> Iterator[Strangers]:
    if shared_lab.level != "namespaces":
        raise NotHere(shared_lab.leaves_out)
    directory = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    hosts = shared_lab.add(4, sshd={"LogLevel": "VERBOSE"})
    shut, changed, *swapped = hosts
    door = shared_lab.proxy(shut)
    cluster = FaultyCluster(directory, shared_lab, hosts, {shut.name: door})
    watch = None
    try:
        run = begin_writers(cluster)
        watch = Watch(cluster.state, run)
        made = Strangers(cluster, run, shut, changed, swapped, watch, time.monotonic())
        meet(made, shared_lab, door)
        end_writers(cluster, run)
        for host in hosts:
            watch.until(host.name, "DONE", 0.0)
        yield made
    finally:
        if watch is not None:
            watch.close()
        cluster.close()
        shared_lab.remove(*hosts)
        shutil.rmtree(directory, ignore_errors=True)


def listen(door: Proxy, knocks: list[float], stop: threading.Event) -> None:
    count = door.connections
    while not stop.wait(0.005):
        knocks += [time.monotonic()] * (door.connections - count)
        count = door.connections


def meet(made: Strangers, lab: Lab, door: Proxy) -> None:
    cluster, hosts = made.cluster, made.cluster.hosts
    sizes = {host.name: len(host.sshd_log()) for host in hosts}
    before = {host.name: host.sh(ATTEMPTS) for host in hosts}

    def log(host: LabHost) -> str:
        return host.sshd_log()[sizes[host.name] :]

    lab.swap_addresses(*made.swapped)
    for host in made.swapped:
        made.watch.until(host.name, "UNKNOWN", made.begun)
    made.shut.sh(f"mv {KEYS} {KEYS}.away")
    made.changed.new_host_key()
    stop = threading.Event()
    listener = threading.Thread(target=listen, args=(door, made.knocks, stop), daemon=True)
    listener.start()
    made.shut.kill_sshd_sessions()
    made.changed.kill_sshd_sessions()
    for host in hosts:
        made.watch.until(host.name, "UNKNOWN", made.begun)
        words = "does not let" if host is made.shut else f"the host key of {host.address} has changed"
        wait_for(lambda words=words: words in cluster.log_of_maestro())  # type: ignore[misc]
    made.shut.sh(f"mv {KEYS}.away {KEYS}")
    name = made.changed.name
    started = [cluster.command(*words) for words in (("check", name), ("explain", name), ("ssh", name, "touch", "in"))]
    made.commands = dict(zip(("check", "explain", "ssh"), ((c.finish(), c) for c in started), strict=True))
    for host in (made.changed, *made.swapped):
        made.logs[host.name] = log(host)
        made.attempts[host.name] = host.sh(ATTEMPTS) == before[host.name] and not host.exists("in")
    lab.swap_addresses(*made.swapped)
    lab.write_known_hosts()
    cluster.trust()  # as the user does who has compared the key
    for host in hosts:
        healed = next(at for at, name, phase in made.watch.changes if (name, phase) == (host.name, "UNKNOWN"))
        made.watch.until(host.name, "RUNNING", healed)
    stop.set()
    listener.join()


def unknown_after(made: Strangers, *hosts: LabHost) -> float:
    return max(made.watch.until(host.name, "UNKNOWN", made.begun) for host in hosts)


def logins(made: Strangers, host: LabHost) -> list[str]:
    """None may even be tried at a machine that has not shown its key."""
    return [line for line in made.logs[host.name].splitlines() if any(word in line for word in LOGINS)]


def test_n7_a_host_that_takes_no_key_is_not_hammered_and_its_job_goes_on_when_it_does(
    strangers: Strangers, summary_line: Callable[[str], None]
) -> None:
    """Servers count failed logins, and shut out who has too many (PerSourcePenalties, fail2ban)."""
    pauses = [after - before for before, after in pairwise(strangers.knocks)]
    assert pauses
    assert min(pauses) > NO_HAMMERING
    summary_line(f"sshd: a refused login is tried again after {pauses[0]:.1f} s")


def test_n8_a_host_whose_key_has_changed_gets_nothing_and_its_job_goes_on_once_the_key_is_accepted(
    strangers: Strangers,
) -> None:
    host = strangers.changed
    assert unknown_after(strangers, host) <= UNKNOWN_WITHIN
    assert logins(strangers, host) == []
    assert strangers.attempts[host.name]
    assert strangers.watch.seen(host.name)[-3:] == ["UNKNOWN", "RUNNING", "DONE"]


def test_n8_commands_say_that_the_key_has_changed_and_end_with_4_as_for_credentials(strangers: Strangers) -> None:
    for name, status in (("check", 4), ("explain", 0)):
        ended, command = strangers.commands[name]
        assert ended == status
        assert "has changed" in command.data.decode() + command.said
    assert strangers.commands["ssh"][0] not in {0, 1}


def test_n9_two_hosts_with_swapped_addresses_are_both_unknown_and_neither_is_told_anything(
    strangers: Strangers, summary_line: Callable[[str], None]
) -> None:
    unknown = unknown_after(strangers, *strangers.swapped)
    assert unknown <= UNKNOWN_WITHIN
    for host in strangers.swapped:
        assert "Connection from" in strangers.logs[host.name]
        assert logins(strangers, host) == []
        assert strangers.attempts[host.name]
    summary_line(f"addresses swapped: both unknown after {unknown:.1f} s")


def test_n8_a_new_run_leaves_out_a_host_whose_key_has_changed(
    state_dir: Path, shared_lab: Lab, lab_hosts: MakeHosts
) -> None:
    [host] = lab_hosts(sshd={"LogLevel": "VERBOSE"})
    cluster = FaultyCluster(state_dir, shared_lab, [host])
    try:
        host.new_host_key()
        refused = cluster.command("run", "-p", "lab", "--", "touch", "in")
        assert refused.finish() == 1
        assert f"refused: the host key of {host.address} has changed" in refused.said
        assert [word for word in LOGINS if word in host.sshd_log()] == []
        assert not host.exists(".cloudsend")
    finally:
        cluster.close()


def test_n9_n10_names_are_resolved_anew_and_machines_in_between_may_come_and_go(
    shared_lab: Lab,
    lab_hosts: MakeHosts,
    state_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    summary_line: Callable[[str], None],
) -> None:
    """One host moves, one has a name that does not resolve at first, one lies behind another."""
    mover, nameless, hidden, bastion = lab_hosts(4)
    config, known = tmp_path / "ssh_config", tmp_path / "known"
    monkeypatch.setenv("CLOUDSEND_SSH_CONFIG", str(config))

    def configure(nameless_at: str) -> None:
        names = {
            "mover": (mover, mover.address),
            "nameless": (nameless, nameless_at),
            "bastion": (bastion, bastion.address),
        }
        blocks = [
            f"Host {name}\n  HostName {address}\n  HostKeyAlias {host.name}\n  UserKnownHostsFile {known}\n"
            f"  User {host.user}\n  IdentityFile {host.key_path}\n"
            for name, (host, address) in names.items()
        ]
        config.with_suffix(".new").write_text("".join(blocks))
        config.with_suffix(".new").chmod(0o600)
        config.with_suffix(".new").rename(config)

    known.write_text("".join(f"{host.name} {host.host_key}\n" for host in (mover, nameless, bastion)))
    configure("no-such-name.invalid")
    hidden.hide_from_client()
    cluster = FaultyCluster(state_dir, shared_lab, [mover, nameless, hidden])
    cluster.write_providers(
        **{mover.name: {"host": "mover"}, nameless.name: {"host": "nameless"}, hidden.name: {"jump": "bastion"}}
    )
    try:
        run = cluster.submit(jobs=[cluster.writer(host) for host in cluster.hosts])
        for host in (mover, hidden):
            cluster.until_phase(run, host.name, "RUNNING")

        wait_for(lambda: "no address for nameless" in cluster.log_of_maestro())
        assert cluster.jobs(run)[nameless.name].state == "pending"
        check = cluster.command("check", nameless.name)
        assert check.finish() == 6
        assert "no address" in check.data.decode() + check.said
        configure(nameless.address)
        cluster.until_phase(run, nameless.name, "RUNNING")

        bastion.stop_sshd()
        bastion.kill_sshd_sessions()
        mover.set_address(mover.address.rpartition(".")[0] + ".251")
        cluster.until_phase(run, hidden.name, "UNKNOWN")
        wait_for(lambda: f"bastion ({bastion.address})" in cluster.log_of_maestro())
        bastion.start_sshd()
        behind = cluster.until_phase(run, hidden.name, "RUNNING")
        assert behind <= RESUMED_WITHIN
        unknown = cluster.until_phase(run, mover.name, "UNKNOWN")
        assert unknown <= UNKNOWN_WITHIN
        configure(nameless.address)
        moved = cluster.until_phase(run, mover.name, "RUNNING")
        assert moved <= RESUMED_WITHIN
        end_writers(cluster, run)
        summary_line(
            f"names: back {behind:.1f} s after its bastion, {moved:.1f} s after its new address is configured"
        )
    finally:
        cluster.close()

"""Rows 11, 13, 14, 17: who is not the user, and stands on the host or on the way to it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import warm_commands
from real_stack import find_processes, wait_for
from ssh_cluster import Cluster
from sshlab import LabHost

MakeCluster = Callable[..., Cluster]
LISTENING = "0A"
AUTH = 4  # the exit status for keys and permissions


def cloudsend(made: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "CLOUDSEND_HOME": str(made.state)}
    return warm_commands.run(words, environ=environ, folder=made.files)


# ---- row 17 --------------------------------------------------------------------------------------------------------


def preauth_only(host: LabHost) -> bool:
    """Whether nobody who came to this sshd tried to log in."""
    log = host.sshd_log()
    assert "debug1: " in log
    return not re.search(r"userauth-request|Accepted|Failed|Postponed|matching key found", log)


def test_a_machine_with_another_key_in_between_gets_no_login_and_no_byte(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    """It has the victim's address, an account with the victim's name, and lets in whoever has the user's key."""
    made = cluster(2)
    victim, stranger = made.hosts
    stranger.sshd(LogLevel="DEBUG3")
    made.hosts = [victim]
    made.write_providers()
    made.lab.swap_addresses(victim, stranger)
    (made.files / "upload").write_text("payload")
    config = made.config(jobs=[{"name": "a", "run": "cat upload", "upload": "upload"}])
    for words in (["check", "-p", "lab"], ["run", config], ["ssh", victim.name, "--", "id"]):
        done = cloudsend(made, *words)
        said = done.stdout + done.stderr
        if words[0] == "run":
            assert done.returncode in {1, AUTH}, said  # the job failed, and says why
        elif words[0] == "check":
            assert done.returncode == AUTH, said
        else:
            assert done.returncode != 0, said
        assert "uid=" not in said
        assert re.search("has changed|verification failed|IDENTIFICATION HAS CHANGED", said), said
    assert preauth_only(stranger)
    assert not stranger.exists(".cloudsend")
    assert made.jobs(made.client.list_runs()[0].id)["a"].reason.count("host key") == 1
    connections = stranger.sshd_log().count("Connection from ")
    assert connections >= 3
    # And a machine whose key nobody has seen is no other case.
    (made.state / "known_hosts").write_text("")
    done = cloudsend(made, "check", "-p", "lab")
    assert done.returncode == AUTH
    assert "SHA256:" in done.stdout + done.stderr
    assert preauth_only(stranger)
    summary_line(f"stranger in between: {connections} connections, no login tried, no byte of ours")


# ---- row 14 --------------------------------------------------------------------------------------------------------


def listeners(table: str) -> set[int]:
    """Local ports of listening sockets of a /proc/net/tcp."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == LISTENING}


def sockets_that_listen_here(pids: list[int]) -> set[str]:
    """Inodes of TCP sockets on which these processes listen."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[3] == LISTENING}
    held: set[str] = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                held.add(os.readlink(fd))
            except OSError:
                continue
    return inodes & held


def test_nothing_listens_on_the_network_but_sshd(cluster: MakeCluster) -> None:
    made = cluster(1)
    host = made.hosts[0]
    tables = "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6"
    before = host.sh("cat /proc/net/udp /proc/net/udp6")
    run = made.submit(jobs=[{"name": "a", "run": "touch ~/runs; until [ -e ~/go ]; do sleep 0.05; done"}])
    wait_for(lambda: host.exists("runs"))
    assert listeners(host.sh("cat /proc/net/tcp; tail -n +2 /proc/net/tcp6")) == {host.port}, host.sh(tables)
    assert host.sh("cat /proc/net/udp /proc/net/udp6") == before
    ours = [made.maestro() or 0, *find_processes(made.directory)]
    assert made.maestro()
    assert sockets_that_listen_here([pid for pid in ours if pid]) == set()
    about = os.stat(made.state / "maestro.sock")
    assert stat.S_ISSOCK(about.st_mode)
    assert about.st_mode & 0o777 == 0o600
    assert host.sh("find .cloudsend -name agent.sock -printf '%h\\n' | xargs stat -c %a").split() == ["700"]
    host.write("go", b"")
    made.settle(run)


# ---- row 13 --------------------------------------------------------------------------------------------------------

SQUAT = """
set -e
mkdir -p /tmp/cs && chmod 777 /tmp/cs && chown 65534 /tmp/cs
mkdir -p /tmp/of-root && chmod 1777 /tmp/of-root
mkdir /tmp/of-root/theirs && chmod 777 /tmp/of-root/theirs && chown 65534 /tmp/of-root/theirs
ln -s /tmp/cs /tmp/of-root/link && chown -h 65534 /tmp/of-root/link
mkdir /tmp/open && chmod 777 /tmp/open
touch /tmp/file && chown 65534 /tmp/file
"""
SQUATTED = ("/tmp/cs", "/tmp/cs/agent", "/tmp/of-root/theirs/agent", "/tmp/of-root/link/agent", "/tmp/open/agent",
            "/tmp/file", "/tmp/file/agent")  # fmt: skip


def test_places_that_another_user_holds_are_not_used_and_nothing_is_put_there(cluster: MakeCluster) -> None:
    """`home: /tmp/cs/agent`, and somebody was there first, who could exchange the agent before it is executed."""
    made = cluster(1)
    host = made.hosts[0]
    host.sh(SQUAT, root=True)
    shown = "find /tmp | sort"
    before = host.sh(shown, root=True)
    for home in SQUATTED:
        made.write_providers(home=home)
        done = cloudsend(made, "run", "--fresh", made.config(jobs=[{"name": "a", "run": "true"}]))
        said = done.stdout + done.stderr
        assert done.returncode == 1, (home, said)
        assert home.split("/")[2] in said, (home, said)
        assert host.sh(shown, root=True) == before, home
    made.write_providers(home="/tmp/of-root/mine/agent")
    made.run({"name": "b", "run": "true"})
    assert host.sh("stat -c %a:%U /tmp/of-root/mine /tmp/of-root/mine/agent").split() == ["700:lab"] * 2


HOLD = r"""
import contextlib, json, os, socket

os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.bind("\0cloudsend-machine")
sock.listen(9)
print("held", flush=True)
while True:
    with contextlib.suppress(OSError), sock.accept()[0] as asking:
        asking.sendall(json.dumps({"user": "root", "uid": 0, "home": "\x1b[2J"}).encode() + b"\n")
"""


def test_a_claim_that_another_user_squats_is_told_with_his_name(cluster: MakeCluster) -> None:
    """Anybody on a machine can hold the name of the claim; nobody can pretend to be another user with it."""
    made = cluster(1)
    host = made.hosts[0]
    with subprocess.Popen(host.command(["python3", "-c", HOLD], root=True), stdout=subprocess.PIPE) as squatter:
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == b"held\n"
            done = cloudsend(made, "check", "-p", "lab", "-o", "json")
            taken = json.loads(done.stdout)[0]["facts"]["taken"]
            assert taken == "nobody, ?[2J"
            run = made.submit(jobs=[{"name": "a", "run": "true"}])
            made.until(run, lambda progress: any("nobody" in note for note in progress.notes))
        finally:
            for pid in host.pids("cloudsend-machine"):
                host.kill(pid)
    made.client.cancel_run(run)
    made.settle(run)

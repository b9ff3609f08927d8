"""A8 and A9: starts, kills and repeated starts of one attempt that reach the host at the same time, or late."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import LEDGER, agent_home, wait_ledger
from sshlab import LabHost

from cloudsend_cli.agent.client import AgentChannel, agent_sha256, agent_source
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.engine.asking import Ask, ask_now
from cloudsend_cli.hosts.ssh import SshHost

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
ENDLESS = LEDGER + "setsid sleep 1000 & sleep 1000"


def test_a8_a_kill_that_races_with_the_start_over_a_slow_way_wins_or_ends_what_has_started(
    cluster: MakeCluster,
) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    way = stack.lab.proxy(host, delay=0.1)
    stack.trust()
    stack.write_providers(host=way.host, port=way.port)
    names = [f"job-{n}" for n in range(10)]
    jobs = [{"name": name, "run": ENDLESS, "cpus": 0.1, "grace": "1s"} for name in names]
    run = stack.submit(jobs=[*jobs[:5], {"name": "first", "run": LEDGER}, *jobs[5:]])
    stack.client.cancel(names[:2])  # before the host is even reached
    wait_for(lambda: stack.jobs(run)[names[2]].attempt == 1)
    stack.client.cancel(names[2:5])  # while the order is on its way
    wait_ledger(stack, host, 1)
    stack.client.cancel(names[5:8])  # while news of the start is on its way
    stack.until_phase(run, names[8], "RUNNING")
    stack.client.cancel(names[8:])
    stack.settle(run)
    seen = stack.jobs(run)
    assert {seen[name].state for name in names} == {"cancelled"} and seen["first"].state == "succeeded"
    begun = stack.ledger(host)
    assert len(set(begun)) == len(begun)
    assert {seen[name].uid for name in names if seen[name].started_at is not None} | {seen["first"].uid} == set(begun)
    wait_for(lambda: not host.pids("sleep 1000"))
    # The orders come once more, late, over another connection: whoever was killed stays so.
    specs = [json.loads(host.read(f"{path}/spec.json"))["spec"] for path in attempts(host)]
    assert offer(stack, host, specs) <= {"cancelled", "duplicate", "mismatch"}
    assert stack.ledger(host) == begun and not host.pids("sleep 1000")


def test_a9_one_attempt_offered_over_20_connections_at_once_is_executed_once(cluster: MakeCluster) -> None:
    stack = cluster(1)
    host = stack.hosts[0]
    host.sshd(MaxStartups="100")
    offers = 20
    together = threading.Barrier(offers)
    spec = {"id": "abcdef.1.1", "argv": ["/bin/sh", "-c", LEDGER + "exit 7"]}
    with ThreadPoolExecutor(offers) as threads:
        answers = [threads.submit(offer, stack, host, [spec], together) for _ in range(offers)]
    found = sorted(word for answer in answers for word in answer.result())
    assert found == ["duplicate"] * (offers - 1) + ["queued"]
    record = f"{agent_home(host)}/attempts/abcdef.1.1/record"
    wait_for(lambda: b'"exited"' in host.read(record))
    assert b'"exit_code":7' in host.read(record)
    assert stack.ledger(host) == ["abcdef.1.1"]


def attempts(host: LabHost) -> list[str]:
    return host.sh('ls -d "$1"/attempts/*', agent_home(host)).split()


def offer(
    stack: Cluster, host: LabHost, specs: list[dict[str, object]], together: threading.Barrier | None = None
) -> set[str]:
    """Have the agent start these over a connection of its own; what it says of them."""
    settings = (("key", str(host.key_path)),)
    address = HostAddress("ssh", host.name, host=host.address, port=host.port, user=host.user, settings=settings)
    stream = SshHost(address, Path(stack.lab.known_hosts)).open_agent(agent_source(), agent_sha256())
    try:
        channel = AgentChannel(stream)
        hello, _ = ask_now(channel, Ask("hello", {"owner": "late", "epoch": 1, "shared": True}), lambda: False)
        if together is not None:
            together.wait(30)
        asked = Ask("start", {"boot": hello["boot"], "attempts": specs})
        reply, _ = ask_now(channel, asked, lambda: False)
        return set(reply["results"].values())
    finally:
        stream.close()

"""H16: environments whose installation fails, hangs, is cut off half way, or finds no room."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from ssh_faults import LEDGER, record_of, until_file
from sshlab import LabHost

from cloudsend_cli.core.naming import build_id

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
COUNT = "echo $0 >>~/builds\n"


def builds(host: LabHost) -> int:
    return len(host.sh("cat builds 2>/dev/null || true").split())


def submit_with(stack: Cluster, name: str, setup: str, host: LabHost | None = None) -> str:
    where = {"instances": {"labels": host.name}} if host is not None else {}
    job = {"name": name, "run": f"{LEDGER}test -e $CLOUDSEND_ENV/whole", "env": name}
    return stack.submit(
        name=f"{name}.json", environments=[{"name": name, "setup": COUNT + setup}], jobs=[job], **where
    )


def test_h16_an_environment_that_fails_hangs_or_finds_no_room_starts_no_job_and_its_log_is_shown(
    cluster: MakeCluster,
) -> None:
    stack = cluster(2, home_size="20m")
    hangs, full = stack.hosts
    failing = submit_with(stack, "fails", "echo working; echo broken >&2; exit 3")
    stack.settle(failing)
    assert stack.jobs(failing)["fails"].reason == "environment-failed: exit 3"
    assert b"working\n" in stack.tail("fails") and b"broken\n" in stack.tail("fails", "stderr")
    assert b"broken\n" in stack.client.log_tail("fails")
    assert (builds(hangs), builds(full)) == (1, 1)  # once on each, and not again
    roomless = submit_with(
        stack, "big", "head -c 40000000 /dev/zero >$CLOUDSEND_ENV/big; : >$CLOUDSEND_ENV/whole", full
    )
    hanging = submit_with(stack, "hangs", "[ -e ~/mended ] || sleep 1000; : >$CLOUDSEND_ENV/whole", hangs)
    stack.settle(roomless)
    assert stack.jobs(roomless)["big"].reason == "environment-failed: exit 1, disk-full"
    wait_for(lambda: hangs.pids("sleep 1000"))
    assert stack.phase(hanging, "hangs") == "WAIT"
    assert "its environment is not ready on" in str(stack.client.explain("hangs"))
    stack.client.cancel(["hangs"])
    stack.settle(hanging)
    wait_for(lambda: not hangs.pids("sleep 1000"))
    assert stack.ledger(hangs) == stack.ledger(full) == []
    hangs.write("mended", "")
    again = submit_with(stack, "hangs", "[ -e ~/mended ] || sleep 1000; : >$CLOUDSEND_ENV/whole", hangs)
    stack.settle(again)
    assert stack.jobs(again)["hangs"].state == "succeeded"
    assert len(stack.ledger(hangs)) == 1


def test_h16_an_installation_that_is_cut_off_half_way_is_begun_anew_and_no_job_sees_half_of_it(
    cluster: MakeCluster,
) -> None:
    """At the same time: its runner is killed on one host, another host restarts."""
    stack = cluster(3)
    killed, restarted, ended = stack.hosts
    setup = "[ ! -e $CLOUDSEND_ENV/half ] || exit 9; : >$CLOUDSEND_ENV/half\n" + until_file("~/go")
    setup += ": >$CLOUDSEND_ENV/whole"
    runs = {host: submit_with(stack, host.name, setup, host) for host in stack.hosts}
    for host in stack.hosts:
        wait_for(lambda host=host: host.sh("ls .cloudsend/agent/*/envs/*/half 2>/dev/null || true"))  # type: ignore[misc]
    (environment,) = {view.key for run in runs.values() for view in stack.client.list_environments(run)}
    killed.kill(record_of(killed, build_id(runs[killed], environment, 1))["runner"])
    restarted.reboot()
    ended.kill(record_of(ended, build_id(runs[ended], environment, 1))["pid"])
    stack.settle(runs[ended])
    assert stack.jobs(runs[ended])[ended.name].reason == "environment-failed: killed by SIGKILL"
    for host in (killed, restarted):
        wait_for(lambda host=host: builds(host) == 2)  # type: ignore[misc]
        assert stack.ledger(host) == []
        host.write("go", "")
    for host in (killed, restarted):
        stack.settle(runs[host])
        assert stack.jobs(runs[host])[host.name].state == "succeeded"
        assert (len(stack.ledger(host)), builds(host)) == (1, 2)
    assert (stack.ledger(ended), builds(ended)) == ([], 1)

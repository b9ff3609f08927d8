"""A run that was refused, and the same once the cause is mended: what was answered before is no answer any more."""

from __future__ import annotations

from collections.abc import Callable

from ssh_cluster import Cluster

JOB = {"name": "j", "run": "echo hello"}


def test_a_mended_key_counts_at_once(cluster: Callable[..., Cluster]) -> None:
    """Seen: `check` logged in, and runs failed with the refusal of the key before, until the maestro was stopped."""
    lab = cluster(1)
    lab.write_providers(key="/nowhere/key")
    run = lab.run(JOB)
    assert "does not exist" in lab.jobs(run)["j"].reason
    lab.write_providers()
    assert lab.run(JOB) == run
    assert lab.jobs(run)["j"].state == "succeeded"


def test_an_accepted_host_key_counts_at_once(cluster: Callable[..., Cluster]) -> None:
    lab = cluster(1)
    (lab.state / "known_hosts").write_text("")
    run = lab.run(JOB)
    assert "host key" in lab.jobs(run)["j"].reason
    lab.trust()
    lab.run(JOB)
    assert lab.jobs(run)["j"].state == "succeeded"

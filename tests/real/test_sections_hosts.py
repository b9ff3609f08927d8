"""The TaskRunner's form over two SSH hosts: the pool of slots is one for both."""

from __future__ import annotations

from collections.abc import Callable

import yaml
from ssh_cluster import PROVIDER, Cluster
from timed_tasks import Task, check_seed_run, read_tasks, seed_sections

from cloudsend_cli import TaskRunner

MakeCluster = Callable[..., Cluster]
LEDGER = '"$HOME/ledger"'


def tasks_of(stack: Cluster) -> list[Task]:
    """What both hosts wrote, whose clocks are one; each had some of it."""
    ledgers = [stack.ledger(host) for host in stack.hosts]
    assert all(ledgers), [len(lines) for lines in ledgers]
    return read_tasks(line for lines in ledgers for line in lines)


def test_the_seed_readme_config_in_yaml_over_two_hosts(cluster: MakeCluster) -> None:
    stack = cluster(2)
    config = stack.files / "sections.yml"
    sections = seed_sections(LEDGER, seconds=0.4)
    config.write_text(yaml.safe_dump({"provider": PROVIDER, "sections": sections}, sort_keys=False))
    run = stack.client.submit(str(config)).run
    assert stack.settle(run).counts["succeeded"] == 31
    check_seed_run(tasks_of(stack))


def test_the_seed_readme_config_in_python_over_two_hosts(cluster: MakeCluster) -> None:
    stack = cluster(2)
    sections = seed_sections(LEDGER, seconds=0.4)
    runner = TaskRunner(sections, provider=PROVIDER, state_dir=stack.state, folder=stack.files)
    assert [job.state for job in runner.run().jobs] == ["succeeded"] * 31
    check_seed_run(tasks_of(stack))

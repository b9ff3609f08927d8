"""The TaskRunner's form on this machine: counts, order and concurrency, by the tasks' own clocks."""

from __future__ import annotations

from pathlib import Path

import yaml
from real_stack import Stack
from timed_tasks import check_seed_run, read_tasks, seed_sections

from cloudsend_cli import TaskRunner


def read_ledger(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_seed_readme_config_in_yaml(stack: Stack) -> None:
    ledger = stack.files / "ledger"
    config = stack.files / "sections.yml"
    config.write_text(yaml.safe_dump({"sections": seed_sections(str(ledger))}, sort_keys=False))
    run = stack.client.submit(str(config)).run
    assert stack.settle(run).counts["succeeded"] == 31
    check_seed_run(read_tasks(read_ledger(ledger)))


def test_the_seed_readme_config_in_python(stack: Stack) -> None:
    ledger = stack.files / "ledger"
    result = TaskRunner(seed_sections(str(ledger)), state_dir=stack.state).run()
    assert [job.state for job in result.jobs] == ["succeeded"] * 31
    check_seed_run(read_tasks(read_ledger(ledger)))

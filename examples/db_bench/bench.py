"""Measure PostgreSQL over a sweep of scale factors and clients: `python3 bench.py`. See README.md beside it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from db_runner import DBRunner

from cloudsend_cli import TaskRunner
from cloudsend_cli.errors import CloudsendError

COLUMNS = ("scale", "clients", "tps", "latency_ms", "transactions", "report")


def make_sections(runner: DBRunner, scales: list[int], clients: list[int]) -> dict[str, dict[str, dict[str, object]]]:
    """Sections run one after another; so do the tasks of a group without Async: measurements are alone."""
    return {
        "prepare": {"cluster": {"Call": runner.prepare}},
        "load": {"test bed": {"Call": runner.load, "Param": {"scale": scales}}},
        "bench": {"pgbench": {"Call": runner.bench, "Param": {"scale": scales, "clients": clients}}},
        "collect": {"reports": {"Call": runner.collect, "output": "reports"}},
    }


def render_table(rows: list[dict[str, object]]) -> str:
    lines = [COLUMNS, *(tuple(_show(row[name]) for name in COLUMNS) for row in sorted(rows, key=_place))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def _show(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _place(row: dict[str, object]) -> tuple[int, int]:
    return int(str(row["scale"])), int(str(row["clients"]))


def main() -> int:
    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", type=numbers, default=[1, 10], help="pgbench's scale factors (1,10)")
    parser.add_argument("--clients", type=numbers, default=[1, 2, 4, 8], help="clients at the same time (1,2,4,8)")
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement (10)")
    parser.add_argument("--workspace", default=f"/var/tmp/cloudsend-db-bench-{os.getuid()}", help="for the database")
    parser.add_argument("--provider", default="local", help="the machine to measure, such as ssh:gpu1 (this one)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where reports come home (results)")
    given = parser.parse_args()

    runner = DBRunner(given.workspace, given.seconds)
    sections = make_sections(runner, given.scales, given.clients)
    tasks = TaskRunner(sections, provider=given.provider, results_dir=given.results)
    tasks.set_verbose(1)
    results = tasks.run(check=False)
    for task in results.failed:
        print(f"{task.name}: {task.error or task.reason}")
    (collected,) = results.group("collect", "reports")
    if collected.succeeded:
        print(render_table(collected.value()))
        print(f"reports: {collected.directory / 'reports'}")
    return 1 if results.failed else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except CloudsendError as problem:
        raise SystemExit(f"{problem.message}\n{problem.hint}".strip()) from None

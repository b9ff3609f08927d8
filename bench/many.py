"""A hundred thousand jobs in one run: time, memory, disk, the time to list them, and whether it slows down."""

import os
from pathlib import Path

from bench.measuring import Cloudsend, Table, cloudsend_command, median, ms, run_timed, scratch, verdict

MEMORY_LIMIT = 300.0  # MB
LIST_LIMIT = 1.0  # seconds
REPEATS = 5


def measure(jobs: int) -> Table:
    table = Table(f"many-{jobs}", [f"{jobs:,} jobs in one run", "measured", "target", ""])
    with scratch() as directory, Cloudsend(directory) as cloudsend:
        run, submitted, settled = cloudsend.run_jobs(jobs)
        peak = cloudsend.memory("VmHWM")
        ends = sorted(job.ended_at or 0.0 for job in cloudsend.client.list_jobs(run))
        part = max(2, jobs // 10)
        rates = [(part - 1) / (ends[i + part - 1] - ends[i]) for i in range(0, jobs - part + 1, part)]
        listing = {
            words: [run_timed(cloudsend_command(cloudsend.state_dir, *words.split()))[0] for _ in range(REPEATS)]
            for words in ("list jobs -n 20", "list jobs", "list jobs -o json")
        }
        database = (cloudsend.state_dir / "state.db").stat().st_size / 1e6
        size, files = _disk(cloudsend.state_dir / "agent")
    table.raw = {
        "submitted": submitted,
        "settled": settled,
        "peak_mb": peak,
        "rates": rates,
        "listing": listing,
        "database_mb": database,
        "agent_disk_mb": size,
        "agent_files": files,
    }
    slowest = rates[-1] / rates[0]
    few, table_rows, everything = (median(listing[words]) for words in listing)
    table.rows = [
        ["submit to settled", f"{settled:.0f} s, {ms(settled / jobs, 2)} ms a job", "", ""],
        ["of it until submitted", f"{submitted:.1f} s", "", ""],
        ["jobs a second, tenth by tenth", " ".join(f"{r:.0f}" for r in rates), "", ""],
        ["last tenth against first", f"{slowest:.2f}", "1, no slowdown", "kept" if slowest >= 0.95 else "MISSED"],
        *(
            [f"peak memory, {role}", f"{peak.get(role, 0.0):.0f} MB", f"{MEMORY_LIMIT:.0f} MB", _memory(peak, role)]
            for role in ("maestro", "agent", "runner")
        ),
        ["`list jobs -n 20`", f"{ms(few, 0)} ms", "1 s", verdict(few, LIST_LIMIT)],
        ["`list jobs` (its newest 1,000)", f"{ms(table_rows, 0)} ms", "1 s", verdict(table_rows, LIST_LIMIT)],
        ["`list jobs -o json`, all of them", f"{everything:.1f} s", "", ""],
        ["database", f"{database:.0f} MB", "", ""],
        ["the agent's directory", f"{size:.0f} MB in {files:,} files and directories", "", ""],
    ]
    return table


def _memory(peak: dict[str, float], role: str) -> str:
    return verdict(peak[role], MEMORY_LIMIT) if role in peak else "not seen"


def _disk(path: Path) -> tuple[float, int]:
    """Megabytes of blocks, and how many files and directories."""
    blocks = files = 0
    for folder, _, names in os.walk(path):
        for name in (".", *names):
            blocks += os.lstat(os.path.join(folder, name)).st_blocks
            files += 1
    return blocks * 512 / 1e6, files

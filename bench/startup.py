"""What a command costs before it does anything: wall and CPU, against an empty Python."""

import subprocess
import sys

from bench.measuring import ROOT, Cloudsend, Table, cloudsend_command, median, ms, run_timed, scratch, verdict

REPEATS = 15
JOBS = 1000
EMPTY = "`python -c pass`"
LIMITS = {"`cloudsend --help`": 0.130, f"`cloudsend list jobs`, {JOBS:,} jobs": 0.150}


def measure() -> Table:
    # Bytecode first: where PYTHONDONTWRITEBYTECODE is set, every start would compile what it imports.
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(ROOT / "cloudsend_cli")], check=True, timeout=120)
    with scratch() as directory, Cloudsend(directory) as cloudsend:
        cloudsend.run_jobs(JOBS)
        state = cloudsend.state_dir
        commands = {
            EMPTY: [sys.executable, "-c", "pass"],
            "`cloudsend --help`": cloudsend_command(state, "--help"),
            f"`cloudsend list jobs`, {JOBS:,} jobs": cloudsend_command(state, "list", "jobs"),
            "`cloudsend list jobs -n 20`": cloudsend_command(state, "list", "jobs", "-n", "20"),
            "`cloudsend version`": cloudsend_command(state, "version"),
            "`cloudsend validate`": cloudsend_command(state, "validate", cloudsend.write_config(JOBS)),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(REPEATS + 1):
            for name, command in commands.items():
                times[name].append(run_timed(command))
    table = Table(
        "startup",
        [
            f"{REPEATS} times each, in turn",
            "CPU ms, median",
            "CPU ms, least",
            "wall ms, median",
            "CPU ratio",
            "target",
            "",
        ],
        raw=dict(times),
    )
    empty = median([cpu for _, cpu in times[EMPTY][1:]])
    for name, found in times.items():
        wall, cpu = ([pair[i] for pair in found[1:]] for i in (0, 1))  # the first fills caches
        limit = LIMITS.get(name)
        aim = ["", ""] if limit is None else [f"{ms(limit, 0)} ms CPU", verdict(median(cpu), limit)]
        table.rows.append([name, ms(median(cpu)), ms(min(cpu)), ms(median(wall)), f"{median(cpu) / empty:.1f}", *aim])
    return table

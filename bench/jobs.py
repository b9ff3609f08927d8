"""Jobs of `true` with as many places as cores: cloudsend and its peers in turn, round after round."""

import sys
import time
from functools import partial
from pathlib import Path

from bench.measuring import CORES, Cloudsend, NotInstalled, Table, in_child, median, ms, scratch
from bench.peers import PEERS

TARGET, PRIZE = 0.5, 0.4  # times GNU parallel
BASE = "GNU parallel"


def run_cold(jobs: int, directory: Path) -> float:
    """Nothing runs yet: the maestro and the agent are started within the time."""
    with Cloudsend(directory) as cloudsend:
        return cloudsend.run_jobs(jobs)[2]


def run_warm(jobs: int, directory: Path) -> float:
    """The maestro and the agent run since an earlier job."""
    with Cloudsend(directory) as cloudsend:
        cloudsend.run_jobs(1)
        return cloudsend.run_jobs(jobs)[2]


SYSTEMS = {"cloudsend, warm": run_warm, "cloudsend, cold": run_cold, **PEERS}


def measure(jobs: int, rounds: int, limit: float) -> Table:
    """Interleaved: what disturbs the machine disturbs all. After `limit` seconds no new round is begun."""
    seconds: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    cpu: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    missing: dict[str, str] = {}
    begun = time.monotonic()
    done = 0
    while done < rounds and (not done or time.monotonic() - begun < limit):
        names = list(SYSTEMS)
        for name in names[done % len(names) :] + names[: done % len(names)]:
            if name in missing:
                continue
            with scratch() as directory:
                try:
                    wall, used = in_child(partial(SYSTEMS[name], jobs, directory))
                    print(f"  round {done + 1}: {name}: {ms(wall / jobs, 2)} ms a job", file=sys.stderr, flush=True)
                    seconds[name].append(wall)
                    cpu[name].append(used)
                except NotInstalled as why:
                    missing[name] = str(why)
        done += 1
    table = Table(
        f"jobs-{jobs}",
        [
            f"{jobs:,} jobs, {CORES} places, {done} rounds",
            "ms a job",
            "least",
            "most",
            f"times {BASE}",
            "CPU ms a job",
            "",
        ],
        raw={"seconds": seconds, "cpu": cpu, "missing": missing, "rounds": done},
    )
    for name in SYSTEMS:
        table.rows.append(_row(name, jobs, seconds, cpu[name], missing.get(name)))
    return table


def _row(name: str, jobs: int, seconds: dict[str, list[float]], cpu: list[float], missing: str | None) -> list[object]:
    if missing is not None:
        return [name, missing, "", "", "", "", ""]
    mine = [s / jobs for s in seconds[name]]
    cells: list[object] = [name, ms(median(mine), 2), ms(min(mine), 2), ms(max(mine), 2)]
    used = ms(median(cpu) / jobs, 2)
    if not seconds[BASE]:
        return [*cells, "", used, ""]
    # Round by round, so that a busy minute does not count against one system alone.
    ratio = median([a / b for a, b in zip(seconds[name], seconds[BASE], strict=True)])
    word = ""
    if name.startswith("cloudsend"):
        word = "prize" if ratio <= PRIZE else "target kept" if ratio <= TARGET else "target MISSED"
    return [*cells, f"{ratio:.2f}", used, word]

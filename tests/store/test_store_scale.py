"""A run of many thousand jobs: figures are printed; only memory and rows are asserted, time is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import pick

from cloudsend_cli.core.model import JobSpec, Offer, Output, Resources, RunSpec, Upload
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.store.sqlite import SqliteStore

JOBS = pick(20_000, 100_000)

MEASURE = """
import sys, time
from dataclasses import replace
from pathlib import Path
from cloudsend_cli.core.state import Changes
from cloudsend_cli.store.sqlite import SqliteStore

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

store = SqliteStore.open(Path(sys.argv[1]))
begin = time.perf_counter()
rows = sum(1 for _ in store.list_jobs("abc123"))
listed = time.perf_counter() - begin
before = resident()
begin = time.perf_counter()
state = store.load("abc123")
loaded = time.perf_counter() - begin
grown = resident() - before
version, times = state.run.version, []
for tick in range(30):
    numbers = range(tick * 300 + 1, tick * 300 + 301)
    jobs = {n: replace(state.jobs[n], state="running", attempt=1, node="local-0", boot="b" * 36) for n in numbers}
    begin = time.perf_counter()
    version = store.commit("abc123", version, Changes(jobs=jobs))
    times.append(time.perf_counter() - begin)
print(rows, len(state.jobs), listed, loaded, grown, sorted(times)[15])
"""


@pytest.mark.slow
@pytest.mark.campaign("store")
@pytest.mark.parametrize("kind", ["repeat", "sweep"])
def test_many_thousand_jobs(directory: Path, kind: str, summary_line: Callable[[str], None]) -> None:
    common = {
        "resources": Resources(1.0, 1 << 30, 0),
        "uploads": tuple(Upload(f"data/{i}", "0" * 64, 5, 0o644, f"/home/u/{i}") for i in range(20)),
        "outputs": (Output("out.csv"),),
    }

    def spec(n: int) -> JobSpec:
        if kind == "repeat":
            return JobSpec(f"sleep/{n}", ("/bin/sh", "-c", "true"), "true", repeat_index=n, **common)  # type: ignore[arg-type]
        own = (("lr", str(n)),)
        return JobSpec(
            f"sweep/{n}", ("python", "t.py", "--lr", str(n)), f"python t.py --lr {n}", own, params=own, **common
        )  # type: ignore[arg-type]

    state = plan_run(
        RunSpec("p", "/c.yml", tuple(spec(n) for n in range(JOBS))),
        [NodePlan("local-0", "local", (Offer("{}", Resources(4, 0, 0)),))],
        "abc123",
        1e9,
    )
    begin = time.perf_counter()
    with SqliteStore.open(directory) as store:
        store.create_run(state)
    created = time.perf_counter() - begin
    size = os.path.getsize(directory / "state.db")
    with SqliteStore.open(directory) as store:
        assert store._db.execute("SELECT count(*) FROM specs").fetchone() == (1,), "what is common is stored once"
    done = subprocess.run([sys.executable, "-c", MEASURE, str(directory)], capture_output=True, text=True, check=True)
    words = done.stdout.split()
    listed, loaded, grown, tick = float(words[2]), float(words[3]), int(words[4]), float(words[5])
    summary_line(
        f"store, {JOBS} jobs ({kind}): created in {created:.2f} s as {size / 1e6:.0f} MB, loaded in {loaded:.2f} s "
        f"and {grown / 1e6:.0f} MB, listed in {listed:.2f} s, 300 changes committed in {tick * 1e3:.1f} ms"
    )
    assert (int(words[0]), int(words[1])) == (JOBS, JOBS)
    assert grown < JOBS * 1350
    assert size < JOBS * 600

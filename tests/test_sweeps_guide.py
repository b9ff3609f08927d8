"""Every config of docs/guides/sweeps.md is run as it stands beside the examples, and so is examples/sections.yml."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import warm_commands
import warm_maestros

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(
    r"```yaml\n(.*?)```", (ROOT / "docs" / "guides" / "sweeps.md").read_text(encoding="utf-8"), re.DOTALL
)
# The jobs of each block, and what the names of the first and the last are.
EXPECTED = [
    (6, "primes-1000-1", "primes-100000-3"),
    (14, "fit-10-1e-3-100", None),
    (1, "count-data-harbour.txt", "count-data-harbour.txt"),
    (8, "Search/GPU/0", "Report/all/0"),
    (2, "Logged/run/0", "Logged/run/1"),
    (5, "prepare", "report"),
    (6, "fetch-1", "right"),
    (2, "fragile-1", "fragile-2"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One state directory for all, so that one maestro does it."""
    home = tempfile.mkdtemp(prefix="cs-", dir="/tmp")
    folder = tmp_path_factory.mktemp("sweeps") / "examples"
    shutil.copytree(ROOT / "examples", folder, ignore=shutil.ignore_patterns("results"))
    with pytest.MonkeyPatch.context() as patch, warm_maestros.used({}):
        patch.setenv("CLOUDSEND_HOME", home)
        yield folder
        warm_commands.run(["maestro", "stop"], environ=os.environ, folder=folder)
    shutil.rmtree(home, ignore_errors=True)


def run(folder: Path, config: str) -> dict[str, Any]:
    """The run of a config, every job of which has to succeed."""
    done = warm_commands.run(["run", config, "-o", "json"], environ=os.environ, folder=folder, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert {job["state"] for job in found["jobs"]} == {"succeeded"}
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def overlaps(one: dict[str, Any], other: dict[str, Any]) -> bool:
    begun, ended = moment(one["started_at"]), moment(one["ended_at"])
    return begun < moment(other["ended_at"]) and moment(other["started_at"]) < ended


def test_the_guide_has_the_blocks_that_are_expected() -> None:
    assert len(BLOCKS) == len(EXPECTED)


@pytest.mark.parametrize("at", range(len(EXPECTED)))
def test_each_config_of_the_guide_runs(folder: Path, at: int) -> None:
    config = f"sweep-{at}.yml"
    (folder / config).write_text(BLOCKS[at], encoding="utf-8")
    count, first, last = EXPECTED[at]
    jobs = run(folder, config)["jobs"]
    assert (len(jobs), jobs[0]["name"]) == (count, first)
    assert last is None or jobs[-1]["name"] == last
    if jobs[0]["name"].startswith("Logged"):
        logs = sorted(path.read_text() for path in (folder / "results").glob("*/Logged/run/*/log.txt"))
        assert logs == ["trained with --note $HOME; exit 1\n", "trained with --note two words\n"]


def test_the_example_of_sections(folder: Path) -> None:
    jobs = run(folder, "sections.yml")["jobs"]
    search, listing, last = jobs[:27], jobs[27:30], jobs[30]
    assert len(jobs) == 31 and [job["name"][-4:] for job in (search[26], listing[2], last)] == ["0/26", "PU/2", "up/0"]
    assert max(moment(job["ended_at"]) for job in jobs[:30]) <= moment(last["started_at"])
    assert max(sum(overlaps(job, other) for other in search) for job in search) > 1
    for job in search:
        beside = [other for other in search if other is not job and overlaps(job, other)]
        assert all(other["slot"] != job["slot"] for other in beside), "a place has one task at a time"
    assert {job["slot"] for job in search} == {f"machine={m} gpu={g}" for m in "01" for g in "01"}
    assert all(float(job["metrics"]["loss"]) < 1 for job in search)

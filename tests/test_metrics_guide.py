"""The sweep of docs/guides/metrics.md runs as it stands, and its commands and its table say what the page says."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_commands
import warm_maestros

from cloudsend_cli.cli.listing import COLUMNS_MOST
from cloudsend_cli.core.metrics import LINE_MOST, NAME_MOST, NAMES_MOST, VALUE_MOST
from cloudsend_cli.core.result_rows import COLUMNS_MOST as CSV_MOST
from cloudsend_cli.engine.homelogs import SMALL
from cloudsend_cli.engine.reports import FILE_MOST

PAGE = (Path(__file__).parent.parent / "docs" / "guides" / "metrics.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def folder(tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CLOUDSEND_HOME", str(state_dir))
    (tmp_path / "fit.py").write_text(block("python"))
    (tmp_path / "sweep.yml").write_text(block("yaml"))
    with warm_maestros.used({}):
        yield tmp_path


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return warm_commands.run(words, environ=os.environ, folder=folder)


def test_the_guide(folder: Path) -> None:
    said = {}
    for line in block("sh").splitlines():
        words = line.partition("#")[0].split()
        assert words[0] == "cloudsend"
        done = command(folder, *words[1:])
        assert done.returncode == 0, done.stdout + done.stderr
        said[" ".join(words[1:])] = done.stdout
    wide = said["list jobs --wide"].splitlines()
    assert wide[0].split()[6:10] == ["rate", "loss", "epoch", "note"]
    jobs = json.loads(said["list jobs -o json"])
    assert [(job["params"]["rate"], job["metrics"]["loss"]) for job in jobs] == [
        ("1e-2", "0.9803"), ("1e-1", "0.8264"), ("1", "0.2500"),
    ]  # fmt: skip
    assert {(job["metrics"]["epoch"], job["metrics"]["note"]) for job in jobs} == {("2", "it came to its end")}
    assert "metric.loss" in said["list jobs -o csv"].splitlines()[0].split(",")
    assert "loss=0.2500, epoch=2, note=it came to its end" in said["info job fit-1"]
    (table,) = (folder / "results").glob("*/results.csv")
    assert table.read_text().splitlines()[0] == block("text").strip()
    with table.open(newline="") as file:
        assert [row["metric.loss"] for row in csv.DictReader(file)] == [job["metrics"]["loss"] for job in jobs]
    run = table.parent.name
    for words in (["fetch", run], ["fetch", run, "-d", "DIR"]):
        assert command(folder, *words).returncode == 0
    assert (folder / "DIR" / run / "results.csv").read_bytes() == table.read_bytes()
    assert json.loads((folder / "DIR" / run / "results.json").read_text())[2]["metrics"]["loss"] == "0.2500"
    command(folder, "maestro", "stop")


def test_numbers_on_the_page_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    for words in (
        f"at most {NAME_MOST} characters; values are text of at most {VALUE_MOST} characters",
        f"A job has at most {NAMES_MOST} names",
        f"a line of more than {LINE_MOST >> 10} KiB",
        f"Its first {FILE_MOST >> 20} MiB are read",
        f"the first {COLUMNS_MOST} columns",
        f"CSV has up to {CSV_MOST:,} of each",
        f"a log of more than {SMALL >> 20} MiB on another machine",
    ):
        assert words in text

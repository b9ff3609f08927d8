"""Parameters, slots and metrics of jobs as `list jobs --wide`, CSV, JSON and `info job` show them."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import json_schema
import pytest
from job_views import make_job

from cloudsend_cli.cli.listing import COLUMNS_MOST, JOBS, metrics_text
from cloudsend_cli.cli.render import Screen
from cloudsend_cli.cli.settings import Settings, take_settings

HASH = "0" * 32
FIRST = make_job(
    1,
    hash=HASH,
    params={"lr": "0.1", "loss": "mse"},
    metrics={"loss": "0.50", "acc": "-1"},
    slot="gpu=0",
    section="Search",
    group="Search/GTX 2080",
)
SECOND = make_job(2, hash=HASH, params={"lr": "=1+1", "": "-v"}, metrics={"epochs": "7"}, metrics_ignored=1200)


def shown(format_: str, views: list[Any]) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    Screen(Settings(output=format_), out, err).list(views, JOBS)
    return out.getvalue(), err.getvalue()


def test_a_wide_table_has_a_column_for_each() -> None:
    out, err = shown("wide", [FIRST, SECOND])
    header, *rows = ([cell for cell in line.split("  ") if cell.strip()] for line in out.splitlines())
    assert [cell.strip() for cell in header] == [
        "ID", "NAME", "STATE", "INSTANCE", "TIME", "CREATED",
        "lr", "loss", "PARAMETER", "metric.loss", "acc", "epochs", "SLOT",
        "ATTEMPT", "UID", "PROVIDER", "HASH", "COMMAND",
    ]  # fmt: skip
    assert [cell.strip() for cell in rows[0][6:11]] == ["0.1", "mse", "0.50", "-1", "gpu=0"]
    assert [cell.strip() for cell in rows[1][6:9]] == ["=1+1", "-v", "7"]
    assert err == ""
    assert "0.50" not in shown("table", [FIRST])[0]


def test_columns_that_a_wide_table_has_no_room_for_are_counted() -> None:
    views = [make_job(n, metrics={f"m{n}.{i}": "1" for i in range(200)}) for n in range(10)]
    out, err = shown("wide", views)
    assert out.splitlines()[0].count(" m") == COLUMNS_MOST
    assert err == f"+{2000 - COLUMNS_MOST:,} more columns: -o csv or -o json has them\n"


def test_csv_has_a_column_for_each_and_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(shown("csv", [FIRST, SECOND, make_job(3)])[0])))
    assert [rows[0][name] for name in ("param.lr", "param.loss", "metric.loss", "metric.acc")] == [
        "0.1", "mse", "0.50", "-1",
    ]  # fmt: skip
    assert (rows[1]["param.lr"], rows[1]["param."], rows[1]["metric.epochs"]) == ("'=1+1", "-v", "7")
    assert (rows[2]["param.lr"], rows[2]["metric.loss"]) == ("", "")
    assert not {"params", "metrics"} & rows[0].keys()
    assert rows[0]["duration"] == "62.0"


def test_json_has_mappings_and_fits_its_schema() -> None:
    found = json.loads(shown("json", [FIRST, SECOND])[0])
    json_schema.check(found, "jobs")
    assert found[0]["metrics"] == {"loss": "0.50", "acc": "-1"}
    assert (found[0]["section"], found[0]["group"], found[0]["slot"]) == ("Search", "Search/GTX 2080", "gpu=0")
    assert (found[1]["metrics_ignored"], found[1]["params"]) == (1200, {"lr": "=1+1", "": "-v"})


@pytest.mark.parametrize("format_", ["wide", "csv", "json", "yaml", "name"])
def test_hostile_names_and_values_print_no_controls(format_: str) -> None:
    nasty = "\x1b]0;x\x07\x9b2J\u202e\nID\t"
    out, err = shown(format_, [make_job(1, params={nasty: nasty}, metrics={nasty: nasty}, slot=nasty)])
    assert not [c for c in out + err if ord(c) < 32 and c not in "\n\t"]
    assert "\u202e" not in out and "\x9b" not in out
    if format_ == "wide":
        assert len(out.splitlines()) == 2


def test_info_tells_metrics_and_what_was_not_taken() -> None:
    assert metrics_text(FIRST) == "loss=0.50, acc=-1"
    assert metrics_text(SECOND) == "epochs=7; 1,200 not taken"
    assert metrics_text(make_job(metrics_ignored=1)) == "1 not taken"
    assert metrics_text(make_job()) == ""


def test_wide_is_an_option_of_its_own() -> None:
    assert take_settings(["list", "jobs", "--wide"])[0].output == "wide"
    settings, words = take_settings(["run", "--", "train", "--wide"])
    assert (settings.output, settings.command, words) == ("table", ("train", "--wide"), ["run"])

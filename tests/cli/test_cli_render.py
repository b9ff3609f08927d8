"""Tables, JSON, YAML, CSV and names, as text."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import yaml
from job_views import FAILED, HOSTILE, MIDNIGHT, make_job
from tabulate import tabulate

from cloudsend_cli.cli import render
from cloudsend_cli.cli.listing import JOBS, RUNS, counts_text
from cloudsend_cli.cli.render import Screen, csv_text, display_width, duration, json_text, table_text, yaml_text
from cloudsend_cli.cli.settings import Settings
from cloudsend_cli.core.views import RunView


def shown(format_: str, views: list[Any], listing: render.Listing = JOBS) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    Screen(Settings(output=format_), out, err).list(views, listing)
    return out.getvalue(), err.getvalue()


def test_table() -> None:
    out, err = shown("table", [make_job(), FAILED])
    assert out == (
        "ID        NAME     STATE             INSTANCE    TIME    CREATED\n"
        "ab12cd.1  train-1  DONE              local-0     1m02s   2023-11-15T00:00:00Z\n"
        "ab12cd.2  train-2  ABORTED (exit 3)  local-0     1m02s   2023-11-15T00:00:00Z\n"
    )
    assert err == ""


def test_wide_table_has_more_columns() -> None:
    header = shown("wide", [make_job()])[0].splitlines()[0]
    assert header.split() == [
        "ID",
        "NAME",
        "STATE",
        "INSTANCE",
        "TIME",
        "CREATED",
        "ATTEMPT",
        "UID",
        "PROVIDER",
        "HASH",
        "COMMAND",
    ]


def test_no_jobs_is_said_on_stderr() -> None:
    assert shown("table", []) == ("", "no jobs\n")
    assert shown("json", []) == ("[]\n", "")
    assert shown("name", []) == ("", "")
    assert shown("csv", []) == ("", "")
    assert shown("yaml", []) == ("[]\n", "")


def test_json_has_one_job_a_line() -> None:
    out, _ = shown("json", [make_job(), FAILED])
    assert [json.loads(line.rstrip(","))["id"] for line in out.splitlines()[1:-1]] == ["ab12cd.1", "ab12cd.2"]
    assert json.loads(out)[1]["reason"] == "exit 3"
    assert json.loads(out)[0]["created_at"] == "2023-11-15T00:00:00.000Z"


def test_yaml_and_csv_say_the_same_as_json() -> None:
    views = [make_job(), FAILED, HOSTILE]
    objects = json.loads(shown("json", views)[0])
    loaded = yaml.safe_load(shown("yaml", views)[0])
    assert [{k: str(v) for k, v in o.items() if k.endswith("_at")} for o in objects] == [
        {k: str(v) for k, v in o.items() if k.endswith("_at")} for o in loaded
    ]
    rows = list(csv.DictReader(io.StringIO(shown("csv", views)[0])))
    assert [row["id"] for row in rows] == [o["id"] for o in objects]
    assert rows[1]["exit_code"] == "3"
    assert rows[0]["reason"] == ""


def test_names_are_ids() -> None:
    assert shown("name", [make_job(), FAILED])[0] == "ab12cd.1\nab12cd.2\n"


@pytest.mark.parametrize("format_", ["table", "wide", "json", "yaml", "csv", "name"])
def test_hostile_names_print_no_controls(format_: str) -> None:
    out, err = shown(format_, [HOSTILE])
    assert not [c for c in out + err if ord(c) < 32 and c != "\n"]
    assert "\u202e" not in out
    out.encode()
    if format_ in {"table", "wide"}:
        assert len(out.splitlines()) == 2


def test_runs() -> None:
    counts = {"pending": 0, "running": 2, "succeeded": 1200, "failed": 0, "cancelled": 0}
    run = RunView("ab12cd", "sweep", "/home/a/c.yml", "running", counts, 1, "/home/a/results", MIDNIGHT, None)
    assert shown("table", [run], RUNS)[0] == (
        "ID      PROJECT    STATE    JOBS                        CREATED               ENDED\n"
        "ab12cd  sweep      running  2 running, 1,200 succeeded  2023-11-15T00:00:00Z\n"
    )
    assert counts_text({"pending": 0}) == "no jobs"


@pytest.mark.parametrize(
    "cells",
    [
        ["a", "bb", ""],
        [" padded ", "日本語", "x"],
        ["\x1b[31mred\x1b[0m", "é", "12"],
        ["1e5", "0012", "True"],
        ["a longer cell than its header", "", "x"],
        ["1,200", "+0.5", "-"],
    ],
)
def test_all_tables_are_as_tabulate_makes_them(monkeypatch: pytest.MonkeyPatch, cells: list[str]) -> None:
    for rows in ([cells, ["x", "y", "z"]], [cells]):
        headers = ["ID", "NAME", "S"]
        wanted = tabulate(rows, headers, tablefmt="plain", disable_numparse=True) + "\n"
        assert table_text(headers, rows) == wanted
        with monkeypatch.context() as patch:
            patch.setattr(render, "_TABULATE_ROWS", 0)
            assert table_text(headers, rows) == wanted


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"), (0.44, "0.4s"), (9.9, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m00s"),
        (62, "1m02s"), (3599.6, "1h00m"), (3_725, "1h02m"), (90_000, "1d01h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_width_on_a_terminal() -> None:
    assert display_width("abc") == 3
    assert display_width("日本") == 4
    assert display_width("\x1b[31mab\x1b[0m") == 2


def test_json_is_ascii_whatever_it_holds() -> None:
    text = json_text({"a": "é\udc80\x1b", "b": [{"c": 1}], "d": []})
    assert text.isascii()
    assert json.loads(text) == {"a": "é\udc80\x1b", "b": [{"c": 1}], "d": []}
    assert json_text("x") == '"x"\n'
    assert yaml_text({"a": [1, None]}) == "a:\n- 1\n- null\n"
    assert csv_text([{"a": None, "b": [1, "x"], "c": 'q"'}]) == 'a,b,c\n,"[1, ""x""]","q"""\n'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    Screen(Settings(), out, io.StringIO()).list([FAILED], JOBS)
    assert "\x1b[31;1mABORTED (exit 3)\x1b[0m" in out.getvalue()
    for settings, variable in ((Settings(color=False), ""), (Settings(), "1")):
        monkeypatch.setenv("NO_COLOR", variable)
        out = Terminal()
        Screen(settings, out, io.StringIO()).list([FAILED], JOBS)
        assert "\x1b" not in out.getvalue()


def test_a_terminal_is_told_how_long_ago_and_gets_short_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    screen = Screen(Settings(), out, io.StringIO())
    screen.now = MIDNIGHT + 200
    screen.list([make_job(name="n" * 100)], JOBS)
    assert "3m20s ago" in out.getvalue()
    assert "n" * 59 + "…" in out.getvalue()
    assert "n" * 60 not in out.getvalue()

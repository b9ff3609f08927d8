"""What is told while a run goes on: a redrawn block on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.cli import progress
from cloudsend_cli.cli.progress import Block, Lines, counts_line, fit, money_text
from cloudsend_cli.cli.render import Screen
from cloudsend_cli.cli.run import continued_text, merged_lines
from cloudsend_cli.cli.settings import Settings
from cloudsend_cli.core.plan import Continued
from cloudsend_cli.core.views import Progress

STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", re.MULTILINE)
BAD = {"id": "ab12cd.2", "name": "train\x1b-2", "reason": "exit 3"}


def moment(
    *,
    names: Sequence[str] = (),
    bad: Sequence[Any] = (),
    notes: Sequence[str] = (),
    settled: bool = False,
    **counts: int,
) -> Progress:
    words = ("pending", "running", "succeeded", "failed", "cancelled")
    return Progress("ab12cd", "running", {w: counts.get(w, 0) for w in words}, names, bad, notes, settled)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_counts() -> None:
    assert counts_line(moment(pending=20, running=3, succeeded=1200, failed=1)) == (
        "1,201 of 1,224 ended: 3 running, 20 pending, 1,200 succeeded, 1 failed"
    )


def test_what_waits_in_its_hosts_queue_is_not_told_as_running() -> None:
    handed_over = replace(moment(pending=4, running=6), executing=2)
    assert counts_line(handed_over) == "0 of 10 ended: 2 running, 8 pending"


def test_money_is_told_where_something_is_rented() -> None:
    assert money_text(moment(running=1), 3600.0) == ""
    rented = replace(moment(running=1), rentals=[[0.5, 0.0, None, 60.0], [None, 0.0, None, 0.0]])
    assert money_text(rented, 3600.0) == "$0.50, $0.50/h now, and 1 machine of unknown price"
    err = io.StringIO()
    Lines(Screen(Settings(), io.StringIO(), err)).update(replace(rented, rentals=[[0.5, 0.0, 3600.0, 0.0]]))
    assert err.getvalue().endswith("run ab12cd: 0 of 1 ended: 1 running; $0.50\n")


def test_lines_say_each_change_once_without_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINES_APART", 0.0)
    err = io.StringIO()
    lines = Lines(Screen(Settings(), io.StringIO(), err))
    for event in (
        moment(pending=2),
        moment(pending=2),
        moment(pending=1, running=1, notes=("environment ml is built on local-0",)),
        moment(pending=1, failed=1, notes=("environment ml is built on local-0",), bad=(BAD,)),
        moment(succeeded=1, failed=1, settled=True, bad=(BAD,)),
    ):
        lines.update(event)
    assert STAMP.sub("", err.getvalue()).splitlines() == [
        "run ab12cd: 0 of 2 ended: 2 pending",
        "environment ml is built on local-0",
        "run ab12cd: 0 of 2 ended: 1 running, 1 pending",
        "train\\x1b-2 (ab12cd.2) failed: exit 3",
        "run ab12cd: 1 of 2 ended: 1 pending, 1 failed",
        "run ab12cd: 2 of 2 ended: 1 succeeded, 1 failed",
    ]
    assert len(STAMP.findall(err.getvalue())) == 6


def test_a_thousand_changes_are_few_lines_and_the_last_is_told() -> None:
    err = io.StringIO()
    lines = Lines(Screen(Settings(), io.StringIO(), err))
    for done in range(1001):
        lines.update(moment(pending=1000 - done, succeeded=done, settled=done == 1000))
    assert len(err.getvalue().splitlines()) < 10
    assert err.getvalue().endswith("run ab12cd: 1,000 of 1,000 ended: 1,000 succeeded\n")


def test_a_block_is_drawn_over_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = Terminal(), Terminal()
    block = Block(Screen(Settings(), out, err), lambda ref, lines: b"first\n\x1b[31mValueError: x\x1b[0m\n")
    block.update(moment(pending=1, running=2, names=("a", "日本" * 40)))
    assert [line for line in err.getvalue().split("\n") if display(line) > 59] == []
    block.update(moment(running=12, names=("a", "b"), bad=(BAD,)))
    last = err.getvalue().rsplit("\r\x1b[2A", 1)[1]
    assert re.sub(r"\x1b\[[JK]", "", last).splitlines()[1:] == [
        "  running: a, b and 10 more",
        "  train\\x1b-2 (ab12cd.2) failed: exit 3",
        "    | first",
        "    | ValueError: x",
    ]
    with block.paused():
        out.write("a | log\n")
    block.close()
    assert err.getvalue().endswith("\r\x1b[5A\x1b[J")


def display(line: str) -> int:
    from cloudsend_cli.cli.render import display_width

    return display_width(re.sub(r"\x1b\[\d*[AJK]|\r", "", line))


@pytest.mark.parametrize(("text", "columns"), [("x" * 100, 10), ("日" * 100, 10), ("é", 10), ("abc", 3), ("日本", 3)])
def test_lines_fit_the_terminal(text: str, columns: int) -> None:
    assert display(fit(text, columns)) <= columns


def test_what_a_continued_run_does() -> None:
    continued = Continued(kept=(1, 2), reopened=(3,), added=(4,), superseded=(2,))
    assert continued_text(continued) == "2 kept, 1 tried again, 1 new, 1 superseded"
    assert continued_text(Continued()) == "nothing to do"


def test_merged_logs_are_harmless() -> None:
    assert merged_lines("na\nme", b"a\x1b[2J\n\xff\n") == "na\\nme | a\nna\\nme | \ufffd\n"

"""Jobs as rows: their columns, cells that no spreadsheet reckons with, slots and metrics in views."""

from __future__ import annotations

import pytest

from cloudsend_cli.core.model import JobGroup
from cloudsend_cli.core.result_rows import MORE_MOST, Names, plain_cell, printable, spread_rows
from cloudsend_cli.core.views import Slots


@pytest.mark.parametrize(
    "text",
    [
        "", "0.5", "-1", "+1", "-1e-3", "+.5", "-0.", "-inf", "+Infinity", "-nan", "1e5", "a=1", "-v", "--verbose",
        "--lr", "-2.x", "train.py", " =1", "'=1",
    ],
)  # fmt: skip
def test_numbers_and_words_are_left_as_they_are(text: str) -> None:
    assert plain_cell(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "=1", "=cmd|'/C calc'!A0", "+1+1", "+cmd|'/C calc'!A0", "-1+cmd|'/C calc'!A0", "-cmd|'x'!A0", "@SUM(1)",
        "\t=1", "\r=1", "-", "--", "+", "--x=1",
    ],
)  # fmt: skip
def test_what_a_spreadsheet_would_reckon_with_becomes_text(text: str) -> None:
    assert plain_cell(text) == f"'{text}"


def test_cells_have_nothing_that_a_terminal_obeys() -> None:
    assert printable("größe 1") == "größe 1"
    assert printable("a\n\tb\x1b[2J\x9b\u202e\udc80\x00") == "a\n\tb\ufffd[2J\ufffd\ufffd\ufffd\ufffd"


def test_names_are_kept_in_the_order_in_which_they_came_and_the_others_are_counted() -> None:
    names = Names(2)
    names.take(["b", "a", "b"])
    names.take(["c", "a", "d", "c"])
    assert (list(names.kept), names.more) == (["b", "a"], 2)
    names.take(str(i) for i in range(MORE_MOST + 10))
    assert names.more == MORE_MOST


def test_mappings_become_columns_that_all_rows_have() -> None:
    rows = [{"id": "1", "p": {"lr": "0.1"}, "m": {"loss": "2"}}, {"id": "2", "p": {"": "-v"}, "m": {}}, {"id": "3"}]
    assert spread_rows(rows, {"p": "param.", "m": "metric."}) == [
        {"id": "1", "param.lr": "0.1", "param.": None, "metric.loss": "2"},
        {"id": "2", "param.lr": None, "param.": "-v", "metric.loss": None},
        {"id": "3"},
    ]


GROUPS = (
    JobGroup("Search/GTX 2080", ((("--machine", "0"), ("--gpu", "0,1")), (("", "x"), ("n", "1"))), section="Search"),
    JobGroup("Search/serial", ((),)),
    JobGroup("Search/none"),
)


@pytest.mark.parametrize(
    ("group", "slot", "text"),
    [
        ("Search/GTX 2080", 0, "machine=0 gpu=0,1"),
        ("Search/GTX 2080", 1, "x n=1"),
        ("Search/GTX 2080", 7, "7"),
        ("Search/GTX 2080", -1, None),
        ("Search/serial", 0, "0"),
        ("Search/none", -1, None),
        ("", 0, None),
    ],
)
def test_slots_as_text(group: str, slot: int, text: str | None) -> None:
    assert Slots(GROUPS).text(group, slot) == text


def test_groups_are_told_from_names() -> None:
    slots = Slots(GROUPS)
    assert slots.group_of("Search/GTX 2080/12") == "Search/GTX 2080"
    assert (slots.group_of("Search/other/0"), slots.group_of("train")) == ("", "")
    assert (slots.section_of("Search/GTX 2080"), slots.section_of("")) == ("Search", "")

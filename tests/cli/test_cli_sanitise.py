"""Names and logs of jobs may say anything; a terminal may obey none of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudsend_cli.cli.sanitise import TerminalLog, log_text, one_line, untrusted

OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本 👩‍🔬", "plain é 日本 👩‍🔬"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x00\x7f", "a\\x0db\\x00\\x7f"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("bad \udc80 byte", "bad \ufffd byte"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("line\u2028line", "line\\u2028line"),
    ],
)
def test_what_is_shown_of_foreign_text(text: str, shown: str) -> None:
    assert untrusted(text) == shown


def test_a_cell_is_one_line() -> None:
    assert one_line("a\nb\tc\r") == "a\\nb\\tc\\x0d"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b[1;31mred\x1b[0m\n", "red\n"),
        (b"\x1b]0;title\x07text\n", "text\n"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "link\n"),
        (b"\x1bPq#0\x1b\\sixel\n", "sixel\n"),
        (b"10%\r20%\r\n", "10%\n20%\n"),
        (b"\xff\xfe\x00", "\ufffd\ufffd\\x00"),
        (b"\x1b[2J\x1b[H\x1b(B", ""),
        (b"lone \x1b", "lone \\x1b"),
    ],
)
def test_what_is_shown_of_a_log(data: bytes, shown: str) -> None:
    assert log_text(data) == shown


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_pieces_of_a_log_ever_reach_a_terminal_as_controls(pieces: list[bytes]) -> None:
    log = TerminalLog()
    shown = "".join(log.feed(piece) for piece in pieces) + log.feed(b"", final=True)
    assert not OBEYED.search(shown)


@settings(max_examples=500)
@given(st.data())
def test_a_log_in_pieces_is_shown_like_the_whole(data: st.DataObject) -> None:
    words = ["text", "é", "\x1b[31m", "\x1b]0;t\x07", "\r\n", "\r", "\n", "\x00", "\x1b(B", "日"]
    whole = "".join(data.draw(st.lists(st.sampled_from(words), max_size=12))).encode()
    cut = data.draw(st.integers(0, len(whole)))
    log = TerminalLog()
    assert log.feed(whole[:cut]) + log.feed(whole[cut:]) + log.feed(b"", final=True) == log_text(whole)


@given(st.text())
def test_no_text_is_ever_obeyed(text: str) -> None:
    assert not OBEYED.search(untrusted(text))
    assert "\n" not in one_line(text)

"""What jobs report: lines in any pieces, odd bytes and odd names, and no more of them than is sensible."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from campaigns import pick

from cloudsend_cli.core.metrics import LINE_MOST, NAMES_MOST, MetricsReader, split_ignored


def of_log(*pieces: bytes) -> tuple[dict[str, str], int]:
    reader = MetricsReader()
    reader.read_log(pieces)
    return split_ignored(reader.metrics)


def of_file(*pieces: bytes) -> tuple[dict[str, str], int]:
    reader = MetricsReader()
    reader.read_file(pieces)
    return split_ignored(reader.metrics)


LOG = b"epoch 1\nCLOUDSEND_METRIC loss=0.50 acc=1e-3\n\nCLOUDSEND_METRIC loss=0.250 nan=NaN\nend"
FOUND = {"loss": "0.250", "acc": "1e-3", "nan": "NaN"}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 40, 1000])
def test_last_value_of_a_name_counts_as_it_is_written_however_the_log_is_cut(size: int) -> None:
    assert of_log(*(LOG[i : i + size] for i in range(0, len(LOG), size))) == (FOUND, 0)


@pytest.mark.parametrize(
    ("line", "found", "ignored"),
    [
        (b"CLOUDSEND_METRIC a=1", {"a": "1"}, 0),
        (b"CLOUDSEND_METRIC\ta=1\tb=x=y ", {"a": "1", "b": "x=y"}, 0),
        (b"\rbar 10%\rCLOUDSEND_METRIC a=1\r", {"a": "1"}, 0),
        (b"CLOUDSEND_METRIC a=1\r\nCLOUDSEND_METRIC b=2\r\n", {"a": "1", "b": "2"}, 0),
        (b"CLOUDSEND_METRIC eval/top-5.acc_x=98", {"eval/top-5.acc_x": "98"}, 0),
        ("CLOUDSEND_METRIC what=größe".encode(), {"what": "größe"}, 0),
        (b" CLOUDSEND_METRIC a=1", {}, 0),
        (b"+ echo CLOUDSEND_METRIC a=1", {}, 0),
        (b"CLOUDSEND_METRICS a=1\nCLOUDSEND_METRIC\nCLOUDSEND_METRIC \n", {}, 0),
        (b"CLOUDSEND_METRIC a =1 b", {}, 3),
        (b"CLOUDSEND_METRIC =1 a= a b=1 \xc3\xa9=1 a$=2", {"b": "1"}, 5),
        (b"CLOUDSEND_METRIC a=\x1b[31m1 b=\xff c=\xe2\x80\xae d=\x00 e=\x9b f=ok", {"f": "ok"}, 5),
        (b"CLOUDSEND_METRIC a=" + b"9" * 200 + b" b=" + b"9" * 201 + b" c=" + b"9" * 900, {"a": "9" * 200}, 2),
        (b"CLOUDSEND_METRIC " + b"n" * 100 + b"=1 " + b"n" * 101 + b"=1", {"n" * 100: "1"}, 1),
        (b"CLOUDSEND_METRIC a=1 CLOUDSEND_METRIC b=2", {"a": "1", "b": "2"}, 1),
        (b"CLOUDSEND_METRIC " + b"a=1 " * (LINE_MOST // 4 + 1), {}, 1),
        (b"x" * (LINE_MOST * 3) + b"\nCLOUDSEND_METRIC a=1", {"a": "1"}, 0),
        (b"x" * (LINE_MOST * 3) + b"CLOUDSEND_METRIC a=1", {}, 0),
        (b"", {}, 0),
    ],
)
def test_lines_of_a_log(line: bytes, found: dict[str, str], ignored: int) -> None:
    assert of_log(line) == (found, ignored)
    cut = random.Random(len(line)).randrange(len(line) + 1)
    assert of_log(line[:cut], line[cut:]) == (found, ignored)


def test_a_long_line_is_not_kept_and_nothing_in_its_middle_is_taken() -> None:
    half = b"CLOUDSEND_METRIC a=1 " * 2000
    assert of_log(half, half, half, b"\nCLOUDSEND_METRIC b=2\n") == ({"b": "2"}, 1)


@pytest.mark.parametrize(
    ("text", "found", "ignored"),
    [
        (b"loss=0.5\nacc = 1\nloss=0.25", {"loss": "0.25", "acc": "1"}, 0),
        (b"note=all that follows = its value \r\n\r\n", {"note": "all that follows = its value"}, 0),
        (b"CLOUDSEND_METRIC a=1\n# a comment\n=\n", {}, 3),
        (b"a=" + b"1" * LINE_MOST + b"\nb=1", {"b": "1"}, 1),
        (bytes(range(256)), {}, 2),
    ],
)
def test_lines_of_a_file(text: bytes, found: dict[str, str], ignored: int) -> None:
    assert of_file(text) == (found, ignored)
    assert of_file(*(bytes([byte]) for byte in text[:2000]), text[2000:]) == (found, ignored)


def test_names_beyond_the_most_are_counted_and_those_that_are_known_go_on() -> None:
    def lines() -> Iterator[bytes]:
        for i in range(NAMES_MOST + 50):
            yield b"CLOUDSEND_METRIC n%d=1\n" % i
        yield b"CLOUDSEND_METRIC n0=2\n"

    found, ignored = of_log(*lines())
    assert (len(found), found["n0"], ignored) == (NAMES_MOST, "2", 50)


@pytest.mark.campaign("metrics")
def test_very_many_lines_are_read_in_pieces() -> None:
    """A million of them in the full campaign."""
    block = b"".join(b"CLOUDSEND_METRIC step=%d\n" % i for i in range(10_000))
    assert of_log(*[block] * pick(20, 100)) == ({"step": "9999"}, 0)


def test_what_was_not_taken_is_no_metric() -> None:
    assert split_ignored((("a", "1"), ("", "3"))) == ({"a": "1"}, 3)
    assert split_ignored((("", "odd"),)) == ({}, 0)

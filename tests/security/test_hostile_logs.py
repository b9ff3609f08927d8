"""Rows 3 and 21: logs of machines that lie about how long they are, or send something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fence import snapshot
from lies import with_payload

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.engine.asking import Ahead
from cloudsend_cli.engine.homelogs import bring_logs, is_home, log_path, parse_sizes
from cloudsend_cli.engine.logs import read_ended, read_tail

ATTEMPT = "rabcde.1.1"
SMALL = {"stdout": 3, "stderr": 0}


def bring(logs: Path, sizes: Any, answer: Any) -> str:
    """What comes of the conversation with a machine that answers each read so."""
    talk = bring_logs({ATTEMPT: sizes}, logs)
    replies: list[Frame] | None = None
    try:
        while True:
            wish = next(talk) if replies is None else talk.send(replies)
            asks = wish.asks if isinstance(wish, Ahead) else wish
            replies = [answer(ask.fields) for ask in asks]
    except StopIteration as end:
        return str(end.value)


def told(total: object, data: bytes = b"abc") -> Any:
    """A machine that says of each log that it is so long, and sends this of it for ever."""
    return lambda fields: with_payload(data[: fields["length"]] if fields["length"] < 9 else data, total=total)


@pytest.mark.parametrize("total", [1 << 58, 1 << 59, (1 << 60) - 1])
def test_a_log_that_the_disk_does_not_hold_is_not_begun(fenced: Path, total: int) -> None:
    logs = fenced / "logs"
    problem = bring(logs, None, told(total))
    assert "are free in" in problem
    assert not is_home(logs, ATTEMPT)
    assert list(logs.rglob("*.stdout")) == []


@pytest.mark.parametrize("total", [-1, 1 << 60, 1 << 63, 10**400, 1.5, float("nan"), "3", True, None, [3]])
def test_a_length_that_is_none_is_taken_for_an_empty_log(fenced: Path, total: object) -> None:
    logs = fenced / "logs"
    before = snapshot(fenced, leave_out=logs)
    assert bring(logs, None, told(total)) == ""
    assert log_path(logs, ATTEMPT, "stdout").read_bytes() == b""
    assert snapshot(fenced, leave_out=logs) == before


@pytest.mark.parametrize("data", [b"", b"ab", b"abcd" * 1000])
def test_other_bytes_than_were_asked_for_are_refused(fenced: Path, data: bytes) -> None:
    logs = fenced / "logs"
    problem = bring(logs, SMALL, lambda fields: with_payload(data, total=3))
    assert problem.startswith("its log became shorter")
    assert not is_home(logs, ATTEMPT)


SIZES = [None, [], "x", {}, {"stdout_size": 1}] + [
    {"stdout_size": size, "stderr_size": 0} for size in (-1, True, 1 << 60, 10**400, 1.0, "1", None)
]


@pytest.mark.parametrize("wire", SIZES, ids=range(len(SIZES)))
def test_sizes_that_are_none_are_asked_for(wire: object) -> None:
    assert parse_sizes(wire) is None


class Lying:
    """A log source that says any size and has these bytes, or none."""

    def __init__(self, size: int, data: bytes) -> None:
        self.told = size
        self.data = data
        self.reads = 0

    def size(self) -> int:
        return self.told

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self.data[offset : offset + length]


@pytest.mark.parametrize("size", [1 << 40, 1 << 62])
@pytest.mark.parametrize("data", [b"", b"a\nb\n"])
def test_the_last_lines_of_a_log_that_is_not_there_are_not_looked_for_without_end(size: int, data: bytes) -> None:
    source = Lying(size, data)
    assert b"".join(read_ended(source, 10)) == data
    assert source.reads < 10
    source = Lying(size, data)
    read_tail(source, 10)
    assert source.reads < 10

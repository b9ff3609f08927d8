"""What jobs report of themselves: `CLOUDSEND_METRIC name=value` in their logs, and `name=value` in a file. Pure.

All of it is a machine's word: bounded here, wherever it comes from, and never an error of the job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MARK = b"CLOUDSEND_METRIC"
NAME_MOST, VALUE_MOST, NAMES_MOST = 100, 200, 200
LINE_MOST = 64 << 10  # bytes; what a longer line says is not taken
IGNORED = ""  # no name that is taken: under it stands how many pairs were not
_NAME = re.compile(rb"[A-Za-z0-9_./-]{1,%d}" % NAME_MOST)
_REST = re.compile(rb"[ \t]([^\r\n]*)")
_LINES = re.compile(rb"[^\r\n]+")

Metrics = tuple[tuple[str, str], ...]


class MetricsReader:
    """Takes one attempt's streams, each in pieces of any size. The last value of a name counts."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._ignored = 0

    @property
    def metrics(self) -> Metrics:
        """In the order in which the names were first seen; last, under IGNORED, how many pairs were not taken."""
        found = tuple(self._found.items())
        return (*found, (IGNORED, str(self._ignored))) if self._ignored else found

    def read_log(self, pieces: Iterable[bytes]) -> None:
        """Lines that begin with the mark; a carriage return begins one too, as after a bar of progress."""
        for lines in _whole_lines(pieces):
            at = lines.find(MARK)
            while at >= 0:
                end = at + len(MARK)
                said = _REST.match(lines, end) if at == 0 or lines[at - 1] in b"\r\n" else None
                if said is not None:
                    end = said.end()
                    self._take_line(said[1])
                at = lines.find(MARK, end)

    def read_file(self, pieces: Iterable[bytes]) -> None:
        """A pair on each line; its value is all that follows the first `=`."""
        for lines in _whole_lines(pieces):
            for line in _LINES.findall(lines):
                text = line.strip()
                if len(text) > LINE_MOST:
                    self._ignored += 1
                elif text:
                    name, equals, value = text.partition(b"=")
                    self._take(name.rstrip(), equals, value.lstrip())

    def _take_line(self, words: bytes) -> None:
        if len(words) > LINE_MOST:
            self._ignored += 1
            return
        for word in words.split():
            self._take(*word.partition(b"="))

    def _take(self, name: bytes, equals: bytes, value: bytes) -> None:
        text = _text(value) if equals and _NAME.fullmatch(name) else ""
        known = name.decode("ascii", "replace")
        if not text or (known not in self._found and len(self._found) >= NAMES_MOST):
            self._ignored += 1
        else:
            self._found[known] = text


def _text(value: bytes) -> str:
    """The value as text, "" where it is none, or too long, or has what a terminal obeys."""
    if len(value) > VALUE_MOST * 4:
        return ""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if len(text) <= VALUE_MOST and text.isprintable() else ""


def _whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Blocks that begin with a line's beginning and end with a line's end; of a line that is too long, too much."""
    rest = b""
    for piece in pieces:
        data = rest + piece
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if cut:
            yield data[:cut]
        rest = data[cut : cut + LINE_MOST + len(MARK) + 2]
    if rest:
        yield rest


def split_ignored(metrics: Metrics) -> tuple[dict[str, str], int]:
    """What was taken, and how many pairs were not."""
    found = dict(metrics)
    ignored = found.pop(IGNORED, "")
    return found, int(ignored) if ignored.isdigit() else 0

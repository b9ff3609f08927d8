"""What others wrote (names, commands, logs, errors of machines) made safe for a terminal."""

from __future__ import annotations

import codecs
import re

# C0 but newline and tab, DEL and C1, the bidirectional controls, line and paragraph separators, surrogates, tags.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
# What a terminal would obey without showing anything: CSI (colours, cursor) and the string sequences (title, link).
_SEQUENCES = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\\\|\x9c)|\x1b[ -/]*[0-OQ-WY-Z`-~]"
)
_UNFINISHED = re.compile("\x1b(?:[ -/]*|\\[[0-?]*[ -/]*|[\\]PX^_][^\x07\x1b\x9c]*\x1b?)\\Z")
_HELD_MOST = 4096


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def untrusted(text: str) -> str:
    """No control but newline and tab; bidirectional controls are shown as `\\u202e`, lone surrogates replaced."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """The same for a table's cell or a line of talk: newlines and tabs are shown as well."""
    if text.isascii() and text.isprintable():
        return text
    return untrusted(text).replace("\n", "\\n").replace("\t", "\\t")


class TerminalLog:
    """A job's bytes, in any pieces, as text that a terminal only shows: colours dropped, `\\r` begins a new line."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        text = self._held + self._decoder.decode(data, final)
        self._held = ""
        unfinished = None if final else _UNFINISHED.search(text, max(0, len(text) - _HELD_MOST))
        if unfinished:
            self._held = unfinished.group()
            text = text[: unfinished.start()]
        text = _SEQUENCES.sub("", text)
        if text.endswith("\r") and not final:  # the newline of its pair may come yet
            text, self._held = text[:-1], "\r" + self._held
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return untrusted(text)


def log_text(data: bytes) -> str:
    """A whole piece of log as safe text."""
    return TerminalLog().feed(data, final=True)

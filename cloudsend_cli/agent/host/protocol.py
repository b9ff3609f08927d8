"""What both sides of a channel have agreed on: PROTOCOL.md in numbers and names."""

import re

PROTOCOL = 1
MAX_LINE = MAX_PAYLOAD = 1 << 20
MAX_DEPTH = 64
CHUNK = 256 << 10
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
SHA = re.compile(r"[0-9a-f]{64}\Z")
STREAMS = ("stdout", "stderr")
METRICS = "metrics"  # beside them: the file to which a job may append `name=value`


class Refused(Exception):
    """An op that is not done, with what the client is told."""

    def __init__(self, code, message, **more):
        Exception.__init__(self, message)
        self.error = dict(more, code=code, message=message)


def are_whole(numbers, end):
    """Whole numbers from 0 to below end; a bool is none."""
    return all(type(number) is int and 0 <= number < end for number in numbers)


def idents_of(frame):
    idents = frame.get("attempts")
    if not isinstance(idents, list) or not all(isinstance(ident, str) and ID.match(ident) for ident in idents):
        raise Refused("bad-request", "attempts is a list of ids")
    return idents


def shas_of(values):
    if not isinstance(values, list) or not all(isinstance(sha, str) and SHA.match(sha) for sha in values):
        raise Refused("bad-request", "sha256 is 64 hex digits")
    return values

"""JSON as bytes."""

import json

encode_json = json.JSONEncoder(separators=(",", ":")).encode
encode_sorted = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def compact(value):
    return encode_json(value).encode("ascii")


def parse(raw):
    """The value of some JSON; None for nothing and for what is not JSON."""
    try:
        return json.loads(raw.decode("utf-8")) if raw else None
    except (ValueError, RecursionError):
        return None


def is_deeper(value, most):
    """Whether lists and objects are nested in each other more than that often."""
    level = [value]
    for _ in range(most):
        level = [
            below
            for found in level
            for below in (found.values() if isinstance(found, dict) else found)
            if isinstance(below, (dict, list))
        ]
        if not level:
            return False
    return True

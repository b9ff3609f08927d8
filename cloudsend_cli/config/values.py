"""Texts to sizes, durations, counts: pure parsers. Each returns a value, or raises ValueError with user words."""

from __future__ import annotations

import math
import re

MAX_SECONDS = 10 * 365 * 86400
MAX_CPUS = 1_000_000
MAX_MEMORY = 1 << 60

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([KMGTP]?)(I?)(B?)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9}(?:\.[0-9]+)?)s)?")
_CLOCK = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9}):([0-5]?[0-9]):([0-5]?[0-9](?:\.[0-9]+)?)")
_GPU = re.compile(r"(?:([A-Za-z][A-Za-z0-9 _-]*)(?::([0-9]{1,4}))?|([0-9]{1,4}))")


def parse_number(text: str) -> float:
    """A finite number."""
    if len(text) > 60 or not _NUMBER.fullmatch(text):
        raise ValueError("is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("is not a number that a computer can hold")
    return value


def parse_whole(text: str) -> int:
    """A whole number of any sign; `1e3` and `3.0` are whole too."""
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?[0-9]+", text):
        raise ValueError("is too large")
    value = parse_number(text)
    if value != int(value):
        raise ValueError("is not a whole number")
    if abs(value) > 1e18:
        raise ValueError("is too large")
    return int(value)


def parse_size(text: str, *, bare: int | None = None) -> int:
    """Bytes of `16GB` (1000s), `512MiB` (1024s); a number without unit counts in `bare` bytes, else it is refused."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError("is not a size; write 16GB or 512MiB")
    number, prefix, binary, byte = found.groups()
    if not prefix and not byte:
        if bare is None or binary:
            raise ValueError(f"has no unit; write {text.strip()}GB or {text.strip()}MB")
        scale = float(bare)
    elif binary and not prefix:
        raise ValueError("is not a size; write 16GB or 512MiB")
    else:
        scale = float((1024 if binary else 1000) ** _POWERS[prefix.upper()])
    value = float(number) * scale
    if value > MAX_MEMORY:
        raise ValueError("is more than any machine has")
    return int(value)


def parse_duration(text: str) -> float:
    """Seconds of `90m`, `2h`, `1d12h`, `1:30:00`, `1-12:00:00` or a number of seconds."""
    text = text.strip()
    seconds = _seconds(text)
    if seconds > MAX_SECONDS:
        raise ValueError("is longer than ten years")
    return seconds


def _seconds(text: str) -> float:
    clock = _CLOCK.fullmatch(text)
    if clock:
        days, hours, minutes, rest = clock.groups()
        return float(days or 0) * 86400 + float(hours) * 3600 + float(minutes) * 60 + float(rest)
    parts = _DURATION.fullmatch(text.replace(" ", "").lower())
    if parts and any(parts.groups()):
        return sum(float(n or 0) * u for n, u in zip(parts.groups(), _UNITS.values(), strict=True))
    try:
        seconds = parse_number(text)
    except ValueError:
        raise ValueError("is not a duration; write 90m, 2h, 1d12h or 1:30:00") from None
    if seconds < 0:
        raise ValueError("is less than nothing")
    return seconds


def parse_cpus(text: str) -> float:
    """CPUs of `8`, `8+` or `0.5`; more than 0."""
    try:
        value = parse_number(text.strip().removesuffix("+"))
    except ValueError:
        raise ValueError("is not a number of CPUs; write 8 or 8+") from None
    if value <= 0:
        raise ValueError("must be more than 0")
    if value > MAX_CPUS:
        raise ValueError("is more than any machine has")
    return value


def parse_memory(text: str) -> int:
    """Bytes of `16GB` or `16GB+`."""
    return parse_size(text.strip().removesuffix("+"))


def parse_gpu(text: str) -> tuple[str, int]:
    """(kind or "", how many) of `1`, `2+`, `A10G` or `A10G:2`."""
    found = _GPU.fullmatch(text.strip().removesuffix("+"))
    if not found:
        raise ValueError("is not a number of GPUs; write 1 or A10G:1")
    kind, count, bare = found.groups()
    return (kind or "").strip(), int(count or bare or 1)


def show_size(size: int) -> str:
    for power, unit in ((5, "PB"), (4, "TB"), (3, "GB"), (2, "MB"), (1, "KB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.4g} {unit}"
    return f"{size} bytes"

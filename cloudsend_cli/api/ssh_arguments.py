"""Arguments of `SSH`: a UsageError where they make no sense."""

from __future__ import annotations

from cloudsend_cli.errors import UsageError


def as_count(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise UsageError(f"not a number of retries: {given!r}", hint="0 for one attempt, 3 for four")
    return given


def as_timeout(given: object) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given > 0:
        raise UsageError(f"not a time in seconds: {given!r}", hint="None for no limit")
    return given


def as_port(given: int | str | None) -> int:
    """0: what the user's ssh configuration says."""
    if given is None:
        return 0
    try:
        port = int(given)
    except (TypeError, ValueError):
        port = 0
    if not 0 < port < 1 << 16:
        raise UsageError(f"not a port: {given!r}")
    return port


def as_mode(given: str | int) -> int:
    """The permissions of a file, as chmod takes them."""
    try:
        mode = given if isinstance(given, int) else int(given, 8)
    except (TypeError, ValueError):
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise UsageError(f"not permissions: {given!r}", hint="such as '0644'")
    return mode

"""What is known of a machine's host keys before it is connected to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cloudsend_cli.core.model import HostAddress

from .host_keys import (
    HostKey,
    KnownKey,
    KnownKeys,
    find_known,
    find_known_for,
    known_name,
    parse_public_key,
    read_known_hosts,
)
from .ssh_config import Route

RENTED_ADVICE = (
    "somebody may stand in between, or its address is another machine's by now: nothing was sent to it. "
    "`cloudsend list instances` tells whether it lives; `cloudsend terminate instance` gives it back"
)


def kept_name(route: Route) -> str:
    """The name under which our file has the keys of a machine."""
    return known_name(route.hostname, route.port, route.alias or route.host_key_alias)


def read_pins(route: Route, known_hosts: Path) -> tuple[HostKey, ...]:
    """The keys that our own file has for it."""
    return tuple(line.key for line in find_known(read_known_hosts(known_hosts), kept_name(route)).good)


def known_keys(route: Route, known_hosts: Path) -> KnownKeys:
    """All that is known for a machine: of the state directory's file and of the user's and the system's.

    Of one with an alias: what our file has for that, and only without it the key that it was made with.
    """
    if route.alias:
        known = find_known(read_known_hosts(known_hosts), kept_name(route))
        good = known.good or _pinned(route, "the key that it was made with")
        return replace(known, good=good, advice=RENTED_ADVICE)
    if route.host_key:
        return KnownKeys(route.hostname, _pinned(route, "the key pinned for it"))
    files = (known_hosts, *(Path(f) for f in route.known_hosts))
    lines = [line for file in files for line in read_known_hosts(file)]
    return find_known_for(lines, route.hostname, route.port, route.host_key_alias)


def is_rotation_due(address: HostAddress, route: Route, known_hosts: Path) -> bool:
    """Whether the key that the machine was made with is still one of those that are known for it."""
    if dict(address.settings).get("rotate") != "true" or not (route.alias and route.host_key):
        return False
    pins = read_pins(route, known_hosts)
    return not pins or parse_public_key(route.host_key) in pins


def _pinned(route: Route, place: str) -> tuple[KnownKey, ...]:
    key = parse_public_key(route.host_key)
    return (KnownKey("*", key, "", place),) if key else ()

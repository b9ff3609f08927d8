"""`cloudsend check`: can this machine, this state directory and each host do the work? One line for each question."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cloudsend_cli.core.explain import describe, describe_bytes
from cloudsend_cli.core.machine_views import CheckView
from cloudsend_cli.core.model import HostAddress, InstanceSpec, Resources, list_known
from cloudsend_cli.core.ports import Host, Provider
from cloudsend_cli.core.views import iso
from cloudsend_cli.errors import CloudsendError, HostKeyError
from cloudsend_cli.hosts.facts import HostFacts
from cloudsend_cli.hosts.host_keys import UnknownKey
from cloudsend_cli.store.directory import open_state_dir
from cloudsend_cli.store.sqlite import SqliteStore

from .direct import Direct
from .parallel import each_in_parallel
from .places import Place
from .wire import LOGOUT_WARNING

LOW_DISK = 1 << 30
LOW_INODES = 10_000
CLOCK_MOST = 5.0  # seconds


def list_checks(state_dir: Path, provider: Provider, open_host: Callable[[HostAddress], Host]) -> Iterator[CheckView]:
    """Each answer as it is found. Creates the state directory, starts an agent, and leaves no job behind."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield CheckView("python", True, f"{version} at {sys.executable}")
    yield from _check_state(state_dir)
    yield from _check_machine(state_dir, provider, open_host)


def _check_state(state_dir: Path) -> Iterator[CheckView]:
    try:
        open_state_dir(state_dir)
        with SqliteStore.open(state_dir) as store:
            store.list_runs(1)
    except CloudsendError as problem:
        yield _failed("state", problem)
        return
    yield CheckView("state", True, f"{state_dir}, SQLite {sqlite3.sqlite_version}")
    free = os.statvfs(state_dir)
    room = free.f_bavail * free.f_frsize
    inodes = f", {free.f_favail} free inodes" if free.f_files else ""
    hint = "" if room > LOW_DISK else "free some space, or choose another --state-dir"
    low = room <= LOW_DISK
    yield CheckView("disk", not low, f"{describe_bytes(room)} free{inodes}", hint, exit_status=int(low))


def _check_machine(
    state_dir: Path, provider: Provider, open_host: Callable[[HostAddress], Host]
) -> Iterator[CheckView]:
    largest = provider.largest(InstanceSpec(provider=provider.name))
    address = HostAddress("local", f"local:{state_dir}", home=str(state_dir / "agent"))
    begun = time.monotonic()
    try:
        Direct(open_host(address)).close()
    except CloudsendError as problem:
        yield _failed(provider.name, problem)
        return
    took = (time.monotonic() - begun) * 1000
    text = f"{describe(largest) if largest else 'this machine'}; the agent answered in {took:.0f} ms"
    yield CheckView(provider.name, True, text, provider=provider.name)


def _failed(name: str, problem: CloudsendError) -> CheckView:
    return CheckView(name, False, problem.message, problem.hint, code=problem.code, exit_status=1)


# ---- hosts ---------------------------------------------------------------------------------------------------------


class ProbedHost(Host, Protocol):
    """A host that tells what it has, without an agent."""

    def probe(self) -> HostFacts: ...


OpenHost = Callable[[HostAddress], ProbedHost]


def check_hosts(places: Sequence[Place], open_host: OpenHost) -> Iterator[CheckView]:
    """Each host's line as it comes; many are asked at once. An agent is put on each, and no job is left behind."""
    return each_in_parallel(places, lambda place: check_host(place, open_host))


def check_host(place: Place, open_host: OpenHost) -> CheckView:
    try:
        return _look(place, open_host(place.address))
    except CloudsendError as problem:
        return refuse_host(place, problem)
    except Exception as problem:  # noqa: BLE001 - one host's odd answer must not hide the others
        return refuse_host(place, CloudsendError(f"{type(problem).__name__}: {problem}"))


def refuse_host(place: Place, problem: CloudsendError) -> CheckView:
    """A host that cannot be used, and what to do."""
    unknown = problem.unknown if isinstance(problem, HostKeyError) else None
    key = unknown.key if isinstance(unknown, UnknownKey) else None
    return CheckView(
        place.node,
        False,
        problem.message,
        problem.hint,
        provider=place.provider.name,
        host=place.address.host,
        code=problem.code,
        exit_status=problem.exit_status,
        facts={"unknown_host_key": {"type": key.type, "fingerprint": key.fingerprint}} if key is not None else {},
    )


def _look(place: Place, host: ProbedHost) -> CheckView:
    with Direct(host) as talk:
        told = host.probe()
        hello = talk.hello
    inodes, others, taken = hello.get("inodes_free"), hello.get("others"), hello.get("taken")
    facts: dict[str, object] = {
        "hostname": told.hostname,
        "user": told.user,
        "os": told.os,
        "python": told.python,
        "home": str(hello.get("home", told.home)),
        "cpus": told.cpus,
        "memory_bytes": told.memory,
        "gpus": told.gpus,
        "load": told.load,
        "disk_free_bytes": told.disk_free,
        "inodes_free": inodes if isinstance(inodes, int) else None,
        "clock_offset": round(told.clock_offset, 3) + 0.0,
        "round_trip_ms": round(told.round_trip_ms, 1),
        "jobs_of_others": others if isinstance(others, int) else 0,
        "survives_logout": hello.get("survives_logout") is not False,
        "taken": describe_holder(taken) or None,
    }
    size = describe(Resources(told.cpus, told.memory, told.gpus))
    text = (
        f"Python {told.python}, {size}, load {told.load:.1f}, {describe_bytes(told.disk_free)} free, "
        f"clock {round(told.clock_offset, 1) + 0.0:+.1f} s, {told.round_trip_ms:.0f} ms away"
    )
    warnings = tuple(_list_warnings(place, told, facts))
    return CheckView(
        place.node, True, text, provider=place.provider.name, host=place.address.host, warnings=warnings, facts=facts
    )


def _list_warnings(place: Place, told: HostFacts, facts: Mapping[str, object]) -> Iterator[str]:
    if abs(told.clock_offset) > CLOCK_MOST:
        yield (
            f"its clock is {abs(told.clock_offset):.0f} s {'ahead' if told.clock_offset > 0 else 'behind'}: "
            "times of jobs are shown wrong; set it, or run an NTP service there"
        )
    if told.disk_free < LOW_DISK:
        room = describe_bytes(told.disk_free)
        yield f"{room} free in {facts['home']}: free some, or name another place with `home:`"
    inodes = facts["inodes_free"]
    if isinstance(inodes, int) and inodes < LOW_INODES:
        yield f"{inodes} free inodes in {facts['home']}: remove files there, or name another place with `home:`"
    settings = dict(place.address.settings)
    limit = settings.get("max_load", "")
    if limit and told.load > float(limit):
        yield f"its load {told.load:.1f} is above max_load {limit}: jobs wait there until it falls"
    if facts["taken"] and settings.get("shared") != "true":
        yield f"in use by cloudsend of {facts['taken']}: jobs wait; `shared: true` for it allows both"
    if facts["jobs_of_others"]:
        yield f"{facts['jobs_of_others']} jobs of other state directories run there, in the same queue"
    if facts["survives_logout"] is False:
        yield LOGOUT_WARNING
    yield from _list_lacks(place, told)


def _list_lacks(place: Place, told: HostFacts) -> Iterator[str]:
    """What providers.yml says it has, and it has not."""
    declared = list_known(place.capacity) if place.capacity is not None else {}
    for name, here in (("cpus", told.cpus), ("memory", told.memory), ("gpus", told.gpus)):
        if declared.get(name, 0) > here:
            shown = {n: describe_bytes(int(v)) if name == "memory" else f"{v:g}" for n, v in
                     (("said", declared[name]), ("here", here))}  # fmt: skip
            yield f"providers.yml says {name}: {shown['said']}, and it has {shown['here']}"


def describe_holder(taken: object) -> str:
    """Who has the machine, from the agent's `taken`; empty if nobody else does."""
    if not isinstance(taken, dict):
        return ""
    who = str(taken.get("user") or "another user")
    home, since = taken.get("home"), taken.get("since")
    text = who + (f", {home}" if isinstance(home, str) else "")
    return text + (f", since {iso(since)}" if isinstance(since, (int, float)) else "")

"""`cloudsend check`: can this machine and this state directory do the work? One line for each question."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudsend_cli.core.explain import describe, describe_bytes
from cloudsend_cli.core.machine_views import CheckView
from cloudsend_cli.core.model import HostAddress, InstanceSpec
from cloudsend_cli.core.ports import Host, Provider
from cloudsend_cli.errors import CloudsendError
from cloudsend_cli.store.directory import open_state_dir
from cloudsend_cli.store.sqlite import SqliteStore

LOW_DISK = 1 << 30


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
        yield CheckView("state", False, problem.message, problem.hint)
        return
    yield CheckView("state", True, f"{state_dir}, SQLite {sqlite3.sqlite_version}")
    free = os.statvfs(state_dir)
    room = free.f_bavail * free.f_frsize
    inodes = f", {free.f_favail} free inodes" if free.f_files else ""
    hint = "" if room > LOW_DISK else "free some space, or choose another --state-dir"
    yield CheckView("disk", room > LOW_DISK, f"{describe_bytes(room)} free{inodes}", hint)


def _check_machine(
    state_dir: Path, provider: Provider, open_host: Callable[[HostAddress], Host]
) -> Iterator[CheckView]:
    from cloudsend_cli.agent.client import agent_sha256, agent_source

    from .hostlink import ask_hello

    largest = provider.largest(InstanceSpec(provider=provider.name))
    address = HostAddress("local", f"local:{state_dir}", home=str(state_dir / "agent"))
    begun = time.monotonic()
    try:
        stream = open_host(address).open_agent(agent_source(), agent_sha256())
        try:
            ask_hello(stream)
        finally:
            stream.close()
    except CloudsendError as problem:
        yield CheckView(provider.name, False, problem.message, problem.hint)
        return
    took = (time.monotonic() - begun) * 1000
    yield CheckView(
        provider.name, True, f"{describe(largest) if largest else 'this machine'}; the agent answered in {took:.0f} ms"
    )

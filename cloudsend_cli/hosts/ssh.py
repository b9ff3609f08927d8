"""A machine reached by SSH."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudsend_cli.core.model import HostAddress

from .bootstrap import COMMAND
from .facts import HostFacts, ask_facts
from .ssh_config import config_for, resolve
from .ssh_pins import is_rotation_due
from .stage_talk import StageTalk

if TYPE_CHECKING:
    from .ssh_connect import Connection
    from .ssh_stream import ChannelStream

# A short wait notices soon that a partition has healed, a long one lets slow links in. The kernel asks again after 1,
# 3 and 7 s: none of these waits goes on for more than 3 s after a question.
CONNECT_LIMITS = (3.0, 3.0, 6.0)


class SshHost:
    """A machine as `address` and the user's SSH configuration describe it, connected to by Fabric.

    One connection carries all channels. It is closed with the last of them: one that may be dead is never used again.
    """

    patience = 10.0

    def __init__(self, address: HostAddress, known_hosts: Path, ssh_config: Path | None = None) -> None:
        self.address = address
        self._known_hosts = known_hosts
        self._ssh_config = ssh_config
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._failures = 0
        self.warning = ""  # what the last login has found that the user should mend

    def open_agent(self, source: bytes, sha256: str, compiled: Callable[[], bytes] | None = None) -> ChannelStream:
        with self._lock:
            stream = self._connected().open_stream(COMMAND)
        try:
            self._talk(stream).attach(self.address.home, source, sha256, compiled() if compiled is not None else b"")
        except BaseException:
            stream.close()
            raise
        return stream

    def open_shell(self, command: Sequence[str]) -> int:
        """The user's terminal there, by the system's ssh."""
        from .ssh_shell import run_shell, wait_while_refused

        route = resolve(self.address, self._ssh_config)
        wait_while_refused(route)
        with self._lock:
            if self._connection is None and is_rotation_due(self.address, route, self._known_hosts):
                self._connected().close()
        return run_shell(route, self._known_hosts, command, config_for(self.address, self._ssh_config))

    def probe(self) -> HostFacts:
        """What the machine has. Nothing is written there."""
        began = time.monotonic()
        with self._lock:
            connection = self._connected()
            connect_ms = (time.monotonic() - began) * 1000
            stream = connection.open_stream(COMMAND)
        try:
            return ask_facts(self._talk(stream), self.address.home, connect_ms)
        finally:
            stream.close()

    def _talk(self, stream: ChannelStream) -> StageTalk:
        return StageTalk(stream, self.address.host, dict(self.address.settings).get("python", ""))

    def _connected(self) -> Connection:
        from .ssh_connect import connect
        from .ssh_rotation import Rotation

        if self._connection is not None and self._connection.has_place():
            return self._connection
        route = resolve(self.address, self._ssh_config)
        limit = CONNECT_LIMITS[self._failures % len(CONNECT_LIMITS)]
        self._failures += 1
        self._connection = connect(route, self._known_hosts, limit)
        if is_rotation_due(self.address, route, self._known_hosts):
            python = dict(self.address.settings).get("python", "")
            rotation = Rotation(
                route, self._known_hosts, python, lambda: connect(route, self._known_hosts, CONNECT_LIMITS[-1])
            )
            self._connection, self.warning = rotation.rotate(self._connection, self.warning)
        self._failures = 0
        return self._connection


def probe(address: HostAddress, known_hosts: Path) -> HostFacts:
    """What a machine has, asked over a connection of its own. Errors as of `SshHost.open_agent`."""
    return SshHost(address, known_hosts).probe()

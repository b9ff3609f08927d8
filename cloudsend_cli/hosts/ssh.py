"""A machine reached by SSH."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cloudsend_cli.core.model import HostAddress

from .bootstrap import COMMAND
from .ssh_config import resolve
from .stage_talk import StageTalk

if TYPE_CHECKING:
    from .ssh_connect import Connection
    from .ssh_stream import ChannelStream

# A short wait notices soon that a partition has healed, a long one lets slow links in.
CONNECT_LIMITS = (3.0, 3.0, 10.0)


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

    def open_agent(self, source: bytes, sha256: str) -> ChannelStream:
        with self._lock:
            stream = self._connected().open_stream(COMMAND)
        try:
            python = dict(self.address.settings).get("python", "")
            StageTalk(stream, self.address.host, python).attach(self.address.home, source, sha256)
        except BaseException:
            stream.close()
            raise
        return stream

    def _connected(self) -> Connection:
        from .ssh_connect import connect

        if self._connection is not None and self._connection.has_place():
            return self._connection
        route = resolve(self.address, self._ssh_config)
        limit = CONNECT_LIMITS[self._failures % len(CONNECT_LIMITS)]
        self._failures += 1
        self._connection = connect(route, self._known_hosts, limit)
        self._failures = 0
        return self._connection

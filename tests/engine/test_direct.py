"""How often a command tries to reach a machine."""

from __future__ import annotations

import pytest

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.core.ports import ByteStream
from cloudsend_cli.engine.direct import TRIES, Direct
from cloudsend_cli.errors import UnreachableError


class Unreachable:
    """A host that no connection is made to."""

    def __init__(self) -> None:
        self.address = HostAddress("ssh", "gpu1", "", "192.0.2.1", 22, "lab")
        self.tries = 0

    def open_agent(self, source: bytes, sha256: str, compiled: object = None) -> ByteStream:
        self.tries += 1
        raise UnreachableError("no answer")


def test_a_short_wait_for_a_connection_is_followed_by_another() -> None:
    host = Unreachable()
    with pytest.raises(UnreachableError):
        Direct(host)  # type: ignore[arg-type]
    assert host.tries == TRIES


def test_a_long_wait_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: `rebuild` waited 45 s for a machine that hung and still accepted connections."""
    monkeypatch.setattr("cloudsend_cli.engine.direct.TRIES_LIMIT", -1.0)
    host = Unreachable()
    with pytest.raises(UnreachableError):
        Direct(host)  # type: ignore[arg-type]
    assert host.tries == 1

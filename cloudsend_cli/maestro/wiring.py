"""Which providers and hosts there are: the one place that names their implementations, each imported when used."""

from __future__ import annotations

from pathlib import Path

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.core.ports import Host, Provider
from cloudsend_cli.errors import NotFoundError, UnreachableError

PROVIDER_TYPES = ("local",)


def open_provider(name: str, state_dir: Path) -> Provider:
    """The provider of that name. NotFoundError names those that exist."""
    if name == "local":
        from cloudsend_cli.providers.local import LocalProvider

        return LocalProvider(state_dir)
    raise NotFoundError(f"no provider {name!r}", hint=f"providers here: {', '.join(PROVIDER_TYPES)}")


def open_host(address: HostAddress) -> Host:
    if address.kind == "local":
        from cloudsend_cli.hosts.local import LocalHost

        return LocalHost(address)
    raise UnreachableError(f"no way to reach a host of kind {address.kind!r}", hint="is this an older cloudsend?")

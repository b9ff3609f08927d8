"""Which providers and hosts there are: the one place that names their implementations, each imported when used."""

from __future__ import annotations

from pathlib import Path

from cloudsend_cli.core.model import HostAddress, ProviderDefinition
from cloudsend_cli.core.ports import Host, Provider
from cloudsend_cli.errors import NotFoundError, UnreachableError

PROVIDER_TYPES = ("local", "ssh")
LOCAL = ProviderDefinition("local", "local")
KNOWN_HOSTS = "known_hosts"  # in the state directory: host keys that the user accepted through cloudsend


def open_provider(definition: ProviderDefinition, state_dir: Path) -> Provider:
    """The provider that is so defined. NotFoundError: a type of a later version."""
    if definition.type == "local":
        from cloudsend_cli.providers.local import LocalProvider

        return LocalProvider(state_dir)
    if definition.type == "ssh":
        from cloudsend_cli.providers.ssh import SshProvider

        return SshProvider(definition, state_dir)
    raise NotFoundError(
        f"provider {definition.name!r} is of the unknown type {definition.type!r}",
        hint=f"types here: {', '.join(PROVIDER_TYPES)}; was the run submitted by a newer cloudsend?",
    )


def open_host(address: HostAddress, state_dir: Path) -> Host:
    if address.kind == "local":
        from cloudsend_cli.hosts.local import LocalHost

        return LocalHost(address)
    if address.kind == "ssh":
        from cloudsend_cli.hosts.ssh import SshHost

        return SshHost(address, state_dir / KNOWN_HOSTS)
    raise UnreachableError(f"no way to reach a host of kind {address.kind!r}", hint="is this an older cloudsend?")

"""Which providers and hosts there are: the one place that names their implementations, each imported when used."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudsend_cli.core.model import HostAddress, InstanceSpec, InstanceStatus, ProviderDefinition
from cloudsend_cli.core.naming import node_name
from cloudsend_cli.core.ports import Host, Provider, Renter
from cloudsend_cli.engine.places import KEPT, Place
from cloudsend_cli.errors import NotFoundError, StateDirError, UnreachableError

if TYPE_CHECKING:
    from cloudsend_cli.hosts.host_keys import HostKey
    from cloudsend_cli.hosts.ssh import SshHost

PROVIDER_TYPES = ("local", "ssh", "aws")
RENTED_TYPES = frozenset({"aws"})  # whose providers are Renters
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
    if definition.type in RENTED_TYPES:
        return open_renter(definition, state_dir)
    raise NotFoundError(
        f"provider {definition.name!r} is of the unknown type {definition.type!r}",
        hint=f"types here: {', '.join(PROVIDER_TYPES)}; was the run submitted by a newer cloudsend?",
    )


def open_renter(definition: ProviderDefinition, state_dir: Path) -> Renter:
    """A provider whose machines cost money, of a type in RENTED_TYPES."""
    from cloudsend_cli.providers.aws.provider import AwsProvider

    return AwsProvider(definition, state_dir, lambda alias: forget_host(alias, state_dir))


def forget_host(alias: str, state_dir: Path) -> None:
    """The rented machine of this name has ended, and will never be connected to again."""
    from cloudsend_cli.hosts.ssh_keys import drop_keys

    with contextlib.suppress(StateDirError, OSError):  # a pin that stays does no harm
        drop_keys(state_dir / KNOWN_HOSTS, alias)


def was_rented(state_dir: Path, kind: str) -> bool:
    """Whether anything can ever have been rented from providers of this type. Asks nobody and imports nothing."""
    return any((state_dir / kind / name).exists() for name in ("regions", "identity"))


def explain_unknown(kind: str) -> str:
    """How to look for what a state directory that is gone has left there: nobody knows its mark any more."""
    from cloudsend_cli.providers.aws.policy import FIND_ANY

    return FIND_ANY if kind in RENTED_TYPES else ""


def render_policy(kind: str) -> str:
    """The least that its account has to allow us, in its own language."""
    from cloudsend_cli.providers.aws.policy import render_policy

    if kind not in RENTED_TYPES:
        raise NotFoundError(f"there is no policy for the type {kind!r}")
    return render_policy()


def list_places(
    definition: ProviderDefinition, state_dir: Path, specs: Sequence[InstanceSpec] | None = None
) -> list[Place]:
    """The machines that the provider names, or those that fit `specs`, whether anything uses them or not.

    None where the provider makes its machines.
    """
    if definition.type != "ssh":
        return []
    provider = open_provider(definition, state_dir)
    places = []
    plans = provider.plan_machines([InstanceSpec(definition.name, number=0)] if specs is None else specs)
    for number, plan in enumerate(plans):
        address = read_address(plan.request)
        if address is not None:
            node = node_name(definition.name, plan.label, number)
            places.append(Place(definition, node, plan.label, address, plan.request, plan.capacity))
    return places


def read_address(request: str) -> HostAddress | None:
    """Where the machine of a request is, for machines that exist before they are asked for."""
    from cloudsend_cli.providers.ssh import read_address

    return read_address(request)


def list_kept(state_dir: Path) -> list[tuple[str, InstanceStatus]]:
    """(provider, machine) of all that is claimed without any run, whatever providers.yml says now."""
    from cloudsend_cli.providers.claims import Claims

    names = Claims(state_dir, "").list_providers(KEPT)
    definitions = [ProviderDefinition(name, "ssh") for name in names]
    return [(d.name, status) for d in definitions for status in open_provider(d, state_dir).list_instances(KEPT)]


def open_host(address: HostAddress, state_dir: Path) -> Host:
    if address.kind == "local":
        from cloudsend_cli.hosts.local import LocalHost

        return LocalHost(address)
    if address.kind == "ssh":
        from cloudsend_cli.hosts.ssh import SshHost

        return SshHost(address, state_dir / KNOWN_HOSTS)
    raise _no_way(address)


def open_ssh_host(address: HostAddress, state_dir: Path) -> SshHost:
    """One that can also be asked what it has."""
    from cloudsend_cli.hosts.ssh import SshHost

    if address.kind != "ssh":
        raise _no_way(address)
    return SshHost(address, state_dir / KNOWN_HOSTS)


def _no_way(address: HostAddress) -> UnreachableError:
    return UnreachableError(f"no way to reach a host of kind {address.kind!r}", hint="is this an older cloudsend?")


def fetch_host_keys(address: HostAddress, state_dir: Path) -> list[HostKey]:
    """The keys that the machine presents now, which nobody has verified."""
    from cloudsend_cli.hosts.ssh_keys import fetch_host_keys

    return fetch_host_keys(address, state_dir / KNOWN_HOSTS)


def accept_host_key(address: HostAddress, fingerprint: str, state_dir: Path) -> HostKey:
    """Keep exactly this key for the machine. HostKeyError: it presents another one."""
    from cloudsend_cli.hosts.ssh_keys import accept_host_key

    return accept_host_key(state_dir / KNOWN_HOSTS, address, fingerprint)

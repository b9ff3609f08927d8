"""Where machines come from, whether they can be used, and whose host keys are accepted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cloudsend_cli.core.explain import describe
from cloudsend_cli.core.machine_views import CheckView, ProviderHost, ProviderView
from cloudsend_cli.core.model import InstanceSpec
from cloudsend_cli.core.refs import not_found
from cloudsend_cli.engine.places import Place, find_places
from cloudsend_cli.errors import CloudsendError, UsageError
from cloudsend_cli.maestro import wiring

from .directory import Directory

if TYPE_CHECKING:
    from cloudsend_cli.config.context import ProviderInfo

SHOWN_ELSEWHERE = frozenset({"name", "host", "cpus", "memory", "gpus"})  # keys of a host's entry


def list_providers(home: Directory) -> list[ProviderView]:
    return [_view(home, info) for info in load_infos(home).values()]


def find_provider(home: Directory, name: str) -> ProviderView:
    return _view(home, find_info(home, name))


def find_info(home: Directory, name: str) -> ProviderInfo:
    known = load_infos(home)
    if name not in known:
        raise not_found("provider", name, list(known))
    return known[name]


def load_infos(home: Directory) -> dict[str, ProviderInfo]:
    """Those that a config in this directory could name."""
    from cloudsend_cli.config.providers import load_providers

    return load_providers(_search_paths(home), home.environ)


def _search_paths(home: Directory) -> list[str]:
    from cloudsend_cli.config.providers import list_search_paths

    return list_search_paths(os.getcwd(), home.environ)


def _view(home: Directory, info: ProviderInfo) -> ProviderView:
    from cloudsend_cli.config.document import render_inline

    capacity = ""
    if info.type == "local":
        largest = wiring.open_provider(info.definition, home.path).largest(InstanceSpec(provider=info.name))
        capacity = describe(largest) if largest is not None else ""
    return ProviderView(
        name=info.name,
        type=info.type,
        status=info.unavailable or "ready",
        capacity=capacity,
        file=next((path for path in _search_paths(home) if os.path.lexists(path)), ""),
        hosts=tuple(_host_view(place) for place in list_places(home, [info])),
        defaults=tuple(
            (key, render_inline(node), f"{node.place.file}:{node.place.line}") for key, node in info.defaults.items()
        ),
    )


def _host_view(place: Place) -> ProviderHost:
    entry = json.loads(place.request)
    settings = {k: v for k, v in entry.items() if k not in SHOWN_ELSEWHERE and v not in (None, "", [], False)}
    return ProviderHost(
        place.label,
        place.address.host,
        place.capacity,
        tuple((k, ",".join(map(str, v)) if isinstance(v, list) else _word(v)) for k, v in settings.items()),
    )


def _word(value: object) -> str:
    return "true" if value is True else str(value)


# ---- their machines ------------------------------------------------------------------------------------------------


def list_places(home: Directory, infos: Sequence[ProviderInfo]) -> list[Place]:
    """The machines that these providers name; those that cannot be used have none."""
    return [p for info in infos if not info.unavailable for p in wiring.list_places(info.definition, home.path)]


def choose_places(home: Directory, provider: str | None, refs: Sequence[str] = ()) -> list[Place]:
    """Machines of one provider, or of all; with `refs`, those that the words name."""
    infos = [find_info(home, provider)] if provider is not None else list(load_infos(home).values())
    places = list_places(home, infos)
    return find_places(places, refs) if refs else places


def check(home: Directory, provider: str | None, hosts: Sequence[str]) -> Iterator[CheckView]:
    from cloudsend_cli.engine.checks import check_hosts, list_checks

    places = choose_places(home, provider, hosts)
    infos = [find_info(home, provider)] if provider is not None else []
    if not hosts and all(info.type == "local" for info in infos):
        here = wiring.open_provider(wiring.LOCAL, home.path)
        yield from list_checks(home.path, here, lambda address: wiring.open_host(address, home.path))
    yield from check_hosts(places, lambda address: wiring.open_ssh_host(address, home.path))


def accept_host_key(home: Directory, host: str, fingerprint: str, provider: str | None) -> tuple[str, str]:
    from cloudsend_cli.store.directory import open_state_dir

    (place,) = choose_places(home, provider, [host])
    open_state_dir(home.path)
    key = wiring.accept_host_key(place.address, fingerprint, home.path)
    return key.type, key.fingerprint


def refuse_unavailable(info: ProviderInfo) -> None:
    """CloudsendError where this version cannot use the provider."""
    if info.unavailable:
        raise CloudsendError(f"provider {info.name!r}: {info.unavailable}")
    if info.type == "local":
        raise UsageError(
            f"{info.name} is this machine: it is there already, and is not claimed or given back",
            hint="`cloudsend run` uses it as it is",
        )

"""Where machines come from, whether they can be used, and whose host keys are accepted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cloudsend_cli.core.explain import describe
from cloudsend_cli.core.machine_views import CheckView, ProviderHost, ProviderView
from cloudsend_cli.core.model import InstanceSpec
from cloudsend_cli.core.refs import not_found
from cloudsend_cli.engine.places import Place, find_places, is_like_any
from cloudsend_cli.errors import ConfigError, NotFoundError
from cloudsend_cli.maestro import wiring

from .directory import Directory

if TYPE_CHECKING:
    from cloudsend_cli.config.context import ProviderInfo

AD_HOC = "ssh:"
SHOWN_ELSEWHERE = frozenset({"name", "host", "cpus", "memory", "gpus"})  # keys of a host's entry


def list_providers(home: Directory) -> list[ProviderView]:
    """Those that a config could name; what no file names is among them where credentials for it seem to be."""
    from cloudsend_cli.config.aws_entry import find_credentials

    infos = load_infos(home).values()
    return [_view(home, info) for info in infos if not info.implicit or find_credentials(home.environ)]


def find_provider(home: Directory, name: str) -> ProviderView:
    return _view(home, find_info(home, name))


def find_info(home: Directory, name: str) -> ProviderInfo:
    known = load_infos(home)
    if name in known:
        return known[name]
    if name.startswith(AD_HOC):
        return _name_on_the_spot(name, known)
    raise not_found("provider", name, list(known))


def _name_on_the_spot(name: str, known: Mapping[str, ProviderInfo]) -> ProviderInfo:
    """`ssh:HOST`, which no file names. ConfigError: it is no host."""
    from cloudsend_cli.config.check import Report
    from cloudsend_cli.config.choice import Providers
    from cloudsend_cli.config.context import LoadContext
    from cloudsend_cli.config.document import Place as Written
    from cloudsend_cli.environments.render import render_environment

    report = Report()
    context = LoadContext(known, lambda spec, folder, elsewhere: render_environment(spec, base=str(folder)))
    info = Providers(report, context).find(name, Written("command line"), "provider")
    if info is None:
        raise ConfigError(report.problems)
    return info


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
        file="" if info.name.startswith(AD_HOC) else _file(home),
        hosts=tuple(_host_view(place) for place in list_places(home, [info])),
        defaults=tuple(
            (key, render_inline(node), f"{node.place.file}:{node.place.line}") for key, node in info.defaults.items()
        ),
        settings=_list_settings(info) if info.type in wiring.RENTED_TYPES else (),
    )


def _list_settings(info: ProviderInfo) -> tuple[tuple[str, str], ...]:
    return tuple((key, _word(value)) for key, value in json.loads(info.rendered).items() if value is not None)


def _file(home: Directory) -> str:
    return next((path for path in _search_paths(home) if os.path.lexists(path)), "")


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


def choose_places(
    home: Directory, provider: str | None, refs: Sequence[str] = (), *, on_the_spot: bool = False
) -> list[Place]:
    """Machines of one provider, or of all; with `refs`, those that the words name.

    `on_the_spot`: a word that is unlike any name is a host that no file names, as in `ssh:HOST`.
    """
    infos = [find_info(home, provider)] if provider is not None else list(load_infos(home).values())
    places = list_places(home, infos)
    if provider is None:
        strange = [ref for ref in refs if ref.startswith(AD_HOC) or (on_the_spot and not is_like_any(places, ref))]
        named = dict.fromkeys(f"{AD_HOC}{ref.removeprefix(AD_HOC)}" for ref in strange)
        places += list_places(home, [find_info(home, name) for name in named])
    return find_places(places, refs) if refs else places


def check(home: Directory, provider: str | None, hosts: Sequence[str], *, fix: bool = False) -> Iterator[CheckView]:
    """Accounts are asked for what rents machines: those that are named here or in providers.yml."""
    from cloudsend_cli.engine.checks import check_hosts, list_checks

    places = choose_places(home, provider, hosts, on_the_spot=True)
    infos = [find_info(home, provider)] if provider is not None else []
    accounts = infos or ([] if hosts else [info for info in load_infos(home).values() if not info.implicit])
    if not hosts and all(info.type == "local" for info in infos):
        here = wiring.open_provider(wiring.LOCAL, home.path)
        yield from list_checks(home.path, here, lambda address: wiring.open_host(address, home.path))
    yield from check_hosts(places, lambda address: wiring.open_ssh_host(address, home.path))
    for info in accounts:
        if info.type in wiring.RENTED_TYPES and not info.unavailable:
            from .renting import check_account

            yield from check_account(home, info.definition, fix=fix)


def accept_host_key(home: Directory, host: str, fingerprint: str, provider: str | None) -> tuple[str, str]:
    from cloudsend_cli.store.directory import open_state_dir

    try:
        (place,) = choose_places(home, provider, [host], on_the_spot=True)
    except NotFoundError:
        if provider is not None:
            raise
        # The fingerprint says which machine is meant, however like another's its name is.
        (place,) = choose_places(home, None, [f"{AD_HOC}{host}"])
    open_state_dir(home.path)
    key = wiring.accept_host_key(place.address, fingerprint, home.path)
    return key.type, key.fingerprint

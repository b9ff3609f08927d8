"""Where machines come from, and whether they can be used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloudsend_cli.core.explain import describe
from cloudsend_cli.core.machine_views import CheckView, ProviderView
from cloudsend_cli.core.model import InstanceSpec
from cloudsend_cli.core.refs import not_found
from cloudsend_cli.maestro.wiring import LOCAL, open_host, open_provider

from .directory import Directory

if TYPE_CHECKING:
    from cloudsend_cli.config.context import ProviderInfo


def list_providers(home: Directory) -> list[ProviderView]:
    return [_view(home, info) for info in _load(home).values()]


def find_provider(home: Directory, name: str) -> ProviderView:
    known = _load(home)
    if name not in known:
        raise not_found("provider", name, list(known))
    return _view(home, known[name])


def _load(home: Directory) -> dict[str, ProviderInfo]:
    """Those that a config in this directory could name."""
    from cloudsend_cli.config.providers import load_providers

    return load_providers(_search_paths(home))


def _search_paths(home: Directory) -> list[str]:
    from cloudsend_cli.config.providers import list_search_paths

    return list_search_paths(os.getcwd(), home.environ)


def _view(home: Directory, info: ProviderInfo) -> ProviderView:
    from cloudsend_cli.config.document import render_inline

    capacity = ""
    if info.type == LOCAL.type:
        largest = open_provider(LOCAL, home.path).largest(InstanceSpec(provider=info.name))
        capacity = describe(largest) if largest is not None else ""
    return ProviderView(
        name=info.name,
        type=info.type,
        status=info.unavailable or "ready",
        capacity=capacity,
        file=next((path for path in _search_paths(home) if os.path.lexists(path)), ""),
        defaults=tuple(
            (key, render_inline(node), f"{node.place.file}:{node.place.line}") for key, node in info.defaults.items()
        ),
    )


def check(home: Directory) -> list[CheckView]:
    from cloudsend_cli.engine.checks import list_checks

    provider = open_provider(LOCAL, home.path)
    return list(list_checks(home.path, provider, lambda address: open_host(address, home.path)))

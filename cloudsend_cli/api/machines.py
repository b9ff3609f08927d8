"""Where machines come from, and whether they can be used."""

from __future__ import annotations

from cloudsend_cli.core.explain import describe
from cloudsend_cli.core.model import InstanceSpec
from cloudsend_cli.core.views import CheckView, ProviderView
from cloudsend_cli.maestro.wiring import LOCAL, open_host, open_provider

from .directory import Directory


def list_providers(home: Directory) -> list[ProviderView]:
    largest = open_provider(LOCAL, home.path).largest(InstanceSpec(provider=LOCAL.name))
    return [ProviderView(LOCAL.name, LOCAL.type, "ready", describe(largest) if largest else "")]


def check(home: Directory) -> list[CheckView]:
    from cloudsend_cli.engine.checks import list_checks

    provider = open_provider(LOCAL, home.path)
    return list(list_checks(home.path, provider, lambda address: open_host(address, home.path)))

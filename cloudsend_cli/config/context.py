"""What only the caller of the loader knows: providers, how environments are rendered, where files are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from cloudsend_cli.core.model import EnvironmentBuild, EnvironmentSpec, Resources

from .document import Node


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One provider as `providers.yml` names it. `defaults` are checked keys of `instances[]`, with their places."""

    name: str
    type: str
    defaults: Mapping[str, Node] = field(default_factory=dict)
    largest: Resources | None = None  # None: not known before a machine exists
    settings: tuple[tuple[str, str], ...] = ()
    unavailable: str = ""  # why this version cannot use it


@dataclass(frozen=True, slots=True)
class LoadContext:
    """`render_environment` raises ConfigError; `snapshot` takes a path and its sha256 and returns Upload.source."""

    providers: Mapping[str, ProviderInfo]
    render_environment: Callable[[EnvironmentSpec, Path], EnvironmentBuild]
    snapshot: Callable[[Path, str], str] | None = None
    hash_cache: MutableMapping[tuple[str, int, int, int], str] | None = None

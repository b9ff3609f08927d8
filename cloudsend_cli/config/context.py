"""What only the caller of the loader knows: providers, how environments are rendered, where files are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from cloudsend_cli.core.model import (
    EnvironmentBuild,
    EnvironmentSpec,
    Output,
    ProviderDefinition,
    Resources,
    Slot,
    Upload,
)
from cloudsend_cli.core.ports import Provider
from cloudsend_cli.errors import Problem

from .document import Node


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One provider as `providers.yml` names it. `defaults` are checked keys of `instances[]`, with their places."""

    name: str
    type: str
    defaults: Mapping[str, Node] = field(default_factory=dict)
    largest: Resources | None = None  # None: not known before a machine exists
    settings: tuple[tuple[str, str], ...] = ()  # as written, of types that this version cannot use
    unavailable: str = ""  # why this version cannot use it
    rendered: str = "{}"  # ProviderDefinition.settings
    warnings: tuple[Problem, ...] = ()  # worth knowing when it is used
    origins: tuple[tuple[str, str, str], ...] = ()  # (hosts[0].user, value, where it is said)
    implicit: bool = False  # known without any file: never chosen unless it is named

    @property
    def definition(self) -> ProviderDefinition:
        return ProviderDefinition(self.name, self.type, self.rendered)


@dataclass(frozen=True, slots=True)
class FunctionTask:
    """One call of a function, already made into a command with the files that it needs."""

    argv: tuple[str, ...]
    display: str
    params: tuple[tuple[str, str], ...] = ()
    uploads: tuple[Upload, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionTasks:
    """What stands for a group whose `Call` is a Python function: its tasks, its pool, and what each leaves."""

    tasks: tuple[FunctionTask, ...]
    slots: tuple[Slot, ...] = ((),)
    outputs: tuple[Output, ...] = ()
    warnings: tuple[str, ...] = ()  # such as `Param.x: ...`, worth knowing of the group


@dataclass(frozen=True, slots=True)
class LoadContext:
    """`render_environment` raises ConfigError; it is told whether the run's machines include others than this one.

    `snapshot` takes a path and its sha256 and returns Upload.source. Without `open_provider`, what only a provider
    knows of its machines is not checked. `functions`: by the text that stands as `Call` in the config, which starts
    with a NUL character, so that no command can be one. `take_functions` puts such texts into what a Python file says,
    and the tasks into `functions`.
    """

    providers: Mapping[str, ProviderInfo]
    render_environment: Callable[[EnvironmentSpec, Path, bool], EnvironmentBuild]
    snapshot: Callable[[Path, str], str] | None = None
    hash_cache: MutableMapping[tuple[str, int, int, int], str] | None = None
    open_provider: Callable[[ProviderDefinition], Provider] | None = None
    functions: Mapping[str, FunctionTasks] = field(default_factory=dict)
    take_functions: Callable[[object], object] | None = None

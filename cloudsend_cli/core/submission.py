"""What goes into a submission and what comes out of it: data between the interface and the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudsend_cli.errors import Problem

from .history import NO_HISTORY, History
from .model import RunSpec

if TYPE_CHECKING:
    from .plan import Continued, NodePlan

UNREACHED = "unreached"  # a setting of a rebuilt run: machines that may hold jobs of it, and were not heard


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What the command line adds to a config."""

    fresh: bool = False
    name: str | None = None
    provider: str | None = None
    overrides: tuple[str, ...] = ()
    max_parallel: int | None = None
    continue_as: str = ""  # of a dict, which has no file: by this name its run is continued; "": it is a new one
    folder: str = ""  # of a dict: where its relative paths begin; "": the working directory


@dataclass(frozen=True, slots=True)
class Submitted:
    """A committed run. `continued` is None for a new one; what happened after `since` came of this submission."""

    run: str
    continued: Continued | None
    warnings: tuple[Problem, ...]
    since: int = 0  # the newest number of the audit trail before it
    ids: Mapping[str, str] = field(default_factory=dict)  # of its jobs as committed, by their names in the config


@dataclass(frozen=True, slots=True)
class PlanView:
    """What `run` would do."""

    spec: RunSpec
    nodes: tuple[NodePlan, ...]
    continued: Continued | None
    run: str | None  # the run that would be continued
    warnings: tuple[Problem, ...]
    history: History = NO_HISTORY
    kept: frozenset[str] = frozenset()  # names of jobs that are not done again

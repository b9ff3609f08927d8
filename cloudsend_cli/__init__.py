"""cloudsend runs any script on any machine its user can reach. Public names: see `__all__`; loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors
    from .api import Client, FunctionRun, JobResult, SubmitOptions, Submitted, TaskRunner
    from .api.events import JobEnded, JobReopened, JobStarted, MachineChanged, RunSettled
    from .api.seeds import CloudSendJobState, get_client
    from .api.ssh import SSH
    from .api.task_runner import TaskResults

__version__ = "0.1.0"
__all__ = [
    "SSH",
    "Client",
    "CloudSendJobState",
    "FunctionRun",
    "JobEnded",
    "JobReopened",
    "JobResult",
    "JobStarted",
    "MachineChanged",
    "RunSettled",
    "SubmitOptions",
    "Submitted",
    "TaskResults",
    "TaskRunner",
    "__version__",
    "errors",
    "get_client",
]

_HOMES = {
    "SSH": "api.ssh",
    "Client": "api",
    "CloudSendJobState": "api.seeds",
    "FunctionRun": "api.functions.runs",
    "JobEnded": "api.events",
    "JobReopened": "api.events",
    "JobResult": "api.results",
    "JobStarted": "api.events",
    "MachineChanged": "api.events",
    "RunSettled": "api.events",
    "SubmitOptions": "core.submission",
    "Submitted": "core.submission",
    "TaskResults": "api.task_runner",
    "TaskRunner": "api.task_runner",
    "get_client": "api.seeds",
}


def __getattr__(name: str) -> object:
    """Public names are loaded when they are first used: the package itself starts in no time."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "errors":
        return import_module(f"{__name__}.errors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

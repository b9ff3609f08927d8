"""The Python interface. The CLI is a skin over it: nothing here prints, exits or reads `sys.argv`."""

from typing import TYPE_CHECKING

from cloudsend_cli.core.submission import PlanView, SubmitOptions, Submitted

from .client import Client

if TYPE_CHECKING:
    from .functions.runs import FunctionRun
    from .results import JobResult
    from .task_runner import TaskRunner

__all__ = ["Client", "FunctionRun", "JobResult", "PlanView", "SubmitOptions", "Submitted", "TaskRunner"]

LATER = {"FunctionRun": "functions.runs", "JobResult": "results", "TaskRunner": "task_runner"}


def __getattr__(name: str) -> object:
    """What listing jobs does not need is loaded when it is used."""
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{LATER[name]}"), name)

"""cloudsend runs any script on any machine its user can reach. Public names: Client, SubmitOptions, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors
    from .api import Client
    from .core.submission import SubmitOptions

__version__ = "0.1.0"
__all__ = ["Client", "SubmitOptions", "__version__", "errors"]


def __getattr__(name: str) -> object:
    """Public names are loaded when they are first used: the package itself starts in no time."""
    from importlib import import_module

    homes = {"Client": "api", "SubmitOptions": "core.submission"}
    if name in homes:
        return getattr(import_module(f"{__name__}.{homes[name]}"), name)
    if name == "errors":
        return import_module(f"{__name__}.errors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The Python interface. The CLI is a skin over it: nothing here prints, exits or reads `sys.argv`."""

from cloudsend_cli.core.submission import PlanView, SubmitOptions, Submitted

from .client import Client

__all__ = ["Client", "PlanView", "SubmitOptions", "Submitted"]

"""One provider of one state directory: the way into its account, who we are there, and what we noted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .clients import Account
from .identity import FOLDER, Identity, open_folder, open_identity
from .records import Records


@dataclass(frozen=True)
class Tenant:
    """What every act on machines needs."""

    provider: str
    account: Account
    state_dir: Path

    @cached_property
    def identity(self) -> Identity:
        """Made when it is first needed: whoever only plans leaves nothing behind."""
        return open_identity(self.state_dir)

    @cached_property
    def records(self) -> Records:
        return Records(open_folder(self.state_dir))

    @property
    def is_new(self) -> bool:
        """Whether nothing can ever have been rented from this state directory."""
        folder = self.state_dir / FOLDER
        return not ((folder / "identity").exists() or (folder / "secret").exists())

"""One provider of one state directory: the way into its account, who we are there, and what we noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .clients import Account
from .identity import FOLDER, Identity, list_regions, open_folder, open_identity
from .records import Records


@dataclass(frozen=True)
class Tenant:
    """What every act on machines needs."""

    provider: str
    account: Account
    state_dir: Path
    forget_host: Callable[[str], None] = lambda alias: None
    _ended: set[str] = field(default_factory=set, compare=False)

    def note_ended(self, instance_id: str) -> None:
        """The machine was seen to have ended: what was noted of it is of no use any more."""
        if instance_id not in self._ended:
            self._ended.add(instance_id)
            self.records.forget_machine(instance_id)
            self.forget_host(instance_id)

    @cached_property
    def identity(self) -> Identity:
        """Made when it is first needed: whoever only plans leaves nothing behind."""
        return open_identity(self.state_dir)

    @cached_property
    def records(self) -> Records:
        return Records(open_folder(self.state_dir))

    def list_regions(self) -> list[str]:
        """In which anything of ours can be. Where the note of them is gone: the one that is used now."""
        return list_regions(self.state_dir) or ([] if self.is_new else [self.account.region])

    @property
    def is_new(self) -> bool:
        """Whether nothing can ever have been rented from this state directory."""
        folder = self.state_dir / FOLDER
        return not ((folder / "identity").exists() or (folder / "secret").exists())

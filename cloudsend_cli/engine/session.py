"""What one run needs in order to be ticked: its state, its store, its providers and the links to its machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudsend_cli.core.model import HostView, Policy
from cloudsend_cli.core.ports import Hosts, Provider, Store
from cloudsend_cli.core.state import RunState

from .calls import Calls


@dataclass(slots=True)
class Session:
    """Owned by one thread. `state` is None until the first tick and after a conflict: it is then loaded again."""

    run: str
    store: Store
    providers: Mapping[str, Provider]
    hosts: Hosts
    calls: Calls
    policy: Policy = field(default_factory=Policy)
    state: RunState | None = None
    views: dict[str, HostView] = field(default_factory=dict)
    listed_at: dict[str, float] = field(default_factory=dict)
    linked: dict[str, int] = field(default_factory=dict)  # node -> generation of the machine that it is linked to
    requests_hinted: bool = True

    def reset(self) -> None:
        """Forget what was observed: somebody else wrote, so news that was drained may not have been committed."""
        self.state = None
        self.requests_hinted = True
        self.listed_at.clear()
        self.hosts.forget()

"""What one run needs in order to be ticked: its state, its store, its providers and the links to its machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cloudsend_cli.core.model import HostView, Policy, ProviderDefinition
from cloudsend_cli.core.ports import Hosts, Provider, Store
from cloudsend_cli.core.state import RunRecord, RunState
from cloudsend_cli.errors import CloudsendError, NotFoundError

from .calls import Calls


class RunProviders:
    """The providers of one run, each as the run's record defines it, opened when first asked for."""

    def __init__(self, open_provider: Callable[[ProviderDefinition], Provider]) -> None:
        self._open = open_provider
        self._opened: dict[ProviderDefinition, Provider] = {}

    def find(self, name: str, run: RunRecord) -> Provider:
        """NotFoundError: no definition of that name was kept with the run, or it is of a later version."""
        # A run of a version that kept no definitions has `local` alone.
        known = (*run.providers, ProviderDefinition("local", "local"))
        definition = next((d for d in known if d.name == name), None)
        if definition is None:
            raise NotFoundError(f"the run {run.id} names no provider {name!r}", hint="run its config again")
        if definition not in self._opened:
            self._opened[definition] = self._open(definition)
        return self._opened[definition]


FindProvider = Callable[[str, RunRecord], Provider]


@dataclass(slots=True)
class Session:
    """Owned by one thread. `state` is None until the first tick and after a conflict: it is then loaded again."""

    run: str
    store: Store
    find_provider: FindProvider
    hosts: Hosts
    calls: Calls
    policy: Policy = field(default_factory=Policy)
    state: RunState | None = None
    views: dict[str, HostView] = field(default_factory=dict)
    listed_at: dict[str, float] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)  # provider call -> why its last try came to nothing
    linked: dict[str, int] = field(default_factory=dict)  # node -> generation of the machine that it is linked to
    requests_hinted: bool = True

    def is_slow(self, provider: str, run: RunRecord) -> bool:
        try:
            return self.find_provider(provider, run).slow
        except CloudsendError:
            return False  # the call itself tells what is wrong

    def reset(self) -> None:
        """Forget what was observed: somebody else wrote, so news that was drained may not have been committed."""
        self.state = None
        self.requests_hinted = True
        self.listed_at.clear()
        self.hosts.forget()

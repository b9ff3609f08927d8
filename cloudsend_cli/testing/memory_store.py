"""A store that forgets everything but what was committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cloudsend_cli.core.model import EnvironmentBuild, Request
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.records import replace
from cloudsend_cli.core.state import BuildRecord, Changes, JobRecord, NodeRecord, RentalRecord, RunRecord, RunState
from cloudsend_cli.errors import ConflictError, NotFoundError


@dataclass(slots=True)
class StoredRun:
    """One run's records as last committed."""

    run: RunRecord
    jobs: dict[int, JobRecord]
    nodes: dict[str, NodeRecord]
    builds: dict[tuple[str, str], BuildRecord]
    environments: dict[str, EnvironmentBuild]
    rentals: dict[str, RentalRecord]
    requests: list[Request] = field(default_factory=list)
    request_ids: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)


class MemoryStore:
    """Implements core.ports.Store. Records are frozen, so that sharing them leaks nothing that was not committed."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}

    def create_run(self, state: RunState) -> None:
        """Store a new run as planned; its version becomes 1."""
        if state.run.id in self.runs:
            raise ConflictError(f"the run {state.run.id} exists")
        self.runs[state.run.id] = StoredRun(
            replace(state.run, version=1),
            dict(state.jobs),
            dict(state.nodes),
            dict(state.builds),
            dict(state.environments),
            dict(state.rentals),
        )

    def add_request(self, run: str, request: Request) -> None:
        """Keep a user's request until a commit carries it out; a repeated id is the same request."""
        stored = self._stored(run)
        if request.id not in stored.request_ids:
            stored.request_ids.add(request.id)
            stored.requests.append(request)

    def load(self, run: str) -> RunState:
        stored = self._stored(run)
        return RunState(
            stored.run,
            stored.jobs.values(),
            stored.nodes.values(),
            stored.builds.values(),
            stored.environments.values(),
            stored.rentals.values(),
        )

    def commit(self, run: str, version: int, changes: Changes, events: Sequence[Event]) -> int:
        stored = self._stored(run)
        self._compare(stored, version)
        stored.run = replace(changes.run or stored.run, version=stored.run.version + 1)
        stored.jobs.update(changes.jobs)
        stored.nodes.update(changes.nodes)
        stored.builds.update(changes.builds)
        stored.rentals.update(changes.rentals)
        stored.events.extend(events)
        if changes.run is not None and stored.requests:
            stored.requests = [r for r in stored.requests if r.id not in changes.run.requests_done]
        return stored.run.version

    def write_run(
        self, run: str, update: Callable[[RunState], Changes], environments: Iterable[EnvironmentBuild] = ()
    ) -> int:
        """A user's change: load, update and commit with nobody in between. A maestro that acts finds a conflict."""
        stored = self._stored(run)
        stored.environments.update((e.key, e) for e in environments)
        state = self.load(run)
        return self.commit(run, state.run.version, update(state), ())

    def list_requests(self, run: str) -> Sequence[Request]:
        return tuple(self._stored(run).requests)

    def _compare(self, stored: StoredRun, version: int) -> None:
        if stored.run.version != version:
            raise ConflictError(f"the run {stored.run.id} is at version {stored.run.version}, not {version}")

    def _stored(self, run: str) -> StoredRun:
        try:
            return self.runs[run]
        except KeyError:
            raise NotFoundError(f"no run {run!r}") from None

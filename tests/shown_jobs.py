"""Jobs of a run in memory as commands show them: stored, and read from its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloudsend_cli.core.model import HostView
from cloudsend_cli.core.state import RunState
from cloudsend_cli.core.views import JobView
from cloudsend_cli.engine.lookup import RunFacts, job_view
from cloudsend_cli.store.sqlite import SqliteStore


def show_jobs(folder: Path, state: RunState, views: Mapping[str, HostView] | None = None) -> dict[int, JobView]:
    """By number. `folder` is made, for a store of this run alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with SqliteStore.open(folder) as store:
        store.create_run(state)
        return read_jobs(store, state.run.id, views)


def show_job(folder: Path, state: RunState, views: Mapping[str, HostView] | None = None) -> JobView:
    """The first one."""
    return show_jobs(folder, state, views)[1]


def read_jobs(store: SqliteStore, run: str, views: Mapping[str, HostView] | None = None) -> dict[int, JobView]:
    facts = RunFacts(store, run, views or {})
    return {row.number: job_view(row, facts) for row in store.list_jobs(run)}

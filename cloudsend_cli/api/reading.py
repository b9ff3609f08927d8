"""Look-ups and tables: what is remembered, and how a running maestro sees it. Nothing is started."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

from cloudsend_cli.core.explain import Explanation, explain
from cloudsend_cli.core.losses import Earlier
from cloudsend_cli.core.views import EnvironmentView, JobView, Json, RunView, iso
from cloudsend_cli.engine import lookup
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import JobRow

from .directory import Directory


def list_runs(home: Directory, limit: int | None, open_too: bool = False) -> list[RunView]:
    store = home.reader()
    rows = store.list_runs(limit)
    if open_too:  # whatever was continued may be older than those
        listed = {row.run.id for row in rows}
        rows += [store.run_row(run) for run in reversed(store.list_active_runs()) if run not in listed]
    rentals, now = store.list_rentals(), time.time()
    return [lookup.run_view(row, rentals.get(row.run.id, ()), now) for row in rows]


def find_run(home: Directory, ref: str) -> RunView:
    store = home.reader()
    row = store.run_row(lookup.find_run(store, ref))
    return lookup.run_view(row, store.list_rentals(row.run.id).get(row.run.id, ()), time.time())


# ---- jobs ----------------------------------------------------------------------------------------------------------


def list_jobs(
    home: Directory,
    run: str | None,
    states: Sequence[str],
    provider: str | None,
    limit: int | None,
    history: bool,
) -> list[JobView]:
    store = home.reader()
    runs = [lookup.find_run(store, run)] if run is not None else store.find_runs("")
    views: list[JobView] = []
    for one in runs:
        left = None if limit is None else limit - len(views)
        if left is not None and left <= 0:
            break
        newest = None if provider else left
        rows = store.list_jobs(one, states or None, newest, newest_first=left is not None, superseded=history)
        found = list(islice(job_views(home, store, one, rows, provider), left))
        views.extend(found if left is None else reversed(found))
    return views


def job_views(
    home: Directory, store: SqliteStore, run: str, rows: Iterator[JobRow], provider: str | None = None
) -> Iterator[JobView]:
    facts = lookup.RunFacts(store, run, home.views(store, run))
    return (lookup.job_view(r, facts) for r in rows if provider is None or r.provider == provider)


def find_jobs(home: Directory, refs: Sequence[str]) -> list[JobView]:
    store = home.reader()
    return many_views(home, store, lookup.find_jobs(store, refs))


def many_views(home: Directory, store: SqliteStore, rows: Sequence[JobRow]) -> list[JobView]:
    """Views of rows of several runs, in their order."""
    facts = {run: lookup.RunFacts(store, run, home.views(store, run)) for run in {r.run for r in rows}}
    return [lookup.job_view(row, facts[row.run]) for row in rows]


def find_job(home: Directory, ref: str) -> JobView:
    store = home.reader()
    row = lookup.find_job(store, ref)
    return next(job_views(home, store, row.run, iter((row,))))


def attempts(home: Directory, ref: str) -> list[Json]:
    store = home.reader()
    row = lookup.find_job(store, ref)
    earlier = [
        {
            **a._asdict(),
            "handed_at": iso(a.handed_at),
            "started_at": iso(a.started_at),
            "ended_at": iso(a.ended_at),
        }
        for a in store.history(row.run, row.number)
    ]
    newest = {k: getattr(row, k) for k in ("attempt", "state", "reason", "exit_code", "node", "maxrss")}
    times = {k: iso(getattr(row, k)) for k in ("handed_at", "started_at", "ended_at")}
    return [*earlier, {**newest, **times}] if row.attempt else list(earlier)


def explain_job(home: Directory, ref: str) -> Explanation:
    store = home.reader()
    row = lookup.find_job(store, ref)
    state = store.load(row.run)
    others = lookup.count_others(store, state)
    earlier = [Earlier(a.attempt, a.node, a.reason) for a in store.history(row.run, row.number)]
    views = home.views(store, row.run)
    return explain(state, state.jobs[row.number], views, time.time(), others, earlier=earlier)


# ---- environments --------------------------------------------------------------------------------------------------


def list_environments(home: Directory, run: str | None) -> list[EnvironmentView]:
    store = home.reader()
    runs = [lookup.find_run(store, run)] if run is not None else [r.run.id for r in store.list_runs(20)]
    found = []
    for one in runs:
        frame = store.load_without_jobs(one)
        for key, environment in frame.environments.items():
            builds = [b for b in frame.builds.values() if b.key == key]
            for build in builds:
                found.append(EnvironmentView(key, environment.name, one, build.node, build.state, build.reason))
            if not builds:
                found.append(EnvironmentView(key, environment.name, one, "", "not built", ""))
    return found

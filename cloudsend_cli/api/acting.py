"""What changes a run: submitting it, ending its jobs, bringing results home."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudsend_cli.core.losses import SHOWN_MOST, describe_absence
from cloudsend_cli.core.model import FINAL_STATES, RUNNING, Request
from cloudsend_cli.core.plan import plan_fetch
from cloudsend_cli.core.state import FETCHED
from cloudsend_cli.core.submission import PlanView, SubmitOptions, Submitted
from cloudsend_cli.core.views import JobView, RunView
from cloudsend_cli.engine import lookup
from cloudsend_cli.errors import CloudsendError, MaestroError, ResultError, UnreachableError
from cloudsend_cli.maestro.secrets import write_secrets
from cloudsend_cli.store.directory import open_state_dir
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import JobRow

from .directory import Directory
from .reading import find_run, many_views

if TYPE_CHECKING:
    from cloudsend_cli.config.context import FunctionTasks
    from cloudsend_cli.config.load import Loaded
    from cloudsend_cli.engine.submit import Announce, Config, Keep, Submitter, TakeFunctions

FETCH_LIMIT = 24 * 3600.0
CONNECT_LIMIT = 20.0
HOME_LIMIT = 60.0  # for results on their way
LOOK_AGAIN = 0.05


# ---- submitting ----------------------------------------------------------------------------------------------------


def _submitter(home: Directory) -> Submitter:
    from cloudsend_cli.engine.submit import Submitter
    from cloudsend_cli.maestro.wiring import open_provider

    return Submitter(home.path, lambda d: open_provider(d, home.path), home.environ, Path.cwd())


def validate(home: Directory, config: Config, options: SubmitOptions) -> Loaded:
    return _submitter(home).load(config, (), options, _take_functions, keep=False)


def load_command(home: Directory, argv: Sequence[str], options: SubmitOptions) -> Loaded:
    return _submitter(home).load(None, argv, options, keep=False)


def plan(home: Directory, config: Config | None, argv: Sequence[str], options: SubmitOptions) -> PlanView:
    return _submitter(home).plan(home.reader(), config, argv, options, _take_functions)


def submit(
    home: Directory,
    config: Config | None,
    argv: Sequence[str],
    options: SubmitOptions,
    announce: Announce,
    take_functions: TakeFunctions | None = None,
) -> Submitted:
    open_state_dir(home.path)
    submitter = _submitter(home)
    loaded = submitter.load(config, argv, options, take_functions or _take_functions, keep=True)
    submitted = submitter.submit(
        home.writer(), loaded, options, lambda run, values: write_secrets(home.path, run, values), announce
    )
    home.hint(submitted.run).close()
    return submitted


def _take_functions(
    config: Mapping[str, object], keep: Keep
) -> tuple[Mapping[str, object], Mapping[str, FunctionTasks]]:
    if "sections" not in config:
        return config, {}
    from .functions.sections import extract_functions

    return extract_functions(config, keep)


# ---- ending --------------------------------------------------------------------------------------------------------


def cancel(home: Directory, refs: Sequence[str]) -> list[JobView]:
    store = home.writer()
    rows = lookup.find_jobs(store, refs)
    for run in dict.fromkeys(r.run for r in rows):
        numbers = tuple(r.number for r in rows if r.run == run and r.state not in FINAL_STATES)
        if numbers:
            _request_cancel(home, store, run, numbers)
    return many_views(home, store, rows)


def cancel_run(home: Directory, run: str) -> RunView:
    store = home.writer()
    run = lookup.find_run(store, run)
    if run in store.list_active_runs():
        _request_cancel(home, store, run, None)
    return find_run(home, run)


def _request_cancel(home: Directory, store: SqliteStore, run: str, numbers: tuple[int, ...] | None) -> None:
    store.add_request(run, Request(os.urandom(16).hex(), "cancel", numbers, time.time()))
    home.hint(run).close()


def give_up(home: Directory, node: str) -> list[str]:
    store = home.writer()
    found = []
    for run in store.list_active_runs():
        record = store.load_without_jobs(run).nodes.get(node)
        if record is not None and record.state == "running":
            store.add_request(run, Request(os.urandom(16).hex(), "gone", None, time.time(), node))
            home.hint(run).close()
            found.append(run)
    return found


# ---- results -------------------------------------------------------------------------------------------------------


def fetch(home: Directory, ref: str, directory: str | None) -> list[Path]:
    store = home.reader()
    rows, run = lookup.find_jobs_and_run(store, ref)
    gone = dict.fromkeys(row for row in rows if describe_absence(row.state, row.reason, row.fetch))
    there = [row for row in rows if row not in gone]
    try:
        paths = [path for row in there if (path := _fetch_one(home, store, row, directory)) is not None]
    finally:
        if run is not None:  # also where results of some job cannot be brought home; last, as metrics come with logs
            from cloudsend_cli.engine.result_tables import write_tables

            write_tables(store, run, Path(directory or store.run_row(run).run.results_dir, run).absolute())
    if gone:
        raise _describe_gone(list(gone), len(paths))
    return paths


def _describe_gone(rows: Sequence[JobRow], fetched: int) -> ResultError:
    went = [f"{r.name}: gone with {r.node}, which was {describe_absence(r.state, r.reason, r.fetch)}" for r in rows]
    more = f"; and {len(went) - SHOWN_MOST} more" if len(went) > SHOWN_MOST else ""
    text = f"results went with their machine: {'; '.join(went[:SHOWN_MOST])}{more}"
    rest = f"; results of {fetched} other jobs are here" if fetched else ""
    return ResultError(text, hint=f"run their config again, and they are done again{rest}")


def _fetch_one(home: Directory, store: SqliteStore, row: JobRow, directory: str | None) -> Path | None:
    from cloudsend_cli.engine.results import Home, job_directory

    run = store.run_row(row.run).run
    if row.state in FINAL_STATES and row.fetch in FETCHED:
        row = _await_home(home, store, row)
    there = job_directory(Home(run.results_dir, row.run, row.name))
    if row.fetch == "home":
        if directory is None:
            return there
        target = job_directory(Home(str(Path(directory).absolute()), row.run, row.name))
        from shutil import copytree

        copytree(there, target, dirs_exist_ok=True)
        return target
    if row.fetch.startswith("failed"):
        return _fetch_again(home, row, directory)
    if row.state != RUNNING:
        return None
    results = str(Path(directory).absolute()) if directory else run.results_dir
    _fetch_now(home, row, results)
    return job_directory(Home(results, row.run, row.name))


def _await_home(home: Directory, store: SqliteStore, row: JobRow) -> JobRow:
    """Results on their way are waited for a while; UnreachableError: they are not home yet."""
    until = time.monotonic() + HOME_LIMIT
    home.hint(row.run).close()
    while row.fetch in FETCHED:
        if time.monotonic() > until:
            hint = "they come by themselves when its machine answers: `cloudsend wait` returns when they are here"
            raise UnreachableError(f"{row.name}: its results are not home yet", hint=hint)
        time.sleep(LOOK_AGAIN)
        row = store.find_jobs(run=row.run, number=row.number)[0]
    return row


def _fetch_now(home: Directory, row: JobRow, results: str) -> None:
    """Results of a job that runs, through the maestro's connection."""
    until = time.monotonic() + CONNECT_LIMIT
    while True:
        maestro = home.hint(row.run)
        try:
            answer = maestro.ask("fetch", run=row.run, number=row.number, results=results, limit=FETCH_LIMIT)
        except MaestroError:
            answer = {"later": "the maestro has ended"}
        finally:
            maestro.close()
        if "later" not in answer:
            break
        if time.monotonic() > until:
            raise UnreachableError(f"{row.name}: {answer['later']}", hint="try again")
        time.sleep(LOOK_AGAIN)
    if answer.get("problem"):
        raise CloudsendError(f"{row.name}: {answer['problem']}", hint="try again when the job has written more")


def _fetch_again(home: Directory, row: JobRow, directory: str | None) -> Path | None:
    """What could not be brought home is still on its machine. ResultError: it could not be brought again."""
    from .watching import follow

    store = home.writer()
    store.write_run(row.run, lambda state: plan_fetch(state, [row.number]))
    for _ in follow(home, row.run, None):
        pass
    again = store.find_jobs(run=row.run, number=row.number)[0]
    if again.fetch != "home":
        raise ResultError(
            f"{row.name}: results could not be brought home: {again.fetch.removeprefix('failed: ')}",
            hint="mend it and fetch again; they are kept where the job ran",
        )
    return _fetch_one(home, store, again, directory)

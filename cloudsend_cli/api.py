"""The Python interface. The CLI is a skin over it: nothing here prints, exits or reads `sys.argv`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from cloudsend_cli.core.explain import Explanation, describe, explain
from cloudsend_cli.core.model import (
    FINAL_STATES,
    JOB_STATES,
    PENDING,
    RUNNING,
    HostView,
    InstanceSpec,
    Request,
)
from cloudsend_cli.core.naming import build_id
from cloudsend_cli.core.plan import plan_fetch
from cloudsend_cli.core.refs import not_found
from cloudsend_cli.core.submission import PlanView, SubmitOptions, Submitted
from cloudsend_cli.core.views import (
    CheckView,
    EnvironmentView,
    InstanceView,
    JobView,
    Json,
    MaestroView,
    Progress,
    ProviderView,
    RunView,
    iso,
    run_state_word,
)
from cloudsend_cli.engine import logs, lookup
from cloudsend_cli.errors import CloudsendError, MaestroError, ResultError, UnreachableError, WaitTimeout
from cloudsend_cli.maestro.client import MaestroClient, ensure_maestro, find_maestro, read_log, stop_maestro
from cloudsend_cli.maestro.relay import RelaySource
from cloudsend_cli.maestro.replies import parse_progress, parse_view
from cloudsend_cli.maestro.secrets import write_secrets
from cloudsend_cli.maestro.wiring import LOCAL, open_host, open_provider
from cloudsend_cli.store.database import FILE_NAME
from cloudsend_cli.store.directory import open_state_dir
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import JobRow

if TYPE_CHECKING:
    from cloudsend_cli.config.load import Loaded
    from cloudsend_cli.engine.submit import Submitter

__all__ = ["Client", "PlanView", "SubmitOptions", "Submitted"]

DEFAULTS = SubmitOptions()
OPEN_STATES = (PENDING, RUNNING)
FEW = 50  # jobs that are asked for one by one
HINTS_MOST = 10
FETCH_LIMIT = 24 * 3600.0
CONNECT_LIMIT = 20.0
LOOK_AGAIN = 0.05
LOG_PAUSE = 0.1


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """`CLOUDSEND_HOME`, else `~/.cloudsend`."""
    chosen = environ.get("CLOUDSEND_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cloudsend"


class Client:
    """One state directory. A Client may be used from several threads; each gets a database connection of its own."""

    def __init__(self, state_dir: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        chosen = Path(state_dir).expanduser() if state_dir is not None else default_state_dir(self._environ)
        self.state_dir = chosen.absolute()
        self._local = threading.local()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what the calling thread has open. The maestro and the jobs go on."""
        for name in ("reader", "writer"):
            store = getattr(self._local, name, None)
            if store is not None:
                store.close()
                setattr(self._local, name, None)

    def _reader(self) -> SqliteStore:
        store: SqliteStore | None = getattr(self._local, "reader", None)
        if store is None or not self._local.reads_file:
            # Before the first submit there is no database: the reader shows an empty one, and is opened anew later.
            if store is not None:
                store.close()
            self._local.reads_file = (self.state_dir / FILE_NAME).exists()
            store = self._local.reader = SqliteStore.open(self.state_dir, readonly=True)
        return store

    def _writer(self) -> SqliteStore:
        store: SqliteStore | None = getattr(self._local, "writer", None)
        if store is None:
            store = self._local.writer = SqliteStore.open(self.state_dir)
        return store

    # ---- submitting ------------------------------------------------------------------------------------------------

    def _submitter(self) -> Submitter:
        from cloudsend_cli.engine.submit import Submitter

        providers = {LOCAL.name: open_provider(LOCAL, self.state_dir)}
        return Submitter(self.state_dir, providers, self._environ, Path.cwd())

    def validate(self, config: str, options: SubmitOptions = DEFAULTS) -> Loaded:
        """The config as it would be run. ConfigError carries all problems at once."""
        return self._submitter().load(config, (), options, keep=False)

    def plan(self, config: str | None, argv: Sequence[str] = (), options: SubmitOptions = DEFAULTS) -> PlanView:
        """What `submit` would do; nothing is written and nothing is started."""
        return self._submitter().plan(self._reader(), config, argv, options)

    def submit(self, config: str | None, argv: Sequence[str] = (), options: SubmitOptions = DEFAULTS) -> Submitted:
        """Commit the run and wake the maestro. When this returns, the run is durable and will be carried on."""
        open_state_dir(self.state_dir)
        submitted = self._submitter().submit(
            self._writer(), config, argv, options, lambda run, values: write_secrets(self.state_dir, run, values)
        )
        self._hint(submitted.run).close()
        return submitted

    def _hint(self, run: str) -> MaestroClient:
        """A connection to a maestro that knows of the run's news. One that ends meanwhile is replaced."""
        for left in reversed(range(HINTS_MOST)):
            maestro = ensure_maestro(self.state_dir)
            try:
                maestro.ask("hint", run=run)
            except MaestroError:
                maestro.close()
                if not left:
                    raise
            else:
                break
        return maestro

    # ---- reading ---------------------------------------------------------------------------------------------------

    def list_runs(self, limit: int | None = None) -> list[RunView]:
        return [lookup.run_view(row) for row in self._reader().list_runs(limit)]

    def list_jobs(
        self,
        run: str | None = None,
        *,
        states: Sequence[str] = (),
        provider: str | None = None,
        limit: int | None = None,
        history: bool = False,
    ) -> list[JobView]:
        """Jobs of one run by number; without a run, of all runs, newest run first. `limit`: the newest so many."""
        store = self._reader()
        runs = [lookup.find_run(store, run)] if run is not None else store.find_runs("")
        views: list[JobView] = []
        for one in runs:
            left = None if limit is None else limit - len(views)
            if left is not None and left <= 0:
                break
            newest = None if provider else left
            rows = store.list_jobs(one, states or None, newest, newest_first=left is not None, superseded=history)
            found = list(islice(self._job_views(store, one, rows, provider), left))
            views.extend(found if left is None else reversed(found))
        return views

    def _job_views(
        self, store: SqliteStore, run: str, rows: Iterator[JobRow], provider: str | None = None
    ) -> Iterator[JobView]:
        facts = lookup.RunFacts(store, run, self._views(store, run))
        return (lookup.job_view(r, facts) for r in rows if provider is None or r.provider == provider)

    def _views(self, store: SqliteStore, run: str) -> dict[str, HostView]:
        """How the run's machines are seen now; empty without a maestro, or when nothing of the run is open."""
        if run not in store.list_active_runs():
            return {}
        maestro = find_maestro(self.state_dir)
        if maestro is None:
            return {}
        try:
            answer = maestro.ask("views", run=run).get("views")
        except MaestroError:
            return {}
        finally:
            maestro.close()
        return {n: parse_view(v) for n, v in answer.items()} if isinstance(answer, dict) else {}

    def _one(self, store: SqliteStore, row: JobRow) -> JobView:
        return next(self._job_views(store, row.run, iter((row,))))

    def find_jobs(self, refs: Sequence[str]) -> list[JobView]:
        """Each job that the words name, once. NotFoundError and AmbiguousError name candidates."""
        store = self._reader()
        return self._many(store, lookup.find_jobs(store, refs))

    def _many(self, store: SqliteStore, rows: Sequence[JobRow]) -> list[JobView]:
        facts = {run: lookup.RunFacts(store, run, self._views(store, run)) for run in {r.run for r in rows}}
        return [lookup.job_view(row, facts[row.run]) for row in rows]

    def find_job(self, ref: str) -> JobView:
        store = self._reader()
        return self._one(store, lookup.find_job(store, ref))

    def find_run(self, ref: str) -> RunView:
        store = self._reader()
        return lookup.run_view(store.run_row(lookup.find_run(store, ref)))

    def attempts(self, ref: str) -> list[Json]:
        """Earlier attempts, oldest first, and the newest at the end."""
        store = self._reader()
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

    def list_instances(self, run: str | None = None, provider: str | None = None) -> list[InstanceView]:
        """Machines in use; with a run, all that it ever planned."""
        store = self._reader()
        runs = [lookup.find_run(store, run)] if run is not None else store.list_active_runs()
        found = []
        for one in runs:
            views = self._views(store, one)
            running = list(store.list_jobs(one, [RUNNING]))
            for node in store.load_without_jobs(one).nodes.values():
                if provider is None or node.provider == provider:
                    mine = [r for r in running if r.node == node.name]
                    found.append(lookup.instance_view(one, node, mine, views.get(node.name)))
        return found

    def find_instance(self, ref: str) -> InstanceView:
        """By `RUN/NAME`, a name, or the provider's id."""
        found = self.list_instances()
        if not any(ref in {i.name, i.instance_id, f"{i.run}/{i.name}"} for i in found):
            found = [i for run in self.list_runs(20) for i in self.list_instances(run.id)]
        for instance in found:
            if ref in {instance.name, instance.instance_id, f"{instance.run}/{instance.name}"}:
                return instance
        raise not_found("instance", ref, [f"{i.run}/{i.name}" for i in found])

    def list_providers(self) -> list[ProviderView]:
        largest = open_provider(LOCAL, self.state_dir).largest(InstanceSpec(provider=LOCAL.name))
        return [ProviderView(LOCAL.name, LOCAL.type, "ready", describe(largest) if largest else "")]

    def list_environments(self, run: str | None = None) -> list[EnvironmentView]:
        store = self._reader()
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

    def explain(self, ref: str) -> Explanation:
        """Why the job is where it is, from the same facts that decide."""
        store = self._reader()
        row = lookup.find_job(store, ref)
        state = store.load(row.run)
        others = lookup.count_others(store, state)
        return explain(state, state.jobs[row.number], self._views(store, row.run), time.time(), others)

    def complete(self, kind: str, prefix: str) -> list[tuple[str, str]]:
        """Words that begin with `prefix`, each with a short explanation; never starts anything."""
        store = self._reader()
        words: list[tuple[str, str]] = []
        if kind == "jobs":
            for run in store.list_runs(5):
                for row in store.list_jobs(run.run.id, limit=500, newest_first=True, superseded=False):
                    words += [(f"{row.run}.{row.number}", f"{row.name} {row.state}"), (row.name, row.state)]
        elif kind == "runs":
            words = [(r.run.id, f"{r.run.project} {run_state_word(r.counts)}") for r in store.list_runs(50)]
        elif kind == "instances":
            words = [(i.name, f"{i.run} {i.state}") for i in self.list_instances()]
        elif kind == "providers":
            words = [(LOCAL.name, "")]
        return list({w: (w, text) for w, text in words if w.startswith(prefix)}.values())

    # ---- watching --------------------------------------------------------------------------------------------------

    def follow(self, run: str, *, timeout: float | None = None) -> Iterator[Progress]:
        """Moments of a run until it is settled. A maestro that dies meanwhile is replaced."""
        run = lookup.find_run(self._reader(), run)
        return (progress for progress in self._follow(run, timeout, None) if progress is not None)

    def _follow(self, run: str, timeout: float | None, every: float | None) -> Iterator[Progress | None]:
        """As `follow`; None when `every` seconds went by without news."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while run in self._reader().list_active_runs():
            maestro = self._hint(run)
            try:
                if maestro.ask("follow", run=run).get("active") is not True:
                    break
                for progress in _listen(maestro, run, deadline, every):
                    yield progress
                    if progress is not None and progress.settled:
                        return
                return
            except MaestroError:
                continue
            finally:
                maestro.close()
        yield self._last_progress(run)

    def _last_progress(self, run: str) -> Progress:
        row = self._reader().run_row(run)
        counts = {state: row.counts.get(state, 0) for state in JOB_STATES}
        return Progress(run, run_state_word(counts), counts, (), (), (), settled=True)

    def wait(self, refs: Sequence[str], timeout: float | None = None) -> list[JobView]:
        """The jobs (and the jobs of the runs) that the words name, once all are final. WaitTimeout: they go on."""
        store = self._reader()
        wanted = self._waited(store, refs)
        deadline = None if timeout is None else time.monotonic() + timeout
        for run, numbers in wanted.items():
            if self._count_open(run, numbers):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                for progress in self.follow(run, timeout=left):
                    whole = len(numbers) == sum(progress.counts.values())
                    if not (_count_open(progress.counts) if whole else self._count_open(run, numbers)):
                        break
            still = self._count_open(run, numbers)
            if still:
                raise WaitTimeout(
                    f"{still} of {len(numbers)} jobs of run {run} are not finished after {timeout:g} s",
                    hint="they go on",
                )
        return [view for run, numbers in wanted.items() for view in self._numbered(store, run, numbers)]

    def _waited(self, store: SqliteStore, refs: Sequence[str]) -> dict[str, set[int]]:
        wanted: dict[str, set[int]] = {}
        for ref in refs:
            for row in lookup.find_jobs_or_run(store, ref):
                wanted.setdefault(row.run, set()).add(row.number)
        return wanted

    def _numbered(self, store: SqliteStore, run: str, numbers: set[int]) -> Iterator[JobView]:
        if len(numbers) <= FEW:
            rows = (row for number in sorted(numbers) for row in store.find_jobs(run=run, number=number))
        else:
            rows = (row for row in store.list_jobs(run) if row.number in numbers)
        return self._job_views(store, run, rows)

    def _count_open(self, run: str, numbers: set[int]) -> int:
        """How many of these jobs are not final: by their rows where they are few, else by the run's counts first."""
        store = self._reader()
        if len(numbers) <= FEW:
            rows = (row for number in numbers for row in store.find_jobs(run=run, number=number))
            return sum(1 for row in rows if row.state not in FINAL_STATES)
        counts = store.count_jobs(run, superseded=True)
        open_jobs = _count_open(counts)
        if not open_jobs or len(numbers) == sum(counts.values()):
            return open_jobs
        return sum(1 for row in store.list_jobs(run, OPEN_STATES) if row.number in numbers)

    def read_log(
        self,
        ref: str,
        stream: str = "stdout",
        *,
        follow: bool = False,
        lines: int | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[bytes]:
        """The job's own bytes, exactly; of a job whose environment failed, those of the build.

        NotFoundError: it has not started and `follow` is not asked for, or it ended without being started.
        """
        store = self._reader()
        row = lookup.find_job(store, ref)
        if follow and row.state not in FINAL_STATES:
            self._hint(row.run).close()
        reading = logs.Reading(stream, follow, lines, stop or threading.Event())
        build = self._failed_build(store, row)
        if build:
            return logs.read_ended(self._open_source(row, build, stream), lines)
        return logs.read_log(store, row, self._open_source, reading)

    def _failed_build(self, store: SqliteStore, row: JobRow) -> str:
        """The attempt id of the build for which the job was given up, whose log is then the job's; else empty."""
        if not row.reason.startswith("environment-failed"):
            return ""
        builds = store.load_without_jobs(row.run).builds.values()
        return next((build_id(row.run, b.key, b.attempt) for b in builds if b.key == row.environment), "")

    def _open_source(self, row: JobRow | None, attempt: str, stream: str) -> logs.LogSource:
        if row is None or row.provider == "local" or not row.provider:
            return logs.open_local(self.state_dir)(row, attempt, stream)
        return RelaySource(self.state_dir, row.run, row.node, attempt, stream)

    def follow_logs(self, run: str, *, since: int | None = None) -> Iterator[tuple[str, str, bytes] | Progress]:
        """Whole new lines of all jobs of the run as (name, stream, bytes), and its progress, until it is settled."""
        run = lookup.find_run(self._reader(), run)
        merged = logs.MergedLogs(self._reader(), run, self._open_source)
        merged.skip_past(since)
        for progress in self._follow(run, None, LOG_PAUSE):
            if progress is not None:
                yield progress
            yield from merged.new_lines()

    def log_tail(self, ref: str, lines: int = 10) -> bytes:
        """The last lines of a job's stderr, else of its stdout; for a failed environment, of its build."""
        store = self._reader()
        row = lookup.find_job(store, ref)
        attempt = self._failed_build(store, row) or logs.uid_of(row)
        if attempt == logs.uid_of(row) and not row.attempt:
            return b""
        for stream in ("stderr", "stdout"):
            text = logs.read_tail(self._open_source(row, attempt, stream), lines)
            if text.strip():
                return text
        return b""

    # ---- acting ----------------------------------------------------------------------------------------------------

    def cancel(self, refs: Sequence[str]) -> list[JobView]:
        """Ask for the end of these jobs; repeated asking changes nothing. Ends are seen by `wait`."""
        store = self._writer()
        rows = lookup.find_jobs(store, refs)
        for run in dict.fromkeys(r.run for r in rows):
            numbers = tuple(r.number for r in rows if r.run == run and r.state not in FINAL_STATES)
            if numbers:
                self._request_cancel(store, run, numbers)
        return self._many(store, rows)

    def cancel_run(self, run: str) -> RunView:
        """Ask for the end of all jobs of a run that are not final."""
        store = self._writer()
        run = lookup.find_run(store, run)
        if run in store.list_active_runs():
            self._request_cancel(store, run, None)
        return self.find_run(run)

    def _request_cancel(self, store: SqliteStore, run: str, numbers: tuple[int, ...] | None) -> None:
        store.add_request(run, Request(os.urandom(16).hex(), "cancel", numbers, time.time()))
        self._hint(run).close()

    def fetch(self, ref: str, directory: str | None = None) -> list[Path]:
        """Bring the results of a job, or of all jobs of a run, to where they belong (or into `directory`), now."""
        store = self._reader()
        rows = lookup.find_jobs_or_run(store, ref)
        return [path for row in rows if (path := self._fetch_one(store, row, directory)) is not None]

    def _fetch_one(self, store: SqliteStore, row: JobRow, directory: str | None) -> Path | None:
        from cloudsend_cli.engine.results import Home, job_directory

        run = store.run_row(row.run).run
        home = job_directory(Home(run.results_dir, row.run, row.name))
        if row.fetch == "home":
            if directory is None:
                return home
            target = job_directory(Home(str(Path(directory).absolute()), row.run, row.name))
            from shutil import copytree

            copytree(home, target, dirs_exist_ok=True)
            return target
        if row.fetch.startswith("failed"):
            return self._fetch_again(row, directory)
        if row.state != RUNNING:
            return None
        results = str(Path(directory).absolute()) if directory else run.results_dir
        until = time.monotonic() + CONNECT_LIMIT
        while True:
            maestro = self._hint(row.run)
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
        return job_directory(Home(results, row.run, row.name))

    def _fetch_again(self, row: JobRow, directory: str | None) -> Path | None:
        """What could not be brought home is still on its machine. ResultError: it could not be brought again."""
        store = self._writer()
        store.write_run(row.run, lambda state: plan_fetch(state, [row.number]))
        for _ in self.follow(row.run):
            pass
        again = store.find_jobs(run=row.run, number=row.number)[0]
        if again.fetch != "home":
            raise ResultError(
                f"{row.name}: results could not be brought home: {again.fetch.removeprefix('failed: ')}",
                hint="mend it and fetch again; they are kept where the job ran",
            )
        return self._fetch_one(store, again, directory)

    # ---- set-up ----------------------------------------------------------------------------------------------------

    def check(self) -> list[CheckView]:
        """Whether this machine can do the work: state directory, disk, agent."""
        from cloudsend_cli.engine.checks import list_checks

        provider = open_provider(LOCAL, self.state_dir)
        return list(list_checks(self.state_dir, provider, lambda address: open_host(address, self.state_dir)))

    def config_show(self, config: str, options: SubmitOptions = DEFAULTS) -> list[tuple[str, str, str]]:
        """(key, value, where it comes from) of every key of the config."""
        return [(key, value, origin) for key, (value, origin) in self.validate(config, options).origins.items()]

    def config_schema(self) -> Json:
        """The JSON Schema of configs, for editors."""
        from cloudsend_cli.config.json_schema import config_schema

        return config_schema()

    def starter_config(self, directory: Path) -> str:
        """A commented config to begin with, fitted to what lies in `directory`."""
        from cloudsend_cli.config.starter import starter_config

        return starter_config(str(directory))

    # ---- the maestro -----------------------------------------------------------------------------------------------

    def maestro_status(self) -> MaestroView:
        maestro = find_maestro(self.state_dir)
        if maestro is None:
            return MaestroView(running=False)
        try:
            status = maestro.ask("status")
        finally:
            maestro.close()
        return MaestroView(
            True,
            int(str(status["pid"])),
            float(str(status["since"])),
            int(str(status["epoch"])),
            tuple(str(r) for r in status["runs"]) if isinstance(status["runs"], list) else (),
        )

    def maestro_stop(self) -> bool:
        """Have the maestro leave; jobs go on and their ends are read by the next one. False: none was running."""
        return stop_maestro(self.state_dir)

    def maestro_log(self, lines: int = 50) -> str:
        return read_log(self.state_dir, lines)


def _listen(
    maestro: MaestroClient, run: str, deadline: float | None, every: float | None
) -> Iterator[Progress | None]:
    """What the maestro tells of the run, until `deadline`. MaestroError: it is gone."""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        messages = maestro.messages(min((t for t in (left, every) if t is not None), default=None))
        for message in messages:
            progress = parse_progress(message.get("progress"))
            if progress is not None and progress.run == run:
                yield progress
        if not messages:
            if left == 0.0:
                return
            yield None


def _count_open(counts: Mapping[str, int]) -> int:
    return sum(counts.get(state, 0) for state in OPEN_STATES)

"""Ticks every active run when there is news, a request or a time to look, and answers clients in between."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloudsend_cli.core.model import Policy, ProviderDefinition, Vitals
from cloudsend_cli.core.offers import current_offer
from cloudsend_cli.core.ports import Event, Provider
from cloudsend_cli.core.state import Changes, NodeRecord, RunState
from cloudsend_cli.engine.calls import ThreadedCalls
from cloudsend_cli.engine.hearsay import weigh
from cloudsend_cli.engine.hostpool import HostPool, RunFacts, RunHosts
from cloudsend_cli.engine.session import RunProviders, Session
from cloudsend_cli.engine.tick import tick
from cloudsend_cli.errors import CloudsendError, ConflictError, NotFoundError, StateDamagedError
from cloudsend_cli.store.sqlite import SqliteStore

from .environ import take_variables
from .owed import OwedTables
from .progress import RecentFailures, render_progress
from .questions import Questions
from .replies import render_view
from .secrets import delete_secrets, read_secrets
from .server import Connection, Server
from .sockets import Message
from .tables import RunTables
from .wiring import open_host, open_provider

# Ticks of one run follow each other at once until they have taken BURST seconds, and then take DUTY of the time: a
# single job is noticed without delay, and the news of many shares a commit.
BURST = 0.1
DUTY = 0.2
LONGEST_PAUSE = 0.1
PUBLISH_PAUSE = 0.05
LOOK_AGAIN = 30.0
RESUMES = "resume"  # in the state directory: what attempts left whose machines were taken back
LOGS = "logs"  # in the state directory: logs of attempts on other machines that have ended
TROUBLE_PAUSE = 5.0  # before a run whose tick failed is tried again
LET_GO = 10.0  # how long a new run waits at most for what another one of its project lets go
LET_GO_PAUSE = 0.1
LINGER = float(os.environ.get("CLOUDSEND_MAESTRO_LINGER", "30"))


def _goes_free(node: NodeRecord) -> bool:
    return node.state in {"running", "keeping"} and current_offer(node).keep > 0


class FencedStore:
    """The store as one maestro may write it: under its epoch."""

    def __init__(self, store: SqliteStore, epoch: int) -> None:
        self._store = store
        self._epoch = epoch
        self.list_requests = store.list_requests
        self.load = store.load
        self.last_changes: dict[str, Changes] = {}

    def commit(self, run: str, version: int, changes: Changes, events: Sequence[Event]) -> int:
        new = self._store.commit(run, version, changes, events, epoch=self._epoch)
        self.last_changes[run] = changes
        return new


@dataclass(slots=True)
class Active:
    """One run while this maestro ticks it."""

    session: Session
    hosts: RunHosts
    tables: RunTables
    failures: RecentFailures | None = None
    due_at: float = 0.0  # monotonic
    not_before: float = 0.0
    debt: float = 0.0  # seconds that its ticks have taken and that are not yet waited for
    ticked_at: float = 0.0
    sequence: int = 0
    published: int = -1
    published_at: float = 0.0
    links: tuple[tuple[object, ...], ...] = ()  # what is shown, and changes without a commit
    told: Mapping[str, str] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def account(self, begun: float, ended: float) -> None:
        self.debt = max(0.0, self.debt - DUTY * (begun - self.ticked_at)) + ended - begun
        self.ticked_at = ended
        self.not_before = ended + min(max(0.0, (self.debt - BURST) / DUTY), LONGEST_PAUSE)


class Loop:
    """Everything happens in the thread that calls `serve`; links and pools only set flags and wake it."""

    def __init__(
        self,
        state_dir: Path,
        store: SqliteStore,
        epoch: int,
        *,
        log: Callable[[str], None],
        in_office: Callable[[], bool],
    ) -> None:
        self._state_dir = state_dir
        self._store = store
        self._fenced = FencedStore(store, epoch)
        self._epoch = epoch
        self._started = time.time()
        self._log = log
        self._in_office = in_office
        self._fenced_off = False  # an agent refused our epoch
        self._pool = HostPool(lambda address: open_host(address, state_dir), store.installation_id(), epoch, log)
        self._owed = OwedTables(state_dir)
        self._active: dict[str, Active] = {}
        self._news: set[str] = set()
        self._server = Server(state_dir, self._handle)
        self._questions = Questions(self._server.wake)
        self._idle_since = self._looked_at = time.monotonic()
        self.stopping = False

    def wake(self) -> None:
        self._server.wake()

    def serve(self) -> None:
        """Until nothing is left to do, `stop` is asked for, or a newer maestro has taken over (ConflictError)."""
        for run in dict.fromkeys([*self._store.list_active_runs(), *self._owed.runs()]):
            self._activate(run)
        try:
            while not self.stopping and not self._leaving():
                self._server.wait(self._timeout())
                self._stay_in_office()
                self._look_around()
                self._take_news()
                self._tick_due()
                self._publish()
                self._questions.send_replies()
                self._server.flush()
        finally:
            for active in self._active.values():
                active.hosts.close()
            self._pool.close()
            self._server.close()

    def _stay_in_office(self) -> None:
        """ConflictError: another maestro has taken over, or the state directory is gone.

        Every commit and every agent checks it too; this is for one that was paused and has nothing to commit.
        """
        if not self._in_office():
            raise ConflictError("the lock belongs to another maestro")
        if self._fenced_off:
            self._fenced_off = False
            if self._store.epoch() != self._epoch:
                raise ConflictError("an agent serves a newer maestro")
            self._log(f"an agent has served a maestro of a higher epoch than {self._epoch}: was the state restored?")

    # ---- runs ------------------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Now and then: a hint may have been lost with the command that wanted to give it."""
        if time.monotonic() - self._looked_at >= LOOK_AGAIN:
            self._looked_at = time.monotonic()
            for run in self._store.list_active_runs():
                self._hint(run)

    def _hint(self, run: str) -> None:
        """Somebody wrote: the run is new, was continued, or has requests."""
        active = self._active.get(run)
        if active is None:
            if run in self._store.list_active_runs() or self._store.list_requests(run) or run in self._owed:
                self._activate(run)
            return
        state = active.session.state
        if state is not None and self._store.load_without_jobs(run).run.version != state.run.version:
            active.session.reset()
            active.failures = None
            active.tables.expect()
        self._activate(run)

    def _activate(self, run: str) -> None:
        active = self._active.get(run)
        if active is None:
            hosts = RunHosts(
                run,
                self._pool,
                lambda: self._wake_run(run),
                lambda: self._facts(run),
                self._note_fenced,
                self._state_dir / LOGS,
                resumes=self._state_dir / RESUMES,
                weigh=lambda node, attempt: self._weigh(run, node, attempt),
            )
            calls = ThreadedCalls(lambda: self._wake_run(run))
            session = Session(run, self._fenced, RunProviders(self._open_provider).find, hosts, calls, Policy())
            tables = RunTables(self._state_dir, run, self._owed, self._log, lambda: self._wake_run(run))
            if not self._is_over(run):
                tables.expect()
            self._active[run] = active = Active(session, hosts, tables)
        active.session.requests_hinted = True
        active.due_at = 0.0

    def _is_over(self, run: str) -> bool:
        try:
            return self._store.load_without_jobs(run).run.ended_at is not None
        except (NotFoundError, StateDamagedError):  # told by the tick
            return True

    def _facts(self, run: str) -> RunFacts:
        state = self._active[run].session.state
        if state is None:
            raise RuntimeError(f"run {run} is not loaded while it is ticked")
        about = {
            "run": run,
            "project": state.run.project,
            "config": state.run.config_path,
            "results": state.run.results_dir,
            "created": state.run.created_at,
        }
        secrets = lambda: read_secrets(self._state_dir, run)  # noqa: E731
        return RunFacts(dict(state.run.base_env), state.run.results_dir, secrets, about)

    def _weigh(self, run: str, node: str, attempt: str) -> str:
        """Called by links' threads: reads records that are replaced and never changed."""
        active = self._active.get(run)
        return weigh(active.session.state if active is not None else None, node, attempt)

    def _open_provider(self, definition: ProviderDefinition) -> Provider:
        return open_provider(definition, self._state_dir)

    def _note_fenced(self) -> None:
        self._fenced_off = True
        self._server.wake()

    def _wake_run(self, run: str) -> None:
        self._news.add(run)
        self._server.wake()

    def _take_news(self) -> None:
        while self._news:
            active = self._active.get(self._news.pop())
            if active is not None:
                active.due_at = min(active.due_at, active.not_before)

    def _tick_due(self) -> None:
        now = time.monotonic()
        for run, active in list(self._active.items()):
            if active.due_at <= now:
                if active.session.state is None and now - active.since < LET_GO and self._waits_for_machines(run):
                    active.due_at = now + LET_GO_PAUSE
                else:
                    self._tick(run, active)

    def _waits_for_machines(self, run: str) -> bool:
        """Whether a run of its project that is over is about to let go of its machines: it would rent more of them."""
        states = [other.session.state for other in self._active.values()]
        over = [state for state in states if state is not None and state.settled]
        projects = {state.run.project for state in over if any(map(_goes_free, state.nodes.values()))}
        try:
            return bool(projects) and self._store.load_without_jobs(run).run.project in projects
        except NotFoundError:
            return False

    def _tick(self, run: str, active: Active) -> None:
        begun = time.monotonic()
        try:
            ticked = tick(active.session, time.time())
        except ConflictError:
            if self._store.epoch() != self._epoch:
                raise  # fenced: a newer maestro acts
            active.due_at = 0.0
            active.failures = None
            return
        except NotFoundError:
            active.hosts.close()
            active.tables.forget()
            del self._active[run]
            return
        except StateDamagedError:
            active.tables.forget()  # or no maestro would ever get further than this run, which may be over
            raise
        except Exception as problem:  # noqa: BLE001 - a full disk or a bug in one run must not end the others
            self._log(f"run {run}: {describe(problem)}")
            active.failures = None
            active.due_at = time.monotonic() + TROUBLE_PAUSE
            return
        finally:
            ended = time.monotonic()
            active.account(begun, ended)
        state = active.session.state
        if state is not None:
            active.tables.look(state)
            self._note_progress(run, active, state, ticked.changed)
        wait = LOOK_AGAIN if ticked.wake_at is None else max(0.0, ticked.wake_at - time.time())
        active.due_at = max(ended + min(wait, LOOK_AGAIN), active.not_before)
        if ticked.done and not active.tables.holds:
            self._finish(run, active)

    def _note_progress(self, run: str, active: Active, state: RunState, changed: bool) -> None:
        if active.failures is None:
            active.failures = RecentFailures(state)
        elif changed:
            active.failures.take(self._fenced.last_changes.pop(run))
        troubles = active.session.troubles
        for call, told in troubles.items():
            if active.told.get(call) != told:
                self._log(f"run {run}: {call}: {told}")
        active.told = troubles
        links = (
            *((name, view.connected, view.error) for name, view in active.session.views.items()),
            *troubles.items(),
        )
        if changed or links != active.links:
            active.links = links
            active.sequence += 1

    def _finish(self, run: str, active: Active) -> None:
        self._publish_one(run, active, force=True)
        active.hosts.close()
        delete_secrets(self._state_dir, run)
        del self._active[run]
        self._idle_since = time.monotonic()

    def _timeout(self) -> float:
        now = time.monotonic()
        times = [a.due_at for a in self._active.values()]
        times += [a.tables.until for a in self._active.values() if a.tables.holds]
        for run, active in self._active.items():
            if active.published != active.sequence and any(self._server.followers(run)):
                times.append(active.published_at + PUBLISH_PAUSE)
        if not self._active:
            times.append(self._idle_since + LINGER)
        return max(0.0, min(times, default=now + LOOK_AGAIN) - now)

    def _leaving(self) -> bool:
        if self._active or time.monotonic() - self._idle_since < LINGER:
            return False
        for run in self._store.list_active_runs():  # its hint was lost
            self._activate(run)
        return not self._active

    # ---- clients ---------------------------------------------------------------------------------------------------

    def _handle(self, connection: Connection, message: Message) -> None:
        reply: Message = {"re": message.get("id")}
        try:
            answer = self._answer(connection, message)
        except ConflictError:
            raise
        except CloudsendError as problem:
            answer = {"error": {"code": problem.code, "message": problem.message, "hint": problem.hint}}
        except Exception as problem:  # noqa: BLE001 - one client's odd message must not end the maestro
            self._log(describe(problem))
            answer = {"error": {"code": "internal", "message": repr(problem), "hint": "`cloudsend maestro logs`"}}
        if answer is not None:
            connection.send({**reply, **answer})

    def _answer(self, connection: Connection, message: Message) -> Message | None:
        op = message.get("op")
        run = message.get("run")
        if op == "hint" and isinstance(run, str):
            take_variables(message.get("environ"))
            self._hint(run)
            return {}
        if op == "status":
            return {"pid": os.getpid(), "since": self._started, "epoch": self._epoch, "runs": sorted(self._active)}
        if op == "views" and isinstance(run, str):
            return {"views": self._render_views(run)}
        if op == "follow" and isinstance(run, str):
            return self._follow(connection, run)
        if op in {"read_logs", "fetch", "pid"}:
            return self._ask_machines(connection, message)
        if op == "stop":
            self.stopping = True
            return {}
        return {"error": {"code": "unknown-op", "message": f"unknown request {op!r}"}}

    def _follow(self, connection: Connection, run: str) -> Message:
        active = self._active.get(run)
        if active is None:
            return {"active": False}
        connection.follows.add(run)
        active.published = -1
        return {"active": True}

    def _ask_machines(self, connection: Connection, message: Message) -> Message | None:
        active = self._active.get(str(message.get("run")))
        hosts = active.hosts if active is not None else None
        if message["op"] == "read_logs":
            return self._questions.read_logs(connection, message, hosts)
        if message["op"] == "pid":
            return self._questions.find_pid(connection, message, hosts)
        return self._questions.fetch(connection, message, hosts, active.session.state if active is not None else None)

    def _render_views(self, run: str) -> dict[str, object]:
        active = self._active.get(run)
        if active is None:
            return {}
        rendered: dict[str, object] = {}
        for node, view in active.session.views.items():
            link = active.hosts.link_of(node)
            rendered[node] = render_view(view, link.vitals if link is not None else Vitals())
        return rendered

    def _publish(self) -> None:
        for run, active in list(self._active.items()):
            self._publish_one(run, active, force=False)

    def _publish_one(self, run: str, active: Active, *, force: bool) -> None:
        now = time.monotonic()
        state = active.session.state
        if active.tables.turned():
            active.sequence += 1
        if state is None or active.failures is None or (active.published == active.sequence and not force):
            return
        if not force and not state.settled and now - active.published_at < PUBLISH_PAUSE:
            return
        followers = list(self._server.followers(run))
        if followers:
            progress = render_progress(
                state, active.session.views, active.session.troubles, active.failures, active.sequence, active.tables
            )
            for connection in followers:
                connection.send({"progress": progress})
            active.published, active.published_at = active.sequence, now


def describe(problem: Exception) -> str:
    if isinstance(problem, CloudsendError):
        return f"{problem.code}: {problem.message} {problem.hint} {problem.context}".strip()
    return "".join(traceback.format_exception(problem)).strip()

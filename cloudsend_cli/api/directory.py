"""A state directory in use: its database, a connection of its own for each thread, and its maestro."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from cloudsend_cli.core.model import FINAL_STATES, HostView
from cloudsend_cli.core.renting import is_rented_node
from cloudsend_cli.core.state import AT_REST
from cloudsend_cli.errors import MaestroError
from cloudsend_cli.maestro.client import MaestroClient, ensure_maestro, find_maestro
from cloudsend_cli.maestro.environ import pick_variables
from cloudsend_cli.maestro.owed import list_owed
from cloudsend_cli.maestro.replies import parse_view
from cloudsend_cli.store.database import FILE_NAME
from cloudsend_cli.store.sqlite import SqliteStore

HINTS_MOST = 10
_of_parents: list[
    threading.local
] = []  # what a fork has copied: a database connection is neither used nor closed then


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """`CLOUDSEND_HOME`, else `~/.cloudsend`."""
    chosen = environ.get("CLOUDSEND_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cloudsend"


class Directory:
    """What the parts of the interface share. May be used from several threads."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self._local = threading.local()
        self._pid = os.getpid()

    def close(self) -> None:
        """Close what the calling thread has open."""
        self._notice_fork()
        for name in ("reader", "writer"):
            store = getattr(self._local, name, None)
            if store is not None:
                store.close()
                setattr(self._local, name, None)

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            _of_parents.append(self._local)
            self._local, self._pid = threading.local(), os.getpid()

    def reader(self) -> SqliteStore:
        self._notice_fork()
        store: SqliteStore | None = getattr(self._local, "reader", None)
        if store is not None and not self._local.reads_file and (self.path / FILE_NAME).exists():
            # Before the first submit there is no database, and the reader shows an empty one until there is.
            store.close()
            store = None
        if store is None:
            self._local.reads_file = (self.path / FILE_NAME).exists()
            store = self._local.reader = SqliteStore.open(self.path, readonly=True)
        return store

    def writer(self) -> SqliteStore:
        self._notice_fork()
        store: SqliteStore | None = getattr(self._local, "writer", None)
        if store is None:
            store = self._local.writer = SqliteStore.open(self.path)
        return store

    def hint(self, run: str) -> MaestroClient:
        """A connection to a maestro that knows of the run's news. One that ends meanwhile is replaced."""
        for left in reversed(range(HINTS_MOST)):
            maestro = ensure_maestro(self.path)
            try:
                maestro.ask("hint", run=run, environ=pick_variables(self.environ))
            except MaestroError:
                maestro.close()
                if not left:
                    raise
            else:
                break
        return maestro

    def carry_on_rented(self, note: Callable[[str], None] = lambda _: None) -> None:
        """Where runs have rented machines, have a maestro: without one nobody gives back what is needed no longer.

        So where one has died before it brought the results of ended jobs home, or wrote the tables of a run that is
        over. MaestroError: there is none, and none can be started.
        """
        store = self.reader()
        active = store.list_active_runs()
        owed = [run for run in list_owed(self.path) if run not in active]
        if not active and not owed:
            return
        maestro = find_maestro(self.path)
        if maestro is not None:
            maestro.close()
            return
        for run in active:
            frame = store.load_without_jobs(run)
            if any(is_rented_node(node) and node.state not in AT_REST for node in frame.nodes.values()):
                self.hint(run).close()
                note(f"no maestro was running: one was started, which gives back what run {run} needs no longer")
            elif frame.run.ended_at is None and not _has_open_jobs(store, run):
                self.hint(run).close()
                note(f"no maestro was running: one was started, which brings home the results of run {run}")
        for run in owed:
            self.hint(run).close()

    def views(self, store: SqliteStore, run: str) -> dict[str, HostView]:
        """How the run's machines are seen now; empty without a maestro, or when nothing of the run is open."""
        if run not in store.list_active_runs():
            return {}
        maestro = find_maestro(self.path)
        if maestro is None:
            return {}
        try:
            answer = maestro.ask("views", run=run).get("views")
        except MaestroError:
            return {}
        finally:
            maestro.close()
        return {n: parse_view(v) for n, v in answer.items()} if isinstance(answer, dict) else {}


def _has_open_jobs(store: SqliteStore, run: str) -> bool:
    counts = store.count_jobs(run, superseded=True)
    return any(state not in FINAL_STATES and count for state, count in counts.items())

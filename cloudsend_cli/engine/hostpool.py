"""Links shared by all runs of a maestro, and one run's view of them (the `Hosts` port)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.model import AttemptStatus, HostAddress, HostView, Resources, Upload
from cloudsend_cli.core.naming import run_of_attempt
from cloudsend_cli.core.ports import Host, HostNews

from .hostlink import Ask, Conversation, HostLink
from .transfer import fetch_files, send_files
from .wire import MOST_WIRE, parse_status, render_spec, split_frames, wire_size

TOO_LARGE = "bad-spec: its command, variables and file list are too large for one request"


class HostPool:
    """One link for each machine, whatever number of runs use it."""

    def __init__(self, open_host: Callable[[HostAddress], Host], owner: str, epoch: int) -> None:
        self._open_host = open_host
        self._owner = owner
        self._epoch = epoch
        self._links: dict[str, HostLink] = {}

    def link(self, address: HostAddress, capacity: Resources | None) -> HostLink:
        link = self._links.get(address.key)
        if link is None:
            link = HostLink(self._open_host(address), self._owner, self._epoch, capacity)
            self._links[address.key] = link
        return link

    def close(self) -> None:
        for link in self._links.values():
            link.stop()
        self._links.clear()


class _NodeListener:
    """Collects one node's news for one run, under the run's lock."""

    def __init__(self, hosts: RunHosts, node: str, link: HostLink, key: str) -> None:
        self.hosts = hosts
        self.node = node
        self.link = link
        self.key = key
        self.view: HostView | None = None
        self.known_files: set[str] = set()

    def on_view(self, view: HostView, statuses: dict[str, object] | None) -> None:
        if statuses is None:
            if not view.connected:
                self.known_files.clear()
            self.hosts.take_view(self, view)
            return
        mine = {a: s for a, s in statuses.items() if run_of_attempt(a) == self.hosts.run}
        self.hosts.take_view(self, replace(view, reported=frozenset(mine)))
        self.on_changes(mine)

    def on_changes(self, items: dict[str, object]) -> None:
        run = self.hosts.run
        news = {a: parse_status(s) for a, s in items.items() if run_of_attempt(a) == run}
        if news:
            self.hosts.take_attempts(self.node, news)

    def on_heartbeat(self, frame: Frame) -> None:
        """Silence is judged by the link; a heartbeat is no news for a decision."""


class RunHosts:
    """The `Hosts` port of one run. Links call in from their threads; the maestro's thread drains."""

    def __init__(
        self,
        run: str,
        pool: HostPool,
        wake: Callable[[], None],
        facts: Callable[[], tuple[Mapping[str, str], Mapping[str, str], str]],
    ) -> None:
        self.run = run
        self._pool = pool
        self._wake = wake
        self._facts = facts  # (base environment, secrets, results directory), asked when needed
        self._lock = threading.Lock()
        self._listeners: dict[str, _NodeListener] = {}
        self._attempts: dict[str, dict[str, AttemptStatus]] = {}
        self._fetched: dict[str, dict[int, str]] = {}
        self._fetching: set[int] = set()

    # ---- from the links' threads -----------------------------------------------------------------------------------

    def take_view(self, listener: _NodeListener, view: HostView) -> None:
        with self._lock:
            old = listener.view
            if view.reported is None and old is not None and old.reported is not None and view.connected:
                view = replace(view, reported=old.reported)
            listener.view = view
        self._wake()

    def take_attempts(self, node: str, news: Mapping[str, AttemptStatus]) -> None:
        with self._lock:
            self._attempts.setdefault(node, {}).update(news)
        self._wake()

    def take_fetched(self, node: str, number: int, problem: str) -> None:
        with self._lock:
            self._fetching.discard(number)
            self._fetched.setdefault(node, {})[number] = problem
        self._wake()

    def drop_fetch(self, number: int) -> None:
        with self._lock:
            self._fetching.discard(number)
        self._wake()

    # ---- the port --------------------------------------------------------------------------------------------------

    def connect(self, node: str, address: HostAddress, capacity: Resources | None) -> None:
        listener = self._listeners.get(node)
        if listener is not None and listener.key == address.key:
            return
        if listener is not None:
            self.disconnect(node)
        link = self._pool.link(address, capacity)
        listener = _NodeListener(self, node, link, address.key)
        self._listeners[node] = listener
        link.listen(listener)

    def disconnect(self, node: str) -> None:
        listener = self._listeners.pop(node, None)
        if listener is not None:
            listener.link.unlisten(listener)
            with self._lock:
                self._attempts.pop(node, None)

    def link_of(self, node: str) -> HostLink | None:
        listener = self._listeners.get(node)
        return listener.link if listener is not None else None

    def close(self) -> None:
        for node in list(self._listeners):
            self.disconnect(node)

    def drain(self) -> Mapping[str, HostNews]:
        news = {}
        with self._lock:
            for node, listener in self._listeners.items():
                if listener.view is None:
                    continue
                news[node] = HostNews(listener.view, self._attempts.pop(node, {}), self._fetched.pop(node, {}))
                listener.view = replace(listener.view, reported=None)
        return news

    def fetching(self) -> frozenset[int]:
        with self._lock:
            return frozenset(self._fetching)

    def forget(self) -> None:
        for listener in self._listeners.values():
            listener.link.report_again()

    def ack(self, node: str, attempts: Sequence[str]) -> None:
        if node in self._listeners:
            self._listeners[node].link.tell("ack", {"attempts": list(attempts)})

    def cancel(self, node: str, attempts: Sequence[str], cause: str) -> None:
        listener = self._listeners.get(node)
        if listener is not None:
            listener.link.converse(lambda: self._cancel(listener, attempts, cause), lambda: None)

    def start(self, node: str, boot: str, attempts: Sequence[AttemptStart], files: Sequence[Upload]) -> None:
        listener = self._listeners.get(node)
        if listener is not None:
            listener.link.converse(lambda: self._start(listener, boot, attempts, files), lambda: None)

    def fetch(self, node: str, number: int, attempt: str, patterns: Sequence[str], name: str) -> None:
        listener = self._listeners.get(node)
        if listener is None:
            return
        with self._lock:
            self._fetching.add(number)
        listener.link.converse(
            lambda: self._fetch(listener, number, attempt, patterns, name), lambda: self.drop_fetch(number)
        )

    # ---- conversations ---------------------------------------------------------------------------------------------

    def _cancel(self, listener: _NodeListener, attempts: Sequence[str], cause: str) -> Conversation:
        replies = yield [Ask("cancel", {"attempts": list(attempts), "cause": cause})]
        results = replies[0].get("results")
        verdicts = results if isinstance(results, dict) else {}
        never = {a: AttemptStatus("cancelled", cause=cause) for a, v in verdicts.items() if v == "tombstoned"}
        if never:
            self.take_attempts(listener.node, never)

    def _start(
        self, listener: _NodeListener, boot: str, attempts: Sequence[AttemptStart], files: Sequence[Upload]
    ) -> Conversation:
        refused: dict[str, str] = {}
        new = [f for f in files if f.sha256 not in listener.known_files]
        if new:
            refused = yield from send_files(new)
            listener.known_files.update(f.sha256 for f in new if f.sha256 not in refused)
        base, secrets, _ = self._facts()
        wires = []
        news: dict[str, AttemptStatus] = {}
        for start in attempts:
            bad = next((refused[u.sha256] for u in start.spec.uploads if u.sha256 in refused), None)
            if bad is not None:
                news[start.attempt] = AttemptStatus("refused", cause=bad)
            else:
                wire = render_spec(start, base, secrets, self.run)
                if wire_size(wire) > MOST_WIRE:
                    news[start.attempt] = AttemptStatus("refused", cause=TOO_LARGE)
                else:
                    wires.append(wire)
        asks = []
        for part in split_frames(wires):
            asks.append(Ask("start", {"boot": boot, "attempts": part}))
        if asks:
            for reply in (yield asks):
                results = reply.get("results")
                news.update(_refusals(results if isinstance(results, dict) else {}))
        if news:
            self.take_attempts(listener.node, news)

    def _fetch(
        self, listener: _NodeListener, number: int, attempt: str, patterns: Sequence[str], name: str
    ) -> Conversation:
        results_dir = self._facts()[2]
        problem = yield from fetch_files(attempt, patterns, results_dir, self.run, name)
        self.take_fetched(listener.node, number, problem)


def _refusals(results: Mapping[str, object]) -> dict[str, AttemptStatus]:
    """What the agent did not take. `duplicate` and `queued` are good: news of those comes by itself."""
    news = {}
    for attempt, verdict in results.items():
        if verdict in {"queued", "duplicate"}:
            continue
        if verdict == "cancelled":
            news[attempt] = AttemptStatus("cancelled", cause="cancelled")
        else:
            news[attempt] = AttemptStatus("refused", cause=str(verdict))
    return news

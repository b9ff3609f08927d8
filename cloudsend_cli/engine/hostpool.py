"""Links shared by all runs of a maestro, and one run's view of them (the `Hosts` port)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.limits import REQUEST_MOST
from cloudsend_cli.core.metrics import Metrics
from cloudsend_cli.core.model import AttemptStatus, HostAddress, HostView, Resources, Upload
from cloudsend_cli.core.naming import parse_attempt_id
from cloudsend_cli.core.ports import Host, HostNews
from cloudsend_cli.errors import ResultError

from .asking import Ask, Conversation
from .hearsay import HERE, NOTHING, is_attempt_of
from .homelogs import SMALL, bring_logs, is_home, parse_sizes
from .hostlink import HostLink
from .reports import LARGE, LogFiles, begin_apart, files_at_home, files_here, read_metrics, tell_with_metrics
from .results import Home, list_uploads
from .transfer import DISK_FULL, fetch_files, send_files
from .wire import Json, clip, parse_status, render_spec, split_frames, wire_size

TOO_LARGE = "bad-spec: its command, variables and file list are too large for one request"
UPLOAD_MISSING = "upload-missing"
WITH_LOGS = frozenset({"exited", "lost"})
IDS_IN_ONE_REQUEST = 5000
NO_SIZES: Mapping[str, None] = {}
ASK_AGAIN = 1.0  # a request that failed for no reason of its own is judged by the next full report


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What hand-outs need of their run besides themselves. `read_secrets` is called only for jobs that name some."""

    base_env: Mapping[str, str]  # for jobs on the submitter's own machine
    results_dir: str
    read_secrets: Callable[[], Mapping[str, str]]
    about: Mapping[str, object] = field(default_factory=dict)  # of the run, kept by hosts for a rebuild


class HostPool:
    """One link for each machine, whatever number of runs use it."""

    def __init__(
        self, open_host: Callable[[HostAddress], Host], owner: str, epoch: int, log: Callable[[str], None]
    ) -> None:
        self._open_host = open_host
        self._owner = owner
        self._epoch = epoch
        self._log = log
        self._links: dict[str, HostLink] = {}
        self._addresses: dict[str, HostAddress] = {}  # by which each was asked for last
        self._users: Counter[str] = Counter()

    def link(self, address: HostAddress) -> HostLink:
        link = self._links.get(address.key)
        if link is None:
            link = HostLink(self._open_host(address), self._owner, self._epoch, self._log)
            self._links[address.key] = link
            self._addresses[address.key] = address
        elif self._addresses[address.key] != address:
            link.reach_by(self._open_host(address))
            self._addresses[address.key] = address
        return link

    def join(self, address: HostAddress) -> None:
        """Another run uses its link."""
        self._users[address.key] += 1

    def part(self, address: HostAddress) -> None:
        """One uses it no longer. A link to a machine of the user's own stays for the next run; a rented machine is
        let go at once: it is gone, or counts from now how long nobody has used it."""
        self._users[address.key] -= 1
        if self._users[address.key] <= 0 and any(name == "alias" for name, _ in address.settings):
            del self._users[address.key], self._addresses[address.key]
            self._links.pop(address.key).leave()

    def close(self) -> None:
        for link in self._links.values():
            link.stop()
        self._links.clear()


class _NodeListener:
    """Collects one node's news for one run. All of it is called from the link's thread."""

    def __init__(self, hosts: RunHosts, node: str, link: HostLink, address: HostAddress) -> None:
        self.hosts = hosts
        self.node = node
        self.link = link
        self.address = address
        self.is_here = address.kind == "local"
        self.view: HostView | None = None
        self.known_files: set[str] = set()
        self.given: set[str] = set()  # attempts that it got from this maestro and whose ends are not acknowledged
        self.bringing: set[str] = set()  # attempts whose logs are on their way, or are being read

    def on_view(self, view: HostView, statuses: dict[str, object] | None) -> None:
        if statuses is None:
            if not view.connected:
                self.known_files.clear()
            self.hosts.take_view(self, view)
            return
        mine = {a: s for a, s in statuses.items() if is_attempt_of(self.hosts.run, a)}
        self.hosts.take_view(self, replace(view, reported=frozenset(mine)))
        self.on_changes(mine)

    def on_changes(self, items: dict[str, object]) -> None:
        run, weigh = self.hosts.run, self.hosts.weigh
        worth = {a: HERE if a in self.given else weigh(self.node, a) for a in items if is_attempt_of(run, a)}
        news = {a: parse_status(items[a]) for a, w in worth.items() if w != NOTHING}
        if any(s.cause == UPLOAD_MISSING for s in news.values()):
            self.known_files.clear()  # a job wrote into a file that others use: it is sent again
        if any(s.cause == DISK_FULL for s in news.values()):
            self.link.note_full(full=True)
        ended = {a: s for a, s in news.items() if s.state in WITH_LOGS}
        if self.is_here:
            sizes = {a: parse_sizes(items[a]) for a in ended if parse_attempt_id(a)}
            wrote = {a: ended[a] for a, told in sizes.items() if told is None or any(told.values())}
            self._tell(wrote, sizes)
            news = {a: s for a, s in news.items() if a not in wrote}
        else:
            self._bring_logs({a: (s, parse_sizes(items[a])) for a, s in ended.items() if worth[a] == HERE})
            # A log of what may be another machine's is not taken: a fetch brings it, from where the state says.
            others = {a: s for a, s in ended.items() if worth[a] != HERE}
            left = {a for a in others if not is_home(self.hosts.logs, a)}
            self._tell({a: s for a, s in others.items() if a not in left})
            news = {a: s for a, s in news.items() if a not in ended}
            news |= {a: replace(others[a], logs=1) for a in left}
        if news:
            self.hosts.take_attempts(self, news)

    def _tell(
        self, ended: Mapping[str, AttemptStatus], sizes: Mapping[str, Mapping[str, int] | None] = NO_SIZES
    ) -> None:
        """These ends become news, with what their jobs reported in logs that lie here."""
        new = {a: s for a, s in ended.items() if a not in self.bringing}
        if not new:
            return
        self.bringing.update(new)

        def tell(told: Mapping[str, AttemptStatus]) -> None:
            self.bringing.difference_update(told)
            self.hosts.take_attempts(self, told)

        def find(attempt: str) -> LogFiles:
            if self.is_here:
                return files_here(self.address.home, attempt, sizes.get(attempt))
            return files_at_home(self.hosts.logs, attempt)

        tell_with_metrics(new, find, tell)

    def _bring_logs(self, ended: Mapping[str, tuple[AttemptStatus, dict[str, int] | None]]) -> None:
        """ORDER: an end becomes news when its log is home, or known to be too large to wait for."""
        logs = self.hosts.logs
        home = {a: s for a, (s, _) in ended.items() if is_home(logs, a)}
        now: dict[str, AttemptStatus] = {}
        small: dict[str, dict[str, int] | None] = {}
        for attempt, (status, sizes) in ended.items():
            if attempt in home or attempt in self.bringing:
                continue
            if sizes is not None and sum(sizes.values()) > SMALL:
                now[attempt] = replace(status, logs=sum(sizes.values()))
            else:
                small[attempt] = sizes
        self._tell(home)
        if now:
            self.hosts.take_attempts(self, now)
        if not small:
            return
        self.bringing.update(small)

        def conversation() -> Conversation:
            problem = yield from bring_logs(small, logs)
            left = {a: 1 for a in small if problem and not is_home(logs, a)}
            self.bringing.difference_update(small)
            self._tell({a: replace(ended[a][0], logs=left.get(a, 0)) for a in small})

        # Dropped with the channel: the next report tells these ends again.
        self.link.converse(conversation, lambda: self.bringing.difference_update(small))

    def on_fenced(self) -> None:
        self.hosts.take_fenced()


class RunHosts:
    """The `Hosts` port of one run. Links call in from their threads; the maestro's thread drains."""

    def __init__(  # noqa: PLR0913 - what a run lends to the threads of its links
        self,
        run: str,
        pool: HostPool,
        wake: Callable[[], None],
        facts: Callable[[], RunFacts],
        fenced: Callable[[], None],
        logs: Path,
        *,
        resumes: Path,
        weigh: Callable[[str, str], str],
    ) -> None:
        self.run = run
        self.weigh = weigh  # hearsay.weigh of the run's state for (node, attempt); called by any thread
        self._resumes = resumes  # where what attempts go on from comes home
        self.logs = logs  # where logs of attempts on other machines come home
        self._pool = pool
        self._wake = wake
        self._facts = facts  # called by the thread that owns this object
        self.take_fenced = fenced  # called by any thread
        self._lock = threading.Lock()
        self._listeners: dict[str, _NodeListener] = {}
        self._attempts: dict[str, dict[str, AttemptStatus]] = {}
        self._fetched: dict[str, dict[str, str]] = {}
        self._persisted: dict[str, dict[str, tuple[Upload, ...]]] = {}
        self._metrics: dict[str, dict[str, Metrics]] = {}
        self._fetching: set[str] = set()

    # ---- from the links' threads -----------------------------------------------------------------------------------

    def take_view(self, listener: _NodeListener, view: HostView) -> None:
        with self._lock:
            old = listener.view
            if view.reported is None and old is not None and old.reported is not None and view.connected:
                view = replace(view, reported=old.reported)
            listener.view = view
        self._wake()

    def take_attempts(self, listener: _NodeListener, news: Mapping[str, AttemptStatus]) -> None:
        with self._lock:
            if self._listeners.get(listener.node) is not listener:
                return  # the node has another machine now
            self._attempts.setdefault(listener.node, {}).update(news)
        self._wake()

    def take_fetched(
        self,
        node: str,
        attempt: str,
        problem: str,
        persisted: tuple[Upload, ...] = (),
        metrics: Metrics | None = None,
    ) -> None:
        with self._lock:
            self._fetching.discard(attempt)
            if persisted:
                self._persisted.setdefault(node, {})[attempt] = persisted
            if metrics is not None:
                self._metrics.setdefault(node, {})[attempt] = metrics
            self._fetched.setdefault(node, {})[attempt] = problem
        self._wake()

    def drop_fetch(self, attempt: str) -> None:
        with self._lock:
            self._fetching.discard(attempt)
        self._wake()

    # ---- the port --------------------------------------------------------------------------------------------------

    def connect(self, node: str, address: HostAddress, capacity: Resources | None) -> None:
        link = self._pool.link(address)  # ... which follows a machine to another address
        listener = self._listeners.get(node)
        if listener is not None and listener.link is link:
            return
        if listener is not None:
            self.disconnect(node)
        listener = _NodeListener(self, node, link, address)
        self._pool.join(address)
        with self._lock:
            self._listeners[node] = listener
        link.listen(listener, capacity)

    def disconnect(self, node: str) -> None:
        with self._lock:
            listener = self._listeners.pop(node, None)
            self._attempts.pop(node, None)
        if listener is not None:
            listener.link.unlisten(listener)
            self._pool.part(listener.address)

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
                news[node] = HostNews(
                    listener.view,
                    self._attempts.pop(node, {}),
                    self._fetched.pop(node, {}),
                    self._persisted.pop(node, {}),
                    self._metrics.pop(node, {}),
                )
                listener.view = replace(listener.view, reported=None)
        return news

    def fetching(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._fetching)

    def forget(self) -> None:
        for listener in self._listeners.values():
            listener.link.report_again()

    def ack(self, node: str, attempts: Sequence[str]) -> None:
        listener = self._listeners.get(node)
        if listener is not None:
            listener.given.difference_update(attempts)
            for part in _parts(attempts):
                listener.link.tell("ack", {"attempts": part})

    def cancel(self, node: str, attempts: Sequence[str], cause: str) -> None:
        listener = self._listeners.get(node)
        if listener is not None:
            self._converse(listener, lambda: self._cancel(listener, attempts, cause))

    def revoke(self, node: str, attempts: Sequence[str]) -> None:
        listener = self._listeners.get(node)
        if listener is not None:
            self._converse(listener, lambda: self._revoke(listener, attempts))

    def start(self, node: str, boot: str, attempts: Sequence[AttemptStart], files: Sequence[Upload]) -> None:
        listener = self._listeners.get(node)
        if listener is None:
            return
        facts = self._facts()
        secrets = facts.read_secrets() if any(a.spec.secrets for a in attempts) else {}
        env = facts.base_env if listener.is_here else {}
        about = {} if listener.is_here else facts.about
        wires = {a.attempt: render_spec(a, env, secrets, self.run, about) for a in attempts}
        listener.given.update(wires)
        # Two conversations that send the same file would take each other's offsets for damage.
        sends = any(f.sha256 not in listener.known_files for f in files)
        self._converse(listener, lambda: self._start(listener, boot, attempts, wires, files), alone=sends)

    def _converse(self, listener: _NodeListener, make: Callable[[], Conversation], *, alone: bool = False) -> None:
        link = listener.link
        link.converse(make, lambda: link.report_again(ASK_AGAIN), alone=alone)

    def fetch(self, node: str, attempt: str, patterns: Sequence[str], name: str) -> None:
        listener = self._listeners.get(node)
        if listener is None:
            return
        with self._lock:
            self._fetching.add(attempt)
        results = self._facts().results_dir
        listener.link.converse(
            lambda: self._fetch(listener, attempt, patterns, Home(results, self.run, name)),
            lambda: self.drop_fetch(attempt),
        )

    def fetch_resume(self, node: str, attempt: str, patterns: Sequence[str]) -> None:
        listener = self._listeners.get(node)
        if listener is None:
            return
        with self._lock:
            self._fetching.add(attempt)
        home = Home(str(self._resumes), self.run, attempt)
        listener.link.converse(
            lambda: self._fetch_resume(listener, attempt, patterns, home), lambda: self.drop_fetch(attempt)
        )

    def lease(self, node: str, seconds: float | None) -> None:
        listener = self._listeners.get(node)
        if listener is not None:
            listener.link.tell("lease", {"seconds": seconds})

    # ---- conversations ---------------------------------------------------------------------------------------------

    def _cancel(self, listener: _NodeListener, attempts: Sequence[str], cause: str) -> Conversation:
        replies = yield [Ask("cancel", {"attempts": part, "cause": cause}) for part in _parts(attempts)]
        self._judge(listener, replies)
        verdicts = _results(replies)
        never = {a: AttemptStatus("cancelled", cause=cause) for a, v in verdicts.items() if v == "tombstoned"}
        if never:
            self.take_attempts(listener, never)

    def _revoke(self, listener: _NodeListener, attempts: Sequence[str]) -> Conversation:
        """What is revoked is told by the host as news; of the rest nothing has to be known."""
        self._judge(listener, (yield [Ask("revoke", {"attempts": part}) for part in _parts(attempts)]))

    def _start(
        self,
        listener: _NodeListener,
        boot: str,
        attempts: Sequence[AttemptStart],
        wires: Mapping[str, Json],
        files: Sequence[Upload],
    ) -> Conversation:
        refused: dict[str, str] = {}
        new = [f for f in files if f.sha256 not in listener.known_files]
        if new:
            refused = yield from send_files(new)
            listener.known_files.update(f.sha256 for f in new if f.sha256 not in refused)
        good: list[Json] = []
        news: dict[str, AttemptStatus] = {}
        for start in attempts:
            given = (*start.spec.uploads, *start.resume)
            bad = next((refused[u.sha256] for u in given if u.sha256 in refused), "")
            if not bad and wire_size(wires[start.attempt]) > REQUEST_MOST:
                bad = TOO_LARGE
            if bad:
                news[start.attempt] = AttemptStatus("refused", cause=bad)
            else:
                good.append(wires[start.attempt])
        if good:
            replies = yield [Ask("start", {"boot": boot, "attempts": part}) for part in split_frames(good)]
            self._judge(listener, replies)
            verdicts = _results(replies)
            news.update(_refusals(verdicts))
            unlike = [a for a, v in verdicts.items() if v == "mismatch"]
            if unlike:
                news.update(_find_statuses((yield [Ask("report", {"all": True})])[0], unlike))
            if "queued" in verdicts.values():
                listener.link.note_full(full=False)
        if news:
            # ORDER: that its disk is full is known before what it refused is given to another machine.
            if any(s.cause == DISK_FULL for s in news.values()):
                listener.link.note_full(full=True)
            self.take_attempts(listener, news)

    def _judge(self, listener: _NodeListener, replies: Sequence[Frame]) -> None:
        """A request that was refused as a whole may have been carried out in part: the next full report says."""
        if any(not r.ok and r.error_code != "fenced" for r in replies):
            listener.link.report_again(ASK_AGAIN)

    def _fetch(self, listener: _NodeListener, attempt: str, patterns: Sequence[str], home: Home) -> Conversation:
        problem = "" if listener.is_here else (yield from bring_logs({attempt: None}, self.logs))
        if patterns and not problem:
            problem = yield from fetch_files(attempt, patterns, home)
        if listener.is_here or not is_home(self.logs, attempt):  # there the end has told its metrics; here it cannot
            self.take_fetched(listener.node, attempt, problem)
            return
        # Also where the log was home before: a maestro that died has not committed what it reported.
        files = files_at_home(self.logs, attempt)
        node = listener.node
        if files.size() > LARGE:
            begin_apart(lambda: self.take_fetched(node, attempt, problem, metrics=read_metrics(files)))
        else:
            self.take_fetched(node, attempt, problem, metrics=read_metrics(files))

    def _fetch_resume(
        self, listener: _NodeListener, attempt: str, patterns: Sequence[str], home: Home
    ) -> Conversation:
        problem = ""
        try:
            self._resumes.mkdir(mode=0o700, exist_ok=True)  # WHY NOT parents: see homelogs
        except OSError as trouble:
            problem = f"what it left cannot be kept here: {trouble}"
        problem = problem or (yield from fetch_files(attempt, patterns, home))
        left: tuple[Upload, ...] = ()
        if not problem:
            try:
                left = list_uploads(home)
            except ResultError as wrong:
                problem = wrong.message
        self.take_fetched(listener.node, attempt, problem, left)


def _parts(attempts: Sequence[str]) -> list[list[str]]:
    return [list(attempts[i : i + IDS_IN_ONE_REQUEST]) for i in range(0, len(attempts), IDS_IN_ONE_REQUEST)]


def _results(replies: Sequence[Frame]) -> dict[str, object]:
    merged: dict[str, object] = {}
    for reply in replies:
        results = reply.get("results")
        if isinstance(results, dict):
            merged.update(results)
    return merged


def _find_statuses(report: Frame, attempts: Sequence[str]) -> dict[str, AttemptStatus]:
    """What the host says of attempts that it holds under another description: they were started, that is certain."""
    known = report.get("attempts")
    statuses = known if isinstance(known, dict) else {}
    return {a: parse_status(statuses[a]) for a in attempts if a in statuses}


def _refusals(results: Mapping[str, object]) -> dict[str, AttemptStatus]:
    """What the agent did not take. `duplicate` and `queued` are good: news of those comes by itself.

    `mismatch` is no refusal either: the attempt is there, described in other words (by an older version of us).
    """
    news = {}
    for attempt, verdict in results.items():
        if verdict in {"queued", "duplicate", "mismatch"}:
            continue
        if verdict == "cancelled":
            news[attempt] = AttemptStatus("cancelled", cause="cancelled")
        else:
            news[attempt] = AttemptStatus("refused", cause=clip(str(verdict)))
    return news

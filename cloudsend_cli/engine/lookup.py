"""From users' words to rows of the store, and from rows to views. Reads only; needs no maestro."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from cloudsend_cli.core.costs import run_cost
from cloudsend_cli.core.explain import environment_is_ready, phase_word
from cloudsend_cli.core.metrics import split_ignored
from cloudsend_cli.core.model import FINAL_STATES, PENDING, RUNNING, SUCCEEDED, HostView
from cloudsend_cli.core.naming import attempt_id, job_id
from cloudsend_cli.core.refs import not_found, parse_job_ref
from cloudsend_cli.core.state import RentalRecord, RunRecord, RunState
from cloudsend_cli.core.views import JobView, RunView, Slots, run_state_word, silence_of
from cloudsend_cli.errors import AmbiguousError, NotFoundError
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import JobRow, RunRow

Views = Mapping[str, HostView]
SHOWN_CANDIDATES = 8
LAST = "@last"
SHARED_TYPES = frozenset({"local", "ssh"})  # of providers whose machines several runs share


class RunFacts:
    """What the phases of one run's jobs depend on besides their rows; loaded once for a whole table."""

    def __init__(self, store: SqliteStore, run: str, views: Views) -> None:
        self._store = store
        self._run = run
        self.views = views
        self.frame: RunState = store.load_without_jobs(run)
        self.slots = Slots(self.frame.run.groups)
        self._gated: frozenset[int] | None = None
        self._numbers: dict[tuple[str, ...], set[int]] = {}
        self._ready: dict[str, bool] = {}

    def is_ready(self, row: JobRow) -> bool:
        if row.environment not in self._ready:
            self._ready[row.environment] = environment_is_ready(self.frame, row.environment)
        if not self._ready[row.environment] or row.number in self._waits_for_a_section():
            return False
        after_any = row.more.get("after_any", ())
        if not row.after_json and not after_any:
            return True
        return self._ended([SUCCEEDED]).issuperset(row.after) and self._ended(FINAL_STATES).issuperset(after_any)

    def _waits_for_a_section(self) -> frozenset[int]:
        if self._gated is None:  # only runs with sections have groups
            self._gated = self._store.list_gated(self._run) if self.frame.run.groups else frozenset()
        return self._gated

    def _ended(self, states: Collection[str]) -> set[int]:
        key = tuple(sorted(states))
        if key not in self._numbers:
            self._numbers[key] = {r.number for r in self._store.list_jobs(self._run, states)}
        return self._numbers[key]


def job_view(row: JobRow, facts: RunFacts) -> JobView:
    view = facts.views.get(row.node)
    more = row.more
    metrics, ignored = split_ignored(more.get("metrics", ()))
    group = facts.slots.group_of(row.name)
    return JobView(
        id=job_id(row.run, row.number),
        name=row.name,
        run=row.run,
        number=row.number,
        state=row.state,
        phase=phase_word(
            row.state,
            started=row.started_at is not None,
            connected=view.connected if view is not None else None,
            ready=row.state == PENDING and facts.is_ready(row),
        ),
        reason=row.reason,
        exit_code=row.exit_code,
        attempt=row.attempt,
        uid=attempt_id(row.run, row.number, row.attempt) if row.attempt else None,
        instance=row.node or None,
        provider=row.provider or None,
        hash=row.hash,
        command=row.display,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at if row.state in FINAL_STATES else None,
        params=row.params,
        outputs=row.fetch,
        superseded=bool(row.superseded_by),
        maxrss=row.maxrss,
        cpu_seconds=row.cpu_seconds,
        section=facts.slots.section_of(group),
        group=group,
        slot=facts.slots.text(group, more.get("slot", -1)),
        metrics=metrics,
        metrics_ignored=ignored,
        **silence_of(row.state, row.node, view),
    )


def run_view(row: RunRow, rentals: Sequence[RentalRecord] = (), now: float = 0.0) -> RunView:
    run: RunRecord = row.run
    return RunView(
        id=run.id,
        project=run.project,
        config=run.config_path,
        state=run_state_word(row.counts),
        counts=row.counts,
        batch=run.batch,
        results_dir=os.path.join(run.results_dir, run.id) if run.results_dir else "",
        created_at=run.created_at,
        ended_at=run.ended_at,
        cost=run_cost(rentals, now) if rentals else None,
        queued=row.queued,
    )


def count_others(store: SqliteStore, state: RunState) -> dict[str, int]:
    """By node of this run, how many jobs of other runs its machine executes."""
    kinds = {"local": "local", **{p.name: p.type for p in state.run.providers}}
    shared = {n.name: n.provider for n in state.nodes.values() if kinds.get(n.provider) in SHARED_TYPES}
    runs = [run for run in store.list_active_runs() if run != state.run.id] if shared else []
    rows = (row for run in runs for row in store.list_jobs(run, [RUNNING]))
    busy = Counter(r.node for r in rows if r.started_at is not None and shared.get(r.node) == r.provider)
    return {name: busy[name] for name in shared}


# ---- words to rows -------------------------------------------------------------------------------------------------


def find_run(store: SqliteStore, text: str) -> str:
    """The id of the run that `text` names: an id, a unique beginning of one, a project's name, or `@last`.

    `@last` is the run that was submitted last: begun, or continued.
    """
    if text == LAST and (last := store.find_last_run()) is not None:
        return last
    runs = store.list_runs()
    found = store.find_runs(text) if text else []
    if not found:
        found = [r.run.id for r in runs if r.run.project == text][:1]
    if not found:
        raise not_found("run", text, [r.run.id for r in runs] + [r.run.project for r in runs])
    if len(found) > 1:
        raise _ambiguous("run", text, found)
    return found[0]


def find_jobs(store: SqliteStore, texts: Iterable[str]) -> list[JobRow]:
    """The rows that the words name, each once, in the order of the words."""
    rows: dict[tuple[str, int], JobRow] = {}
    for text in texts:
        for row in _find(store, text):
            rows[row.run, row.number] = row
    return list(rows.values())


def find_jobs_or_run(store: SqliteStore, text: str) -> list[JobRow]:
    """The jobs that the word names; else all jobs of the run that it names. `@last` is a run here."""
    return find_jobs_and_run(store, text)[0]


def find_jobs_and_run(store: SqliteStore, text: str) -> tuple[list[JobRow], str | None]:
    """The same, and which run it is that the word names; None where it names jobs."""
    if text != LAST:
        try:
            return find_jobs(store, [text]), None
        except NotFoundError as missing:
            try:
                run = find_run(store, text)
            except NotFoundError:
                raise missing from None
    else:
        run = find_run(store, text)
    return list(store.list_jobs(run, superseded=False)), run


def find_job(store: SqliteStore, text: str) -> JobRow:
    rows = _find(store, text)
    if len(rows) > 1:
        raise _ambiguous("job", text, [f"{job_id(r.run, r.number)} ({r.name})" for r in rows])
    return rows[0]


def _find(store: SqliteStore, text: str) -> list[JobRow]:
    ref = parse_job_ref(text)
    if ref.last:
        run = store.find_last_run()
        rows = list(store.list_jobs(run, limit=1, newest_first=True, superseded=False)) if run is not None else []
    elif ref.number:
        rows = store.find_jobs(run=find_run(store, ref.run), number=ref.number)
    else:
        rows = _by_name(store, text, glob=ref.pattern)
        if not rows and ref.maybe_hash:
            rows = _one_hash(text, store.find_jobs(content=text))
    if not rows:
        raise not_found("job", text, _known_names(store))
    return rows


def _by_name(store: SqliteStore, text: str, *, glob: bool) -> list[JobRow]:
    """The newest of that name; for a glob, those that fit it of the newest run that has any.

    WHY NOT the newest of each name: a run with more tasks would lend what the newest has not, to `kill` as well.
    """
    rows = [r for r in store.find_jobs(name=text, limit=100_000 if glob else 1) if not (glob and r.superseded_by)]
    if not rows and not glob:
        names = [n for n in _known_names(store) if n.startswith(text)]
        if len(set(names)) > 1:
            raise _ambiguous("job", text, sorted(set(names)))
        rows = store.find_jobs(name=names[0], limit=1) if names else []
    if glob and rows:
        rows = sorted((r for r in rows if r.run == rows[0].run), key=lambda r: r.number)
    return rows


def _one_hash(text: str, rows: list[JobRow]) -> list[JobRow]:
    if len({r.hash for r in rows}) > 1:
        raise _ambiguous("job", text, [f"{r.hash[:12]} ({r.name})" for r in rows])
    return rows[:1]


def _known_names(store: SqliteStore) -> list[str]:
    newest = store.list_runs(3)
    return [row.name for r in newest for row in store.list_jobs(r.run.id, limit=2000)]


def _ambiguous(kind: str, text: str, candidates: list[str]) -> AmbiguousError:
    shown = ", ".join(candidates[:SHOWN_CANDIDATES])
    more = f" and {len(candidates) - SHOWN_CANDIDATES} more" if len(candidates) > SHOWN_CANDIDATES else ""
    return AmbiguousError(f"{text!r} fits several {kind}s: {shown}{more}", hint="give more of the name")

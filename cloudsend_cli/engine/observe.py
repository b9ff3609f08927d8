"""Look at the world. Each failure is data: a blind provider or host is absent from the observation, never "gone"."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from cloudsend_cli.core.metrics import Metrics
from cloudsend_cli.core.model import AttemptStatus, InstanceStatus, Observation, Upload
from cloudsend_cli.core.naming import LIST, list_call
from cloudsend_cli.core.state import NodeRecord, RunRecord, RunState

from .session import FindProvider, Session

LIST_INTERVAL = 15.0
SLOW_PAUSE = 2.0
UNSETTLED_NODES = frozenset({"creating", "releasing"})


def observe(session: Session, state: RunState, now: float) -> Observation:
    """All news since the last observation of this session, and complete lists of instances where they matter now."""
    _unlink_replaced(session, state)
    news = session.hosts.drain()
    attempts: dict[str, Mapping[str, AttemptStatus]] = {}
    fetched: dict[str, str] = {}
    persisted: dict[str, tuple[Upload, ...]] = {}
    metrics: dict[str, Metrics] = {}
    for node, item in news.items():
        session.views[node] = item.view
        if item.attempts:
            attempts[node] = item.attempts
        fetched.update(item.fetched)
        persisted.update(item.persisted)
        metrics.update(item.metrics)
    requests = session.store.list_requests(session.run) if session.requests_hinted else ()
    session.requests_hinted = False
    # ORDER: a call that ends meanwhile is still under way here and seen by the list, not over and unseen.
    pending, done, errors = session.calls.pending(), session.calls.done(), session.calls.errors()
    session.troubles = {key: told for key, told in session.troubles.items() if key not in done}
    session.troubles.update({key: message for key, (_, message) in errors.items()})
    return Observation(
        now=now,
        instances=_list_instances(session, state, now),
        call_errors={key: error for key, error in errors.items() if not key.startswith(LIST)},
        calls_pending=pending,
        calls_done=done,
        hosts={node: item.view for node, item in news.items()},
        attempts=attempts,
        requests=tuple(requests),
        fetched=fetched,
        persisted=persisted,
        metrics=metrics,
        fetching=session.hosts.fetching(),
    )


def _unlink_replaced(session: Session, state: RunState) -> None:
    """Another maestro may have replaced a machine: what the old one says is not news of its node."""
    for node, generation in list(session.linked.items()):
        if state.nodes[node].generation != generation:
            del session.linked[node]
            session.views.pop(node, None)
            session.hosts.disconnect(node)


def _list_instances(session: Session, state: RunState, now: float) -> dict[str, tuple[InstanceStatus, ...]]:
    """The lists that have come. Those that are due are asked for: a slow provider's comes with a later observation.

    A provider that cannot answer is absent from the observation: it is blind, and nothing is gone.
    """
    for name in _due_lists(session, state, now):
        session.listed_at[name] = now
        ask = partial(_ask_for_list, session.find_provider, state.run, name)
        session.calls.submit(list_call(name), ask, slow=session.is_slow(name, state.run))
    found = {}
    for key, result in session.calls.results().items():
        if key.startswith(LIST) and isinstance(result, tuple):
            found[key.removeprefix(LIST)] = result
            session.troubles.pop(key, None)
    return found


def _ask_for_list(find: FindProvider, run: RunRecord, name: str) -> tuple[InstanceStatus, ...]:
    return tuple(find(name, run).list_instances(run.id))


def _due_lists(session: Session, state: RunState, now: float) -> list[str]:
    due: set[str] = set()
    pending = session.calls.pending()
    for node in state.nodes.values():
        if node.provider in due or list_call(node.provider) in pending:
            continue
        last = session.listed_at.get(node.provider)
        if last is None or now - last >= _list_pause(session, state, node):
            due.add(node.provider)
    return sorted(due)


def _list_pause(session: Session, state: RunState, node: NodeRecord) -> float:
    """How old a list may be before it is asked for again. Ticks do not make more calls of a slow provider."""
    view = session.views.get(node.name)
    if node.state in UNSETTLED_NODES:
        pause = 0.0
    elif node.state == "running" and (view is None or not view.connected):
        pause = 1.0
    else:
        pause = LIST_INTERVAL
    return max(pause, SLOW_PAUSE) if session.is_slow(node.provider, state.run) else pause

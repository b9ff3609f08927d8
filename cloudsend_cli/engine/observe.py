"""Look at the world. Each failure is data: a blind provider or host is absent from the observation, never "gone"."""

from __future__ import annotations

from collections.abc import Mapping

from cloudsend_cli.core.model import AttemptStatus, InstanceStatus, Observation
from cloudsend_cli.core.state import RunState
from cloudsend_cli.errors import CloudsendError

from .session import Session

LIST_INTERVAL = 15.0
UNSETTLED_NODES = frozenset({"creating", "releasing"})


def observe(session: Session, state: RunState, now: float) -> Observation:
    """All news since the last observation of this session, and complete lists of instances where they matter now."""
    _unlink_replaced(session, state)
    news = session.hosts.drain()
    attempts: dict[str, Mapping[str, AttemptStatus]] = {}
    fetched: dict[str, str] = {}
    for node, item in news.items():
        session.views[node] = item.view
        if item.attempts:
            attempts[node] = item.attempts
        fetched.update(item.fetched)
    requests = session.store.list_requests(session.run) if session.requests_hinted else ()
    session.requests_hinted = False
    # ORDER: a call that ends meanwhile is still under way here and seen by the list, not over and unseen.
    pending, done, errors = session.calls.pending(), session.calls.done(), session.calls.errors()
    return Observation(
        now=now,
        instances=_list_instances(session, state, now),
        call_errors=errors,
        calls_pending=pending,
        calls_done=done,
        hosts={node: item.view for node, item in news.items()},
        attempts=attempts,
        requests=tuple(requests),
        fetched=fetched,
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
    due: set[str] = set()
    for node in state.nodes.values():
        last = session.listed_at.get(node.provider)
        connected = (view := session.views.get(node.name)) is not None and view.connected
        if (
            last is None
            or node.state in UNSETTLED_NODES
            or (node.state == "running" and not connected and now - last >= 1.0)
            or now - last >= LIST_INTERVAL
        ):
            due.add(node.provider)
    found = {}
    for name in sorted(due):
        try:
            found[name] = tuple(session.find_provider(name, state.run).list_instances(session.run))
        except CloudsendError:
            continue  # blind: absent from the observation
        session.listed_at[name] = now
    return found

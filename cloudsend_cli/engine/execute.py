"""One short function for each action. All return at once; what came of it is seen by a later observation."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from cloudsend_cli.core.actions import (
    AckAttempts,
    Action,
    CancelAttempts,
    ConnectHost,
    CreateInstance,
    DisconnectHost,
    FetchOutputs,
    RevokeAttempts,
    StartAttempts,
    TerminateInstance,
)
from cloudsend_cli.core.model import UNBOUNDED
from cloudsend_cli.core.naming import create_call, terminate_call
from cloudsend_cli.core.state import RunRecord, RunState

from .session import FindProvider, Session


def execute(session: Session, state: RunState, actions: Iterable[Action]) -> None:
    """Carry out committed actions in order. A crash between any two is mended by the next tick."""
    for action in actions:
        _execute_one(session, state, action)


def _execute_one(session: Session, state: RunState, action: Action) -> None:
    hosts = session.hosts
    match action:
        case AckAttempts(node, attempts):
            hosts.ack(node, attempts)
        case CancelAttempts(node, attempts, cause):
            hosts.cancel(node, attempts, cause)
        case RevokeAttempts(node, attempts):
            hosts.revoke(node, attempts)
        case StartAttempts(node, boot, attempts, files):
            hosts.start(node, boot, attempts, files)
        case FetchOutputs(node, attempt, patterns, name):
            hosts.fetch(node, attempt, patterns, name)
        case ConnectHost(node, address):
            capacity = state.nodes[node].capacity
            session.linked[node] = state.nodes[node].generation
            hosts.connect(node, address, capacity if capacity != UNBOUNDED else None)
        case DisconnectHost(node):
            session.linked.pop(node, None)
            hosts.disconnect(node)
        case CreateInstance():
            make = partial(_create, session.find_provider, state.run, action)
            slow = session.is_slow(action.provider, state.run)
            session.calls.submit(create_call(action.node, action.generation), make, slow=slow)
        case TerminateInstance():
            end = partial(_terminate, session.find_provider, state.run, action)
            slow = session.is_slow(action.provider, state.run)
            session.calls.submit(terminate_call(action.instance_id), end, slow=slow)


def _create(find: FindProvider, run: RunRecord, wish: CreateInstance) -> None:
    maker = find(wish.provider, run)
    maker.create_instance(run.id, wish.node, wish.generation, wish.token, wish.request)


def _terminate(find: FindProvider, run: RunRecord, wish: TerminateInstance) -> None:
    find(wish.provider, run).terminate_instance(run.id, wish.node, wish.instance_id)

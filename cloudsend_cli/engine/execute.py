"""One short function for each action. All return at once; what came of it is seen by a later observation."""

from __future__ import annotations

from collections.abc import Iterable

from cloudsend_cli.core.actions import (
    AckAttempts,
    Action,
    CancelAttempts,
    ConnectHost,
    CreateInstance,
    DisconnectHost,
    FetchOutputs,
    StartAttempts,
    TerminateInstance,
)
from cloudsend_cli.core.naming import create_call, terminate_call
from cloudsend_cli.core.state import RunState

from .session import Session


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
        case StartAttempts(node, boot, attempts, files):
            hosts.start(node, boot, attempts, files)
        case FetchOutputs(node, attempt, patterns, name):
            hosts.fetch(node, attempt, patterns, name)
        case ConnectHost(node, address):
            capacity = state.nodes[node].capacity
            session.linked[node] = state.nodes[node].generation
            hosts.connect(node, address, capacity if capacity.cpus < 1e8 else None)
        case DisconnectHost(node):
            session.linked.pop(node, None)
            hosts.disconnect(node)
        case CreateInstance(node, provider, generation, token, request):
            maker = session.providers[provider]
            run = session.run
            call = create_call(node, generation)
            session.calls.submit(call, lambda: maker.create_instance(run, node, generation, token, request))
        case TerminateInstance(node, provider, instance_id):
            ender = session.providers[provider]
            run = session.run
            call = terminate_call(instance_id)
            session.calls.submit(call, lambda: ender.terminate_instance(run, node, instance_id))

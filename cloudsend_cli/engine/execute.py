"""One short function for each action. All return at once; what came of it is seen by a later observation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

from cloudsend_cli.core.actions import (
    AckAttempts,
    Action,
    CancelAttempts,
    ConnectHost,
    CreateInstance,
    DisconnectHost,
    FetchOutputs,
    FetchResume,
    KeepInstance,
    LeaseHost,
    RevokeAttempts,
    StartAttempts,
    TerminateInstance,
)
from cloudsend_cli.core.model import UNBOUNDED
from cloudsend_cli.core.naming import create_call, keep_call, terminate_call
from cloudsend_cli.core.ports import Renter
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
        case FetchResume(node, attempt, patterns):
            hosts.fetch_resume(node, attempt, patterns)
        case LeaseHost(node, seconds):
            hosts.lease(node, seconds)
        case FetchOutputs(node, attempt, patterns, name):
            hosts.fetch(node, attempt, patterns, name)
        case ConnectHost(node, address):
            capacity = state.nodes[node].capacity
            session.linked[node] = state.nodes[node].generation
            hosts.connect(node, address, capacity if capacity != UNBOUNDED else None)
        case DisconnectHost(node):
            session.linked.pop(node, None)
            hosts.disconnect(node)
        case _:
            _call_provider(session, state, action)


def _call_provider(session: Session, state: RunState, wish: CreateInstance | TerminateInstance | KeepInstance) -> None:
    find, run = session.find_provider, state.run
    slow = session.is_slow(wish.provider, run)
    call: Callable[[], object]
    match wish:
        case CreateInstance():
            key, call = create_call(wish.node, wish.generation), partial(_create, find, run, wish)
        case TerminateInstance():
            key, call = terminate_call(wish.instance_id), partial(_terminate, find, run, wish, rented=slow)
        case KeepInstance():
            key, call = keep_call(wish.instance_id, wish.generation), partial(_keep, find, run, wish)
    session.calls.submit(key, call, slow=slow)


def _create(find: FindProvider, run: RunRecord, wish: CreateInstance) -> None:
    maker = find(wish.provider, run)
    maker.create_instance(run.id, wish.node, wish.generation, wish.token, wish.request)


def _terminate(find: FindProvider, run: RunRecord, wish: TerminateInstance, *, rented: bool) -> None:
    if rented:
        os.sync()  # ORDER: of logs that came home the machine has the only other copy
    find(wish.provider, run).terminate_instance(run.id, wish.node, wish.instance_id)


def _keep(find: FindProvider, run: RunRecord, wish: KeepInstance) -> None:
    """Only offers of a Renter are for keeping."""
    cast(Renter, find(wish.provider, run)).keep_instance(run.id, wish.node, wish.instance_id)

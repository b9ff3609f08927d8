"""What happens to machines: create, adopt, replace, connect, give back. Pure."""

from __future__ import annotations

from dataclasses import replace

from .actions import ConnectHost, CreateInstance, DisconnectHost, TerminateInstance
from .decide_jobs import lose, never_started, take_report
from .draft import Draft
from .model import InstanceStatus
from .naming import digest, token
from .state import NodeRecord

FATAL_CREATE_ERRORS = frozenset({"auth", "quota", "config", "provider"})


def take_nodes(draft: Draft, *, wanted: bool) -> None:
    """Bring every node one step towards what is wanted: a machine in use, or none."""
    for node in draft.all_nodes():
        if node.state in {"wanted", "creating", "running"} and not wanted:
            node = _stop_wanting(draft, node)
        if node.state == "wanted":
            _intend(draft, node)
        elif node.state == "creating":
            _await_instance(draft, node)
        elif node.state == "running":
            _watch(draft, node)
        elif node.state == "releasing":
            _release(draft, node)


def _stop_wanting(draft: Draft, node: NodeRecord) -> NodeRecord:
    # A machine whose creation may have reached the provider must be resolved to an id before it can be given back.
    state = {"wanted": "released", "creating": "creating", "running": "releasing"}[node.state]
    if state != node.state:
        node = replace(node, state=state)
        draft.put_node(node)
    return node


def _intend(draft: Draft, node: NodeRecord) -> None:
    if node.not_before > draft.seen.now:
        draft.wake(node.not_before)
        return
    generation = node.generation + 1
    request_token = token(draft.run.id, node.name, generation, digest(node.request))
    node = replace(
        node,
        state="creating",
        generation=generation,
        token=request_token,
        instance_id="",
        created_at=draft.seen.now,
    )
    draft.put_node(node)
    _create(draft, node)


def _create(draft: Draft, node: NodeRecord) -> None:
    draft.actions.append(CreateInstance(node.name, node.provider, node.generation, node.token, node.request))


def find_instance(draft: Draft, node: NodeRecord) -> InstanceStatus | None:
    """The machine of this node and generation, if the provider's complete list was seen and names it."""
    for status in draft.seen.instances.get(node.provider, ()):
        if status.node == node.name and status.generation == node.generation:
            return status
    return None


def _await_instance(draft: Draft, node: NodeRecord) -> None:
    status = find_instance(draft, node)
    error = draft.seen.create_errors.get(node.name)
    if status is None:
        if error is not None:
            _create_failed(draft, node, *error)
        elif node.name not in draft.seen.pending_effects:
            # Absence in a list proves nothing; the same token asks for the same machine.
            if node.not_before > draft.seen.now:
                draft.wake(node.not_before)
            else:
                draft.put_node(replace(node, not_before=draft.seen.now + draft.policy.create_retry))
                draft.wake(draft.seen.now + draft.policy.create_retry)
                _create(draft, node)
    elif status.state == "terminated":
        _replace(draft, node, status.reason or "terminated")
    elif status.state == "running" and status.address is not None:
        draft.put_node(
            replace(node, state="running", instance_id=status.instance_id, price=status.price, not_before=0.0)
        )
        draft.actions.append(ConnectHost(node.name, status.address))
        draft.wake(draft.seen.now)
    elif draft.seen.now - node.created_at > draft.policy.boot_limit:
        draft.put_node(replace(node, state="releasing", instance_id=status.instance_id, reason="never came up"))


def _create_failed(draft: Draft, node: NodeRecord, code: str, message: str) -> None:
    if code in FATAL_CREATE_ERRORS:
        draft.put_node(replace(node, state="failed", reason=message))
        draft.wake(draft.seen.now)
    else:
        later = draft.seen.now + draft.policy.create_retry
        draft.put_node(replace(node, state="wanted", reason=message, not_before=later))
        draft.wake(later)


def _replace(draft: Draft, node: NodeRecord, reason: str) -> None:
    """The provider says that the machine is gone: that is proof, and a new generation fences its late news."""
    for job in draft.running_jobs(node.name):
        if reason == "preempted":
            never_started(draft, job)
        else:
            lose(draft, job, f"lost: the machine was {reason}")
    for number in draft.state.to_fetch:
        stranded = draft.job(number)
        if stranded is not None and stranded.node == node.name and stranded.fetch == "wanted":
            draft.put_job(replace(stranded, fetch=f"failed: the machine was {reason} before the results came home"))
    for (where, key), build in draft.state.builds.items():
        if where == node.name and build.state != "failed":
            draft.put_build(replace(build, attempt=build.attempt + 1, state="wanted"))
    draft.actions.append(DisconnectHost(node.name))
    draft.put_node(replace(node, state="wanted", reason=reason, instance_id=""))
    draft.wake(draft.seen.now)


def _watch(draft: Draft, node: NodeRecord) -> None:
    status = find_instance(draft, node)
    view = draft.seen.hosts.get(node.name)
    if status is not None and status.state == "terminated":
        _replace(draft, node, status.reason or "terminated")
        return
    if view is not None and view.reported is not None:
        take_report(draft, node.name, view)
    if view is None and status is not None and status.address is not None:
        draft.actions.append(ConnectHost(node.name, status.address))


def _release(draft: Draft, node: NodeRecord) -> None:
    status = find_instance(draft, node)
    complete = node.provider in draft.seen.instances
    if status is not None and status.state == "terminated" or complete and status is None:
        again = node.reason == "never came up"
        draft.put_node(replace(node, state="wanted" if again else "released", instance_id="", reason=""))
        draft.wake(draft.seen.now)
    else:
        draft.actions.append(DisconnectHost(node.name))
        if node.name not in draft.seen.pending_effects:
            draft.actions.append(TerminateInstance(node.name, node.provider, node.instance_id))

"""What happens to machines: create, adopt, replace, connect, give back. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .actions import ConnectHost, CreateInstance, DisconnectHost, KeepInstance, TerminateInstance
from .decide_builds import is_ending_build
from .decide_jobs import PREEMPTED, RETRY, go_on_without, lose, never_started, take_report
from .decide_money import begin_waiting, end_rental
from .decide_stand_ins import ask_stand_in, make_room
from .demand import Demand, plan_demand
from .draft import Draft
from .model import HostView, InstanceStatus
from .naming import create_call, digest, keep_call, terminate_call, token
from .offers import choose_offer, current_offer, is_over_quota, next_chance, note_shortage, take_offer
from .records import replace
from .renting import is_rented_node
from .silence import (
    DENIED,
    REFUSALS,
    REFUSED,
    SHORT_LIVED,
    SILENT,
    UNANSWERED,
    describe_short_lived,
    describe_unanswered,
)
from .state import FETCHED, RESULTS_GONE, RESUME, NodeRecord

# Each is the provider's word that the token has no living machine (see ports.Provider.create_instance). `auth` is so
# only of the first call with a token: an earlier one may have had its effect.
FATAL_CREATE_ERRORS = frozenset({"auth", "quota", "config", "provider"})
PASSING_CREATE_ERRORS = frozenset({"capacity"})
SHORTAGES = frozenset({"capacity", "quota"})
NO_ANSWER = frozenset({"unreachable", "expired"})
CAPACITY = "capacity"  # InstanceStatus.reason
BY_ITSELF = "shut down from within"  # ... the same: also by its switch, when its time was over
NEVER_CAME_UP = "never came up"
STOPPED = "stopped while it came up"  # by somebody, or AWS: it has nothing that it would be started again for
GONE = "given up by the user"
LEAST_IDLE = 60.0  # seconds for which a machine of a run is kept at hand at least


def take_nodes(draft: Draft, *, wanted: bool) -> None:
    """Bring every node one step towards what is wanted: a machine in use, or none."""
    for name in draft.gone:
        _give_up(draft, name)
    demand = plan_demand(draft) if wanted else Demand()
    for name in [node.name for node in draft.all_nodes()]:
        node = draft.nodes.get(name) or draft.state.nodes[name]  # what is decided of one may change its stand-in
        if node.state == "wanted":
            _intend(draft, node, demand, wanted=wanted)
        elif node.state == "creating":
            _await_instance(draft, node, wanted=wanted)
        elif node.state == "running" and wanted and _has_been_idle(draft, node, demand):
            _start_release(draft, node, node.instance_id, "")
        elif node.state == "running" and (wanted or _is_ending_build(draft, node)):
            _watch(draft, draft.nodes.get(node.name, node))
        elif node.state == "running":
            _start_release(draft, node, node.instance_id, "")
        elif node.state == "keeping":
            _keep(draft, node, wanted=wanted)
        elif node.state == "releasing":
            _release(draft, node, wanted=wanted)
    _give_back_orphans(draft)


def _is_ending_build(draft: Draft, node: NodeRecord) -> bool:
    """A machine that is silent is given back all the same: it may cost money, and whoever uses it next asks again."""
    view = draft.seen.hosts.get(node.name)
    return view is not None and view.connected and is_ending_build(draft, node.name)


def list_orphans(draft: Draft) -> Iterator[tuple[NodeRecord, InstanceStatus]]:
    """Machines of ours that no node wants: made by a maestro that slept between its commit and its call."""
    for statuses in draft.seen.instances.values():
        for status in statuses:
            node = draft.state.nodes.get(status.node)
            if node is None or status.state == "terminated" or status.generation > node.generation:
                continue
            if status.instance_id in {node.instance_id, node.kept}:
                continue  # a list that lags shows it as it was before it was kept, or taken again
            given_back = terminate_call(status.instance_id) in draft.seen.calls_done
            unwanted = status.generation < node.generation or node.state in {"wanted", "released", "failed"}
            if unwanted and not given_back:
                yield node, status


def _give_back_orphans(draft: Draft) -> None:
    # Intent before effect: that a node has gone on to another generation, or has none, was committed long ago.
    for node, status in list_orphans(draft):
        draft.wake(draft.seen.now + draft.policy.look_again)
        if terminate_call(status.instance_id) not in draft.seen.calls_pending:
            draft.actions.append(TerminateInstance(node.name, node.provider, status.instance_id))


def _intend(draft: Draft, node: NodeRecord, demand: Demand, *, wanted: bool) -> None:
    if not wanted:
        draft.put_node(replace(node, state="released"))
        return
    if is_rented_node(node) and node.name not in demand.ask:
        return  # until more waits than what is at hand can take
    if node.not_before > draft.seen.now:
        draft.wake(node.not_before)
        return
    offer = choose_offer(node, draft.run.shortages, draft.seen.now)
    if offer is None:
        draft.wake(next_chance(node, draft.run.shortages, draft.seen.now))
        return
    generation = node.generation + 1
    request_token = token(draft.run.id, node.name, generation, digest(offer.request))
    node = replace(
        take_offer(node, offer),
        state="creating",
        generation=generation,
        token=request_token,
        instance_id="",
        created_at=draft.seen.now,
        not_before=0.0,
        idle_since=0.0,
        lease=None,
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


def _await_instance(draft: Draft, node: NodeRecord, *, wanted: bool) -> None:
    """A machine whose creation may have reached the provider is followed up, wanted or not, until it has an id."""
    status = find_instance(draft, node)
    draft.wake(draft.seen.now + draft.policy.look_soon)
    if status is None:
        _await_reply(draft, node)
    elif status.state == "terminated":
        _replace(draft, node, status.reason or "terminated")
    elif not wanted:
        _start_release(draft, node, status.instance_id, "")
    elif status.state == "stopped":
        _start_release(draft, node, status.instance_id, STOPPED)
    elif status.state == "running" and status.address is not None:
        price = status.price if status.price is not None else node.price
        node = replace(node, state="running", instance_id=status.instance_id, price=price, reason="")
        draft.put_node(replace(node, not_before=0.0, crowded=False))
        draft.actions.append(ConnectHost(node.name, status.address))
    elif draft.seen.now - node.created_at > draft.policy.boot_limit:
        _give_back_unanswered(draft, node, status.instance_id)


def _await_reply(draft: Draft, node: NodeRecord) -> None:
    call = create_call(node.name, node.generation)
    code, message = draft.seen.call_errors.get(call, ("", ""))
    first = node.not_before == 0.0
    offer = current_offer(node)
    if code == "quota" and make_room(draft, node):
        pass
    elif code in SHORTAGES and (key := offer.quota if code == "quota" else offer.pool):
        _try_another(draft, node, key, message)
    elif code in FATAL_CREATE_ERRORS and (first or code != "auth"):
        draft.put_node(replace(node, state="failed", reason=f"{DENIED}: {message}" if code == "auth" else message))
    elif code in PASSING_CREATE_ERRORS:
        # A new intent with a new token: the provider said that this one has no machine.
        later = draft.seen.now + draft.policy.create_retry
        draft.put_node(replace(node, state="wanted", reason=message, not_before=later))
    elif call not in draft.seen.calls_pending:
        # INVARIANT: absence in a list and a lost reply prove nothing; the same token asks for the same machine.
        retry_at = node.not_before
        if first and call in draft.seen.calls_done:
            retry_at = node.created_at + draft.policy.create_retry
        if retry_at <= draft.seen.now:
            later = draft.seen.now + draft.policy.create_retry
            draft.put_node(replace(node, not_before=later, reason=message or node.reason))
            _create(draft, node)


def _try_another(draft: Draft, node: NodeRecord, key: str, reason: str) -> None:
    """PROOF: the provider's word that this intent has no machine. The next offer is a new intent with a new token.

    A quota is not asked again in the hope that it has grown: a machine that no offer is left for is done without.
    """
    until = draft.seen.now + draft.policy.shortage
    draft.new_run = note_shortage(draft.run, key, draft.seen.now, until)
    over = is_over_quota(node, draft.run.shortages, draft.seen.now)
    draft.put_node(replace(node, state="failed" if over else "wanted", reason=reason, not_before=0.0))


def _note_taken(draft: Draft, node: NodeRecord, reason: str) -> None:
    """A pool that gave no machine after all, or took one back, is likely to do it again soon."""
    pool = current_offer(node).pool
    seconds = {CAPACITY: draft.policy.shortage, PREEMPTED: draft.policy.taken_back}.get(reason, 0.0)
    if pool and seconds:
        draft.new_run = note_shortage(draft.run, pool, draft.seen.now, draft.seen.now + seconds)


def _replace(draft: Draft, node: NodeRecord, reason: str) -> None:
    """The machine is proved gone; a new generation fences its late news."""
    view = draft.seen.hosts.get(node.name)
    setting = view.outlives if view is not None and reason != PREEMPTED else ""
    by_itself = reason == BY_ITSELF
    if setting:
        reason += f", as its `{setting}` was over"
    _lose_all(draft, node, reason)
    end_rental(draft, node.instance_id)
    if not node.retired:  # else it was noted when its end was announced
        _note_taken(draft, node, reason)
    # A machine that ended before it was used is not asked for again at once: its provider may be short of them.
    later = draft.seen.now + draft.policy.create_retry if node.state == "creating" else 0.0
    state = "released" if node.retired else "wanted"
    if by_itself and not node.retired:
        node = _count_barren(draft, node)
        if node.barren >= draft.policy.unanswered_most:
            state, reason = "failed", describe_short_lived(node.barren, setting)
    draft.put_node(replace(node, state=state, reason=reason, instance_id="", not_before=later))


def _count_barren(draft: Draft, node: NodeRecord) -> NodeRecord:
    """What begins on a machine and is cut short is a loss, and is counted; so is a machine on which nothing begins."""
    mine = [job for job in draft.state.jobs.values() if job.node == node.name]
    now = [draft.jobs.get(job.number, job) for job in mine if (job.handed_at or 0.0) >= node.created_at]
    began = any(job.started_at is not None or job.reason.startswith(RETRY) for job in now)
    return replace(node, barren=0 if began else node.barren + 1)


def _give_up(draft: Draft, name: str) -> None:
    """PROOF: the user's word. What the machine had is done elsewhere; this run asks nothing of it any more."""
    node = draft.nodes.get(name) or draft.state.nodes.get(name)
    if node is not None and node.state == "running":
        _lose_all(draft, node, GONE)
        node = replace(node, state="releasing", reason=GONE, not_before=0.0)
        draft.put_node(node)
        _release(draft, node, wanted=False)


def _lose_all(draft: Draft, node: NodeRecord, reason: str) -> None:
    for job in draft.running_jobs(node.name):
        if reason == PREEMPTED:
            never_started(draft, job)
        else:
            lose(draft, job, f"lost: the machine was {reason}")
    for number in {**draft.state.to_fetch, **draft.jobs}:
        stranded = draft.job(number)
        if stranded is None or stranded.node != node.name:
            continue
        if stranded.fetch == "wanted":
            draft.put_job(replace(stranded, fetch=f"{RESULTS_GONE}, which was {reason}"))
        elif stranded.fetch == RESUME:
            draft.put_job(go_on_without(stranded))
    for where, key in draft.state.builds:
        build = draft.build(where, key)
        if where == node.name and build is not None and build.state != "failed":
            draft.put_build(replace(build, attempt=build.attempt + 1, state="wanted", cancel=False))
    draft.actions.append(DisconnectHost(node.name))


def _watch(draft: Draft, node: NodeRecord) -> None:
    status = find_instance(draft, node)
    view = draft.seen.hosts.get(node.name)
    connected = view is not None and view.connected
    draft.wake(draft.seen.now + (draft.policy.look_idle if connected else draft.policy.look_again))
    if status is not None and status.state == "terminated":
        _replace(draft, node, status.reason or "terminated")
    elif status is not None and status.state == "stopped":
        if (view is None or not view.boot) and not _is_used(draft, node) and is_rented_node(node):
            _start_release(draft, node, node.instance_id, STOPPED)
        else:
            _lose_stopped(draft, node)
    elif useless := _why_useless(draft, node, view):
        if useless == NEVER_CAME_UP and view is not None and not view.boot:
            _give_back_unanswered(draft, node, node.instance_id)
        else:
            _start_release(draft, node, node.instance_id, useless)
    elif connected or status is not None or node.provider not in draft.seen.instances:
        _hear(draft, node, view, status)
        if not connected and status is not None and status.address is not None and status.state == "running":
            # Its address may be another one since it was stopped and started; the same one again changes nothing.
            draft.actions.append(ConnectHost(node.name, status.address))
    elif not node.not_before:
        draft.put_node(replace(node, not_before=draft.seen.now + draft.policy.absent_limit))
    elif node.not_before <= draft.seen.now:
        _replace(draft, node, "forgotten by its provider")


def _hear(draft: Draft, node: NodeRecord, view: HostView | None, status: InstanceStatus | None) -> None:
    connected = view is not None and view.connected
    there = connected or status is not None
    heard = node
    if (there and node.not_before) or (connected and node.unanswered):
        not_before, unanswered = 0.0 if there else node.not_before, 0 if connected else node.unanswered
        heard = replace(node, not_before=not_before, unanswered=unanswered)
        draft.put_node(heard)
    if view is not None and view.reported is not None:
        take_report(draft, node.name, view)
    if view is not None and connected and view.outlives and is_rented_node(node):
        # The next one is asked for when it is gone: what it ended may have been a job's last try.
        if not _is_used(draft, node):
            _give_back_drained(draft, draft.nodes.get(node.name, node), view.outlives)
    elif view is not None and connected and view.leaving and ask_stand_in(draft, heard):
        _note_taken(draft, node, PREEMPTED)


def _lose_stopped(draft: Draft, node: NodeRecord) -> None:
    """PROOF: its provider says that it has no power. Its disk is kept, and it may come back under another boot."""
    for job in draft.running_jobs(node.name):
        lose(draft, job, "lost: the machine was stopped")


def _give_back_drained(draft: Draft, node: NodeRecord, setting: str) -> None:
    """Its time is nearly over, and nothing is left on it: what waits need not wait for its end."""
    node = _count_barren(draft, node)
    over = node.barren >= draft.policy.unanswered_most
    _start_release(draft, node, node.instance_id, describe_short_lived(node.barren, setting) if over else "")


def _has_been_idle(draft: Draft, node: NodeRecord, demand: Demand) -> bool:
    """Whether a rented machine has had nothing to do for as long as it may wait, while others still work.

    One that is taken back ends by itself; what was announced may not come.
    """
    if not is_rented_node(node):
        return False
    idle = (node.retired or node.name in demand.spare) and not _is_used(draft, node)
    if idle != bool(node.idle_since):
        draft.put_node(replace(node, idle_since=draft.seen.now if idle else 0.0))
        return False
    limit = draft.policy.leaving_limit if node.retired else max(LEAST_IDLE, current_offer(node).keep)
    over = node.idle_since + limit  # compared as it is waited for: a difference may round the other way
    if idle:
        draft.wake(over)
    return idle and draft.seen.now >= over


def _why_useless(draft: Draft, node: NodeRecord, view: HostView | None) -> str:
    """Why a machine that has nothing of this run is given back: it refuses, or is paid for and does not answer.

    One whose image has no cloud-init has no switch that would end it.
    """
    if view is None or view.connected or _is_used(draft, node):
        return ""
    if view.error_code in REFUSALS:
        return f"{REFUSED}{view.error}"
    silent = view.error_code == SILENT and draft.seen.now - view.since > draft.policy.boot_limit
    return NEVER_CAME_UP if silent and is_rented_node(node) else ""


def _give_back_unanswered(draft: Draft, node: NodeRecord, instance_id: str) -> None:
    """Another one is asked for, a few times. What keeps them all from answering is then not in the machine."""
    node = replace(node, unanswered=node.unanswered + 1)
    over = node.unanswered >= draft.policy.unanswered_most
    reason = describe_unanswered(node.unanswered, node.provider) if over else NEVER_CAME_UP
    _start_release(draft, node, instance_id, reason)


def _is_used(draft: Draft, node: NodeRecord) -> bool:
    """Whether anything of this run was ever handed to it whose end, or result, is not known yet."""
    if draft.running_jobs(node.name):
        return True
    waiting = (draft.job(number) for number in {**draft.state.to_fetch, **draft.jobs})
    builds = (draft.build(where, key) for where, key in draft.state.builds if where == node.name)
    return any(j is not None and j.node == node.name and j.fetch in FETCHED for j in waiting) or any(
        b is not None and b.state == "running" for b in builds
    )


def _start_release(draft: Draft, node: NodeRecord, instance_id: str, reason: str) -> None:
    """The id is committed before the first request to give it back."""
    draft.actions.append(DisconnectHost(node.name))
    if not reason and _can_keep(draft, node):
        node = replace(node, state="keeping", not_before=0.0)
        draft.put_node(node)
        _keep(draft, node, wanted=False)
        return
    node = replace(node, state="releasing", instance_id=instance_id, reason=reason, not_before=0.0)
    draft.put_node(node)
    _release(draft, node, wanted=reason == NEVER_CAME_UP)


def _note_trouble(draft: Draft, node: NodeRecord, call: str) -> NodeRecord:
    """What the provider said, kept until it takes the machine back: it goes on costing money."""
    _, told = draft.seen.call_errors.get(call, ("", node.trouble))
    if call in draft.seen.calls_done:
        told = ""
    if told != node.trouble:
        node = replace(node, trouble=told)
        draft.put_node(node)
    return node


def _can_keep(draft: Draft, node: NodeRecord) -> bool:
    """Only a machine that was heard to watch over itself: nobody else will end it."""
    view = draft.seen.hosts.get(node.name)
    watched = view is not None and view.connected and view.armed and not view.leaving
    return node.state == "running" and current_offer(node).keep > 0 and watched and not draft.run.stopped


def _keep(draft: Draft, node: NodeRecord, *, wanted: bool) -> None:
    """Ask until the machine is out of this run. What cannot be kept is given back."""
    status = find_instance(draft, node)
    call = keep_call(node.instance_id, node.generation)
    code, _ = draft.seen.call_errors.get(call, ("", ""))
    node = _note_trouble(draft, node, call)
    if call in draft.seen.calls_done:
        begin_waiting(draft, node)
        end_rental(draft, node.instance_id)
        state = "wanted" if wanted and not node.retired else "released"
        draft.put_node(replace(node, state=state, kept=node.instance_id, instance_id="", not_before=0.0))
    elif status is not None and status.state == "terminated":
        end_rental(draft, node.instance_id)
        state = "wanted" if wanted and not node.retired else "released"
        draft.put_node(replace(node, state=state, instance_id="", not_before=0.0))
    elif code not in {"", *NO_ANSWER}:
        node = replace(node, state="releasing", not_before=0.0)
        draft.put_node(node)
        _release(draft, node, wanted=wanted)
    elif node.not_before <= draft.seen.now and call not in draft.seen.calls_pending:
        draft.put_node(replace(node, not_before=draft.seen.now + draft.policy.create_retry))
        draft.actions.append(KeepInstance(node.name, node.provider, node.generation, node.instance_id))
    draft.wake(draft.seen.now + draft.policy.look_again)


def _release(draft: Draft, node: NodeRecord, *, wanted: bool) -> None:
    """Ask until the machine is gone: seen terminated, or given back with success and then absent.

    A run that was continued meanwhile, or whose machine never came up, gets another one.

    INVARIANT: absence alone proves nothing: a lagging list omits machines that live.
    """
    status = find_instance(draft, node)
    call = terminate_call(node.instance_id)
    node = _note_trouble(draft, node, call)
    absent = status is None and node.provider in draft.seen.instances and call in draft.seen.calls_done
    draft.wake(draft.seen.now + draft.policy.look_again)
    gone = (status is not None and status.state == "terminated") or absent
    if gone:
        end_rental(draft, node.instance_id)
        node = replace(node, trouble="")
        if node.retired or node.reason.startswith(UNANSWERED):
            _lose_all(draft, node, "given back")  # it is not asked for again, whatever was still to come from it
    if gone and node.retired:
        draft.put_node(replace(node, state="released", instance_id="", reason="", not_before=0.0))
    elif gone and node.reason.startswith((REFUSED, GONE, UNANSWERED, SHORT_LIVED)):
        draft.put_node(replace(node, state="failed", instance_id="", not_before=0.0))
    elif gone:
        again = wanted or node.reason == NEVER_CAME_UP
        draft.put_node(
            replace(node, state="wanted" if again else "released", instance_id="", reason="", not_before=0.0)
        )
    elif node.not_before <= draft.seen.now and call not in draft.seen.calls_pending:
        draft.put_node(replace(node, not_before=draft.seen.now + draft.policy.create_retry))
        draft.actions.append(TerminateInstance(node.name, node.provider, node.instance_id))

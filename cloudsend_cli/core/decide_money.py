"""What rented machines cost: the time that is paid for, the budget, and how long machines may live. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .actions import LeaseHost
from .costs import HOUR, clip_waiting, describe_dollars, run_cost
from .decide_jobs import cancel_job
from .draft import Draft
from .model import PENDING, RUNNING, InstanceStatus
from .naming import rental_id
from .offers import current_offer
from .records import replace
from .renting import LATE, SWITCH_SECONDS
from .state import NodeRecord, RentalRecord

CLOCKS_APART = 30.0  # seconds between the provider's clock and ours; a machine that waits has lived for longer
RESULTS_WAIT = 3600.0  # for which it waits with results that nobody fetches; agent/host/rented.py has the same
LEAST_RESERVE = 0.02  # of the budget: what runs is ended before it is spent, not after


def take_rentals(draft: Draft) -> None:
    """Note since when, and until when, this run pays for each machine that its providers show."""
    for provider, statuses in draft.seen.instances.items():
        for status in statuses:
            node = draft.state.nodes.get(status.node)
            if status.launched_at is not None and node is not None and node.provider == provider:
                _take_rental(draft, node, status, status.launched_at)
    for rental in draft.all_rentals():
        if rental.until is None and rental.provider in draft.seen.instances and _is_forgotten(draft, rental):
            draft.put_rental(replace(rental, until=max(rental.since, _at_latest(draft, rental))))


def _is_forgotten(draft: Draft, rental: RentalRecord) -> bool:
    """Whether a complete list omits a machine that this run does not use: it was given back, or is another run's."""
    node = draft.state.nodes.get(rental.node)
    in_use = node is not None and node.instance_id == rental.instance_id
    listed = {status.instance_id for status in draft.seen.instances[rental.provider]}
    return not in_use and rental.instance_id not in listed


def is_paying(draft: Draft) -> bool:
    """Whether a machine of this run may still cost it money."""
    return any(rental.until is None for rental in draft.all_rentals())


def _take_rental(draft: Draft, node: NodeRecord, status: InstanceStatus, launched_at: float) -> None:
    name = rental_id(status.instance_id, status.generation, launched_at)
    known = draft.state.rentals.get(name)
    over = status.state in {"terminated", "stopped"}
    ended = _when_ended(draft, node, status, known) if over else None
    if known is None and status.generation <= node.generation:
        own = status.generation == node.generation
        # A machine that waited for this run is paid for by it from the moment that it was asked for. What is charged
        # for at least is the matter of the run before.
        waited = own and launched_at < node.created_at + (CLOCKS_APART if status.taken else -CLOCKS_APART)
        since = max(node.created_at, launched_at + status.least_seconds) if waited else launched_at
        price = status.price if status.price is not None else node.price if own else None
        known = RentalRecord(
            name,
            status.instance_id,
            node.name,
            node.provider,
            price,
            since,
            least=0.0 if waited else status.least_seconds,
            note=current_offer(node).note if own else "",
            taken_at=node.created_at if waited else 0.0,
        )
        draft.put_rental(replace(known, until=ended if ended is None else max(since, ended)))
        for wait in clip_waiting([*draft.all_rentals()]).values():
            draft.put_rental(wait)
    elif known is not None and known.until is None and ended is not None:
        # One that never began is charged for nothing, which its provider tells when it has ended.
        least = min(known.least, status.least_seconds)
        draft.put_rental(replace(known, until=max(known.since, ended), least=least))
    elif known is not None and known.until is None and known.expires != status.expires and _is_armed(draft, status):
        draft.put_rental(replace(known, expires=status.expires))


def _is_armed(draft: Draft, status: InstanceStatus) -> bool:
    """Whether this machine itself has said that it will end in time."""
    node, view = draft.state.nodes[status.node], draft.seen.hosts.get(status.node)
    return view is not None and view.armed and node.state == "running" and node.instance_id == status.instance_id


def _when_ended(draft: Draft, node: NodeRecord, status: InstanceStatus, rental: RentalRecord | None) -> float:
    """As its provider says. One that ended itself while nobody looked did so when it had been idle, at the latest.

    While it is heard it is not idle. Until when it worked is not known of one that did: then its life is the bound.
    """
    if status.ended_at is not None:
        return status.ended_at
    latest = draft.seen.now if rental is None else _at_latest(draft, rental)
    idle = current_offer(node).keep
    mine = [job for job in draft.state.jobs.values() if job.node == node.name]
    view = draft.seen.hosts.get(node.name) if node.instance_id == status.instance_id else None
    if not idle or any(job.state == RUNNING for job in mine) or (view is not None and view.connected):
        return latest
    wait = idle + SWITCH_SECONDS + (RESULTS_WAIT if any(job.fetch == "wanted" for job in mine) else 0.0)
    told = [at for job in mine for at in (job.handed_at, job.started_at, job.ended_at) if at is not None]
    heard = view.since if view is not None and view.boot else 0.0  # of none that only an earlier maestro has heard
    return min(latest, max([node.created_at, heard, *told]) + wait)


def _at_latest(draft: Draft, rental: RentalRecord) -> float:
    """Until when a machine that is gone was there, where nobody tells when it ended."""
    return draft.seen.now if rental.expires is None else min(draft.seen.now, rental.expires + LATE)


def end_rental(draft: Draft, instance_id: str) -> None:
    """This run pays no longer for the machine: it waits for another one, or its provider has forgotten it."""
    for rental in draft.all_rentals():
        if rental.instance_id == instance_id and rental.until is None:
            draft.put_rental(replace(rental, until=max(rental.since, _at_latest(draft, rental))))


def begin_waiting(draft: Draft, node: NodeRecord) -> None:
    """The run that keeps a machine pays for its waiting as well; see costs.clip_waiting for when that ends sooner."""
    seconds = current_offer(node).keep
    for rental in draft.all_rentals():
        if rental.instance_id == node.instance_id and rental.until is None:
            since = max(draft.seen.now, rental.since + rental.least)
            until = max(since, draft.seen.now + seconds)
            name = f"{rental.id} waiting"
            draft.put_rental(
                replace(rental, id=name, since=since, until=until, least=0.0, waiting=True, kept_at=draft.seen.now)
            )


def keep_budget(draft: Draft) -> None:
    """Drain the run before its money is spent, then end what still runs. What is given up says why."""
    budget = draft.run.budget
    if budget is None:
        _end_leases(draft)
        return
    cost = run_cost(draft.all_rentals(), draft.seen.now)
    if not draft.run.stopped and _is_draining(draft, budget, cost.total, cost.per_hour):
        draft.new_run = replace(draft.run, stopped=f"the budget of {describe_dollars(budget)} is spent")
        _give_up(draft, draft.state.jobs, everything=False)
    if draft.run.stopped:
        # What was opened again since, and what runs: no machine holds more than a bounded number of attempts.
        opened = [number for jobs in draft.state.ready.values() for number in jobs]
        handed_out = [number for jobs in draft.state.on_node.values() for number in jobs]
        spent = cost.total >= budget * (1 - LEAST_RESERVE)
        _give_up(draft, [*draft.jobs, *opened, *handed_out], everything=spent)
    if cost.per_hour:
        _wake(draft, budget - cost.total, cost.per_hour)
        _lease(draft, (budget - cost.total) / cost.per_hour * 3600)


def _is_draining(draft: Draft, budget: float, spent: float, per_hour: float) -> bool:
    """Whether another job of the usual length would end after the money."""
    reserve = max(budget * LEAST_RESERVE, per_hour * (draft.state.mean_duration or 0.0) / 3600)
    return spent > 0 and (spent + min(reserve, budget / 2) >= budget or spent + _next_least(draft, per_hour) > budget)


def _next_least(draft: Draft, per_hour: float) -> float:
    """What the next machine costs at the least; nothing while one is paid for."""
    if per_hour or not draft.state.unfinished:
        return 0.0
    prices = [node.price for node in draft.all_nodes() if node.state == "wanted" and node.price is not None]
    return _least_cost(draft, min(prices, default=0.0))


def _least_cost(draft: Draft, price: float) -> float:
    return price * max((offer.least for node in draft.all_nodes() for offer in node.offers), default=0.0) / HOUR


def pays_for(draft: Draft, price: float | None) -> bool:
    """Whether the budget has what a further machine of this price costs at the least."""
    budget = draft.run.budget
    spent = run_cost(draft.all_rentals(), draft.seen.now).total
    return budget is None or (not draft.run.stopped and spent + _least_cost(draft, price or 0.0) < budget)


def _give_up(draft: Draft, numbers: Iterable[int], *, everything: bool) -> None:
    for number in list(numbers):
        job = draft.jobs.get(number) or draft.state.jobs[number]
        if not job.final and not job.cancel and (everything or job.state == PENDING or job.started_at is None):
            cancel_job(draft, number)


def _wake(draft: Draft, left: float, per_hour: float) -> None:
    """In time for what comes next; the shorter the rest, the finer the step."""
    seconds = left / per_hour * 3600
    draft.wake(draft.seen.now + max(1.0, min(60.0, seconds / 2)))


def _lease(draft: Draft, seconds: float) -> None:
    """Each machine is told when the money ends, so that it ends itself with every client dead."""
    until = draft.seen.now + max(0.0, seconds)
    for node in draft.all_nodes():
        view = draft.seen.hosts.get(node.name)
        if node.state != "running" or view is None or not view.connected or not view.armed:
            continue
        moved = node.lease is None or abs(node.lease - until) >= draft.policy.lease_step
        if moved:
            draft.put_node(replace(node, lease=until))
        if moved or view.reported is not None:
            draft.actions.append(LeaseHost(node.name, max(0.0, seconds)))


def _end_leases(draft: Draft) -> None:
    """A machine that an earlier run has left may have been told when that one's money ended."""
    for node in draft.all_nodes():
        view = draft.seen.hosts.get(node.name)
        if node.state == "running" and view is not None and view.leased and view.reported is not None:
            draft.actions.append(LeaseHost(node.name, None))

"""What runs, their machines and their jobs have cost: from the ledger of rentals, without asking anybody."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cloudsend_cli.core.cost_shares import Execution, divide_costs, plan_execution
from cloudsend_cli.core.cost_views import JobCost, MachineCost, RunCost
from cloudsend_cli.core.costs import NO_COST, paid_seconds, rental_cost, run_cost
from cloudsend_cli.core.model import PENDING, UNBOUNDED
from cloudsend_cli.core.naming import job_id
from cloudsend_cli.core.offers import current_offer
from cloudsend_cli.core.paid import Paid, own_cost
from cloudsend_cli.core.renting import Kind, is_rented_node, parse_note
from cloudsend_cli.core.state import JobRecord, RentalRecord, RunState
from cloudsend_cli.core.views import run_state_word
from cloudsend_cli.engine import lookup
from cloudsend_cli.engine.bills import list_bills
from cloudsend_cli.errors import MaestroError
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.store.tables import RunRow

from .directory import Directory


def list_run_costs(home: Directory, limit: int | None) -> list[RunCost]:
    """Runs that rented anything, the newest first."""
    with suppress(MaestroError):  # what it has cost can be told without
        home.carry_on_rented()
    store = home.reader()
    rentals, now = store.list_rentals(), time.time()
    rows = [row for row in store.list_runs() if row.run.id in rentals]
    return [_run_cost(row, rentals[row.run.id], now) for row in rows[:limit]]


def list_lone_costs(home: Directory) -> list[MachineCost]:
    """Machines that were rented, or started again, by hand: the time for which no run pays."""
    now = time.time()
    bills = list_bills(home.path).values()
    rentals = [rental for each in home.reader().list_rentals().values() for rental in each] if bills else []
    costs = [_lone_cost(bill, rentals, now) for bill in bills if bill.periods]
    return [cost for cost in costs if cost.seconds > 0]


def _lone_cost(bill: Paid, rentals: Sequence[RentalRecord], now: float) -> MachineCost:
    seconds, cost = own_cost(bill, rentals, now)
    return MachineCost(
        name=bill.node,
        instance_id=bill.instance_id,
        provider=bill.provider,
        kind=Kind(bill.type, bill.place, bill.market),
        price=bill.periods[-1].price,
        since=bill.periods[0].since,
        until=bill.until,
        seconds=seconds,
        cost=cost,
    )


def find_run_cost(home: Directory, ref: str, *, jobs: bool) -> RunCost:
    with suppress(MaestroError):
        home.carry_on_rented()
    store = home.reader()
    row = store.run_row(lookup.find_run(store, ref))
    rentals, now = store.list_rentals(row.run.id).get(row.run.id, []), time.time()
    costs = tuple(_list_job_costs(store, store.load(row.run.id), rentals, now)) if jobs else None
    return _run_cost(row, rentals, now, costs)


def find_job_cost(home: Directory, ref: str) -> JobCost | None:
    """None: its run has rented nothing."""
    store = home.reader()
    row = lookup.find_job(store, ref)
    rentals = store.list_rentals(row.run).get(row.run, [])
    if not rentals:
        return None
    state = store.load(row.run)
    (found,) = _job_costs(store, state, [state.jobs[row.number]], rentals, time.time())
    return found


def _run_cost(
    row: RunRow, rentals: Sequence[RentalRecord], now: float, jobs: tuple[JobCost, ...] | None = None
) -> RunCost:
    return RunCost(
        run=row.run.id,
        project=row.run.project,
        state=run_state_word(row.counts),
        cost=run_cost(rentals, now),
        budget=row.run.budget,
        created_at=row.run.created_at,
        machines=tuple(_machine_cost(rental, now) for rental in rentals if not _never_waited(rental, now)),
        jobs=jobs,
    )


def _never_waited(rental: RentalRecord, now: float) -> bool:
    """Whether the machine was taken, or given back, before its waiting was paid for."""
    over = rental.until is not None and rental.until <= now
    return rental.waiting and over and not paid_seconds(rental, now)


def _machine_cost(rental: RentalRecord, now: float) -> MachineCost:
    goes_on = rental.until is None or rental.until > now
    return MachineCost(
        name=rental.node,
        instance_id=rental.instance_id,
        provider=rental.provider,
        kind=parse_note(rental.note),
        price=rental.price,
        since=min(rental.since, now),  # what was paid for before may end later
        until=None if goes_on else rental.until,
        waiting=rental.waiting,
        waits_until=rental.until if rental.waiting and goes_on else None,
        seconds=paid_seconds(rental, now),
        cost=rental_cost(rental, now),
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """Of a run's machines: how many wait for the next run, for how long without use, and how many are ending.

    `troubles`: what the provider says instead of taking machines back, by machine.
    """

    machines: int = 0
    seconds: float = 0.0
    ending: int = 0
    troubles: tuple[tuple[str, str], ...] = ()


def count_kept(home: Directory, run: str) -> Kept:
    """As the run has left them; nobody is asked."""
    nodes = [node for node in home.reader().load_without_jobs(run).nodes.values() if is_rented_node(node)]
    kept = [node for node in nodes if node.state == "keeping" or (node.state == "released" and node.kept)]
    seconds = min((current_offer(node).keep for node in kept or nodes), default=0.0)
    ending = sum(node.state in {"running", "releasing", "creating"} for node in nodes)
    return Kept(len(kept), seconds, ending, tuple((node.name, node.trouble) for node in nodes if node.trouble))


# ---- jobs ----------------------------------------------------------------------------------------------------------


def _list_job_costs(store: SqliteStore, state: RunState, rentals: Sequence[RentalRecord], now: float) -> list[JobCost]:
    """The dearest first."""
    started = [job for job in state.jobs.values() if job.attempt]
    return sorted(_job_costs(store, state, started, rentals, now), key=lambda job: -job.cost.total)


def _job_costs(
    store: SqliteStore, state: RunState, wanted: Sequence[JobRecord], rentals: Sequence[RentalRecord], now: float
) -> Iterator[JobCost]:
    """Of all that were started, as machines are divided among those that ran beside each other."""
    executions = {job.number: list(_list_executions(store, state, job)) for job in state.jobs.values() if job.attempt}
    costs = divide_costs(itertools.chain.from_iterable(executions.values()), rentals, now)
    for job in wanted:
        own = executions.get(job.number, ())
        seconds = sum((now if e.ended is None else e.ended) - e.started for e in own)
        number = job_id(state.run.id, job.number)
        cost = costs.get(job.number, NO_COST)
        yield JobCost(number, job.spec.name, job.state, job.attempt, seconds, cost)


def _list_executions(store: SqliteStore, state: RunState, job: JobRecord) -> Iterator[Execution]:
    for name, started, ended in _list_times(store, state.run.id, job):
        node = state.nodes.get(name)
        # Of the machine that the node is now: the rentals do not say what earlier ones had.
        capacity = node.capacity if node is not None else UNBOUNDED
        yield plan_execution(job.number, job.resources, capacity, name, started, ended)


def _list_times(store: SqliteStore, run: str, job: JobRecord) -> Iterator[tuple[str, float, float | None]]:
    """(node, started, ended) of each attempt."""
    open_again = job.state == PENDING  # its newest attempt is history as well
    for earlier in store.history(run, job.number) if job.attempt > 1 or open_again else ():
        if earlier.started_at is not None and (open_again or earlier.attempt != job.attempt):
            yield earlier.node, earlier.started_at, earlier.ended_at or earlier.started_at
    if not open_again and job.node and job.started_at is not None:
        yield job.node, job.started_at, job.ended_at if job.final else None

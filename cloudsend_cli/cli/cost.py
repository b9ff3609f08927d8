"""`cost`: what runs, machines and jobs have cost so far, or in all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cloudsend_cli.errors import UsageError

from .machines import RENTED, list_paid, rate_text
from .parameters import RUN_HELP, Most, whole_number
from .render import Column, Listing, Screen, column, duration, plural
from .sanitise import one_line
from .session import Session, session_of

if TYPE_CHECKING:
    from cloudsend_cli.core.cost_views import MachineCost, RunCost
    from cloudsend_cli.core.costs import Cost
    from cloudsend_cli.core.machine_views import InstanceView

RUNS_SHOWN = 10
JOBS_SHOWN = 1000


def dollars(cost: Cost) -> str:
    from cloudsend_cli.core.costs import describe_dollars

    if cost.unknown and not cost.total:
        return "unknown"
    return describe_dollars(cost.total) + (" and more" if cost.unknown else "")


def rate(price: float | None) -> str:
    from cloudsend_cli.core.costs import describe_rate

    return describe_rate(price)


def _now(run: RunCost, screen: Screen) -> str:
    return rate(run.cost.per_hour) if run.cost.per_hour else ""


def _budget(run: RunCost, screen: Screen) -> str:
    from cloudsend_cli.core.costs import describe_dollars

    return "" if run.budget is None else describe_dollars(run.budget)


def _until(machine: MachineCost, screen: Screen) -> str:
    return "now" if machine.until is None or machine.until > screen.now else screen.moment(machine.until)


RUN_COSTS = Listing(
    "runs that rented anything",
    (
        column("RUN", "run"),
        column("PROJECT", "project"),
        column("STATE", "state"),
        Column("COST", lambda run, screen: dollars(run.cost)),
        Column("NOW", _now),
        Column("BUDGET", _budget),
        Column("MACHINES", lambda run, screen: str(len({machine.instance_id for machine in run.machines}))),
        Column("CREATED", lambda run, screen: screen.moment(run.created_at)),
    ),
    lambda run: str(run.run),
)
MACHINE_COSTS = Listing(
    "machines",
    (
        Column("MACHINE", lambda machine, screen: machine.name + (", waiting" if machine.waiting else "")),
        Column("TYPE", lambda machine, screen: machine.kind.type),
        Column("MARKET", lambda machine, screen: machine.kind.market),
        Column("PLACE", lambda machine, screen: machine.kind.place),
        Column("PRICE", lambda machine, screen: rate(machine.price)),
        Column("TIME", lambda machine, screen: duration(machine.seconds)),
        Column("COST", lambda machine, screen: dollars(machine.cost)),
        Column("SINCE", lambda machine, screen: screen.moment(machine.since)),
        Column("UNTIL", _until),
        column("ID", "instance_id"),
    ),
    lambda machine: str(machine.instance_id),
)
ALONE_COSTS = replace(
    MACHINE_COSTS, columns=(replace(MACHINE_COSTS.columns[0], header="RENTED ALONE"), *MACHINE_COSTS.columns[1:])
)
JOB_COSTS = Listing(
    "jobs that were started",
    (
        column("JOB", "id"),
        column("NAME", "name"),
        column("STATE", "state"),
        column("ATTEMPTS", "attempts"),
        Column("TIME", lambda job, screen: duration(job.seconds)),
        Column("COST", lambda job, screen: dollars(job.cost)),
    ),
    lambda job: str(job.id),
)


def cost(
    ctx: typer.Context,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=RUN_HELP)] = None,
    jobs: Annotated[bool, typer.Option("--jobs", help="Also each job's share of its machines.")] = False,
    limit: Most = None,
) -> None:
    """Show what a run has cost, by machine; alone: the newest runs, and what is rented now.

    Alone, it also tells of machines that were rented for no run, for the time for which no run paid.

    A run pays for a machine from its launch, or from when it took one that waited, until it ends or another run takes
    it. Prices are those of the machines; disks, addresses and traffic are not in them.
    """
    session = session_of(ctx)
    if run is None:
        if jobs:
            raise UsageError("the jobs of which run?", hint="cloudsend cost RUN --jobs")
        _show_all(session, whole_number(limit, "--limit"))
    else:
        _show_run(session, session.client.find_run_cost(run, jobs=jobs), whole_number(limit, "--limit"))


def _show_run(session: Session, found: RunCost, limit: int | None) -> None:
    screen = session.screen
    if screen.format in {"json", "yaml"}:
        screen.data(found.as_json())
        return
    if screen.machine:
        screen.list(found.machines if found.jobs is None else found.jobs, MACHINE_COSTS if found.jobs is None else
                    JOB_COSTS)  # fmt: skip
        return
    if not found.machines:
        screen.say(f"run {found.run} has rented nothing")
        return
    screen.list(found.machines, MACHINE_COSTS)
    if found.jobs is not None:
        most = limit if limit is not None else JOBS_SHOWN
        screen.write("\n")
        screen.list(found.jobs[:most], JOB_COSTS)
        if len(found.jobs) > most:
            screen.say(f"{most:,} of {plural(len(found.jobs), 'job')}, the dearest first; -o csv for all")
    screen.out.flush()
    screen.say(one_line(total_text(found)))


def total_text(found: RunCost) -> str:
    """Such as `run ab12cd: $1.20, $0.42/h now, of a budget of $20.00; $0.31 of it while no job ran`."""
    from cloudsend_cli.core.costs import describe_cost, describe_dollars

    text = f"run {found.run}: {describe_cost(found.cost)}"
    if found.budget is not None:
        text += f", of a budget of {describe_dollars(found.budget)}"
    if found.unused:
        text += f"; {describe_dollars(found.unused)} of it while machines started, were set up or waited"
    return text


def _show_all(session: Session, limit: int | None) -> None:
    screen = session.screen
    runs = session.client.list_run_costs(limit if limit is not None else RUNS_SHOWN)
    remarks: list[str] = []
    machines = [m for m in session.client.list_instances(note=remarks.append) if m.rental is not None]
    alone = session.client.list_lone_costs()  # ORDER: after their providers were asked
    if screen.format in {"json", "yaml"}:
        screen.data(
            {
                "runs": [run.as_json() for run in runs],
                "alone": [machine.as_json() for machine in alone],
                "instances": [machine.as_json() for machine in machines],
                "cost_per_hour": round(_rate_of(machines), 6),
                "remarks": remarks,
            }
        )
        return
    for remark in remarks:
        screen.warn(remark)
    screen.list(runs, RUN_COSTS)
    if screen.machine:
        return
    if alone:
        screen.write("\n" if runs else "")
        screen.list(alone, ALONE_COSTS)
        screen.out.flush()
        screen.say(f"machines of no run: {_sum_text(alone)}")
    if machines:
        if runs or alone:
            screen.write("\n")
        screen.list(machines, RENTED)
        screen.say(rate_text(machines))
    elif runs:
        screen.say("nothing is rented now, as far as is known" if remarks else "nothing is rented now")


def _sum_text(machines: list[MachineCost]) -> str:
    from cloudsend_cli.core.costs import NO_COST, describe_cost

    total = NO_COST
    for machine in machines:
        total = total.plus(machine.cost)
    return describe_cost(total)


def _rate_of(machines: list[InstanceView]) -> float:
    return sum(rental.price for rental in list_paid(machines) if rental.price is not None)

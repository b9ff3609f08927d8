"""`create`, `terminate`, `start`, `stop`: machines that are claimed, or rented, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cloudsend_cli.errors import CloudsendError, UsageError

from .listing import show_one
from .machines import choose_listing, price_text
from .parameters import Instances, Yes, confirm
from .render import iso_seconds, plural
from .sanitise import one_line
from .session import Session, session_of

if TYPE_CHECKING:
    from cloudsend_cli.core.machine_views import InstanceView
    from cloudsend_cli.core.model import Rented
    from cloudsend_cli.engine.claiming import Released

Force = Annotated[
    bool, typer.Option("--force", help="Also a machine that a run uses: its jobs there are lost, and done elsewhere.")
]


def create_instance(
    ctx: typer.Context,
    provider: Annotated[
        str | None, typer.Option("--provider", "-p", metavar="P", help="Where to take it from.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Which: host=NAME, labels, type=T, cpus=8+, memory=16GB+, gpu=1, spot."
        ),
    ] = None,
) -> None:
    """Rent one machine, or claim one of your own, and keep it until it is terminated.

    A rented machine belongs to no run: the next run of the same project takes it if it fits. It ends itself when it is
    idle. A claimed one is used by nobody else's cloudsend meanwhile, unless it is declared `shared: true`.
    """
    session = session_of(ctx)
    screen = session.screen
    if provider is None:
        raise UsageError("create an instance of which provider?", hint="cloudsend create instance -p PROVIDER")
    try:
        machine = session.client.create_instance(provider, set_ or (), note=lambda text: screen.say(one_line(text)))
    except KeyboardInterrupt:
        screen.say("\ninterrupted; what was rented goes on: the same command waits for it, `cloudsend list instances`")
        raise
    if screen.machine:
        show_one(session, machine, choose_listing([machine]))
        return
    screen.list([machine], choose_listing([machine]))
    screen.say(_created_text(machine))


def _created_text(machine: InstanceView) -> str:
    name = one_line(machine.name)
    rental = machine.rental
    if rental is None:
        return f"claimed, until `cloudsend terminate instance {name}`"
    from cloudsend_cli.core.renting import describe_idle

    late = f", at the latest {iso_seconds(rental.expires)}" if rental.expires is not None else ""
    return (
        f"rented for {price_text(machine)}; it ends itself {describe_idle(rental.idle)}{late}\n"
        f"  cloudsend ssh {name}\n"
        f"  cloudsend run …   of the project {one_line(rental.project)} takes it, where it fits\n"
        f"  cloudsend terminate instance {name}   gives it back"
    )


# ---- give back -----------------------------------------------------------------------------------------------------


def terminate_instance(  # noqa: PLR0913, PLR0917 - one for each option
    ctx: typer.Context,
    instance: Annotated[list[str] | None, typer.Argument(metavar="INSTANCE…", help="Their names or ids.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All rented machines but those of runs that are not over.")
    ] = False,
    yes: Yes = False,
    force: Force = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Also where it does not answer: only this side forgets the claim.")
    ] = False,
    gone: Annotated[
        bool,
        typer.Option("--gone", help="Your word that it never answers again: its jobs are lost, and done elsewhere."),
    ] = False,
) -> int:
    """Give machines back. A rented one ends, with all that is on it; on a claimed one nothing is ended.

    A rented machine that a run uses is refused: `cloudsend kill run` ends the run, and lets its machines go.
    """
    session = session_of(ctx)
    session.screen.refuse("csv", "name")
    if all_:
        if instance:
            raise UsageError("give names or --all, not both")
        return _terminate_all(session, yes=yes, force=force)
    if not instance:
        raise UsageError("terminate which instance?", hint="`cloudsend list instances` shows those that there are")
    if gone:
        for name in instance:
            for run in session.client.give_up(session.client.find_instance(name).name):
                session.screen.say(one_line(f"{name} is given up in run {run}"))
    batch = _Batch(session, silent=gone)
    for name in instance:
        batch.add(partial(session.client.terminate_instance, name, forget=forget or gone, force=force or gone))
    return batch.finish()


def _terminate_all(session: Session, *, yes: bool, force: bool) -> int:
    screen = session.screen
    machines = session.client.list_terminable(force=force, note=screen.warn)
    if not machines:
        screen.say("nothing is rented" if force else "nothing is rented but what runs use")
        if screen.machine:
            screen.data([])
        return 0
    if not yes:
        _ask(session, machines)
    batch = _Batch(session, silent=False)
    for machine in machines:
        batch.add(partial(session.client.terminate_rented, machine))
    return batch.finish()


def _ask(session: Session, machines: list[Rented]) -> None:
    from cloudsend_cli.core.costs import describe_rate

    screen = session.screen
    for machine in machines:
        what = ", ".join(filter(None, (machine.type, machine.market, machine.region, describe_rate(machine.price))))
        screen.say(f"  {one_line(machine.instance_id)}  {one_line(what)}")
    if screen.machine or not screen.err_tty or not sys.stdin.isatty():
        raise UsageError(
            f"{_them(machines)}; nothing was ended",
            hint="--yes ends them without a question, which is needed where no terminal is attached",
        )
    if not confirm(session, f"{_them(machines)}. Do it?", default=False):
        raise UsageError("nothing was ended")


def _them(machines: list[Rented]) -> str:
    return f"{plural(len(machines), 'machine')} would end with all that is on {'it' if len(machines) == 1 else 'them'}"


class _Batch:
    """Each machine by itself: one that cannot be given back does not keep the others."""

    def __init__(self, session: Session, *, silent: bool) -> None:
        self._session = session
        self._silent = silent
        self._done: list[Released] = []
        self._problems: list[CloudsendError] = []

    def add(self, work: Callable[[], Released]) -> None:
        screen = self._session.screen
        try:
            one = work()
        except CloudsendError as problem:
            self._problems.append(problem)
            return
        self._done.append(one)
        if not screen.machine and (one.was_claimed or not self._silent):
            screen.write(one_line(_release_text(one)))
            screen.out.flush()

    def finish(self) -> int:
        screen = self._session.screen
        if screen.machine:
            screen.data([one.as_json() for one in self._done])
        for problem in self._problems[:-1]:
            screen.say(f"error: {problem.message}", color="red")
        if self._problems:
            raise self._problems[-1]
        return 0


def _release_text(one: Released) -> str:
    from cloudsend_cli.core.costs import describe_dollars, describe_rate

    if one.rented:
        name = one.name if one.name == one.instance_id else f"{one.name} ({one.instance_id})"
        if not one.was_claimed:
            return f"{name} has ended already"
        cost = "it" if one.cost is None else f"it has cost {describe_dollars(one.cost)}, and"
        return f"{name} ends; {cost} was {describe_rate(one.price)}"
    text = f"{one.name} is given back" if one.was_claimed else f"{one.name} was not claimed"
    left = [f"{plural(one.running, 'job')} of yours"] if one.running else []
    left += [f"{one.queued} of yours that wait"] if one.queued else []
    left += [f"{plural(one.others, 'job')} of others"] if one.others else []
    return f"{text}; {' and '.join(left)} go on there" if left else text


# ---- power ---------------------------------------------------------------------------------------------------------


def start_instance(ctx: typer.Context, instance: Instances) -> None:
    """Start rented machines that were stopped. Machines of your own are not cloudsend's to switch on or off."""
    session = session_of(ctx)
    _show(session, [session.client.start_instance(name) for name in instance])


def stop_instance(ctx: typer.Context, instance: Instances, force: Force = False) -> None:
    """Stop rented machines and keep their disks, which still cost a little. Spot machines cannot be stopped."""
    session = session_of(ctx)
    _show(session, [session.client.stop_instance(name, force=force) for name in instance])


def _show(session: Session, machines: list[InstanceView]) -> None:
    session.screen.list(machines, choose_listing(machines))

"""`list`, `info`, `ssh`: machines, and the providers that they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cloudsend_cli.errors import UsageError

from .listing import say_if_unwatched, show_one
from .parameters import Instance, OfProvider, OfRun, Provider
from .render import Column, Listing, Screen, column, duration, iso_seconds, plural
from .sanitise import log_text
from .session import session_of

if TYPE_CHECKING:
    from cloudsend_cli.core.machine_views import InstanceView, ProviderHost, ProviderView, RentalView
    from cloudsend_cli.core.model import Resources

UNPAID = frozenset({"wanted", "stopping", "stopped", "ending", "terminated", "released", "failed"})
CONSOLE_LINES = 40
RUNS_LOOKED_AT = 50  # of those that use the machines, for the word that nobody carries them on
BOOT_TIME = 180.0  # seconds in which most machines can be logged in to


def machine_word(machine: InstanceView, screen: Screen) -> str:
    """Its state; `unknown` is laid over `running` while it does not answer."""
    if machine.state == "running" and machine.connected is False:
        return "unknown" + (f" for {duration(screen.now - machine.since)}" if machine.since else "")
    return machine.state


def _size(resources: Resources | None) -> str:
    from cloudsend_cli.core.explain import describe

    return describe(resources) if resources is not None else ""


def _jobs(machine: InstanceView) -> str:
    return f"{machine.running} and {machine.queued} waiting" if machine.queued else str(machine.running)


def _age(machine: InstanceView, screen: Screen) -> str:
    since = machine.rental.since if machine.rental is not None else None
    return "" if since is None else duration(screen.now - since)


def price_text(machine: InstanceView) -> str:
    from cloudsend_cli.core.costs import describe_rate

    return "" if machine.rental is None else describe_rate(machine.rental.price)


def cost_text(machine: InstanceView) -> str:
    from cloudsend_cli.core.costs import describe_dollars

    cost = machine.rental.cost if machine.rental is not None else None
    return "" if cost is None else "unknown" if cost.unknown else describe_dollars(cost.total)


def _kind(part: str) -> Callable[[InstanceView, Screen], str]:
    return lambda machine, screen: getattr(machine.rental.kind, part) if machine.rental is not None else ""


_NAME = (column("NAME", "name"), column("PROVIDER", "provider"), Column("STATE", machine_word))
_SIZE = (Column("HAS", lambda machine, screen: _size(machine.capacity)), column("IN USE", "in_use"))
_LOAD = Column("LOAD", lambda machine, screen: "" if machine.load is None else f"{machine.load:.1f}")
_WORK = (
    Column("JOBS", lambda machine, screen: _jobs(machine)),
    Column("RUNS", lambda machine, screen: ", ".join(machine.runs)),
    column("REMARK", "remark", prose=True),
)
_MORE = (
    column("CLAIMED", "claimed", wide=True),
    column("OTHERS", "others", wide=True),
    column("ID", "instance_id", wide=True),
    column("CONNECTED", "connected", wide=True),
    Column("SINCE", lambda machine, screen: screen.moment(machine.since), wide=True),
)
INSTANCES = Listing("instances", (*_NAME, *_SIZE, _LOAD, *_WORK, *_MORE), lambda machine: str(machine.name))
RENTED = Listing(
    "instances",
    (
        *_NAME,
        Column("TYPE", _kind("type")),
        Column("MARKET", _kind("market")),
        Column("PRICE", lambda machine, screen: price_text(machine)),
        Column("AGE", _age),
        Column("COST", lambda machine, screen: cost_text(machine)),
        *_WORK,
        Column("PLACE", _kind("place"), wide=True),
        Column("EXPIRES", lambda machine, screen: _expires(machine), wide=True),
        *(replace(one, wide=True) for one in (*_SIZE, _LOAD)),
        *_MORE,
    ),
    lambda machine: str(machine.name),
)


def _expires(machine: InstanceView) -> str:
    at = machine.rental.expires if machine.rental is not None else None
    return "" if at is None else iso_seconds(at)


def choose_listing(machines: Iterable[InstanceView]) -> Listing:
    """Where nothing is rented, nothing is said of money."""
    return RENTED if any(machine.rental is not None for machine in machines) else INSTANCES


PROVIDERS = Listing(
    "providers",
    (
        column("NAME", "name"),
        column("TYPE", "type"),
        column("STATUS", "status"),
        Column("HAS", lambda provider, screen: provider_size(provider)),
        column("FILE", "file", wide=True),
    ),
    lambda provider: str(provider.name),
)


def provider_size(provider: ProviderView) -> str:
    """What it has, or how many machines it names."""
    return provider.capacity or (plural(len(provider.hosts), "host") if provider.hosts else "")


# ---- list ----------------------------------------------------------------------------------------------------------


def list_instances(ctx: typer.Context, run: OfRun = None, provider: OfProvider = None) -> None:
    """List machines in use, machines that are claimed, and all that are rented, each once."""
    session = session_of(ctx)
    screen = session.screen
    machines = session.client.list_instances(run, provider, note=screen.warn)
    screen.list(machines, choose_listing(machines))
    rented = any(machine.rental is not None for machine in machines)
    if rented and not screen.machine:
        screen.say(rate_text(machines))
    # Where a run has rented machines, listing them has started a maestro.
    runs = {run for machine in machines for run in machine.runs} if not rented else set()
    say_if_unwatched(
        session, [view for view in session.client.list_runs(RUNS_LOOKED_AT) if view.id in runs] if runs else ()
    )


def list_paid(machines: Iterable[InstanceView]) -> list[RentalView]:
    """Of those that cost something now. One that is asked for is none until its provider has named it."""
    rentals = [m.rental for m in machines if m.state not in UNPAID and (m.instance_id or m.state != "creating")]
    return [rental for rental in rentals if rental is not None]


def rate_text(machines: Iterable[InstanceView]) -> str:
    """Such as `2 rented machines cost $0.42/h together`."""
    from cloudsend_cli.core.costs import describe_rate

    paid = list_paid(machines)
    prices = [rental.price for rental in paid if rental.price is not None]
    if not paid:
        return "nothing that is rented runs now"
    unknown = f", and {len(paid) - len(prices)} of unknown price" if len(prices) < len(paid) else ""
    together = " together" if len(prices) > 1 else ""
    verb = "costs" if len(prices) == 1 else "cost"
    return f"{plural(len(prices), 'rented machine')} {verb} {describe_rate(sum(prices))}{together}{unknown}"


def list_providers(ctx: typer.Context) -> None:
    """List where machines come from: this machine, and what providers.yml names."""
    session = session_of(ctx)
    session.screen.list(session.client.list_providers(), PROVIDERS)


# ---- info ----------------------------------------------------------------------------------------------------------


def info_instance(
    ctx: typer.Context,
    instance: Instance,
    console: Annotated[
        bool, typer.Option("--console", help="Also what a rented machine wrote while it started.")
    ] = False,
) -> None:
    """Show a machine: what it has, what it does, and what it costs."""
    session = session_of(ctx)
    found = session.client.find_instance(instance, ask=True)
    screen = session.screen
    wrote = session.client.fetch_console(found) if console or _never_came_up(found, screen) else None
    if screen.machine:
        show_one(session, found, choose_listing([found]), {"console": wrote})
        return
    connected = {True: "yes", False: "no answer", None: "unknown: no maestro is running"}[found.connected]
    screen.facts(
        [
            ("name", found.name),
            ("provider", found.provider),
            ("id", found.instance_id),
            ("state", machine_word(found, screen)),
            *_money_facts(found, screen),
            ("claimed", "yes, until `cloudsend terminate instance`" if found.claimed else ""),
            ("has", _size(found.capacity)),
            ("in use", found.in_use),
            ("load", "" if found.load is None else f"{found.load:.1f}"),
            ("runs", ", ".join(found.runs)),
            ("jobs", _jobs(found)),
            ("others", f"{plural(found.others, 'job')} of other users or state directories" if found.others else ""),
            ("connected", connected if found.runs or found.connected is not None else ""),
            ("since", screen.moment(found.since)),
            ("remark", found.remark),
        ]
    )
    if wrote is not None:
        lines = log_text(wrote.encode("utf-8", "replace")).splitlines()[-CONSOLE_LINES:]
        screen.write("\nconsole:" + ("" if lines else " nothing yet"))
        screen.write("".join(f"  | {line}\n" for line in lines))


def _money_facts(found: InstanceView, screen: Screen) -> list[tuple[str, str]]:
    rental = found.rental
    if rental is None:
        return []
    kind = rental.kind
    return [
        ("type", ", ".join(filter(None, (kind.type, kind.market, kind.place)))),
        ("price", price_text(found)),
        ("rented", screen.moment(rental.since)),
        ("age", _age(found, screen)),
        ("cost", cost_text(found)),
        ("ends itself", _ends_itself(rental) if rental.expires else ""),
        ("project", rental.project),
    ]


def _ends_itself(rental: RentalView) -> str:
    from cloudsend_cli.core.renting import describe_idle

    late = f", and at the latest {iso_seconds(rental.expires)}" if rental.expires is not None else ""
    return describe_idle(rental.idle) + late


def _never_came_up(found: InstanceView, screen: Screen) -> bool:
    """Whether it had time enough to begin, and nobody has reached it."""
    since = found.rental.since if found.rental is not None else None
    if since is None or screen.now - since < BOOT_TIME:
        return False
    silent = found.state in {"creating", "pending"} and not found.connected
    return silent or found.connected is False or found.remark == "never came up"


def info_provider(ctx: typer.Context, provider: Provider) -> None:
    """Show where machines come from: its hosts, and the defaults of its machines with the line that says each."""
    session = session_of(ctx)
    found = session.client.find_provider(provider)
    if session.screen.machine:
        show_one(session, found, PROVIDERS)
        return
    screen = session.screen
    screen.facts(
        [
            ("name", found.name),
            ("type", found.type),
            ("status", found.status),
            ("has", found.capacity),
            ("file", found.file),
            *found.settings,
        ]
    )
    if found.hosts:
        screen.write("\n")
        screen.rows(("HOST", "ADDRESS", "HAS", "SETTINGS"), [_host_row(host) for host in found.hosts])
    if found.defaults:
        screen.write("\n")
        screen.rows(("DEFAULT", "VALUE", "ORIGIN"), found.defaults)


def _host_row(host: ProviderHost) -> tuple[str, str, str, str]:
    settings = ", ".join(f"{key}={value}" for key, value in host.settings)
    return host.name, host.host, _size(host.capacity) or "what is found there", settings


# ---- reach ----------------------------------------------------------------------------------------------------------


def ssh(ctx: typer.Context, instance: Instance) -> int:
    """Open a shell on a machine, or run the command after `--` there.

    INSTANCE is a machine of a run, one that is claimed or rented, or a host of providers.yml as PROVIDER/HOST or HOST.
    The exit status is that of the command. A rented machine does not end itself while a shell is open.
    """
    session = session_of(ctx)
    settings = session.settings
    if settings.has_command and not settings.command:
        raise UsageError("there is no command after --", hint="leave -- out for a shell")
    session.screen.out.flush()
    return session.client.open_shell(instance, settings.command)

"""`list`, `info`, `create`, `terminate`, `ssh`: machines, and the providers that they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cloudsend_cli.errors import UsageError

from .listing import show_one
from .parameters import Instance, Instances, OfProvider, OfRun, Provider
from .render import Column, Listing, Screen, column, duration, plural
from .sanitise import one_line
from .session import session_of

if TYPE_CHECKING:
    from cloudsend_cli.core.machine_views import InstanceView, ProviderHost, ProviderView
    from cloudsend_cli.core.model import Resources
    from cloudsend_cli.engine.claiming import Released


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


INSTANCES = Listing(
    "instances",
    (
        column("NAME", "name"),
        column("PROVIDER", "provider"),
        Column("STATE", machine_word),
        Column("HAS", lambda machine, screen: _size(machine.capacity)),
        column("IN USE", "in_use"),
        Column("LOAD", lambda machine, screen: "" if machine.load is None else f"{machine.load:.1f}"),
        Column("JOBS", lambda machine, screen: _jobs(machine)),
        Column("RUNS", lambda machine, screen: ", ".join(machine.runs)),
        column("REMARK", "remark"),
        column("CLAIMED", "claimed", wide=True),
        column("OTHERS", "others", wide=True),
        column("ID", "instance_id", wide=True),
        column("CONNECTED", "connected", wide=True),
        Column("SINCE", lambda machine, screen: screen.moment(machine.since), wide=True),
    ),
    lambda machine: str(machine.name),
)
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
    """List machines in use and machines that are claimed, each once."""
    session = session_of(ctx)
    session.screen.list(session.client.list_instances(run, provider), INSTANCES)


def list_providers(ctx: typer.Context) -> None:
    """List where machines come from: this machine, and what providers.yml names."""
    session = session_of(ctx)
    session.screen.list(session.client.list_providers(), PROVIDERS)


# ---- info ----------------------------------------------------------------------------------------------------------


def info_instance(ctx: typer.Context, instance: Instance) -> None:
    """Show a machine: what it has and what it does."""
    session = session_of(ctx)
    found = session.client.find_instance(instance, ask=True)
    if session.screen.machine:
        show_one(session, found, INSTANCES)
        return
    screen = session.screen
    connected = {True: "yes", False: "no answer", None: "unknown: no maestro is running"}[found.connected]
    screen.facts(
        [
            ("name", found.name),
            ("provider", found.provider),
            ("id", found.instance_id),
            ("state", machine_word(found, screen)),
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


# ---- claim, give back, reach ---------------------------------------------------------------------------------------


def create_instance(
    ctx: typer.Context,
    provider: Annotated[
        str | None, typer.Option("--provider", "-p", metavar="P", help="Where to take it from.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Which: host=NAME, labels, cpus=8+, memory=16GB+, gpu=1."),
    ] = None,
) -> None:
    """Claim one machine of a provider, and keep it until it is terminated.

    Nobody else's cloudsend uses it meanwhile, unless it is declared `shared: true`.
    """
    session = session_of(ctx)
    if provider is None:
        raise UsageError("create an instance of which provider?", hint="cloudsend create instance -p PROVIDER")
    machine = session.client.create_instance(provider, set_ or ())
    if session.screen.machine:
        show_one(session, machine, INSTANCES)
    else:
        session.screen.list([machine], INSTANCES)
        session.screen.say(f"claimed, until `cloudsend terminate instance {machine.name}`")


def terminate_instance(
    ctx: typer.Context,
    instance: Instances,
    forget: Annotated[
        bool, typer.Option("--forget", help="Also where it does not answer: only this side forgets the claim.")
    ] = False,
    gone: Annotated[
        bool,
        typer.Option("--gone", help="Your word that it never answers again: its jobs are lost, and done elsewhere."),
    ] = False,
) -> None:
    """Give back claimed machines. Nothing on them is ended."""
    session = session_of(ctx)
    session.screen.refuse("csv", "name")
    if gone:
        for name in instance:
            for run in session.client.give_up(session.client.find_instance(name).name):
                session.screen.say(one_line(f"{name} is given up in run {run}"))
    done = [session.client.terminate_instance(name, forget=forget or gone) for name in instance]
    if session.screen.machine:
        session.screen.data([one.as_json() for one in done])
        return
    for one in done:
        if one.was_claimed or not gone:
            session.screen.write(one_line(_release_text(one)))


def _release_text(one: Released) -> str:
    text = f"{one.name} is given back" if one.was_claimed else f"{one.name} was not claimed"
    left = [f"{plural(one.running, 'job')} of yours"] if one.running else []
    left += [f"{one.queued} of yours that wait"] if one.queued else []
    left += [f"{plural(one.others, 'job')} of others"] if one.others else []
    return f"{text}; {' and '.join(left)} go on there" if left else text


def refuse_power(ctx: typer.Context, instance: Instances) -> None:
    """Refused for machines of one's own, which cloudsend does not switch on or off."""
    session_of(ctx).client.refuse_power(instance[0])


def ssh(ctx: typer.Context, instance: Instance) -> int:
    """Open a shell on a machine, or run the command after `--` there; its exit status is passed on.

    INSTANCE is a machine of a run, one that is claimed, or a host of providers.yml as PROVIDER/HOST or HOST.
    """
    session = session_of(ctx)
    settings = session.settings
    if settings.has_command and not settings.command:
        raise UsageError("there is no command after --", hint="leave -- out for a shell")
    session.screen.out.flush()
    return session.client.open_shell(instance, settings.command)

"""Every command, by name. Parsing and help are Typer's; each function parses, asks the client and renders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from . import check, cost, gc, jobs, listing, machines, maestro, rebuild, rented, run, setup
from .groups import ListGroup, NounGroup, QuickCommand, VerbGroup

app = typer.Typer(
    cls=VerbGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,  # `cloudsend completion` is ours: it knows jobs, and works alike in the shell
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="cloudsend alone opens a shell. Nouns may be singular or plural. Also: ls, ps (list), rm (kill), "
    "logs (tail), status (getstate).",
)


@app.callback()
def cloudsend(
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FORMAT", help="table, wide, json, yaml, csv or name."),
    ] = None,
    state_dir: Annotated[
        str | None, typer.Option("--state-dir", metavar="DIR", help="Where the state is (~/.cloudsend).")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="The same as -o wide.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours, as with NO_COLOR.")] = False,
) -> None:
    """Run any script on any machine you can reach.

    The options are taken before and after a command.
    """
    # They are read by settings.take_settings, before Typer sees the line; here they are named for the help.


Commands = Iterable[tuple[str, Callable[..., Any]]]


def _add(group: typer.Typer, commands: Commands, *, hidden: bool = False) -> None:
    for name, function in commands:
        group.command(name, cls=QuickCommand, hidden=hidden)(function)


def _add_group(
    name: str,
    text: str,
    commands: Commands,
    cls: type[NounGroup] = NounGroup,
    *,
    unsaid: Commands = (),
    hidden: bool = False,
) -> None:
    """`unsaid` commands work, and no help names them."""
    group = typer.Typer(cls=cls, rich_markup_mode=None)
    app.add_typer(group, name=name, help=text, hidden=hidden)
    _add(group, commands)
    _add(group, unsaid, hidden=True)


_add(
    app,
    (
        ("run", run.run),
        ("wait", jobs.wait),
        ("tail", jobs.tail),
        ("fetch", jobs.fetch),
        ("cost", cost.cost),
        ("ssh", machines.ssh),
        ("gc", gc.gc),
        ("rebuild", rebuild.rebuild),
        ("getstate", listing.getstate),
        ("explain", listing.explain),
        ("init", setup.init),
        ("check", check.check),
        ("validate", setup.validate),
        ("completion", setup.completion),
        ("version", setup.version),
    ),
)
_add_group(
    "list",
    "List jobs, runs, instances, providers or environments. Alone: jobs.",
    (
        ("jobs", listing.list_jobs),
        ("runs", listing.list_runs),
        ("instances", machines.list_instances),
        ("providers", machines.list_providers),
        ("environments", listing.list_environments),
    ),
    ListGroup,
)
_add_group(
    "info",
    "Show all that is known of a job, run, instance or provider.",
    (
        ("job", listing.info_job),
        ("run", listing.info_run),
        ("instance", machines.info_instance),
        ("provider", machines.info_provider),
    ),
)
_add_group("create", "Rent a machine, or claim one of your own.", (("instance", rented.create_instance),))
_add_group("terminate", "Give machines back.", (("instance", rented.terminate_instance),))
_add_group("start", "Start rented machines that were stopped.", (("instance", rented.start_instance),))
_add_group(
    "stop",
    "Stop rented machines and keep their disks.",
    (("instance", rented.stop_instance),),
    unsaid=(("job", jobs.kill_jobs), ("run", jobs.kill_run)),
)
_add_group(
    "kill",
    "End jobs, or a run.",
    (("job", jobs.kill_jobs), ("run", jobs.kill_run)),
    unsaid=(("instance", rented.terminate_instance),),
)
_add_group("aws", "For accounts of AWS.", (("policy", gc.aws_policy),))
_add_group(
    "config",
    "Show what a config means, or its schema.",
    (("show", setup.config_show), ("schema", setup.config_schema)),
)
_add_group(
    "maestro",
    "Look at the background process that carries runs on.",
    (
        ("status", maestro.maestro_status),
        ("stop", maestro.maestro_stop),
        ("logs", maestro.maestro_logs),
        ("adopt", maestro.maestro_adopt),
    ),
)


@app.command("shell", cls=QuickCommand)
def open_shell(ctx: typer.Context) -> int:
    """Open the shell, as `cloudsend` alone does."""
    from . import shell
    from .session import session_of

    return shell.run_shell(session_of(ctx))

"""Every command, by name. Parsing and help are Typer's; each function parses, asks the client and renders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.main import get_command, get_group

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


# The function of each command, as MODULE.NAME.
_COMMANDS: Final = {
    "run": "run.run",
    "wait": "jobs.wait",
    "tail": "jobs.tail",
    "fetch": "jobs.fetch",
    "cost": "cost.cost",
    "ssh": "machines.ssh",
    "gc": "gc.gc",
    "rebuild": "rebuild.rebuild",
    "getstate": "listing.getstate",
    "explain": "listing.explain",
    "init": "setup.init",
    "check": "check.check",
    "validate": "setup.validate",
    "completion": "setup.completion",
    "version": "setup.version",
    "shell": "shell.open_shell",
}
_LIST: Final = {
    "jobs": "listing.list_jobs",
    "runs": "listing.list_runs",
    "instances": "machines.list_instances",
    "providers": "machines.list_providers",
    "environments": "listing.list_environments",
}
_INFO: Final = {
    "job": "listing.info_job",
    "run": "listing.info_run",
    "instance": "machines.info_instance",
    "provider": "machines.info_provider",
}
_KILL: Final = {"job": "jobs.kill_jobs", "run": "jobs.kill_run"}
_MAESTRO: Final = {
    "status": "maestro.maestro_status",
    "stop": "maestro.maestro_stop",
    "logs": "maestro.maestro_logs",
    "adopt": "maestro.maestro_adopt",
}


class Later(MutableMapping[str, Any]):
    """Commands by name. WHY: each is made, and its module loaded, when it is asked for: all at once take 40 ms."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = dict(makers)
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._makers[name] = lambda: command
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._makers[name]
        self._made.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def build_tree() -> Any:
    """The app with its commands, as the object that parses and runs lines."""
    tree: Any = get_command(app)
    tree.commands = Later(
        {
            **_commands(_COMMANDS),
            "list": _group(
                "list", "List jobs, runs, instances, providers or environments. Alone: jobs.", _LIST, cls=ListGroup
            ),
            "info": _group("info", "Show all that is known of a job, run, instance or provider.", _INFO),
            "create": _group(
                "create", "Rent a machine, or claim one of your own.", {"instance": "rented.create_instance"}
            ),
            "terminate": _group("terminate", "Give machines back.", {"instance": "rented.terminate_instance"}),
            "start": _group(
                "start", "Start rented machines that were stopped.", {"instance": "rented.start_instance"}
            ),
            "stop": _group(
                "stop",
                "Stop rented machines and keep their disks.",
                {"instance": "rented.stop_instance"},
                unsaid=_KILL,
            ),
            "kill": _group("kill", "End jobs, or a run.", _KILL, unsaid={"instance": "rented.terminate_instance"}),
            "aws": _group("aws", "For accounts of AWS.", {"policy": "gc.aws_policy"}),
            "config": _group(
                "config",
                "Show what a config means, or its schema.",
                {"show": "setup.config_show", "schema": "setup.config_schema"},
            ),
            "maestro": _group("maestro", "Look at the background process that carries runs on.", _MAESTRO),
        }
    )
    return tree


def _commands(places: Mapping[str, str], *, hidden: bool = False) -> dict[str, Callable[[], Any]]:
    return {name: partial(_make_command, name, place, hidden) for name, place in places.items()}


def _make_command(name: str, place: str, hidden: bool) -> Any:
    module, _, function = place.partition(".")
    alone = typer.Typer(rich_markup_mode=None, add_completion=False)
    alone.command(name, cls=QuickCommand, hidden=hidden)(getattr(import_module(f".{module}", __package__), function))
    return get_command(alone)


def _group(
    name: str,
    text: str,
    places: Mapping[str, str],
    *,
    unsaid: Mapping[str, str] | None = None,
    cls: type[NounGroup] = NounGroup,
) -> Callable[[], Any]:
    """`unsaid` commands work, and no help names them."""

    def make() -> Any:
        group: Any = get_group(typer.Typer(name=name, help=text, cls=cls, rich_markup_mode=None))
        group.commands = Later({**_commands(places), **_commands(unsaid or {}, hidden=True)})
        return group

    return make

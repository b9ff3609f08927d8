"""`init`, `validate`, `config`, `completion`, `version`: before the first run, and around it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudsend_cli.errors import ConfigError, UsageError

from .parameters import Config, Set, UseProvider, confirm
from .problems import problem_json, problem_text
from .render import Screen, paint, plural
from .sanitise import one_line
from .session import session_of

if TYPE_CHECKING:
    from cloudsend_cli.api import SubmitOptions
    from cloudsend_cli.errors import Problem


def submit_options(**values: Any) -> SubmitOptions:
    from cloudsend_cli.api import SubmitOptions

    return SubmitOptions(**values)


def show_warnings(screen: Screen, warnings: Any) -> None:
    for warning in warnings:
        text = problem_text(warning, lambda part, color: paint(part, color if screen.err_color else ""))
        print(text, end="", file=screen.err)


# ---- validate and config -------------------------------------------------------------------------------------------


def validate(ctx: typer.Context, config: Config, provider: UseProvider = None, set_: Set = None) -> int:
    """Check a config: all its problems at once. Nothing is started."""
    session = session_of(ctx)
    session.screen.refuse("csv", "name")
    options = submit_options(provider=provider, overrides=tuple(set_ or ()))
    try:
        loaded = session.client.validate(config, options)
    except ConfigError as error:
        if session.screen.format not in {"json", "yaml"}:
            raise
        session.screen.data(_verdict(0, error.problems, []))
        return error.exit_status
    if session.screen.format in {"json", "yaml"}:
        session.screen.data(_verdict(len(loaded.spec.jobs), [], loaded.warnings))
        return 0
    show_warnings(session.screen, loaded.warnings)
    count = plural(len(loaded.spec.jobs), "job")
    noted = f", {plural(len(loaded.warnings), 'warning')}" if loaded.warnings else ""
    session.screen.write(f"{one_line(config)}: {count}, no problems{noted}")
    return 0


def _verdict(jobs: int, problems: list[Problem], warnings: Any) -> dict[str, Any]:
    return {
        "valid": not problems,
        "jobs": jobs,
        "problems": [problem_json(problem) for problem in problems],
        "warnings": [problem_json(warning) for warning in warnings],
    }


def config_show(
    ctx: typer.Context,
    config: Config,
    origin: Annotated[bool, typer.Option("--origin", help="Also where each value comes from.")] = False,
    provider: UseProvider = None,
    set_: Set = None,
) -> None:
    """Show every value that a run of this config would use."""
    session = session_of(ctx)
    session.screen.refuse("name")
    rows = session.client.config_show(config, submit_options(provider=provider, overrides=tuple(set_ or ())))
    screen = session.screen
    if screen.machine:
        names = ("key", "value", "origin")
        screen.data([dict(zip(names, row, strict=True)) for row in rows])
    elif origin:
        screen.rows(("KEY", "VALUE", "ORIGIN"), rows)
    else:
        screen.rows(("KEY", "VALUE"), [row[:2] for row in rows])


def config_schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of the config, for editors."""
    import json

    session = session_of(ctx)
    session.screen.write(json.dumps(session.client.config_schema(), indent=2))


# ---- init ----------------------------------------------------------------------------------------------------------


def init(
    ctx: typer.Context,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where to write config.yml.")] = ".",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take what is found.")] = False,
) -> None:
    """Write a commented config to start from."""
    session = session_of(ctx)
    folder = Path(directory)
    if not folder.is_dir():
        raise UsageError(f"'{directory}' is not a directory", hint="create it first")
    target = folder / "config.yml"
    asks = not yes and sys.stdin.isatty()
    text = session.client.starter_config(folder)
    if target.exists() or target.is_symlink():
        if not asks:
            raise UsageError(f"{target} exists already; it was not touched", hint="move it away, or name another DIR")
        if not confirm(session, f"{target} exists. Replace it?", default=False):
            session.screen.say("nothing was changed")
            return
    elif asks:
        session.screen.say(text)
        if not confirm(session, f"Write this to {target}?", default=True):
            session.screen.say("nothing was written")
            return
    target.write_text(text, encoding="utf-8")
    session.screen.say(f"wrote {target}; now: cloudsend run {target}")


# ---- completion and version ----------------------------------------------------------------------------------------


def completion(
    ctx: typer.Context,
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell that will read it.")],
) -> None:
    """Print the script that completes commands, options and ids in a shell."""
    from .completion import SCRIPTS

    if shell not in SCRIPTS:
        raise UsageError(f"there is no completion for '{shell}'", hint=f"one of {', '.join(SCRIPTS)}")
    session_of(ctx).screen.write(SCRIPTS[shell])


def version(ctx: typer.Context) -> None:
    """Print the version."""
    from cloudsend_cli import __version__

    session = session_of(ctx)
    session.screen.refuse("name")
    if session.screen.machine:
        import platform

        session.screen.data(
            {"cloudsend": __version__, "python": platform.python_version(), "typer": typer.__version__}
        )
    else:
        session.screen.write(f"cloudsend {__version__}")

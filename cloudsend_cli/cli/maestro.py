"""`maestro`: the background process that carries runs on."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from cloudsend_cli.errors import UsageError

from .parameters import Yes, confirm, whole_number
from .sanitise import TerminalLog
from .session import session_of

STOPPED: Final = (
    "the maestro has stopped; hosts work on through what they hold, and the next command that needs it starts another"
)


def maestro_status(ctx: typer.Context) -> None:
    """Say whether one runs, since when, and for which runs."""
    session = session_of(ctx)
    screen = session.screen
    screen.refuse("name")
    view = session.client.maestro_status()
    if screen.machine:
        screen.data(view.as_json())
    elif not view.running:
        screen.write(_describe_absence(view.runs))
    else:
        screen.facts(
            [
                ("running", "yes"),
                ("pid", str(view.pid or "")),
                ("since", screen.moment(view.since)),
                ("epoch", str(view.epoch)),
                ("runs", ", ".join(map(str, view.runs)) or "none"),
            ]
        )


def _describe_absence(waiting: tuple[str, ...]) -> str:
    if not waiting:
        return "not running; it starts when a run needs it"
    return f"not running, and these runs wait for one: {', '.join(waiting)}; `cloudsend wait {waiting[0]}` starts it"


def maestro_stop(ctx: typer.Context) -> None:
    """End it. Jobs go on on their machines; the next command that needs a maestro starts a new one."""
    session = session_of(ctx)
    stopped = session.client.maestro_stop()
    session.screen.say(STOPPED if stopped else "it was not running")


def maestro_adopt(ctx: typer.Context, yes: Yes = False) -> None:
    """Work on with a copied state directory, when the first one is gone for good."""
    session = session_of(ctx)
    if not yes:
        if session.screen.machine or not session.screen.err_tty or not sys.stdin.isatty():
            raise UsageError(
                "nothing was adopted", hint="--yes adopts without a question, where no terminal is attached"
            )
        if not confirm(session, "Is the first one gone for good? Two in use do jobs twice.", default=False):
            raise UsageError("nothing was adopted")
    session.client.maestro_adopt()
    session.screen.say("this state directory is the one in use now")


def maestro_logs(
    ctx: typer.Context,
    lines: Annotated[str | None, typer.Option("--lines", "-n", metavar="N", help="The last N (50).")] = None,
) -> None:
    """Print the end of its log."""
    session = session_of(ctx)
    session.screen.refuse("csv", "name")
    text = session.client.maestro_log(whole_number(lines, "--lines") or 50)
    if session.screen.machine:
        session.screen.data(text.splitlines())
        return
    if session.screen.out_tty:
        text = TerminalLog().feed(text.encode("utf-8", "replace"), final=True)
    session.screen.write(text)

"""`rebuild`: a state directory that was lost, made again from what the hosts know."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudsend_cli.errors import UsageError

from .parameters import OfProvider, confirm
from .render import paint, plural
from .sanitise import one_line
from .session import Session, session_of

if TYPE_CHECKING:
    from cloudsend_cli.engine.inventory import HostFound
    from cloudsend_cli.engine.rebuild import Rebuilt

LIVE = frozenset({"queued", "running"})


def rebuild(
    ctx: typer.Context,
    provider: OfProvider = None,
    adopt: Annotated[
        bool,
        typer.Option("--adopt", help="Also take over what another state directory has started. It loses it."),
    ] = False,
) -> int:
    """Make the runs again that hosts remember and this state directory has lost. Nothing is started or stopped.

    Reads every host of providers.yml. Afterwards list, tail, fetch, wait and kill work as before; what only the lost
    directory knew is left out: jobs that had not been handed to any host, and their order. May be repeated.
    """
    session = session_of(ctx)
    session.screen.refuse("csv", "name")
    found = [_show_host(session, host) for host in session.client.survey_hosts(provider)]
    if not found:
        raise UsageError("there are no hosts to read", hint="providers.yml beside the config names them")
    foreign = sum(session.client.count_foreign(host) for host in found)
    asked = bool(foreign) and not adopt and _can_ask(session)
    wanted = bool(foreign) and (adopt or (asked and _ask(session, foreign)))
    done = session.client.rebuild(found, adopt=wanted)
    if session.screen.machine:
        session.screen.data(_json(session, found, done, foreign, adopted=wanted))
    else:
        _show_runs(session, done, found, left=0 if wanted else foreign)
    silent = [host.problem for host in found if host.problem is not None]
    left_alone = 1 if foreign and not (wanted or asked or done) else 0
    return max((problem.exit_status for problem in silent), default=left_alone)


def _show_host(session: Session, host: HostFound) -> HostFound:
    screen = session.screen
    name = one_line(host.place.node)
    if host.problem is not None:
        mark = paint("FAILED", "red" if screen.err_color else "")
        screen.say(f"{mark}  {name}: {host.problem.message}")
        if host.problem.hint:
            screen.say(f"        help: {host.problem.hint}")
    else:
        live = sum(job.status.state in LIVE for job in host.jobs)
        attempts = len(host.attempts())
        screen.say(
            f"ok      {name}: {plural(attempts, 'attempt')} of {plural(len(host.runs), 'run')}"
            + (f", {live:,} not at the end" if live else "")
        )
    return host


def _can_ask(session: Session) -> bool:
    return not session.screen.machine and session.screen.err_tty and sys.stdin.isatty()


def _ask(session: Session, foreign: int) -> bool:
    session.screen.say(
        f"{plural(foreign, 'attempt')} there belong to another state directory. If that one is still in use, adopting "
        "them takes them from it."
    )
    return confirm(session, "Is it lost? Adopt them?", default=False)


def _show_runs(session: Session, done: list[Rebuilt], found: list[HostFound], *, left: int) -> None:
    """`left`: attempts of other state directories, of which one may be the lost one."""
    screen = session.screen
    if left:
        screen.say(
            f"{plural(left, 'attempt')} there belong to other state directories and {'was' if left == 1 else 'were'} "
            "left alone; if it is the lost one, `cloudsend rebuild --adopt` takes over all that it had"
        )
    if not done:
        if not left and all(host.problem is None for host in found):
            screen.say("nothing was missing")
        return
    rows = [
        (run.run, run.project, "rebuilt" if run.created else "completed", f"{run.jobs:,}", str(run.running),
         run.results)
        for run in done
    ]  # fmt: skip
    screen.rows(("RUN", "PROJECT", "STATE", "JOBS", "RUNNING", "RESULTS"), rows)
    if any(run.created for run in done):
        screen.say("rebuilt runs start nothing new until their config is run again")


def _json(
    session: Session, found: list[HostFound], done: list[Rebuilt], foreign: int, *, adopted: bool
) -> dict[str, Any]:
    return {
        "hosts": [
            {
                "name": host.place.node,
                "host": host.place.address.host,
                "attempts": len(host.attempts()),
                "foreign": session.client.count_foreign(host),
                "error": None if host.problem is None else host.problem.message,
                "code": None if host.problem is None else host.problem.code,
            }
            for host in found
        ],
        "runs": [run.as_json() for run in done],
        "foreign": foreign,
        "adopted": adopted,
    }

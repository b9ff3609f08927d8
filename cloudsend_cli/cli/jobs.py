"""`wait`, `tail`, `kill`, `fetch`: what is done with jobs that were submitted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Annotated

import typer

from cloudsend_cli.errors import UsageError

from .leaving import tell_end, tell_waiting
from .listing import JOBS, RUNS, status_of
from .parameters import Job, JobOrRun, Jobs, JobsOrRuns, Run, seconds, whole_number
from .render import Screen, iso_seconds, plural
from .sanitise import TerminalLog, one_line
from .session import session_of


def timed_notes(screen: Screen) -> Callable[[str], None]:
    """For what happens while one waits: said with its time."""
    return lambda text: screen.say(f"{iso_seconds(time.time())} {one_line(text)}")


def wait(
    ctx: typer.Context,
    job: JobsOrRuns,
    timeout: Annotated[
        str | None, typer.Option("--timeout", "-t", metavar="S", help="Give up after this time: 90, 5m, 2h.")
    ] = None,
) -> int:
    """Wait until jobs have ended and their results are at home.

    Of a whole run, its tables are waited for as well.

    Exit status 0 if all succeeded, 1 if not, 124 if the time ran out. It is 4 where the account does not allow to
    rent their machines, and 6 where those with results have not answered for ten minutes.
    """
    session = session_of(ctx)
    jobs = session.client.wait(job, seconds(timeout, "--timeout"), note=timed_notes(session.screen))
    session.screen.now = time.time()
    session.screen.list(jobs, JOBS)
    for run in dict.fromkeys(job.run for job in jobs) if not session.screen.machine else ():
        view = session.client.find_run(run)
        if view.cost is not None and view.state != "running":
            tell_waiting(session, run)
    return status_of(jobs)


def tail(  # noqa: PLR0913, PLR0917 - one for each option
    ctx: typer.Context,
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
    lines: Annotated[str | None, typer.Option("--lines", "-n", metavar="N", help="Only the last N.")] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="What the job wrote to stdout (as without this).")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="What the job wrote to stderr.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The exact bytes, also to a terminal.")] = False,
) -> None:
    """Print what a job wrote: its own bytes, nothing added. Only a terminal is spared their control codes."""
    if stdout and stderr:
        raise UsageError("give --stdout or --stderr, not both")
    session = session_of(ctx)
    screen = session.screen
    stop = threading.Event()
    count = whole_number(lines, "--lines")
    stream = "stderr" if stderr else "stdout"

    note = timed_notes(screen)
    chunks = session.client.read_log(job, stream, follow=follow, lines=count, stop=stop, note=note)
    screen.out.flush()
    try:
        if screen.out_tty and not raw:
            text = TerminalLog()
            for chunk in chunks:
                screen.out.write(text.feed(chunk))
                screen.out.flush()
            screen.out.write(text.feed(b"", final=True))
        else:
            for chunk in chunks:
                screen.out.buffer.write(chunk)
                screen.out.buffer.flush()
    finally:
        stop.set()


def kill_jobs(ctx: typer.Context, job: Jobs) -> None:
    """End jobs, whether they run or have not started. What has ended stays as it is."""
    session = session_of(ctx)
    jobs = session.client.cancel(job)
    session.screen.list(jobs, JOBS)
    if any(view.state in {"pending", "running"} for view in jobs):
        session.screen.say(f"asked to end; `cloudsend wait {' '.join(job)}` returns when they have")


def kill_run(ctx: typer.Context, run: Run) -> None:
    """End all jobs of a run. Rented machines then wait for the next run of its project, as after any other end."""
    session = session_of(ctx)
    view = session.client.cancel_run(run)
    session.screen.list([view], RUNS)
    if view.state == "running":
        session.screen.say(f"asked to end; `cloudsend wait {view.id}` returns when all jobs have")
    if view.cost is not None and not session.screen.machine:
        (tell_end if view.state == "running" else tell_waiting)(session, view.id)


def fetch(
    ctx: typer.Context,
    job: JobOrRun,
    directory: Annotated[
        str | None, typer.Option("--directory", "-d", metavar="DIR", help="Where to put them.")
    ] = None,
) -> None:
    """Bring results here, now, also of a job that still runs."""
    session = session_of(ctx)
    paths = session.client.fetch(job, directory)
    if session.screen.format in {"json", "yaml"}:
        session.screen.data([str(path) for path in paths])
    else:
        session.screen.write("".join(one_line(str(path)) + "\n" for path in paths))
        session.screen.say(f"results of {plural(len(paths), 'job')}" if paths else "there are no results to fetch")

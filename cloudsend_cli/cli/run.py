"""`run`: submit a config or a command, stay with it, and say what came of it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudsend_cli.errors import UsageError

from .cost import total_text
from .leaving import tell_end
from .listing import COUNTED, JOBS, counts_text, is_good, run_cost, status_of, why_not_home
from .parameters import Set, UseProvider, whole_number
from .plan import announcer, continued_text, show_plan
from .progress import Block, Lines
from .render import Screen, duration, plural
from .sanitise import TerminalLog, log_text, one_line
from .session import Session, session_of
from .setup import show_warnings, submit_options

if TYPE_CHECKING:
    from cloudsend_cli.core.submission import Submitted
    from cloudsend_cli.core.views import JobView, RunView

ROWS_MOST = 100  # of the table at the end; in a larger run only what did not succeed is listed
TAILS_MOST = 5
TAIL_LINES = 10


def run(  # noqa: PLR0913, PLR0917 - one for each option
    ctx: typer.Context,
    config: Annotated[
        list[str] | None, typer.Argument(metavar="CONFIG | -- CMD ARG…", help="A config, or a command.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Submit and leave; print the run's id.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done. Nothing is started.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="A new run: keep nothing of the earlier one.")] = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="Name the project of a config, or the job of a command.")
    ] = None,
    provider: UseProvider = None,
    set_: Set = None,
    max_parallel: Annotated[
        str | None, typer.Option("--max-parallel", metavar="N", help="Run at most so many at once.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print the logs of all jobs as they grow.")] = False,
) -> int:
    """Run a config, or a command. Stays with it; Ctrl-C detaches and the jobs go on.

    Running a config again continues its run: what succeeded is kept, what failed is tried again.
    """
    session = session_of(ctx)
    options = submit_options(
        fresh=fresh,
        name=name,
        provider=provider,
        overrides=tuple(set_ or ()),
        max_parallel=whole_number(max_parallel, "--max-parallel", least=1),
    )
    what, argv = _what(session, config or [])
    if dry_run:
        show_plan(session, what, argv, options)
        return 0
    screen = session.screen
    try:
        submitted = session.client.submit(what, argv, options, announcer(screen))
    except KeyboardInterrupt:
        screen.say("interrupted; if `cloudsend list runs` has the run, it was submitted and goes on")
        raise
    show_warnings(screen, submitted.warnings)
    if submitted.continued is None:
        screen.say(f"run {submitted.run} submitted")
    else:
        screen.say(f"run {submitted.run} continued: {continued_text(submitted.continued)}")
    if detach:
        return _leave(session, submitted.run)
    try:
        _attend(session, submitted, follow)
    except KeyboardInterrupt:
        _say_detached(session, submitted.run)
        return 130
    return _conclude(session, submitted.run)


def _what(session: Session, words: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """Either a config or a command."""
    settings = session.settings
    if settings.has_command:
        if words:
            raise UsageError("give a config or a command after --, not both")
        if not settings.command:
            raise UsageError("there is no command after --", hint="cloudsend run -- python train.py --lr 0.1")
        return None, settings.command
    if not words:
        raise UsageError("run what?", hint="cloudsend run config.yml, or cloudsend run -- CMD ARG…")
    if len(words) > 1:
        import shlex

        hint = f"one config is run at a time; a command goes after --: cloudsend run -- {shlex.join(words)}"
        raise UsageError(f"too many arguments: {' '.join(words)}", hint=hint)
    return words[0], ()


# ---- while it runs -------------------------------------------------------------------------------------------------


def _attend(session: Session, submitted: Submitted, follow: bool) -> None:
    screen = session.screen
    watcher = Block(screen, session.client.log_tail) if screen.err_tty and not _dumb() else Lines(screen)
    try:
        if not follow:
            for progress in session.client.follow(submitted.run):
                watcher.update(progress)
            return
        out = screen.err if screen.machine else screen.out
        for item in session.client.follow_logs(submitted.run, since=submitted.since):
            if isinstance(item, tuple):
                name, _stream, data = item
                with watcher.paused():
                    out.write(merged_lines(name, data))
                    out.flush()
            else:
                watcher.update(item)
    finally:
        watcher.close()


def merged_lines(name: str, data: bytes) -> str:
    """A job's lines with its name before each."""
    prefix = one_line(name)
    return "".join(f"{prefix} | {line}\n" for line in TerminalLog().feed(data, final=True).splitlines())


def _dumb() -> bool:
    return os.environ.get("TERM", "dumb") == "dumb"


def _leave(session: Session, run: str) -> int:
    screen = session.screen
    if screen.format in {"json", "yaml"}:
        screen.data(_run_json(session, session.client.find_run(run), session.client.list_jobs(run)))
    else:
        screen.write(run)
        screen.say(f"it goes on in the background: cloudsend wait {run}, cloudsend list jobs --run {run}")
    return 0


def _say_detached(session: Session, run: str) -> None:
    view = session.client.find_run(run)
    counts = view.counts
    left = counts.get("running", 0) + counts.get("pending", 0)
    session.screen.say(
        f"\ndetached; {plural(left, 'job')} of run {run} {'goes' if left == 1 else 'go'} on.\n"
        f"  cloudsend wait {run}        until they have ended\n"
        f"  cloudsend list jobs --run {run}\n"
        f"  cloudsend kill run {run}    to end them"
    )
    if view.cost is not None:
        session.screen.say(f"its machines go on, too: {run_cost(view)}")


# ---- at the end ----------------------------------------------------------------------------------------------------


def _conclude(session: Session, run: str) -> int:
    screen = session.screen
    screen.now = time.time()
    view = session.client.find_run(run)
    jobs = session.client.list_jobs(run)
    if screen.format in {"json", "yaml"}:
        screen.data(_run_json(session, view, jobs))
    elif screen.machine or len(jobs) <= ROWS_MOST:
        screen.list(jobs, JOBS)
    else:
        bad = [job for job in jobs if not is_good(job)]
        if bad:
            screen.list(bad[:ROWS_MOST], JOBS)
            screen.say(
                f"{len(bad[:ROWS_MOST]):,} of {plural(len(jobs), 'job')} shown: cloudsend list jobs --run {run}"
            )
    screen.out.flush()
    _show_tails(session, jobs)
    lost = [job for job in jobs if why_not_home(job)]
    _show_lost(screen, lost)
    good = view.state == "succeeded" and not lost
    end = f"run {run}: {view.state} after {duration(screen.now - screen.begun)}, {counts_text(view.counts)}"
    if lost:
        end += f"; the results of {plural(len(lost), 'job')} are not home"
    screen.say(end, color="green" if good else "red")
    if view.cost is not None:
        _say_cost(session, run)
    if view.results_dir and any(job.outputs == "home" or job.params or job.metrics for job in jobs):
        screen.say(f"results: {one_line(_near(view.results_dir))}")
    return 0 if good else status_of(jobs) or 1


def _say_cost(session: Session, run: str) -> None:
    """What was paid, and what goes on costing something."""
    screen = session.screen
    screen.say(one_line(total_text(session.client.find_run_cost(run))))
    tell_end(session, run)


def _run_json(session: Session, run: RunView, jobs: list[JobView]) -> dict[str, Any]:
    from cloudsend_cli.core.views import cost_json

    return {
        "run": run.id,
        "state": run.state,
        "counts": {word: run.counts.get(word, 0) for word in COUNTED},
        "results_dir": run.results_dir or None,
        **cost_json(run.cost),
        "kept": session.client.count_kept(run.id).machines if run.cost is not None else 0,
        "jobs": [job.as_json() for job in jobs],
    }


def _show_tails(session: Session, jobs: list[JobView]) -> None:
    """The last lines of what failed."""
    screen = session.screen
    failed = [job for job in jobs if job.state == "failed"]
    failed.sort(key=lambda job: job.attempt == 0)  # what never started, because of another, has nothing to show
    for job in failed[:TAILS_MOST]:
        lines = log_text(session.client.log_tail(job.id, TAIL_LINES)).splitlines()[-TAIL_LINES:]
        screen.say(f"{one_line(job.name)} ({job.id}) failed: {one_line(job.reason)}", color="red")
        for line in lines:
            screen.say(f"  | {line}")
    if len(failed) > TAILS_MOST:
        screen.say(f"{len(failed) - TAILS_MOST:,} more failed; cloudsend tail JOB --stderr shows why")
    if any(job.reason.startswith("no-capacity") and "refused: " in job.reason for job in failed):
        screen.say("  help: `cloudsend check` says of each machine what to do; then run it again")


def _show_lost(screen: Screen, lost: list[JobView]) -> None:
    """What succeeded, and whose results stayed where they are."""
    for job in lost[:TAILS_MOST]:
        why = one_line(why_not_home(job))
        screen.say(f"{one_line(job.name)} ({job.id}): results could not be brought home: {why}", color="red")
        screen.say(f"  help: mend it and run `cloudsend fetch {job.id}`")
    if len(lost) > TAILS_MOST:
        screen.say(f"and {len(lost) - TAILS_MOST:,} more")


def _near(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except OSError:  # there is no working directory any more
        return path
    return path if relative.startswith("..") else relative

"""`gc` and `aws`: what is left over of what was rented, and what an account has to allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cloudsend_cli.errors import CloudsendError

from .parameters import OfProvider, Yes
from .render import Column, Listing, Screen, column, duration, plural
from .sanitise import one_line
from .session import Session, session_of

if TYPE_CHECKING:
    from cloudsend_cli.api.cleaning import Found
    from cloudsend_cli.core.cost_views import ExcessView


def _price(view: ExcessView) -> str:
    from cloudsend_cli.core.costs import describe_rate

    return "" if view.price is None and view.kind != "machine" else describe_rate(view.price)


EXCESS = Listing(
    "things that are left over",
    (
        column("KIND", "kind"),
        column("ID", "id"),
        column("TYPE", "type"),
        column("REGION", "region"),
        Column("PRICE", lambda view, screen: _price(view)),
        Column("AGE", lambda view, screen: "" if view.since is None else duration(screen.now - view.since)),
        column("WHY", "why", prose=True),
        column("NAME", "name", wide=True),
        column("PROVIDER", "provider", wide=True),
    ),
    lambda view: str(view.id),
)
OUTCOMES = Listing(
    "things that are left over",
    (*EXCESS.columns[:3], column("OUTCOME", "outcome", prose=True)),
    lambda view: str(view.id),
)


def gc(ctx: typer.Context, provider: OfProvider = None, yes: Yes = False) -> int:
    """Show what is left over of what was rented; with --yes, remove it.

    Left over, in any region ever used, are machines whose run has ended or is not known here, machines past their
    time, and disks, addresses, keys and groups that belong to none. Only what carries this state directory's mark is
    seen at all. Machines of runs that are not over, and machines that wait for the next run, are left alone.
    """
    session = session_of(ctx)
    screen = session.screen
    found = session.client.find_excess(provider, note=screen.warn)
    views = [excess.view for excess in found.excess]
    if yes:
        views = _remove(session, found)
    elif not screen.machine and not views:
        screen.say(found.unknown or "nothing is left over" + (", as far as is known" if found.problems else ""))
    else:
        screen.list(views, EXCESS)
    if screen.machine and yes:
        screen.list(views, OUTCOMES)
    if not screen.machine:
        _say_rest(screen, found, views, yes=yes)
    for name, problem in found.problems:
        screen.say(f"error: {one_line(name)} could not be asked for all: {problem.message}", color="red")
        if problem.hint:
            screen.say(f"  help: {problem.hint}")
    return max(
        [problem.exit_status for _, problem in found.problems]
        + [_status(view.code) for view in views if view.outcome.startswith("failed")],
        default=0,
    )


def _remove(session: Session, found: Found) -> list[ExcessView]:
    screen = session.screen
    done = []
    for view in session.client.remove_excess(found):
        done.append(view)
        if not screen.machine:
            name = " ".join(filter(None, (view.kind, view.id, view.type, f"in {view.region}" if view.region else "")))
            screen.write(f"{one_line(name)}: {one_line(view.outcome)}")
            screen.out.flush()
    return done


def _say_rest(screen: Screen, found: Found, views: list[ExcessView], *, yes: bool) -> None:
    from cloudsend_cli.core.costs import describe_rate

    screen.out.flush()
    prices = [view.price for view in views if view.price is not None]
    if views and not yes:
        total = f", {describe_rate(sum(prices))} together" if prices else ""
        screen.say(
            f"{plural(len(views), 'thing')} left over{total}; nothing was removed: `cloudsend gc --yes` does it"
        )
    elif yes and views:
        removed = [view for view in views if view.outcome == "removed"]
        saved = sum(view.price or 0.0 for view in removed)
        rest = f"; {len(views) - len(removed)} left" if len(removed) < len(views) else ""
        screen.say(
            f"{plural(len(removed), 'thing')} removed"
            + (f", which cost {describe_rate(saved)}" if saved else "")
            + rest
        )
    elif yes and not found.problems:
        screen.say(found.unknown or "nothing is left over")
    if found.used:
        screen.say(f"{plural(found.used, 'thing')} of machines that are there: they go when those do")
    if found.kept:
        verb = "waits for a run, and ends itself" if found.kept == 1 else "wait for a run, and end themselves"
        screen.say(
            f"{plural(found.kept, 'machine')} {verb} when idle; `cloudsend terminate instance --all` ends them now"
        )


def _status(code: str) -> int:
    from cloudsend_cli import errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, CloudsendError) and kind.code == code:
            return kind.exit_status
    return CloudsendError.exit_status


def aws_policy(ctx: typer.Context) -> None:
    """Print the IAM policy that cloudsend needs, and nothing more, as JSON for AWS's console or `aws iam`."""
    session = session_of(ctx)
    session.screen.refuse("csv", "name", "yaml")
    session.screen.write(session.client.render_policy("aws"))

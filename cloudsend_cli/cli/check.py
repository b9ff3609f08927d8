"""`check`: can this machine, the state directory and the hosts do the work? Host keys are looked at here, too."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudsend_cli.errors import UsageError

from .parameters import OfProvider, confirm
from .render import Screen, paint
from .sanitise import one_line
from .session import Session, session_of

if TYPE_CHECKING:
    from cloudsend_cli.core.machine_views import CheckView

NAME_WIDTH = 8
ROUNDS_MOST = 8  # of keys on the way to one host


def check(
    ctx: typer.Context,
    host: Annotated[
        list[str] | None, typer.Argument(metavar="HOST…", help="Only these hosts, by name or address.")
    ] = None,
    provider: OfProvider = None,
    accept: Annotated[
        str | None,
        typer.Option("--accept-host-key", metavar="SHA256:…", help="Accept exactly this key of the one HOST."),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what is ours in accounts, such as the address that may log in.")
    ] = False,
) -> int:
    """Check this machine, the state directory, every host and account.

    One line each, for all of providers.yml. Of an account: credentials, permissions, limits, clock, ways in; `-p aws`
    also where providers.yml names none.
    A host whose key is not known is shown with its fingerprint; on a terminal you are asked whether to accept it.
    The exit status is that of the worst line: 4 a key, credentials or permissions, 5 a limit, 6 no answer, 7 the
    machine is not fit.
    """
    session = session_of(ctx)
    session.screen.refuse("name")
    hosts = host or []
    if accept is not None:
        _accept(session, hosts, provider, accept)
    lines = _Lines(session.screen)
    found = [lines.show(view) for view in session.client.check(provider, hosts, fix=fix)]
    if _may_ask(session.screen):
        found = [_ask_about_key(session, lines, view) for view in found]
    if session.screen.machine:
        session.screen.data([view.as_json() for view in found])
    return max((view.exit_status for view in found), default=0)


def _accept(session: Session, hosts: list[str], provider: str | None, fingerprint: str) -> None:
    if len(hosts) != 1:
        hint = f"cloudsend check HOST --accept-host-key {fingerprint}"
        raise UsageError("--accept-host-key belongs to exactly one host", hint=hint)
    if not fingerprint.startswith("SHA256:"):
        raise UsageError(
            f"'{fingerprint}' is not a fingerprint", hint="it looks like SHA256:… , as `ssh-keygen -lf` prints it"
        )
    kind, accepted = session.client.accept_host_key(hosts[0], fingerprint, provider)
    session.screen.say(f"accepted the {kind} key {accepted} of {hosts[0]}")


def _may_ask(screen: Screen) -> bool:
    return not screen.machine and screen.err_tty and sys.stdin.isatty()


def unknown_key(view: CheckView) -> tuple[str, str] | None:
    """(type, fingerprint) of a key that nobody has accepted yet; a changed or revoked one is never offered."""
    key: Any = view.facts.get("unknown_host_key")
    return (str(key["type"]), str(key["fingerprint"])) if isinstance(key, dict) else None


def _ask_about_key(session: Session, lines: _Lines, view: CheckView) -> CheckView:
    for _ in range(ROUNDS_MOST):
        key = unknown_key(view)
        if key is None:
            break
        session.screen.say(f"\n{view.name} ({view.host}) presents the {key[0]} key {key[1]}")
        if not confirm(session, "Is that its key? Accept it?", default=False):
            session.screen.say("not accepted")
            break
        session.client.accept_host_key(view.name, key[1], view.provider)
        view = lines.show(next(iter(session.client.check(view.provider, [view.name]))))
    return view


class _Lines:
    """Prints each answer as it comes."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._width = NAME_WIDTH

    def show(self, view: CheckView) -> CheckView:
        screen = self._screen
        if screen.machine:
            return view
        name = one_line(view.name)
        self._width = max(self._width, len(name))
        word, color = _mark(view)
        mark = paint(f"{word:<6}", color if screen.out_color else "")
        screen.write(f"{mark}  {name:<{self._width}}  {one_line(view.text)}")
        indent = " " * (8 + self._width + 2)
        for warning in view.warnings:
            screen.write(f"{indent}{one_line(warning)}")
        if view.hint and view.ok is not True:
            screen.write(f"{indent}help: {one_line(view.hint)}")
        screen.out.flush()
        return view


def _mark(view: CheckView) -> tuple[str, str]:
    if view.ok is None:
        return "-", "dim"
    if not view.ok:
        return "FAILED", "red"
    return ("warn", "yellow") if view.warnings else ("ok", "green")

"""What a command gets to work with: one client for as long as the program lives, and the screen of its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .render import Screen
from .settings import Settings

if TYPE_CHECKING:
    import typer

    from cloudsend_cli.api import Client


class Session:
    """One command line's settings and screen, and the clients that it shares with the lines before it."""

    def __init__(self, settings: Settings, earlier: Session | None = None) -> None:
        self.settings = settings
        self.screen = Screen(settings)
        self.shell = earlier is not None
        self._clients: dict[str | None, Client] = earlier._clients if earlier else {}

    @property
    def client(self) -> Client:
        """The client of the state directory, opened when a command first asks for it."""
        key = self.settings.state_dir
        if key not in self._clients:
            from cloudsend_cli.api import Client

            self._clients[key] = Client(key)
        return self._clients[key]

    def close(self) -> None:
        while self._clients:
            self._clients.popitem()[1].close()


def session_of(context: typer.Context) -> Session:
    """The session that `execute` gave to the command line."""
    session = context.find_root().obj
    assert isinstance(session, Session)  # noqa: S101
    return session

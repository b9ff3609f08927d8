"""A connection that stays open between commands and transfers, for one thread at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cloudsend_cli.errors import CloudsendError, HostKeyError, TransferFailed, UnfitError, UnreachableError

from .host_keys import UnknownKey
from .sftp import Refused, Sftp
from .ssh_commands import ANSWER_LIMIT, LOST, Ended, Execution, Request, Show, empty
from .ssh_config import Route, config_from_environment, resolve_name
from .ssh_sources import shown

if TYPE_CHECKING:
    from .ssh_connect import Connection

GIVE_UP_LIMIT = 5.0
OPENING_TRIES = 3

Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where, and whose word counts for the host's key."""

    host: str
    known_hosts: Path
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    key: str = ""
    jump: str = ""
    host_key: str = ""
    only_known_hosts: bool = False  # the user's and the system's files do not count
    ssh_config: Path | None = None

    def route(self) -> Route:
        route = resolve_name(
            self.host,
            port=self.port,
            user=self.user,
            key=self.key,
            jump=self.jump,
            host_key=self.host_key,
            config=self.ssh_config or config_from_environment(),
        )
        return replace(route, known_hosts=()) if self.only_known_hosts else route


def open_session(login: Login, timeout: float) -> Session:
    from .ssh_connect import connect

    route = login.route()
    try:
        return Session(connect(route, login.known_hosts, timeout, login.password))
    except HostKeyError as problem:
        raise _advise(problem) from problem


def _advise(problem: HostKeyError) -> HostKeyError:
    """`cloudsend check` knows hosts of providers.yml; a program's user has ssh, and the arguments of the call."""
    unknown = problem.unknown
    if not isinstance(unknown, UnknownKey):
        return problem
    error = HostKeyError(
        problem.message,
        hint="compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` says on the machine. If it is the "
        f"same, add the line `{unknown.name} {unknown.key.line}` to ~/.ssh/known_hosts, or pass "
        f"host_key='{unknown.key.line}'",
    )
    error.unknown = unknown
    return error


def _is_about_sessions(problem: UnreachableError) -> bool:
    """Whether a channel was refused, in the library's words."""
    return getattr(problem.__cause__, "code", None) is not None


class Transfer(Protocol):
    """Files on their way, which may be interrupted."""

    @property
    def is_on_host(self) -> bool:
        """Whether something is there that `close` removes."""

    def run(self, sftp: Sftp) -> None: ...

    def close(self, sftp: Sftp | None) -> None: ...


class Session:
    """Files and commands over one connection. Nothing of it is used again once an error of it was transient."""

    def __init__(self, connection: Connection) -> None:
        from .ssh_connect import place

        self._connection = connection
        self.where = place(connection.route)
        connection.hold()
        self.has_room = connection.room()

    def is_active(self) -> bool:
        transport = self._connection.transport
        return transport is not None and bool(transport.is_active())

    def close(self) -> None:
        self._connection.close()

    # ---- files -----------------------------------------------------------------------------------------------------

    def open_files(self, deadline: float | None = None) -> Sftp:
        try:
            stream = self._patiently(lambda: self._connection.open_subsystem("sftp"))
        except UnreachableError as problem:
            if _is_about_sessions(problem) or not self.is_answering(ANSWER_LIMIT):
                raise
            raise UnfitError(
                f"{self.where} offers no SFTP: {problem.context or problem.message}",
                hint="its sshd_config needs a line `Subsystem sftp internal-sftp`",
            ) from problem
        try:
            return Sftp(stream, self.where, deadline)
        except BaseException:
            stream.close()
            raise

    def transfer(self, transfer: Transfer, deadline: float | None) -> None:
        """As far as it goes. When it fails for good, `transfer.close` is still to be called."""
        sftp = self.open_files(deadline)
        try:
            transfer.run(sftp)
        except Refused as problem:
            raise TransferFailed(f"{shown(sftp.last)} on the host: {problem}") from problem
        except OSError as problem:
            where = shown(problem.filename) if isinstance(problem.filename, (str, bytes)) else "here"
            raise TransferFailed(f"{where}: {problem.strerror or problem}") from problem
        finally:
            sftp.close()

    def give_up(self, transfer: Transfer) -> None:
        """Take away what a transfer has left, on the host as well if that is there."""
        sftp = None
        try:
            if transfer.is_on_host and self.is_answering(GIVE_UP_LIMIT):
                sftp = self.open_files(time.monotonic() + GIVE_UP_LIMIT)
            transfer.close(sftp)
        except CloudsendError:
            transfer.close(None)
        finally:
            if sftp is not None:
                sftp.close()

    # ---- commands --------------------------------------------------------------------------------------------------

    def open_command(self) -> Any:
        """A channel for `run`, which has to follow. Nothing has been executed when this fails."""
        return self._patiently(lambda: self._connection.open_channel(lambda channel: None))

    def _patiently(self, open_channel: Callable[[], Opened]) -> Opened:
        """Where sshd allows one session (MaxSessions), the one before may end there a moment later than here."""
        for _ in range(OPENING_TRIES):
            try:
                return open_channel()
            except UnreachableError as problem:
                if not (_is_about_sessions(problem) and self.is_answering(ANSWER_LIMIT)):
                    raise
        return open_channel()

    def run(self, channel: Any, request: Request, show: Show) -> Ended:
        text, given = request.rendered()
        try:
            try:
                with self._connection.guarded():
                    if request.terminal:
                        channel.get_pty()
                    channel.exec_command(text)
            except Exception as problem:
                if self.is_answering(ANSWER_LIMIT):
                    what = "a terminal" if request.terminal else "commands"
                    raise UnfitError(
                        f"{self.where} refuses {what}", hint="see PermitTTY and ForceCommand in its sshd_config"
                    ) from problem
                ended = empty()  # the request may have been heard
                ended.is_lost, ended.problem = True, LOST
                return ended
            return Execution(channel, request, self).run(show, given)
        finally:
            with contextlib.suppress(OSError, EOFError):
                channel.close()
            self._connection.release()

    def is_answering(self, limit: float) -> bool:
        """Asks for nothing: a server says no to it, and that it is there."""
        transport = self._connection.transport
        if transport is None or not transport.is_active():
            return False

        def ask() -> None:
            with contextlib.suppress(OSError, EOFError):
                transport.global_request("keepalive@openssh.com", wait=True)

        asking = threading.Thread(target=ask, name="ssh keepalive", daemon=True)
        asking.start()
        asking.join(limit)
        if asking.is_alive():
            self.close()
            return False
        return bool(transport.is_active())

    def send_signal(self, channel: Any, name: str) -> None:
        from .ssh_transport import send_signal

        with contextlib.suppress(OSError, EOFError):
            send_signal(channel, name)

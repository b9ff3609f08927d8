"""The host key that came with a machine's user-data is replaced by one that is made there, at the first login.

What runs on the machine can read its user-data, so that whoever got hold of it could pose as the machine. The steps,
each of which may be the last one of this process:

    the machine makes a new key beside the old one   -> it shows the old one
    both are kept here                               -> whichever it shows is known
    the machine puts the new one in place, and has its sshd read it
    a new login is verified by the new one           -> only that one is kept here; the old one is not known any more
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudsend_cli.errors import UnfitError, UnreachableError

from .bootstrap import ROOT_COMMAND
from .host_keys import HostKey, parse_public_key
from .ssh_config import Route
from .ssh_connect import Connection
from .ssh_keys import keep_keys, locked
from .ssh_pins import kept_name, read_pins
from .stage_talk import StageTalk

SHOWN_LIMIT = 10.0  # in which sshd has read its new key
LOOK_AGAIN = 0.05


@dataclass(frozen=True, slots=True)
class Rotation:
    """`login` connects to the machine anew, and verifies it by what is known at that moment."""

    route: Route
    known_hosts: Path
    python: str
    login: Callable[[], Connection]

    def rotate(self, first: Connection, failed: str = "") -> tuple[Connection, str]:
        """The connection to go on with, and a warning where the old key stays: `failed` where that was tried before.

        UnreachableError: it is gone on with at the next login.
        """
        with self._alone():
            pins = read_pins(self.route, self.known_hosts)
            old = parse_public_key(self.route.host_key)
            if old is None or (pins and old not in pins):  # somebody else of us was faster
                return first, ""
            if first.host_key != old:
                self._keep(first.host_key)
                return first, ""
            if failed:
                return first, failed
            try:
                new = self._replace(first, old, pins)
            except UnfitError as problem:
                return self.login(), _warning(self.route, problem)
            finally:
                first.close()
            return self._verify(new)

    def _replace(self, connection: Connection, old: HostKey, pins: tuple[HostKey, ...]) -> HostKey:
        """The key that the machine has from now on. UnfitError: it cannot, and has the old one."""
        stream = connection.open_stream(ROOT_COMMAND)
        try:
            talk = StageTalk(stream, self.route.alias, self.python)
            talk.begin({"old": old.line, "kept": [key.line for key in pins if key != old]}, "rekey")
            new = parse_public_key(str(talk.next_word().get("staged")))
            if new is None or new == old:
                raise UnfitError("it has made no key", hint="look at `ssh-keygen` there")
            self._keep(old, new)
            talk.ask(b"install")
            talk.next_word()
            return new
        finally:
            stream.close()

    def _verify(self, new: HostKey) -> tuple[Connection, str]:
        until = time.monotonic() + SHOWN_LIMIT
        while True:
            try:
                connection = self.login()
            except UnreachableError:  # sshd closes its socket for a moment when it reads its configuration anew
                if time.monotonic() > until:
                    raise
            else:
                if connection.host_key == new:
                    self._keep(new)
                    return connection, ""
                if time.monotonic() > until:
                    late = UnfitError("its sshd has not read the new one yet", hint="restart it")
                    return connection, _warning(self.route, late)
                connection.close()
            time.sleep(LOOK_AGAIN)

    def _keep(self, *keys: HostKey) -> None:
        keep_keys(self.known_hosts, kept_name(self.route), keys)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time for each machine, of all processes of this state directory."""
        path = self.known_hosts.with_name(f".rotating-{kept_name(self.route)}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)


def _warning(route: Route, problem: UnfitError) -> str:
    why = problem.context.rpartition("\n")[2] or problem.message
    return (
        f"the host key of {route.alias} stays the one of its user-data, which all that runs there can read: {why} "
        "(its image needs ssh-keygen, and sudo without a password)"
    )

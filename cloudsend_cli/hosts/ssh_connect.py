"""One SSH connection by Fabric: through machines in between, with our check of host keys and our choice of keys."""

from __future__ import annotations

import contextlib
import functools
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fabric
import paramiko
from paramiko.auth_strategy import AuthStrategy

from cloudsend_cli.errors import CloudsendError, UnreachableError

from .host_keys import HostKey, judge
from .ssh_auth import KeyLogin
from .ssh_config import Route
from .ssh_errors import translate
from .ssh_password import PasswordLogin
from .ssh_pins import known_keys
from .ssh_stream import ChannelStream
from .ssh_transport import WINDOW, make_transport, open_socket

BANNER_LIMIT = 15.0
HANDSHAKE_LIMIT = 20.0
AUTH_LIMIT = 20.0
CHANNEL_LIMIT = 15.0
CLOSE_LIMIT = 0.25
CHANNELS_LIMIT = 8  # sshd allows ten on one connection
IDLE_WAIT = 5.0  # how often a connection's thread looks up without cause; paramiko's own 0.1 s costs CPU on many hosts
PACKET_ROOM = 40_000
SETUPS_AT_ONCE = 5  # sshd drops at random from ten unfinished logins on (MaxStartups)
SETUP_PATIENCE = 60.0


class HostKeyCheck(paramiko.MissingHostKeyPolicy):  # type: ignore[misc] # untyped
    """The one place where a host key is accepted. Called before any login, as the client itself is told no keys."""

    def __init__(self, check: Callable[[HostKey], None]) -> None:
        self._check = check

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:
        self._check(HostKey(key.get_name(), key.asbytes()))


class Connection:
    """An authenticated connection, through whatever lies in between. It is closed with the last of its channels."""

    def __init__(self, route: Route, chain: Sequence[fabric.Connection]) -> None:
        self.route = route
        self._chain = chain
        self._lock = threading.Lock()
        self._channels = 0

    @property
    def transport(self) -> paramiko.Transport:
        return self._chain[-1].client.get_transport()

    @property
    def host_key(self) -> HostKey:
        """The one by which the machine was verified."""
        key = self.transport.get_remote_server_key()
        return HostKey(key.get_name(), key.asbytes())

    def has_place(self) -> bool:
        transport = self.transport
        return transport is not None and bool(transport.is_active()) and 0 < self._channels < CHANNELS_LIMIT

    def hold(self) -> None:
        """Keep it while there is no channel, until `close`."""
        with self._lock:
            self._channels += 1

    def open_stream(self, command: str) -> ChannelStream:
        """A channel that runs `command`."""
        channel = self.open_channel(lambda opened: opened.exec_command(command))
        return ChannelStream(channel, self.room(), self.release)

    def open_subsystem(self, name: str) -> ChannelStream:
        channel = self.open_channel(lambda opened: opened.invoke_subsystem(name))
        return ChannelStream(channel, self.room(), self.release)

    def open_channel(self, start: Callable[[paramiko.Channel], None]) -> paramiko.Channel:
        """One that `start` has begun to use; `release` when it is used no more."""
        with self._lock:
            self._channels += 1
        try:
            with self.guarded():
                channel = self.transport.open_session(window_size=WINDOW, timeout=CHANNEL_LIMIT)
                start(channel)
        except BaseException as problem:
            self.release()
            if isinstance(problem, (paramiko.SSHException, OSError, EOFError, AttributeError)):
                raise translate(problem, place(self.route)) from problem
            raise
        return channel

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """For what waits for a reply without a limit: then all is closed."""
        guard = threading.Timer(CHANNEL_LIMIT, self.close)
        guard.daemon = True
        guard.start()
        try:
            yield
        finally:
            guard.cancel()

    def room(self) -> Callable[[], bool]:
        """Whether a packet can be sent without waiting: what is asked is the socket, and each channel that stands for
        one, as paramiko would wait for them without a limit.
        """
        sock, *channels = (connection.client.get_transport().sock for connection in self._chain)
        sock.eager = False
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLOUT)
        limits = [(channel, min(PACKET_ROOM, channel.out_window_size // 2)) for channel in channels]
        return lambda: bool(poller.poll(0)) and all(channel.out_window_size > limit for channel, limit in limits)

    def release(self) -> None:
        with self._lock:
            self._channels -= 1
            if self._channels:
                return
        self.close()

    def close(self) -> None:
        close_chain(self._chain)


def place(route: Route) -> str:
    if route.alias:
        return f"{route.alias} ({route.hostname}):{route.port}"
    name = route.asked if route.asked == route.hostname else f"{route.asked} ({route.hostname})"
    return f"{name}:{route.port}"


def close_chain(chain: Sequence[fabric.Connection]) -> None:
    """What was sent still leaves, if that goes at once; nothing waits for a peer that does not answer."""
    for connection in reversed(chain):
        transport = connection.client.get_transport()
        if transport is None:
            if "sock" in connection.connect_kwargs:
                connection.connect_kwargs["sock"].close()
            continue
        for how, limit in ((socket.SHUT_WR, CLOSE_LIMIT), (socket.SHUT_RDWR, 1.0)):
            with contextlib.suppress(OSError, EOFError, AttributeError):
                transport.sock.shutdown(how)
            if transport.is_alive():
                transport.join(limit)
        with contextlib.suppress(OSError, EOFError):
            connection.client.close()
            transport.sock.close()


# ---- setting up --------------------------------------------------------------------------------------------------


def connect(route: Route, known_hosts: Path, timeout: float, password: str = "") -> Connection:
    """A connection that is logged in. Errors are of the machine that they are about, which may be one in between.

    The password is for the machine itself: those in between never see it.
    """
    chain: list[fabric.Connection] = []
    try:
        _build(chain, route, known_hosts, timeout, None, password)
    except BaseException:
        close_chain(chain)
        raise
    return Connection(route, chain)


class _Seen(Exception):
    """Ends a connection when its host key has been seen: no login is tried."""

    def __init__(self, key: HostKey) -> None:
        super().__init__()
        self.key = key


def look_at_key(route: Route, known_hosts: Path, timeout: float, types: Sequence[str]) -> HostKey | None:
    """The host key of one of `types` that the machine presents; None if it has none. Those in between are verified."""
    chain: list[fabric.Connection] = []
    try:
        _build(chain, route, known_hosts, timeout, types)
    except _Seen as seen:
        return seen.key
    except CloudsendError as problem:
        if isinstance(problem.__cause__, paramiko.ssh_exception.IncompatiblePeer) and "key" in str(problem.__cause__):
            return None
        raise
    finally:
        close_chain(chain)
    return None


def _see(key: HostKey) -> None:
    raise _Seen(key)


def _build(
    chain: list[fabric.Connection],
    route: Route,
    known_hosts: Path,
    timeout: float,
    look: Sequence[str] | None,
    password: str = "",
) -> None:
    """Connections to each machine on the way, each through the one before. `look`: see the last one's key, no more."""
    with _setup_turn(route.hops[0] if route.hops else route):
        for machine in (*route.hops, route):
            if look is not None and machine is route:
                factory = functools.partial(make_transport, key_types=look, only=True)
                _open(chain, machine, timeout, _see, factory, KeyLogin(machine))
                return
            known = known_keys(machine, known_hosts)
            check = functools.partial(judge, known, asked=machine.alias or machine.asked)
            login = PasswordLogin(machine, password) if password and machine is route else KeyLogin(machine)
            _open(chain, machine, timeout, check, functools.partial(make_transport, key_types=known.types), login)


def _open(
    chain: list[fabric.Connection],
    route: Route,
    timeout: float,
    check: Callable[[HostKey], None],
    transport_factory: Callable[..., paramiko.Transport],
    login: AuthStrategy,
) -> None:
    """Add the connection to one more machine to `chain`, through the last one there."""
    try:
        connection = _prepare(route, check, transport_factory, chain[-1] if chain else None, login)
        if not chain:
            connection.connect_kwargs["sock"] = open_socket(route, timeout)
        chain.append(connection)
        connection.open()
        connection.transport.sock.settimeout(IDLE_WAIT)
    except (CloudsendError, _Seen):
        raise
    except Exception as problem:  # a server that talks nonsense makes paramiko raise whatever
        raise translate(problem, place(route)) from problem


def _prepare(
    route: Route,
    check: Callable[[HostKey], None],
    transport_factory: Callable[..., paramiko.Transport],
    gateway: fabric.Connection | None,
    login: AuthStrategy,
) -> fabric.Connection:
    """Fabric's connection, told everything: it reads no configuration file and accepts no key of its own accord."""
    connection = fabric.Connection(
        host=route.hostname,
        user=route.user,
        port=route.port,
        config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
        gateway=gateway,
        forward_agent=False,
        connect_kwargs={
            "auth_strategy": login,
            "banner_timeout": BANNER_LIMIT,
            "auth_timeout": AUTH_LIMIT,
            "channel_timeout": CHANNEL_LIMIT,
            "timeout": HANDSHAKE_LIMIT,
            "compress": False,
            "transport_factory": lambda sock, disabled_algorithms=None: transport_factory(sock),
        },
        inline_ssh_env=False,
    )
    connection.client.set_missing_host_key_policy(HostKeyCheck(check))
    return connection


_turns: dict[tuple[str, int], threading.BoundedSemaphore] = {}
_turns_lock = threading.Lock()


@contextlib.contextmanager
def _setup_turn(first: Route) -> Iterator[None]:
    """At most a few logins at once to one machine, by this process."""
    with _turns_lock:
        turn = _turns.setdefault((first.hostname, first.port), threading.BoundedSemaphore(SETUPS_AT_ONCE))
    if not turn.acquire(blocking=False):
        if not turn.acquire(timeout=SETUP_PATIENCE):
            raise UnreachableError(f"{place(first)}: too many logins are under way", hint="it is tried again")
        time.sleep(random.uniform(0, 0.05))  # noqa: S311 - those who waited do not start in step
    try:
        yield
    finally:
        turn.release()

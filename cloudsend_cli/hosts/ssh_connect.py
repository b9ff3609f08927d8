"""One SSH connection by Fabric: our sockets, our check of host keys, our choice of keys and algorithms."""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fabric
import paramiko

from cloudsend_cli.errors import CloudsendError, UnreachableError

from .host_keys import HostKey, KnownKey, KnownKeys, find_known_for, judge, parse_public_key, read_known_hosts
from .ssh_auth import KeyLogin
from .ssh_config import Route
from .ssh_errors import translate
from .ssh_stream import ChannelStream, tune

BANNER_LIMIT = 15.0
HANDSHAKE_LIMIT = 20.0
AUTH_LIMIT = 20.0
CHANNEL_LIMIT = 15.0
DEAD_AFTER = 10.0
CLOSE_LIMIT = 0.25
CHANNELS_LIMIT = 8  # sshd allows ten on one connection
WINDOW = 4 << 20
IDLE_WAIT = 5.0  # how often a connection's thread looks up without cause; paramiko's own 0.1 s costs CPU on many hosts
SETUPS_AT_ONCE = 5  # sshd drops at random from ten unfinished logins on (MaxStartups)
SETUP_PATIENCE = 60.0

CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")

# Without a handler, what paramiko logs about each failed try reaches the user's terminal beside our own words.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

Judge = Callable[[Route, HostKey], None]


class HostKeyCheck(paramiko.MissingHostKeyPolicy):  # type: ignore[misc] # untyped
    """The one place where a host key is accepted. Called before any login, as the client itself is told no keys."""

    def __init__(self, judgement: Callable[[HostKey], None]) -> None:
        self._judgement = judgement

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:
        self._judgement(HostKey(key.get_name(), key.asbytes()))


class Connection:
    """An authenticated connection, through whatever lies in between. It is closed with the last of its channels."""

    def __init__(self, route: Route, chain: Sequence[fabric.Connection], socket_fd: int) -> None:
        self.route = route
        self._socket_fd = socket_fd  # -1 where the bytes go through another connection
        self._chain = chain
        self._lock = threading.Lock()
        self._channels = 0

    @property
    def transport(self) -> paramiko.Transport:
        return self._chain[-1].client.get_transport()

    def has_place(self) -> bool:
        transport = self.transport
        return transport is not None and bool(transport.is_active()) and 0 < self._channels < CHANNELS_LIMIT

    def open_stream(self, command: str) -> ChannelStream:
        """A channel that runs `command`."""
        with self._lock:
            self._channels += 1
        guard = threading.Timer(CHANNEL_LIMIT, self.close)  # exec_command waits for its reply without a limit
        guard.daemon = True
        guard.start()
        try:
            channel = self.transport.open_session(window_size=WINDOW, timeout=CHANNEL_LIMIT)
            channel.exec_command(command)
        except BaseException as problem:
            self._release()
            if isinstance(problem, (paramiko.SSHException, OSError, EOFError, AttributeError)):
                raise translate(problem, place(self.route)) from problem
            raise
        finally:
            guard.cancel()
        return ChannelStream(channel, self._socket_fd, self._release)

    def _release(self) -> None:
        with self._lock:
            self._channels -= 1
            if self._channels:
                return
        self.close()

    def close(self) -> None:
        close_chain(self._chain)


def place(route: Route) -> str:
    name = route.asked if route.asked == route.hostname else f"{route.asked} ({route.hostname})"
    return f"{name}:{route.port}"


def close_chain(chain: Sequence[fabric.Connection]) -> None:
    """What was sent still leaves, if that goes at once; nothing waits for a peer that does not answer."""
    for connection in reversed(chain):
        transport = connection.client.get_transport()
        if transport is None:
            continue
        for how, limit in ((socket.SHUT_WR, CLOSE_LIMIT), (socket.SHUT_RDWR, 1.0)):
            with contextlib.suppress(OSError, EOFError, AttributeError):
                transport.sock.shutdown(how)
            if transport.is_alive():
                transport.join(limit)
        with contextlib.suppress(OSError, EOFError):
            connection.client.close()
            transport.sock.close()


# ---- host keys ---------------------------------------------------------------------------------------------------


def known_keys(route: Route, known_hosts: Path) -> KnownKeys:
    """All that is known for a machine: of the state directory's file and of the user's and the system's."""
    if route.host_key:
        key = parse_public_key(route.host_key)
        pinned = (KnownKey("*", key, "", "the address's own key"),) if key else ()
        return KnownKeys(route.hostname, pinned)
    files = (known_hosts, *(Path(f) for f in route.known_hosts))
    lines = [line for file in files for line in read_known_hosts(file)]
    return find_known_for(lines, route.hostname, route.port, route.host_key_alias)


def preferred_types(known: Sequence[str], offered: Sequence[str]) -> tuple[str, ...]:
    """The types of known keys first, so that the server shows one that can be compared."""
    wanted = [t for k in known for t in (("rsa-sha2-512", "rsa-sha2-256") if k == "ssh-rsa" else (k,))]
    first = [t for t in wanted if t in offered]
    return tuple(first + [t for t in offered if t not in first])


# ---- setting up --------------------------------------------------------------------------------------------------


def connect(route: Route, known_hosts: Path, timeout: float, judgement: Judge | None = None) -> Connection:
    """A connection that is logged in. `judgement` replaces the check of the last machine's key."""
    chain: list[fabric.Connection] = []
    socket_fd = -1
    where = route
    try:
        with _setup_turn(route.hops[0] if route.hops else route):
            for where in (*route.hops, route):
                last = where is route
                known = known_keys(where, known_hosts)
                check = functools.partial(judge, known, asked=where.asked)
                if last and judgement is not None:
                    check = functools.partial(judgement, where)
                connection = _prepare(where, known, check, chain[-1] if chain else None)
                if not chain:
                    sock = open_socket(where, timeout)
                    socket_fd = sock.fileno() if not route.hops else -1
                    connection.connect_kwargs["sock"] = sock
                chain.append(connection)
                connection.open()
                connection.transport.sock.settimeout(IDLE_WAIT)
    except BaseException as problem:
        close_chain(chain)
        if isinstance(problem, CloudsendError):
            raise
        if isinstance(problem, (paramiko.SSHException, OSError, EOFError, KeyError)):
            raise translate(problem, place(where)) from problem
        raise
    return Connection(route, chain, socket_fd)


def _prepare(
    route: Route, known: KnownKeys, check: Callable[[HostKey], None], gateway: fabric.Connection | None
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
            "auth_strategy": KeyLogin(route),
            "banner_timeout": BANNER_LIMIT,
            "auth_timeout": AUTH_LIMIT,
            "channel_timeout": CHANNEL_LIMIT,
            "timeout": HANDSHAKE_LIMIT,
            "compress": False,
            "transport_factory": functools.partial(_make_transport, known),
        },
        inline_ssh_env=False,
    )
    connection.client.set_missing_host_key_policy(HostKeyCheck(check))
    return connection


def _make_transport(known: KnownKeys, sock: Any, disabled_algorithms: object = None) -> paramiko.Transport:
    transport = paramiko.Transport(sock, default_window_size=WINDOW)
    options = transport.get_security_options()
    options.ciphers = tuple(c for c in CIPHERS if c in options.ciphers)
    options.digests = tuple(m for m in MACS if m in options.digests)
    options.key_types = preferred_types(known.types, options.key_types)
    return transport


def open_socket(route: Route, timeout: float) -> socket.socket:
    """A socket to the machine, or to the program that the user's configuration puts in between."""
    if route.proxy_command:
        return _run_proxy(route.proxy_command)
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(route.address_family, socket.AF_UNSPEC)
    try:
        found = socket.getaddrinfo(route.hostname, route.port, family, socket.SOCK_STREAM)
    except OSError as problem:
        raise translate(problem, place(route)) from problem
    until = time.monotonic() + timeout
    failed: OSError = TimeoutError()
    for kind, sort, protocol, _, address in found:
        sock = socket.socket(kind, sort, protocol)
        try:
            tune(sock, DEAD_AFTER)
            sock.settimeout(max(0.5, until - time.monotonic()))
            sock.connect(address)
            return sock
        except OSError as problem:
            sock.close()
            failed = problem
    raise translate(failed, place(route)) from failed


def _run_proxy(command: str) -> socket.socket:
    """The program on one end of a socket pair: unlike pipes that can be polled, and it ends when ours is closed."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, name=f"proxy {shlex.quote(command)[:20]}", daemon=True).start()
    return ours


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

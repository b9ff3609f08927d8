"""A machine's host keys: looking at them, and accepting one that the user compared. Only our own file is written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import HostKeyError, StateDirError

from .host_keys import FILE_LIMIT, HostKey, KnownKey, UnknownKey, parse_known_hosts, read_known_hosts
from .ssh_config import resolve
from .ssh_pins import kept_name, known_keys

LOOK_LIMIT = 10.0
KEY_TYPES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("ssh-rsa",),
)


def fetch_host_keys(address: HostAddress, known_hosts: Path, ssh_config: Path | None = None) -> list[HostKey]:
    """The keys that the machine presents now; they are not verified. No login is tried on it."""
    from .ssh_connect import look_at_key

    route = resolve(address, ssh_config)
    keys = (look_at_key(route, known_hosts, LOOK_LIMIT, types) for types in KEY_TYPES)
    return [key for key in keys if key is not None]


def accept_host_key(
    known_hosts: Path, address: HostAddress, fingerprint: str, ssh_config: Path | None = None
) -> HostKey:
    """Keep the key of that fingerprint for the machine, or for one on the way to it that is not known yet.

    HostKeyError if the machine presents another one now, or the key is revoked. An older key of its type that was
    accepted here is dropped; one in the user's own files stays valid until the user removes it.
    """
    route = resolve(address, ssh_config)
    if route.host_key:
        raise HostKeyError(
            f"the host key of {route.asked} is pinned: no other is accepted", hint="change `host_key` where it is set"
        )
    try:
        keys = fetch_host_keys(address, known_hosts, ssh_config)
    except HostKeyError as problem:
        between = problem.unknown  # of a machine on the way
        if not isinstance(between, UnknownKey) or between.key.fingerprint != fingerprint:
            raise
        remember(known_hosts, between.name, between.key)
        return between.key
    key = next((k for k in keys if k.fingerprint == fingerprint), None)
    if key is None:
        shown = ", ".join(f"{k.type} {k.fingerprint}" for k in keys) or "none that cloudsend can use"
        raise HostKeyError(
            f"{route.asked} presents another host key than {fingerprint[:80]}: {shown}",
            hint="compare again with `ssh-keygen -lf` on the machine itself; nothing was accepted",
        )
    if any(line.key.blob == key.blob for line in known_keys(route, known_hosts).revoked):
        raise HostKeyError(f"that host key of {route.asked} is revoked", hint="ask for the machine's new key")
    remember(known_hosts, kept_name(route), key)
    return key


def remember(path: Path, name: str, key: HostKey) -> None:
    """Add a line to our file, in place of an older key of that name and type. All of it or nothing."""
    _rewrite(path, lambda k: k.patterns == name and k.key.type == key.type, [f"{name} {key.line}"])


def keep_keys(path: Path, name: str, keys: Sequence[HostKey]) -> None:
    """Have these keys of that name in our file and no other. It is on the disk when it returns."""
    _rewrite(path, lambda k: k.patterns == name and not k.marker, [f"{name} {key.line}" for key in keys])


def drop_keys(path: Path, name: str) -> None:
    """Have no key of that name in our file any more: the machine has ended."""
    if any(line.patterns == name for line in read_known_hosts(path)):
        keep_keys(path, name, [])


def _rewrite(path: Path, goes: Callable[[KnownKey], bool], more: Sequence[str]) -> None:
    """Our file without the lines that go, and with more. All of it or nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path) as text:
        kept = [line for line in text.splitlines() if not any(goes(k) for k in parse_known_hosts(line))]
        data = "".join(f"{line}\n" for line in (*kept, *more)).encode("utf-8", "surrogateescape")
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as writer:
                writer.write(data)
                writer.flush()
                os.fsync(writer.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[str]:
    """The file's text, while nobody else of us replaces it, or removes it."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise StateDirError(
                f"{path} cannot be written: {problem.strerror}", hint="it must be a file of your own, not a link"
            ) from problem
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            about = os.fstat(fd)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path, follow_symlinks=False).st_ino == about.st_ino:  # else it was replaced meanwhile
                    yield os.pread(fd, FILE_LIMIT, 0).decode("utf-8", "surrogateescape")
                    return
        finally:
            os.close(fd)

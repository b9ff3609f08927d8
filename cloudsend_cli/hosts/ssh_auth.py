"""Logging in with keys: which are offered and in what order. Never a passphrase or agent forwarding."""

from __future__ import annotations

import base64
import io
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.auth_strategy import AuthStrategy

from cloudsend_cli.errors import AuthError, UnreachableError

from .host_keys import HostKey, parse_public_key
from .ssh_config import Route

OFFERS_LIMIT = 5  # sshd hangs up after MaxAuthTries, 6 by default
AGENT_LIMIT = 20.0  # an agent may ask its user


@dataclass(slots=True)
class Offer:
    label: str
    key: paramiko.PKey


class KeyAgent(AgentSSH):  # type: ignore[misc] # untyped
    """The user's ssh-agent; a hung one is given up."""

    def __init__(self, path: str) -> None:
        super().__init__()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(AGENT_LIMIT)
        try:
            sock.connect(path)
            self._connect(sock)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        self._close()


class KeyLogin(AuthStrategy):  # type: ignore[misc] # untyped
    """Offers the keys of a route. Errors say what was offered and what kept the others from it."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._offered: list[str] = []
        self._notes: list[str] = []
        self._agent: KeyAgent | None = None

    def authenticate(self, transport: paramiko.Transport) -> None:
        try:
            self._authenticate(transport)
        finally:
            if self._agent is not None:
                self._agent.close()

    def _authenticate(self, transport: paramiko.Transport) -> None:
        user = self._route.user
        for offer in self._offers():
            self._offered.append(offer.label)
            try:
                further = transport.auth_publickey(user, offer.key)
            except paramiko.BadAuthenticationType as problem:
                raise self._wants(problem.allowed_types) from problem
            except paramiko.AuthenticationException as problem:
                self.check_alive(transport, problem)
                continue
            except (paramiko.SSHException, OSError, EOFError, ValueError) as problem:
                self.check_alive(transport, problem)
                self._notes.append(f"{offer.label}: {problem}")
                continue
            if further:
                raise self._wants(further, second=True)
            return
        if self._offered:
            raise self._refused("")
        self._without_key(transport)

    def check_alive(self, transport: paramiko.Transport, problem: Exception) -> None:
        """A refused key leaves the connection open. Lost in the middle says nothing about keys, but for a farewell."""
        if transport.is_active() and "timeout" not in str(problem).lower():
            return
        farewell = getattr(transport, "farewell", "")
        if "authentication" in farewell.lower():
            raise self._refused(farewell) from None
        words = farewell or "the connection was lost during the login"
        raise UnreachableError(f"{self._route.asked}: {words}", hint="it is tried again") from problem

    def _without_key(self, transport: paramiko.Transport) -> None:
        """Some servers let in whom the network vouches for; the others say what they want."""
        try:
            if not transport.auth_none(self._route.user):
                return
        except paramiko.BadAuthenticationType as problem:
            if "publickey" not in problem.allowed_types:
                raise self._wants(problem.allowed_types) from problem
        except paramiko.AuthenticationException as problem:
            self.check_alive(transport, problem)
        raise self._refused("")

    # ---- which keys ------------------------------------------------------------------------------------------------

    def _offers(self) -> Iterator[Offer]:
        """Each key once: the configured ones first, whether a file or the agent has them, then others of the agent."""
        held = self._agent_keys()
        given = self._route.key
        count = 0
        for path in (given,) if given else self._route.identity_files:
            offer = self._offer_of_file(path, held, required=bool(given))
            if offer is not None and count < OFFERS_LIMIT:
                count += 1
                yield offer
        if not self._route.identities_only:
            for blob in list(held)[: OFFERS_LIMIT - count]:
                yield Offer(f"{_name_of(held[blob])} of the agent", held[blob])
        if len(held) > OFFERS_LIMIT - count and not self._route.identities_only:
            self._notes.append("the agent has more keys than a server lets one try: name the right one with `key:`")

    def _agent_keys(self) -> dict[bytes, paramiko.AgentKey]:
        path = self._route.identity_agent or os.environ.get("SSH_AUTH_SOCK", "")
        if not path or path == "none":
            return {}
        try:
            self._agent = KeyAgent(path)
        except (OSError, paramiko.SSHException) as problem:
            self._notes.append(f"the ssh-agent at {path} does not answer: {problem}")
            return {}
        return {key.blob: key for key in self._agent.get_keys()}

    def _offer_of_file(self, name: str, held: dict[bytes, paramiko.AgentKey], *, required: bool) -> Offer | None:
        path = Path(name)
        public = read_public_key(path)
        if public is not None and public.blob in held:
            return Offer(f"{name} by the agent", held.pop(public.blob))
        try:
            check_private(path)
            return Offer(name, load_key(path))
        except FileNotFoundError:
            if required:
                raise AuthError(f"the key file {name} does not exist", hint="mend `key:`") from None
        except paramiko.PasswordRequiredException:
            self._encrypted(name)
        except (paramiko.SSHException, OSError, ValueError, TypeError) as problem:
            if "password" in str(problem).lower() or "encrypted" in str(problem).lower():
                self._encrypted(name)
            else:
                self._notes.append(f"{name}: {problem}")
        except paramiko.ssh_exception.UnknownKeyType:
            self._notes.append(f"{name} is of a type that cloudsend cannot use itself: add it to the agent")
        return None

    def _encrypted(self, name: str) -> None:
        self._notes.append(f"{name} has a passphrase and the agent does not hold it: run `ssh-add {name}`")

    # ---- errors ----------------------------------------------------------------------------------------------------

    def _wants(self, types: list[str], *, second: bool = False) -> AuthError:
        route = self._route
        if second:
            message = (
                f"{route.asked} accepts the key of {route.user}, and asks for a second factor: {', '.join(types)}"
            )
            return AuthError(message, hint="cloudsend cannot answer it: ask for a login with a key alone")
        message = f"{route.asked} takes no keys of {route.user}, but {', '.join(types)}"
        return AuthError(message, hint="cloudsend logs in with keys only: ask for that, or see its sshd_config")

    def _refused(self, why: str) -> AuthError:
        route = self._route
        offered = ", ".join(self._offered) if self._offered else "none"
        because = f" ({why})" if why else ""
        hint = "; ".join(self._notes)
        if not hint and route.alias:
            hint = "it may still be starting, and be given the key in a moment: it is tried again"
        if not hint:
            hint = f"does `ssh -p {route.port} {route.user}@{route.hostname}` work? `ssh-copy-id` puts a key there"
        return AuthError(
            f"{route.asked} does not let {route.user} in{because}; keys offered: {offered}",
            hint=hint,
        )


def load_key(path: Path) -> paramiko.PKey:
    """The private key in a file.

    paramiko takes OpenSSH's format for damaged where it ends without padding, as some keys without a comment do. Those
    are read by what it builds upon.
    """
    try:
        return paramiko.PKey.from_path(path)
    except paramiko.PasswordRequiredException:
        raise
    except paramiko.SSHException:
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_ssh_private_key(path.read_bytes(), None)
        old_format = serialization.PrivateFormat.TraditionalOpenSSL
        text = key.private_bytes(serialization.Encoding.PEM, old_format, serialization.NoEncryption()).decode()
        kind = paramiko.RSAKey if "RSA" in text.splitlines()[0] else paramiko.ECDSAKey
        return kind.from_private_key(io.StringIO(text))


def check_private(path: Path) -> None:
    """As ssh: a private key that others can read is no longer one."""
    about = path.stat()
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(f"{path} is a directory")
    if about.st_uid == os.getuid() and about.st_mode & 0o077:
        raise PermissionError(f"it can be read by others: chmod 600 {path}")


def read_public_key(path: Path) -> HostKey | None:
    """The public half: of PATH.pub, of PATH if that is itself public, or of the private file, which has it too."""
    for candidate in (path.with_name(path.name + ".pub"), path):
        try:
            text = candidate.read_bytes()[: 64 << 10]
        except OSError:
            continue
        found = parse_public_key(text.decode("utf-8", "replace")) or _public_half(text)
        if found is not None:
            return found
    return None


def _public_half(text: bytes) -> HostKey | None:
    begin, end = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END"
    if begin not in text:
        return None
    try:
        data = base64.b64decode(text.split(begin, 1)[1].split(end, 1)[0])
        rest = data.removeprefix(b"openssh-key-v1\0")
        for _ in range(3):  # cipher, kdf, its options
            _, rest = _string(rest)
        blob, _ = _string(rest[4:])  # after the number of keys
        kind, _ = _string(blob)
        return HostKey(kind.decode(), blob)
    except (ValueError, struct.error):
        return None


def _string(data: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack(">I", data[:4])
    if len(data) < 4 + size:
        raise ValueError("cut off")
    return data[4 : 4 + size], data[4 + size :]


def _name_of(key: paramiko.AgentKey) -> str:
    comment = "".join(c for c in str(key.comment) if c.isprintable())[:60]
    return comment or str(key.get_name())

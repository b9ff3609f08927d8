"""What went wrong in a library, in our words: one function, one table."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError

from cloudsend_cli.errors import AuthError, CloudsendError, HostKeyError, UnfitError, UnreachableError

TRY_AGAIN = "it is tried again; is the machine up, and the network?"


def translate(problem: BaseException, where: str) -> CloudsendError:
    """The error for what happened at `where`, the name and port of a machine."""
    if isinstance(problem, CloudsendError):
        return problem
    for kinds, make in _TABLE:
        if isinstance(problem, kinds) and (error := make(problem, where)) is not None:
            return error
    return UnreachableError(f"{where}: {_words(problem)}", hint=TRY_AGAIN)


def _words(problem: BaseException) -> str:
    return str(problem) or type(problem).__name__


def _bad_host_key(problem: Any, where: str) -> CloudsendError:
    return HostKeyError(f"the host key of {where} has changed", hint="compare it with the machine's administrator")


def _no_login(problem: Any, where: str) -> CloudsendError:
    return AuthError(
        f"{where} does not let us in: {_words(problem)}", hint=f"does `ssh {where.partition(':')[0]}` work?"
    )


def _incompatible(problem: Any, where: str) -> CloudsendError:
    return UnfitError(
        f"{where} speaks no algorithm that is safe today: {_words(problem)}",
        hint="its SSH server is too old: bring it up to date, or have it offer ed25519 or rsa-sha2 keys",
    )


def _no_address(problem: Any, where: str) -> CloudsendError:
    return UnreachableError(f"no address for {where}: {problem.strerror}", hint="is the name right, and DNS up?")


def _no_connection(problem: Any, where: str) -> CloudsendError:
    reasons = "; ".join(dict.fromkeys(_os_words(e) for e in problem.errors.values()))
    return UnreachableError(f"{where} cannot be reached: {reasons}", hint=TRY_AGAIN)


def _early_end(problem: Any, where: str) -> CloudsendError | None:
    words = _words(problem)
    if "Indecipherable protocol" in words or "Invalid SSH banner" in words:
        return UnreachableError(f"{where} is not an SSH server", hint="is the port right?")
    if isinstance(problem.__context__, TimeoutError) or "No existing session" in words or "Timeout" in words:
        return UnreachableError(f"{where} accepts connections, but does not answer in time", hint=TRY_AGAIN)
    if isinstance(problem, EOFError) or "protocol banner" in words or "Negotiation failed" in words:
        return UnreachableError(
            f"{where} drops new logins",
            hint="too many at once (MaxStartups), a ban after failures, or no SSH server: it is tried again",
        )
    return None


def _os_error(problem: Any, where: str) -> CloudsendError:
    return UnreachableError(f"{where} cannot be reached: {_os_words(problem)}", hint=TRY_AGAIN)


def _os_words(problem: OSError) -> str:
    if isinstance(problem, TimeoutError) or problem.errno == errno.ETIMEDOUT:
        return "no answer in time"
    return (
        problem.strerror or (os.strerror(problem.errno) if problem.errno else str(problem)) or type(problem).__name__
    )


def _channel_refused(problem: Any, where: str) -> CloudsendError:
    text = str(problem.text)
    if problem.code == 1:
        return UnreachableError(
            f"{where} forbids it: {text}",
            hint="for a machine in between: its sshd must allow TCP forwarding",
        )
    return UnreachableError(
        f"{where} opens no more channels: {text}",
        hint="MaxSessions of its sshd may be used up, or what lies behind it cannot be reached; it is tried again",
    )


# The first that fits and answers.
_TABLE: tuple[tuple[type | tuple[type, ...], Callable[[Any, str], CloudsendError | None]], ...] = (
    (paramiko.BadHostKeyException, _bad_host_key),
    (paramiko.AuthenticationException, _no_login),
    ((IncompatiblePeer, KeyError), _incompatible),
    (paramiko.ChannelException, _channel_refused),
    (socket.gaierror, _no_address),
    (NoValidConnectionsError, _no_connection),
    ((paramiko.SSHException, EOFError), _early_end),
    (OSError, _os_error),
)

"""What a library raises, in words that say what to do next."""

from __future__ import annotations

import errno
import socket

import paramiko
import pytest
from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError

from cloudsend_cli.errors import AuthError, CloudsendError, HostKeyError, UnfitError, UnreachableError
from cloudsend_cli.hosts.ssh_errors import translate

WHERE = "gpu (10.0.0.1):2222"


def caused(problem: Exception, by: BaseException) -> Exception:
    problem.__context__ = by
    return problem


BANNER = "Error reading SSH protocol banner"

TABLE: list[tuple[BaseException, type[CloudsendError], str]] = [
    (paramiko.AuthenticationException("Authentication failed."), AuthError, "does not let us in: Authentication"),
    (paramiko.BadAuthenticationType("no", ["password"]), AuthError, "does not let us in"),
    (
        IncompatiblePeer("Incompatible ssh peer (no acceptable host key)"),
        UnfitError,
        "no algorithm that is safe today",
    ),
    (KeyError("ssh-rsa"), UnfitError, "no algorithm that is safe today: 'ssh-rsa'"),
    (paramiko.ChannelException(1, "Administratively prohibited"), UnreachableError, "forbids it"),
    (paramiko.ChannelException(2, "Connect failed"), UnreachableError, "opens no more channels: Connect failed"),
    (socket.gaierror(-2, "Name or service not known"), UnreachableError, "no address for gpu"),
    (
        NoValidConnectionsError({("10.0.0.1", 22): ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")}),
        UnreachableError,
        "cannot be reached: Connection refused",
    ),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), UnreachableError, "Connection refused"),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), UnreachableError, "reset by peer"),
    (TimeoutError(), UnreachableError, "cannot be reached: no answer in time"),
    (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), UnreachableError, "no answer in time"),
    (OSError(errno.EHOSTUNREACH, "No route to host"), UnreachableError, "No route to host"),
    (OSError("odd"), UnreachableError, "odd"),
    (EOFError(), UnreachableError, "drops new logins"),
    (caused(paramiko.SSHException(BANNER), EOFError()), UnreachableError, "drops new logins"),
    (caused(paramiko.SSHException(BANNER), ConnectionResetError()), UnreachableError, "drops new logins"),
    (caused(paramiko.SSHException(BANNER), TimeoutError()), UnreachableError, "does not answer in time"),
    (paramiko.SSHException("No existing session"), UnreachableError, "does not answer in time"),
    (paramiko.SSHException("Timeout opening channel."), UnreachableError, "does not answer in time"),
    (paramiko.SSHException("Negotiation failed."), UnreachableError, "drops new logins"),
    (paramiko.SSHException('Indecipherable protocol version "HTTP"'), UnreachableError, "is not an SSH server"),
    (paramiko.SSHException("Mismatched MAC"), UnreachableError, "gpu (10.0.0.1):2222: Mismatched MAC"),
    (ValueError("nonsense"), UnreachableError, "nonsense"),
    (RuntimeError(), UnreachableError, "RuntimeError"),
]


@pytest.mark.parametrize(("problem", "kind", "words"), TABLE, ids=lambda v: type(v).__name__ if v else "")
def test_each_problem_has_its_class_and_words(problem: BaseException, kind: type[CloudsendError], words: str) -> None:
    error = translate(problem, WHERE)
    assert type(error) is kind
    assert words in error.message and WHERE in error.message
    assert error.hint


def test_a_key_that_paramiko_refuses_is_a_changed_one() -> None:
    one, two = (paramiko.RSAKey.generate(1024) for _ in range(2))
    assert type(translate(paramiko.BadHostKeyException("gpu", one, two), WHERE)) is HostKeyError


def test_our_own_errors_pass() -> None:
    ours = UnfitError("x")
    assert translate(ours, WHERE) is ours


def test_unreachable_is_tried_again_and_the_others_are_not() -> None:
    for problem, kind, _ in TABLE:
        assert translate(problem, WHERE).transient is (kind is UnreachableError)

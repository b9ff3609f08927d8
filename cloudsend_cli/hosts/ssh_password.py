"""Logging in with a password that the caller gives. It goes to a machine that has been verified, and only there."""

from __future__ import annotations

from collections.abc import Callable

import paramiko
from paramiko.auth_strategy import AuthStrategy

from cloudsend_cli.errors import AuthError

from .ssh_auth import KeyLogin
from .ssh_config import Route


class PasswordLogin(AuthStrategy):  # type: ignore[misc] # untyped
    """What was given is tried: the key of the route, if it names one, then the password.

    Keys that were not asked for are tried where the machine takes no passwords; never after it refused this one.
    """

    def __init__(self, route: Route, password: str) -> None:
        self._route = route
        self._password = password
        self._keys = KeyLogin(route)

    def authenticate(self, transport: paramiko.Transport) -> None:
        key_problem: AuthError | None = None
        if self._route.key:
            try:
                self._keys.authenticate(transport)
                return
            except AuthError as problem:
                if not transport.is_active():
                    raise
                key_problem = problem
        further = self._give_password(transport, key_problem)
        if further == ["publickey"] and key_problem is None:
            self._keys.authenticate(transport)
        elif further:
            asked = ", ".join(further)
            raise AuthError(
                f"{self._route.asked} takes the password of {self._route.user}, and asks for more: {asked}",
                hint="cloudsend answers no second question: ask for a login with a key or a password alone",
            )

    def _give_password(self, transport: paramiko.Transport, key_problem: AuthError | None) -> list[str]:
        """What the machine asks for beyond it."""
        user = self._route.user
        try:
            return list(transport.auth_password(user, self._password, fallback=False))
        except paramiko.BadAuthenticationType as problem:
            allowed = list(problem.allowed_types)
        except paramiko.AuthenticationException as problem:
            raise self._refused(transport, problem, key_problem) from problem
        if "keyboard-interactive" in allowed:
            try:
                return list(transport.auth_interactive(user, self._answering()))
            except paramiko.AuthenticationException as problem:
                raise self._refused(transport, problem, key_problem) from problem
        if key_problem is not None or "publickey" not in allowed:
            raise AuthError(
                f"{self._route.asked} takes no password of {user}, but {', '.join(allowed) or 'nothing'}",
                hint=key_problem.message if key_problem else "ask for a login with a key or a password",
            )
        self._keys.authenticate(transport)
        return []

    def _answering(self) -> Callable[[str, str, list[tuple[str, bool]]], list[str]]:
        """The password to one hidden question; to whatever else is asked, such as a code, nothing."""
        answers = [self._password]

        def answer(title: str, instructions: str, questions: list[tuple[str, bool]]) -> list[str]:
            if len(questions) == 1 and not questions[0][1] and answers:
                return [answers.pop()]
            return [""] * len(questions)

        return answer

    def _refused(self, transport: paramiko.Transport, problem: Exception, key_problem: AuthError | None) -> AuthError:
        self._keys.check_alive(transport, problem)
        hint = "it is not tried again, as some machines lock an account after a few failures"
        if key_problem is not None:
            hint = f"{key_problem.message}; {hint}"
        return AuthError(f"{self._route.asked} does not take the password of {self._route.user}", hint=hint)

"""Every error a user can meet. The class is chosen by what the reader must do next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a user's file: what, where, and what to do. `line` and `column` count from 1; 0 = unknown."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    width: int = 1
    hint: str = ""
    path: str = ""  # the key's path in the document, such as `jobs[2].script`

    @property
    def place(self) -> str:
        if not self.file:
            return ""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class CloudsendError(Exception):
    """What happened, where, and what to do next. `code` is stable and is a heading in docs/errors.md."""

    code = "error"
    exit_status = 7
    transient = False
    retry_after = 0.0  # seconds that whoever tries again waits at the least

    def __init__(self, message: str, *, hint: str = "", context: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context  # foreign words, kept verbatim


class ConfigError(CloudsendError):
    """Edit the file. Carries all problems at once; nothing was started."""

    code = "config"
    exit_status = 2

    def __init__(self, problems: list[Problem], *, hint: str = "") -> None:
        super().__init__("; ".join(p.message for p in problems) or "invalid configuration", hint=hint)
        self.problems = problems

    def __str__(self) -> str:
        """With the file where a problem is of the file as a whole: no key in the message says where it is."""
        whole = [
            f"{p.file}: {p.message}" if p.file and not p.line and not p.path else p.message for p in self.problems
        ]
        return "; ".join(whole) or self.message


class UsageError(CloudsendError):
    """Change the command line."""

    code = "usage"
    exit_status = 2


class StateDirError(CloudsendError):
    """The state directory cannot be used safely; choose another or mend its permissions."""

    code = "state-dir"
    exit_status = 2


class StateDamagedError(CloudsendError):
    """The database is damaged or newer than this version; it was left where it is, nothing was changed."""

    code = "state-damaged"
    exit_status = 7


class NotFoundError(CloudsendError):
    """No such job, run, instance or provider; the message names near matches."""

    code = "not-found"
    exit_status = 3


class AmbiguousError(CloudsendError):
    """A name fits several things; the message lists them."""

    code = "ambiguous"
    exit_status = 2


class AuthError(CloudsendError):
    """Mend credentials or permissions."""

    code = "auth"
    exit_status = 4


class HostKeyError(AuthError):
    """The machine's host key is unknown, changed or revoked. Nothing was sent to it; compare fingerprints first."""

    code = "host-key"
    unknown: object = None  # the key, where nothing is known for the machine: only such a one may be accepted


class QuotaError(CloudsendError):
    """Ask the provider for more, or use less; a retry does not help."""

    code = "quota"
    exit_status = 5


class CapacityError(CloudsendError):
    """The provider has none now; the engine tries the next offer first."""

    code = "capacity"
    exit_status = 5
    transient = True


class UnreachableError(CloudsendError):
    """No answer now. Never implies that anything died."""

    code = "unreachable"
    exit_status = 6
    transient = True


class ExpiredError(UnreachableError):
    """The credentials are over: renew them. What goes on waits for that; what was asked for may have been done."""

    code = "expired"
    exit_status = 4


class ProviderError(CloudsendError):
    """The provider refused for a reason of its own; its words are in `context`."""

    code = "provider"
    exit_status = 7


class UnfitError(ProviderError):
    """The machine answers but cannot be used as it is: no Python, no writable home, taken by another user."""

    code = "unfit"


class ConflictError(CloudsendError):
    """Another maestro or command changed the run; whoever gets this stops acting and loads again."""

    code = "conflict"
    exit_status = 7
    transient = True


class MaestroError(CloudsendError):
    """The background maestro could not be started or does not answer."""

    code = "maestro"
    exit_status = 7


class ResultError(CloudsendError):
    """What a host sent as a result was refused; nothing was written outside the destination."""

    code = "result"
    exit_status = 7


class JobsFailed(CloudsendError):
    """Some job failed; look at its log."""

    code = "jobs-failed"
    exit_status = 1


class FunctionError(CloudsendError):
    """A function's job has no value: it was ended, or what it raised or returned cannot be brought home."""

    code = "function"
    exit_status = 1


class CommandFailed(CloudsendError):
    """A command of `SSH.exec_command` failed: its exit status, a signal, its time, or its end that nobody has seen."""

    code = "command"
    exit_status = 1


class TransferFailed(CloudsendError):
    """A file of `SSH.put` or `SSH.get` could not be read or written. What stood in its place is as it was."""

    code = "transfer"
    exit_status = 7


class WaitTimeout(CloudsendError):
    """`wait --timeout` ran out; the jobs go on."""

    code = "wait-timeout"
    exit_status = 124

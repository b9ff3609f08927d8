"""One command on a host by SSH: its text, its two streams, its end."""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from cloudsend_cli.errors import UsageError

from .bootstrap import one_argument

IN_MEMORY = 4 << 20  # of each stream; what is more goes to a file
PIECE = 256 << 10
PIECES_AT_ONCE = 16
ASK_AFTER = 15.0  # seconds of silence after which a machine is asked whether it is there
ANSWER_LIMIT = 10.0
LOOK_EVERY = 1.0  # an exit status comes without news
LEFT_OPEN_LIMIT = 1.0  # quiet seconds after a command's end, while something that it started holds its output
GRACE = 3.0  # between TERM and KILL
NO_STATUS = -1
LOST = "the connection was lost before its end was seen: it may have run, and may go on"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The login shell's own words stay as they are; the command itself comes as the first line of the input, so that no
# variable can be seen in the host's list of processes.
_BY_INPUT = """exec /bin/sh -c 'IFS= read -r c; eval "$c"'"""


@dataclass(frozen=True, slots=True)
class Request:
    command: str
    timeout: float | None = None
    terminal: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    given: bytes | None = None  # the command's input; None: nothing

    def __post_init__(self) -> None:
        if "\0" in self.command:
            raise UsageError("a command cannot have a NUL character")
        for name, value in self.environment.items():
            if not _NAME.fullmatch(name):
                raise UsageError(f"not a name of an environment variable: {name[:80]!r}")
            if "\0" in value:
                raise UsageError(f"the value of {name} has a NUL character")

    def rendered(self) -> tuple[str, bytes]:
        """The text for the login shell, and the input that follows."""
        given = self.given or b""
        if not self.environment and not (self.terminal and self.given is None):
            return self.command, given
        inner = f'exec "${{SHELL:-/bin/sh}}" -c {shlex.quote(self.command)}'
        if self.terminal:
            # A terminal would echo its first line, and cut a long one.
            words = ["env", *(f"{name}={value}" for name, value in self.environment.items())]
            inner += " </dev/null" if self.given is None else ""
            return one_argument([*words, "/bin/sh", "-c", inner]), given
        exports = "".join(f"{name}={shlex.quote(value)}; export {name}; " for name, value in self.environment.items())
        line = _in_one_line(exports + inner)
        return _BY_INPUT, line + given


def _in_one_line(script: str) -> bytes:
    octal = "".join(f"\\{byte:03o}" for byte in script.encode("utf-8", "surrogateescape"))
    return f'eval "$(printf "{octal}")"\n'.encode("ascii")


@dataclass(slots=True)
class Ended:
    """What came of a command. `problem` is "" exactly if it ended with status 0."""

    stdout: IO[bytes]
    stderr: IO[bytes]
    status: int = NO_STATUS
    problem: str = ""
    is_lost: bool = False  # the connection, before anybody saw the command's end
    may_run: bool = False  # it was told to end, and nobody saw it do so


class _Kept(tempfile.SpooledTemporaryFile[bytes]):
    """Closed with the last who holds it: few close the streams of a command."""

    def __del__(self) -> None:
        self.close()


def empty() -> Ended:
    return Ended(_Kept(IN_MEMORY), _Kept(IN_MEMORY))


class _News:
    """Set by both streams of a channel. Only `forget` clears it: each of them would, when it alone is empty."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set
        self.wait = self._event.wait
        self.forget = self._event.clear

    def clear(self) -> None:
        pass


Show = Callable[[str, bytes], None]


class Line(Protocol):
    """What an execution asks of its connection."""

    def is_answering(self, limit: float) -> bool:
        """Whether the machine is there. All that it sent before its answer has come when this returns."""

    def has_room(self) -> bool:
        """Whether a packet can be sent without waiting."""

    def send_signal(self, channel: Any, name: str) -> None: ...


class Execution:
    """A command on an open channel, until its end."""

    def __init__(self, channel: Any, request: Request, line: Line) -> None:
        self._channel = channel
        self._request = request
        self._line = line
        self._news = _News()
        self._ended = empty()

    def run(self, show: Show, given: bytes) -> Ended:
        """`show` is told ("stdout" or "stderr", bytes) as they come."""
        self._channel.settimeout(0.0)
        self._channel.in_buffer.set_event(self._news)
        self._channel.in_stderr_buffer.set_event(self._news)
        timeout = self._request.timeout
        try:
            if self._follow(show, given, None if timeout is None else time.monotonic() + timeout):
                self._judge()
            else:
                self._ended.problem = f"it did not end within {timeout:g} s, and was told to"
                self._end_it(show)
        except EOFError:
            self._lose()
        self._ended.stdout.seek(0)
        self._ended.stderr.seek(0)
        return self._ended

    def _follow(self, show: Show, given: bytes, until: float | None) -> bool:
        """Until its end; False if that did not come in time."""
        heard = time.monotonic()
        is_open = True  # our side
        while True:
            self._news.forget()
            if self._drain(show):
                heard = time.monotonic()
            elif self._is_over():
                self._drain_all(show)  # what came between the two looks
                return True
            if is_open:
                given, is_open = self._feed(given)
            now = time.monotonic()
            if until is not None and now >= until:
                return False
            limit = self._look_after()
            if now - heard >= limit:
                if not self._line.is_answering(ANSWER_LIMIT):
                    raise EOFError
                # An answer follows all that was sent before it: what is there now is all that came of the command.
                if not self._drain(show) and self._channel.status_event.is_set():
                    return True
                heard = time.monotonic()
                continue
            wait = min(LOOK_EVERY, limit - (now - heard), limit if until is None else until - now)
            self._news.wait(min(wait, 0.02) if is_open and given else wait)

    def _look_after(self) -> float:
        return LEFT_OPEN_LIMIT if self._channel.status_event.is_set() else ASK_AFTER

    def _drain(self, show: Show) -> bool:
        came = False
        for name, receive, sink in (
            ("stdout", self._channel.recv, self._ended.stdout),
            ("stderr", self._channel.recv_stderr, self._ended.stderr),
        ):
            with contextlib.suppress(TimeoutError):
                for _ in range(PIECES_AT_ONCE):  # a flood has no end
                    data = receive(PIECE)
                    if not data:
                        break
                    came = True
                    sink.write(data)
                    show(name, data)
        return came

    def _drain_all(self, show: Show) -> None:
        """Of a channel that is closed."""
        while self._drain(show):
            pass

    def _is_over(self) -> bool:
        channel = self._channel
        return bool(channel.closed or (channel.eof_received and channel.status_event.is_set()))

    def _feed(self, given: bytes) -> tuple[bytes, bool]:
        """What is left to send, and whether our side is open."""
        try:
            while given and self._line.has_room():
                count = self._channel.send(given[:PIECE])
                if not count:
                    return b"", False
                given = given[count:]
        except TimeoutError:
            return given, True
        except OSError:  # it reads no more
            return b"", False
        if given:
            return given, True
        if not self._request.terminal:  # the end of a terminal is its hang-up
            with contextlib.suppress(OSError, EOFError):
                self._channel.shutdown_write()
        return b"", False

    def _judge(self) -> None:
        self._ended.status = int(self._channel.exit_status)
        if self._ended.status < 0 and not self._line.is_answering(ANSWER_LIMIT):
            raise EOFError  # a channel is closed a moment before its connection is told to be lost
        if self._ended.status > 0:
            self._ended.problem = f"it ended with exit status {self._ended.status}"
        elif self._ended.status < 0:
            self._ended.problem = "it was ended by a signal"

    def _end_it(self, show: Show) -> None:
        for name in ("TERM", "KILL"):
            self._line.send_signal(self._channel, name)
            until = time.monotonic() + GRACE
            while time.monotonic() < until and not self._channel.status_event.is_set() and not self._channel.closed:
                self._news.forget()
                if not self._drain(show):
                    self._news.wait(0.1)
            if self._channel.status_event.is_set() or self._channel.closed:
                if self._channel.closed:
                    self._drain_all(show)
                if self._channel.exit_status >= 0 or self._line.is_answering(ANSWER_LIMIT):
                    return
                raise EOFError  # it was the connection that ended
        self._ended.may_run = True
        self._ended.problem += "; whether it has is not known"

    def _lose(self) -> None:
        self._ended.is_lost = True
        self._ended.status = NO_STATUS
        self._ended.problem = LOST

"""`SSH`: commands and files on one host, with retries. The seeds' calls by their names; what they broke is mended."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from cloudsend_cli.errors import CloudsendError, CommandFailed, UsageError

from .directory import default_state_dir
from .ssh_arguments import as_count, as_mode, as_port, as_timeout
from .ssh_output import CommandStream

if TYPE_CHECKING:
    from cloudsend_cli.hosts.ssh_commands import Ended, Request
    from cloudsend_cli.hosts.ssh_session import Session, Transfer

Paths = str | bytes | os.PathLike[str] | Iterable[str | bytes | os.PathLike[str]]
Progress = Callable[[str, int, int], None]

CONNECT_TIMEOUT = 20.0
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 8.0
STABLE_WINDOW = 1

log = logging.getLogger("cloudsend_cli.ssh")
log.addHandler(logging.NullHandler())


class SSH:
    """One connection to one host, made when it is first needed and again when it was lost.

    A host's key must be known, by ~/.ssh/known_hosts, by `cloudsend check --accept-host-key`, or as `host_key`.
    Calls from several threads wait for one another: for work at the same time, use an SSH object in each thread.

    Calls that fail raise a CloudsendError if `is_raise_err` says so; else they return False, or a result that says it,
    and the error is in `last_error` and in the log `cloudsend_cli.ssh`. A UsageError, for wrong arguments, is raised
    always.
    """

    SCP = "scp"
    SFTP = "SFTP"
    STABLE = "stable"

    DEFAULT_IS_RAISE_ERR = False
    DEFAULT_RETRY_COUNT = 3
    DEFAULT_CMD_RETRY_COUNT = 2
    DEFAULT_TIMEOUT: float | None = None

    def __init__(  # noqa: PLR0913 - what may be said of a login
        self,
        hostname: str,
        username: str | None = None,
        password: str | None = None,
        port: int | str | None = None,
        *,
        key: str | os.PathLike[str] | None = None,
        host_key: str | None = None,
        known_hosts: str | os.PathLike[str] | None = None,
        jump: str | None = None,
        ssh_config: str | os.PathLike[str] | None = None,
        stream: TextIO | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`port` and `username` are by default those of ~/.ssh/config, else 22 and the user's own name.

        `key`: the file of a private key. `host_key`: the only one that the host may have, as a line of its .pub file;
        `known_hosts`: the only file that counts. `jump`: machines in between, as for ProxyJump. `stream`: where the
        output of commands is shown, by default sys.stdout. `progress`: is told (name, bytes, of how many).
        """
        self.hostname = hostname
        self.username = username
        self.port = as_port(port)
        self._password = password or ""
        self._key = os.fspath(key) if key is not None else ""
        self._host_key = host_key or ""
        self._known_hosts = Path(known_hosts).expanduser() if known_hosts is not None else None
        self._jump = jump or ""
        self._ssh_config = Path(ssh_config).expanduser() if ssh_config is not None else None
        self._stream = stream
        self._progress = progress
        self.default_is_raise_err = self.DEFAULT_IS_RAISE_ERR
        self.default_retry_count = self.DEFAULT_RETRY_COUNT
        self.default_cmd_retry_count = self.DEFAULT_CMD_RETRY_COUNT
        self.default_timeout = self.DEFAULT_TIMEOUT
        self.last_error: CloudsendError | None = None
        self.left_out: list[str] = []  # of the last tree that was sent or fetched: links in circles, devices, pipes
        self._session: Session | None = None
        self._connect_timeout = CONNECT_TIMEOUT
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"SSH({self.hostname!r})"

    def __enter__(self) -> SSH:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- defaults --------------------------------------------------------------------------------------------------

    def set_default_is_raise_err(self, default_is_raise_err: bool) -> SSH:
        self.default_is_raise_err = bool(default_is_raise_err)
        return self

    def set_default_retry_count(self, default_retry_count: int) -> SSH:
        self.default_retry_count = as_count(default_retry_count)
        return self

    def set_default_cmd_retry_count(self, default_cmd_retry_count: int) -> SSH:
        self.default_cmd_retry_count = as_count(default_cmd_retry_count)
        return self

    def set_default_timeout(self, default_timeout: float | None) -> SSH:
        """Seconds for each execution of a command, and for each transfer with its retries. None: no limit."""
        self.default_timeout = as_timeout(default_timeout)
        return self

    # ---- the connection --------------------------------------------------------------------------------------------

    def connect(
        self, timeout: float = CONNECT_TIMEOUT, retry_count: int | None = None, is_raise_err: bool | None = None
    ) -> bool:
        """Connect and log in, in `retry_count` + 1 attempts. Only what may pass by itself is tried again."""
        with self._lock:
            self._connect_timeout = as_timeout(timeout) or CONNECT_TIMEOUT
            return self._attempt("connect", self._retries(retry_count), is_raise_err, lambda session: None)

    def reconnect(
        self, timeout: float = CONNECT_TIMEOUT, retry_count: int | None = None, is_raise_err: bool | None = None
    ) -> bool:
        with self._lock:
            self.close()
            return self.connect(timeout, retry_count, is_raise_err)

    def is_active(self) -> bool:
        """Whether the connection is up, as far as is known. Nothing is sent to find out."""
        session = self._session
        return session is not None and session.is_active()

    def close(self, retry_count: int | None = None, is_raise_err: bool | None = None) -> bool:
        """Close the connection. A later call makes a new one."""
        with self._lock:
            session, self._session = self._session, None
            if session is not None:
                session.close()
            return True

    # ---- commands --------------------------------------------------------------------------------------------------

    def exec_command(  # noqa: PLR0913, PLR0917 - the seeds' names, in their order
        self,
        command: str,
        bufsize: int = -1,
        timeout: float | None = None,
        get_pty: bool = False,
        environment: Mapping[str, object] | None = None,
        is_show_result: bool = True,
        retry_count: int | None = None,
        cmd_retry_count: int | None = None,
        is_raise_err: bool | None = None,
        *,
        input: str | bytes | None = None,
    ) -> tuple[CommandStream, CommandStream, CommandStream, bool]:
        """Run a command line of the login shell there, until it has ended: stdin, stdout, stderr, and whether it ended
        with exit status 0. The streams are complete and can be read; stdin gives nothing.

        `retry_count`: how often a connection is made again. `cmd_retry_count`: how often the command is executed again
        after it failed, was ended as it took longer than `timeout`, or was lost with its connection.
        `environment` is set whatever the host's AcceptEnv says. The command's input is `input` and then ends. With a
        terminal, stderr comes on stdout. `bufsize` has no effect.
        """
        from cloudsend_cli.hosts.ssh_commands import Request

        request = Request(
            command,
            as_timeout(timeout if timeout is not None else self.default_timeout),
            get_pty,
            {name: str(value) for name, value in (environment or {}).items()},
            input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input,
        )
        with self._lock:
            self.last_error = None
            redos = self.default_cmd_retry_count if cmd_retry_count is None else as_count(cmd_retry_count)
            ended, error = self._execute(request, self._retries(retry_count), redos, is_show_result)
            if error is not None:
                self._fail(error, is_raise_err)
            stdin, stdout, stderr = (
                CommandStream(data, ended.status) for data in (io.BytesIO(), ended.stdout, ended.stderr)
            )
            return stdin, stdout, stderr, error is None

    def _execute(self, request: Request, retries: int, redos: int, show: bool) -> tuple[Ended, CloudsendError | None]:
        from cloudsend_cli.hosts.ssh_commands import empty

        failures = 0
        executions = 0
        ended = empty()
        while True:
            try:
                session = self._connected()
                channel = session.open_command()
            except CloudsendError as problem:
                self._drop()
                if not problem.transient or failures >= retries:
                    return ended, problem
                failures += 1
                self._wait(failures, problem)
                continue
            try:
                ended = session.run(channel, request, self._shower() if show else _hidden)
            except CloudsendError as problem:
                return ended, problem
            executions += 1
            if ended.is_lost:
                self._drop()
            if not ended.problem:
                return ended, None
            log.info("%s: `%s`: %s", self.hostname, request.command, ended.problem)
            if executions > redos or ended.may_run:
                return ended, self._failed(request.command, ended, executions)

    def _failed(self, command: str, ended: Ended, executions: int) -> CommandFailed:
        times = f", {executions} times" if executions > 1 else ""
        first = command.strip().splitlines()[0] if command.strip() else command
        ended.stderr.seek(0)
        words = ended.stderr.read(4096).decode("utf-8", "replace")
        ended.stderr.seek(0)
        return CommandFailed(f"`{first[:200]}` on {self.hostname}: {ended.problem}{times}", context=words)

    def _shower(self) -> Callable[[str, bytes], None]:
        import codecs

        stream = self._stream if self._stream is not None else sys.stdout
        encoding = getattr(stream, "encoding", None) or "utf-8"
        make = codecs.getincrementaldecoder("utf-8")
        decoders = {"stdout": make("replace"), "stderr": make("replace")}

        def show(name: str, data: bytes) -> None:
            stream.write(decoders[name].decode(data).encode(encoding, "replace").decode(encoding))
            stream.flush()

        return show

    # ---- files -----------------------------------------------------------------------------------------------------

    def put(  # noqa: PLR0913 - the seeds' names, in their order
        self,
        files: Paths,
        remote_path: str = ".",
        recursive: bool = False,
        preserve_times: bool = False,
        retry_count: int | None = None,
        is_raise_err: bool | None = None,
        *,
        progress: Progress | None = None,
    ) -> bool:
        """Send files, with `recursive` also directories, into the directory `remote_path`; one also as a new name.

        `preserve_times` keeps times and permissions exactly.
        """
        from cloudsend_cli.hosts.ssh_sending import SendOptions

        return self._send(
            files, remote_path, recursive, SendOptions(preserve_times), retry_count, is_raise_err, progress
        )

    def large_put(
        self,
        files: Paths,
        remote_path: str,
        recursive: bool = False,
        retry_count: int | None = None,
        is_raise_err: bool | None = None,
        *,
        progress: Progress | None = None,
    ) -> bool:
        """As `put`, which goes on where it was interrupted, one request at a time: slower, for servers that fail."""
        from cloudsend_cli.hosts.ssh_sending import SendOptions

        options = SendOptions(window=STABLE_WINDOW)
        return self._send(files, remote_path, recursive, options, retry_count, is_raise_err, progress)

    def putfo(  # noqa: PLR0913 - the seeds' names, in their order
        self,
        fl: Any,
        remote_path: str,
        mode: str | int = "0644",
        size: int | None = None,
        retry_count: int | None = None,
        is_raise_err: bool | None = None,
        *,
        progress: Progress | None = None,
    ) -> bool:
        """Send text, bytes or what an open file has from where it stands, as the file `remote_path`."""
        from cloudsend_cli.hosts.ssh_sending import SendingObject
        from cloudsend_cli.hosts.ssh_sources import read_path, source_of

        def make() -> Transfer:
            goal = read_path(remote_path)
            return SendingObject(source_of(fl, size), goal, as_mode(mode), progress or self._progress or _unheard)

        return self._transfer(f"putfo {remote_path}", make, retry_count, is_raise_err)

    def get(  # noqa: PLR0913, PLR0917 - the seeds' names, in their order
        self,
        remote_path: Paths,
        local_path: str | os.PathLike[str] = "",
        recursive: bool = False,
        preserve_times: bool = False,
        mode: str = SCP,
        retry_count: int | None = None,
        is_raise_err: bool | None = None,
        *,
        progress: Progress | None = None,
    ) -> bool:
        """Fetch files, with `recursive` also directories, into the directory `local_path`; one also as a new name.

        All modes do the same, by SFTP; SSH.STABLE with one request at a time, for servers that fail otherwise.
        """
        from cloudsend_cli.hosts.sftp import WINDOW
        from cloudsend_cli.hosts.ssh_fetching import Fetching, FetchOptions
        from cloudsend_cli.hosts.ssh_sources import read_paths

        if mode not in (self.SCP, self.SFTP, self.STABLE):
            raise UsageError(f"no mode {mode!r}", hint="SSH.SCP, SSH.SFTP or SSH.STABLE")
        options = FetchOptions(recursive, preserve_times, STABLE_WINDOW if mode == self.STABLE else WINDOW)

        def make() -> Transfer:
            fetching = Fetching(
                read_paths(remote_path),
                os.fspath(local_path),
                options,
                progress or self._progress or _unheard,
            )
            self.left_out = fetching.left_out
            return fetching

        return self._transfer(f"get {remote_path!r}", make, retry_count, is_raise_err)

    def _send(  # noqa: PLR0913, PLR0917 - of put and large_put
        self,
        files: Paths,
        remote_path: str,
        recursive: bool,
        options: Any,
        retry_count: int | None,
        is_raise_err: bool | None,
        progress: Progress | None,
    ) -> bool:
        from cloudsend_cli.hosts.ssh_sending import Sending
        from cloudsend_cli.hosts.ssh_sources import list_tree, read_path, read_paths

        def make() -> Transfer:
            listings = [list_tree(path, recursive=recursive) for path in read_paths(files)]
            self.left_out = [name for listing in listings for name in listing.left_out]
            return Sending(listings, read_path(remote_path), options, progress or self._progress or _unheard)

        return self._transfer(f"put {files!r}", make, retry_count, is_raise_err)

    def _transfer(
        self, what: str, make: Callable[[], Transfer], retry_count: int | None, is_raise_err: bool | None
    ) -> bool:
        with self._lock:
            deadline = None if self.default_timeout is None else time.monotonic() + self.default_timeout
            try:
                transfer = make()
            except UsageError:
                raise
            except CloudsendError as problem:
                return self._fail(problem, is_raise_err)
            done = False
            try:
                done = self._attempt(
                    what,
                    self._retries(retry_count),
                    is_raise_err,
                    lambda session: session.transfer(transfer, deadline),
                )
            finally:
                if not done and self._session is not None:
                    self._session.give_up(transfer)
                else:
                    transfer.close(None)
            for name in self.left_out:
                log.warning("%s: left out: %s", what, name)
            return done

    # ---- attempts --------------------------------------------------------------------------------------------------

    def _attempt(self, what: str, retries: int, is_raise_err: bool | None, action: Callable[[Session], None]) -> bool:
        """Do it, over a new connection each time that the old one was lost."""
        for failures in range(1, retries + 2):
            try:
                action(self._connected())
                self.last_error = None
                return True
            except CloudsendError as problem:
                if problem.transient:
                    self._drop()
                if not problem.transient or failures > retries:
                    return self._fail(problem, is_raise_err)
                self._wait(failures, problem)
        raise AssertionError(what)

    def _connected(self) -> Session:
        from cloudsend_cli.hosts.ssh_session import Login, open_session

        if self._session is not None and self._session.is_active():
            return self._session
        self._drop()
        login = Login(
            self.hostname,
            self._known_hosts or default_state_dir(dict(os.environ)) / "known_hosts",
            self.port,
            self.username or "",
            self._password,
            self._key,
            self._jump,
            self._host_key,
            self._known_hosts is not None,
            self._ssh_config,
        )
        self._session = open_session(login, self._connect_timeout)
        return self._session

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _wait(self, failures: int, problem: CloudsendError) -> None:
        seconds = max(problem.retry_after, min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** (failures - 1)))
        log.info("%s: %s; again in %g s", self.hostname, problem.message, seconds)
        time.sleep(seconds)

    def _fail(self, problem: CloudsendError, is_raise_err: bool | None) -> bool:
        self.last_error = problem
        if self.default_is_raise_err if is_raise_err is None else is_raise_err:
            raise problem
        log.warning("%s: %s", self.hostname, problem.message)
        return False

    def _retries(self, given: int | None) -> int:
        return self.default_retry_count if given is None else as_count(given)


def _hidden(name: str, data: bytes) -> None:
    """Of output that is not to be shown."""


def _unheard(name: str, done: int, size: int) -> None:
    """Of progress."""

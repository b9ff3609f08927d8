"""Maestros in processes that have loaded cloudsend already, as commands are in warm_commands.py.

Each has a session, environment, log, pid, command line and end of its own as usual, and outlives who started it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import IO

import warm_commands

from cloudsend_cli.maestro import client

MODULE = ["-m", "cloudsend_cli.maestro.local"]


class Started:
    """What `cloudsend_cli.maestro.client` needs of subprocess.Popen."""

    def __init__(self, line: socket.socket) -> None:
        self.returncode: int | None = None
        self._line = line

    def poll(self) -> int | None:
        if self.returncode is None:
            self._line.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self.returncode = int(self._line.recv(64))
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self._line.setblocking(True)
            self.returncode = int(self._line.recv(64))
        return self.returncode

    def __del__(self) -> None:
        self._line.close()


def starter(
    address: Callable[[], str] = warm_commands.address, times: Mapping[str, object] | None = None
) -> SimpleNamespace:
    """To be `cloudsend_cli.maestro.client.subprocess`. `address`: where the process listens that they are forks of."""
    usual = warm_commands.at_start(os.environ)

    def start(
        words: Sequence[str],
        *,
        stdin: int,
        stdout: IO[bytes],
        stderr: IO[bytes],
        cwd: str,
        pass_fds: Sequence[int],
        start_new_session: bool,
    ) -> subprocess.Popen[bytes] | Started:
        if warm_commands.at_start(os.environ) != usual:
            return subprocess.Popen(
                words,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                pass_fds=pass_fds,
                start_new_session=start_new_session,
            )
        assert words[1:3] == MODULE and stdout is stderr and start_new_session
        (ready,) = pass_fds
        request = {"maestro": [*words], "environ": {**os.environ}, "folder": cwd, "ready": ready, "times": times or {}}
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.connect(address())
        with open(os.devnull, "rb") as nothing:
            streams = [nothing.fileno(), stdout.fileno(), stderr.fileno(), ready]
            socket.send_fds(line, [json.dumps(request).encode()], streams)
        return Started(line)

    return SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)


@contextlib.contextmanager
def used(times: Mapping[str, object]) -> Iterator[None]:
    """Those that this process starts, and the commands of warm_commands.py.

    `times`: constants of the product, by their full names, that are others than usual in these and in this process; of
    one that is called, keywords of its calls.
    """
    before = set_times(times)
    use(starter(times=times))
    warm_commands.warm.update(maestros=True, times=times)
    try:
        yield
    finally:
        use(subprocess)
        warm_commands.warm.update(maestros=False, times={})
        set_times(before)


def use(what: object) -> None:
    vars(client)["subprocess"] = what


def set_times(times: Mapping[str, object]) -> dict[str, object]:
    """What they were before."""
    before = {}
    for name, value in times.items():
        module, _, constant = name.rpartition(".")
        names = vars(importlib.import_module(module))
        before[name] = names[constant]
        names[constant] = partial(names[constant], **value) if isinstance(value, Mapping) else value
    return before

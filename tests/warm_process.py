"""What commands and maestros of tests are forks of, see warm_commands.py. usage: warm_process.py SOCKET ROOM

A connection brings what to do, with the three streams, and gets the exit status. It ends when its stdin is closed, so
also when the tests are killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import warm_maestros
from boto_files import share_files

import cloudsend_cli

MOST = 1 << 20  # bytes of a request
SERVICES = ("ec2", "ssm", "pricing", "service-quotas", "sts")
OTHERS = ("fabric", "paramiko", "tabulate", "yaml")
# Not what reads the environment when it is loaded, is no part of commands and maestros, or belongs on other machines.
NOT_LOADED = ("cloudsend_cli.agent.host", "cloudsend_cli.maestro.loop", "cloudsend_cli.testing")


def load() -> None:
    """What commands and maestros load, sooner or later."""
    for name in OTHERS:
        importlib.import_module(name)
    for found in pkgutil.walk_packages(cloudsend_cli.__path__, "cloudsend_cli."):
        if not found.name.startswith(NOT_LOADED):
            importlib.import_module(found.name)
    load_boto()


def load_boto() -> None:
    import boto3  # noqa: F401
    import botocore.session

    share_files()
    session = botocore.session.Session()
    for service in SERVICES:
        session.create_client(service, "eu-west-3", aws_access_key_id="none", aws_secret_access_key="none")


class Server:
    def __init__(self, address: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(address)
        self.listener.listen(64)
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, tuple[int, socket.socket]] = {}  # by pidfd

    def serve(self) -> dict[str, Any] | None:
        """In each child: its request. None in the server, when nobody needs it any more."""
        self.selector.register(0, selectors.EVENT_READ)
        self.selector.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fd == 0:
                    return None
                if key.fileobj is self.listener:
                    request = self._fork()
                    if request is not None:
                        return request
                elif key.fd in self.children:
                    self._tell_end(key.fd)
                elif key.fd in self.selector.get_map():  # whoever asked waits no longer
                    self.selector.unregister(key.fileobj)
                    if key.data is not None:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(key.data, signal.SIGKILL)

    def _fork(self) -> dict[str, Any] | None:
        line, _ = self.listener.accept()
        data, streams, *_ = socket.recv_fds(line, MOST, 4)
        request = dict(json.loads(data)) if len(streams) >= 3 else {}
        pid = os.fork() if request else None
        if pid == 0:
            line.close()
            self._close()
            for number, stream in zip((0, 1, 2, request.get("ready")), streams, strict=False):
                if stream != number:
                    os.dup2(stream, number)
                    os.close(stream)
            return request
        for stream in streams:
            os.close(stream)
        if pid is None:
            line.close()
        else:
            ended = os.pidfd_open(pid)
            self.children[ended] = pid, line
            self.selector.register(ended, selectors.EVENT_READ)
            # A maestro outlives whoever started it.
            self.selector.register(line, selectors.EVENT_READ, None if "maestro" in request else pid)
        return None

    def _close(self) -> None:
        """In a child: of all that the server has, nothing."""
        self.selector.close()
        self.listener.close()
        for ended, (_, line) in self.children.items():
            os.close(ended)
            line.close()
        self.children.clear()

    def _tell_end(self, ended: int) -> None:
        pid, line = self.children.pop(ended)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.selector.unregister(ended)
        with contextlib.suppress(KeyError):
            self.selector.unregister(line)
        os.close(ended)
        with contextlib.suppress(OSError), line:
            line.send(str(status).encode())


def main() -> None:
    load()
    gc.freeze()
    server = Server(sys.argv[1])
    print("ready", flush=True)
    request = server.serve()
    if request is not None:
        carry_out(request)


def carry_out(request: dict[str, Any]) -> None:
    """Be that command, or maestro. The streams are those of this process, as its own are pipes too."""
    os.environ.clear()
    os.environ.update(request["environ"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    warm_maestros.set_times(request["times"])
    main = prepare_maestro(request["maestro"]) if "maestro" in request else prepare_command(request)
    status: object = 1
    try:
        status = main()
    except SystemExit as leaves:
        status = leaves.code
    except BaseException:  # noqa: BLE001 - as Python shows it
        traceback.print_exc()
    # All that Python does at its end but to take itself apart, which costs more than most commands.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def prepare_command(request: dict[str, Any]) -> Callable[[], object]:
    import cloudsend_cli.__main__ as command

    address = sys.argv[1]
    if request["maestros"]:
        warm_maestros.use(warm_maestros.starter(lambda: address, request["times"]))
    sys.argv[:] = [str(command.__file__), *request["words"]]
    return command.main


def prepare_maestro(words: Sequence[str]) -> Callable[[], object]:
    from cloudsend_cli.maestro import local

    os.setsid()
    show_as(words)
    sys.argv[:] = [str(local.__file__), *words[3:]]
    return lambda: local.main(sys.argv[1:])


def show_as(words: Sequence[str]) -> None:
    """As its command line, by which others find it."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    assert len(text) <= end - start, "ROOM is too small"
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    main()

"""The process that commands of tests are forks of, see warm_commands.py. usage: warm_process.py SOCKET

A connection brings what to do, with the three streams, and gets the exit status. It ends when its stdin is closed, so
also when the tests are killed.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from typing import Any

from boto_files import share_files

MOST = 1 << 20  # bytes of a request
SERVICES = ("ec2", "ssm", "pricing", "service-quotas", "sts")
MODULES = (
    "paramiko",
    "yaml",
    "cloudsend_cli.__main__",
    "cloudsend_cli.api",
    "cloudsend_cli.cli.execute",
    "cloudsend_cli.engine.submit",
    "cloudsend_cli.hosts.ssh_transport",
    "cloudsend_cli.maestro.client",
    "cloudsend_cli.providers.aws.offers",
    "cloudsend_cli.providers.aws.provider",
)


def load() -> None:
    """What commands load."""
    for name in MODULES:
        importlib.import_module(name)
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
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(key.data, signal.SIGKILL)

    def _fork(self) -> dict[str, Any] | None:
        line, _ = self.listener.accept()
        data, streams, *_ = socket.recv_fds(line, MOST, 3)
        pid = os.fork() if len(streams) == 3 else None
        if pid == 0:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        if pid == 0:
            line.close()
            self._close()
            return dict(json.loads(data))
        if pid is None:
            line.close()
        else:
            ended = os.pidfd_open(pid)
            self.children[ended] = pid, line
            self.selector.register(ended, selectors.EVENT_READ)
            self.selector.register(line, selectors.EVENT_READ, pid)
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
    """Be that command. The streams are those of this process, as its own are pipes too."""
    import cloudsend_cli.__main__ as command

    os.environ.clear()
    os.environ.update(request["environ"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv[:] = [str(command.__file__), *request["words"]]
    status: object = 1
    try:
        command.main()
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


if __name__ == "__main__":
    main()

"""What tests do with an SSH host."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from agent_hello import ask_hello
from ssh_server import SshServer, user_name

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.agent.compiled import agent_compiled
from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.hosts.ssh import SshHost
from cloudsend_cli.hosts.ssh_stream import ChannelStream


def open_agent(host: SshHost) -> ChannelStream:
    return host.open_agent(agent_source(), agent_sha256(), agent_compiled)


@contextlib.contextmanager
def agent_of(host: SshHost) -> Iterator[ChannelStream]:
    stream = open_agent(host)
    try:
        yield stream
    finally:
        stream.close()


def greeted(host: SshHost) -> dict[str, object]:
    with agent_of(host) as stream:
        return dict(ask_hello(stream))


def read_all(stream: ChannelStream) -> bytes:
    poller = select.poll()
    poller.register(stream.fileno(), select.POLLIN)
    data = b""
    while True:
        assert poller.poll(20_000), "nothing came for 20 s"
        with contextlib.suppress(BlockingIOError):
            piece = stream.recv(1 << 16)
            if not piece:
                return data
            data += piece


def as_hop(server: SshServer) -> str:
    return f"{user_name()}@127.0.0.1:{server.port}"


def let_in(ssh_config: Path, server: SshServer) -> None:
    """The user's configuration has the key for hops."""
    with ssh_config.open("a") as writer:
        writer.write(f"IdentityFile {server.login_key}\n")


def run_shell(address: HostAddress, known_hosts: Path, command: list[str]) -> tuple[int, bytes]:
    """In a process of its own, as its output is the terminal's."""
    code = (
        "import json,sys; from pathlib import Path; from cloudsend_cli.core.model import HostAddress;"
        "from cloudsend_cli.hosts.ssh import SshHost; a=json.loads(sys.argv[1]);"
        "a['settings']=tuple(map(tuple,a['settings']));"
        "sys.exit(SshHost(HostAddress(**a),Path(sys.argv[2])).open_shell(json.loads(sys.argv[3])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(asdict(address)), str(known_hosts), json.dumps(command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr

"""The user's terminal on a machine: the system's ssh, with our keys and our answers about host keys."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudsend_cli.errors import UnreachableError

from .bootstrap import one_argument
from .ssh_config import Route
from .ssh_pins import read_pins

BOOT = 60.0  # s from a machine's first refusal to its sshd: a start of EC2 needs 10 to 30
CONNECT_LIMIT = 15  # s


def wait_while_refused(route: Route, limit: float = BOOT) -> None:
    """A rented machine that boots refuses connections until its sshd listens. What else is wrong, ssh itself will say.

    Not ConnectionAttempts of ssh: behind a firewall that drops packets, each would last as long as the kernel tries.
    """
    if not route.alias or route.hops or route.proxy_command:
        return
    ends = time.monotonic() + limit
    told = False
    while time.monotonic() < ends:
        try:
            socket.create_connection((route.hostname, route.port), CONNECT_LIMIT).close()
        except ConnectionRefusedError:
            if not told:
                sys.stderr.write(f"the machine refuses connections, as one that boots: trying for {limit:.0f} s\n")
                told = True
            time.sleep(0.5)
        except OSError:
            return
        else:
            return


def run_shell(route: Route, known_hosts: Path, command: Sequence[str], config: Path | None) -> int:
    """The status of a shell, or of a command, that has the user's terminal."""
    if shutil.which("ssh") is None:
        raise UnreachableError(
            "no `ssh` program here to give your terminal to", hint="install it: apt-get install openssh-client"
        )
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with tempfile.TemporaryDirectory(prefix="cloudsend-") as folder:
        pinned = Path(folder) / "known_hosts"
        if route.host_key:
            pinned.write_text(f"* {route.host_key}\n")
        kept = bool(route.alias and read_pins(route, known_hosts))
        known = KnownFiles(known_hosts, pinned, config, kept)
        status = subprocess.call(shell_arguments(route, known, command, on_terminal=on_terminal))
    return status if status >= 0 else 128 - status


@dataclass(frozen=True, slots=True)
class KnownFiles:
    """What ssh is told of host keys and of its configuration."""

    ours: Path
    pinned: Path  # the key of a machine that has a pinned one
    config: Path | None
    kept: bool = False  # ours has a key under the alias of the machine

    def of(self, route: Route) -> tuple[Path, ...]:
        return (
            (self.pinned,) if route.host_key and not self.kept else (self.ours, *(Path(f) for f in route.known_hosts))
        )


def shell_arguments(route: Route, known: KnownFiles, command: Sequence[str], *, on_terminal: bool) -> list[str]:
    """The command line of ssh. What it says is known is all that is known; nothing is asked, and nothing added."""
    arguments = _common(route, known)
    if route.hops:
        arguments += ["-o", f"ProxyCommand={_through(route.hops, route, known)}"]
    arguments += ["-t"] if command and on_terminal else []
    arguments += ["--", route.asked]
    return arguments + ([one_argument(command)] if command else [])


def _common(route: Route, known: KnownFiles) -> list[str]:
    arguments = ["ssh", "-a", "-x", "-p", str(route.port), "-l", route.user]
    arguments += ["-F", str(known.config)] if known.config is not None else []
    arguments += ["-i", route.key, "-o", "IdentitiesOnly=yes"] if route.key else []
    options: tuple[str, ...] = (
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        "GlobalKnownHostsFile=none",
        f"HostName={route.hostname.replace('%', '%%')}",
        f"UserKnownHostsFile={' '.join(_quoted(f) for f in known.of(route))}",
    )
    if route.alias:
        # A rented machine, behind a firewall of its provider: one that does not let us in says nothing.
        options += (f"HostKeyAlias={route.alias}", "CheckHostIP=no", f"ConnectTimeout={CONNECT_LIMIT}")
    for option in options:
        arguments += ["-o", option]
    return arguments


def _through(hops: Sequence[Route], goal: Route, known: KnownFiles) -> str:
    """Not -J: the ssh that it starts would not be told our files. `%` is doubled at each level, as each expands it."""
    *before, last = hops
    proxy = _through(before, last, known) if before else last.proxy_command.replace("%", "%%")
    hostname = f"[{goal.hostname}]" if ":" in goal.hostname else goal.hostname
    arguments = [*_common(last, known), "-o", f"ProxyCommand={proxy or 'none'}"]
    arguments += ["-W", f"{hostname}:{goal.port}", "--", last.asked]
    return shlex.join(arguments).replace("%", "%%")


def _quoted(path: Path) -> str:
    text = str(path).replace("%", "%%")
    return f'"{text}"' if any(c.isspace() for c in text) else text

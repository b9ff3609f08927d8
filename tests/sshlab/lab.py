"""The lab: some hosts with sshd, and what a client needs to reach them."""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from . import namespaces, sshd
from .host import LabHost
from .slots import take_slot
from .spec import PREFIX, HostSpec, NotHere

PARALLEL = 6


class Lab:
    """Hosts from `with` to its end, whatever happens between. Keywords are those of HostSpec, for the first hosts."""

    def __init__(self, hosts: int = 0, **spec: Any) -> None:
        if sshd.find_sshd() is None or shutil.which("ssh-keygen") is None:
            raise NotHere("no sshd on this machine (apt-get install openssh-server openssh-client)")
        self.hosts: list[LabHost] = []
        self._numbers = deque(range(1, 251))
        reason = namespaces.why_not()
        if reason is not None:
            raise NotHere(reason)
        self._slot = take_slot(namespaces.is_usable)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-"))
        self._slot.record(self.directory)
        self.key_path = self.directory / "key"
        self.known_hosts = self.directory / "known_hosts"
        self._level: namespaces.Namespaces | None = None
        try:
            sshd.make_key(self.key_path)
            self._level = namespaces.Namespaces(self._slot, self.directory)
            self.add(hosts, **spec)
        except BaseException:
            self.close()
            raise

    @property
    def level(self) -> str:
        return self._level.level

    @property
    def leaves_out(self) -> str:
        """What hosts of this level cannot show; empty when they can show everything."""
        return self._level.leaves_out

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, index: int) -> LabHost:
        return self.hosts[index]

    def __iter__(self) -> Iterator[LabHost]:
        return iter(self.hosts)

    def add(self, count: int = 1, **spec: Any) -> list[LabHost]:
        """Make more hosts, several at a time."""
        wanted = HostSpec(**spec)
        numbers = [self._numbers.popleft() for _ in range(count)]
        with ThreadPoolExecutor(PARALLEL) as threads:
            made = [threads.submit(self._level.make_host, number, wanted, self.key_path) for number in numbers]
        self.hosts += [future.result() for future in made if future.exception() is None]
        hosts = [future.result() for future in made]  # raises what went wrong
        self.write_known_hosts()
        return hosts

    def remove(self, *hosts: LabHost) -> None:
        """End these hosts and what was theirs; the others are not touched."""
        with ThreadPoolExecutor(PARALLEL) as threads:
            list(threads.map(lambda host: host.close(), hosts))
        for host in hosts:
            self.hosts.remove(host)
            self._numbers.append(host.number)  # at the end: an address is not used again soon

    def write_known_hosts(self, hashed: bool = False) -> None:
        """As the hosts are now. What happens to them later (another key, another address) is not written by itself."""
        self.known_hosts.write_text("".join(host.known_hosts_line(hashed) for host in self.hosts))

    def ssh_config(self) -> str:
        """For `ssh -F`: the hosts by their names."""
        common = [
            f"IdentityFile {self.key_path}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile none",
            "StrictHostKeyChecking yes",
            "BatchMode yes",
        ]
        blocks = [
            [f"Host {host.name}", f"HostName {host.address}", f"Port {host.port}", f"User {host.user}"]
            for host in self.hosts
        ]
        return "\n".join("\n  ".join(block) for block in [*blocks, ["Host *", *common]]) + "\n"

    def ssh(self, host: LabHost, *argv: str) -> list[str]:
        """The command line of OpenSSH's client for a host."""
        config = self.directory / "ssh_config"
        config.write_text(self.ssh_config())
        return ["ssh", "-F", str(config), host.name, *argv]

    @staticmethod
    def swap_addresses(one: LabHost, other: LabHost) -> None:
        """Each answers at the other's address, with its own key."""
        first, second = one.address, other.address
        one.set_address(second)
        other.set_address(first)

    def close(self) -> None:
        """End all hosts at once, and remove what belongs to no process after the processes are gone."""
        for host in self.hosts:
            host.thaw()
        if self._level is not None:
            self._level.close()
        for host in self.hosts:
            host.forget()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._slot.release()

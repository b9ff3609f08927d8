"""The lab: some hosts with sshd, and what a client needs to reach them."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from . import loopback, namespaces, sshd
from .host import LabHost
from .proxy import Proxy, Way
from .slots import take_slot
from .spec import PREFIX, HostSpec, NotHere

PARALLEL = 6


class Level(Protocol):
    """How hosts are made."""

    level: str
    leaves_out: str

    def make_host(self, number: int, spec: HostSpec, key_path: Path) -> LabHost: ...

    def close(self) -> None: ...


class Lab:
    """Hosts from `with` to its end, whatever happens between. Keywords are those of HostSpec, for the first hosts."""

    def __init__(self, hosts: int = 0, *, level: str | None = None, **spec: Any) -> None:
        if sshd.find_sshd() is None or shutil.which("ssh-keygen") is None:
            raise NotHere("no sshd on this machine (apt-get install openssh-server openssh-client)")
        level = level or os.environ.get("CLOUDSEND_LAB_LEVEL")
        reason = "asked for" if level == "loopback" else namespaces.why_not()
        if reason is not None and level == "namespaces":
            raise NotHere(f"no hosts in namespaces here: {reason}")
        self.hosts: list[LabHost] = []
        self._proxies: list[tuple[LabHost, Proxy]] = []
        self._known: list[tuple[LabHost, str, str]] = []
        self._hashed = self._closed = False
        self._numbers = deque(range(1, 251))
        self._slot = take_slot(namespaces.is_usable if reason is None else loopback.is_usable)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-"))
        self._slot.record(self.directory)
        self.key_path = self.directory / "key"
        self.known_hosts = self.directory / "known_hosts"
        self._made: Level | None = None
        try:
            sshd.make_key(self.key_path)
            if reason is None:
                self._made = namespaces.Namespaces(self._slot, self.directory)
            else:
                self._made = loopback.Loopback(self._slot, self.directory, reason)
            self.add(hosts, **spec)
        except BaseException:
            self.close()
            raise

    @property
    def _level(self) -> Level:
        assert self._made is not None
        return self._made

    @property
    def level(self) -> str:
        """`namespaces` or `loopback`."""
        return self._level.level

    @property
    def leaves_out(self) -> str:
        """What hosts of this level cannot show, and why it is this level; empty when they can show everything."""
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
            made = [threads.submit(self._start, number, wanted) for number in numbers]
        self.hosts += [future.result() for future in made if future.exception() is None]
        hosts = [future.result() for future in made]  # raises what went wrong
        for host in hosts:
            self._know(host, host.address, host.port)
        return hosts

    def make(self, **spec: Any) -> LabHost:
        """A host that has never been on. Unlike add(), it is not in known_hosts."""
        number = self._numbers.popleft()
        host = self._level.make_host(number, HostSpec(**spec), self.key_path)
        self.hosts.append(host)
        return host

    def discard(self, host: LabHost) -> None:
        """The end of a host of make(); other threads may do so with others at the same time."""
        host.close()
        self.hosts.remove(host)
        self._numbers.append(host.number)

    def take_number(self) -> int:
        """A number, and with it an address, that no other host gets before give_number()."""
        return self._numbers.popleft()

    def give_number(self, number: int) -> None:
        self._numbers.append(number)

    def _start(self, number: int, spec: HostSpec) -> LabHost:
        host = self._level.make_host(number, spec, self.key_path)
        try:
            host.start()
        except BaseException:
            host.close()
            raise
        return host

    def remove(self, *hosts: LabHost) -> None:
        """End these hosts and what was theirs; the others are not touched."""
        with ThreadPoolExecutor(PARALLEL) as threads:
            list(threads.map(lambda host: host.close(), hosts))
        for host in hosts:
            for pair in [pair for pair in self._proxies if pair[0] is host]:
                pair[1].close()
                self._proxies.remove(pair)
            self._known = [entry for entry in self._known if entry[0] is not host]
            self.hosts.remove(host)
            self._numbers.append(host.number)  # at the end: an address is not used again soon
        self._write_known_hosts()

    def proxy(self, host: LabHost, **faults: Any) -> Proxy:
        """A way to a host by `proxy.host` and `proxy.port`; the faults are fields of Way, here for both ways."""
        proxy = Proxy(host.address, host.port, Way(**faults), Way(**faults))
        self._proxies.append((host, proxy))
        self._know(host, proxy.host, proxy.port)
        return proxy

    def _know(self, host: LabHost, address: str, port: int) -> None:
        self._known.append((host, sshd.known_name(address, port), host.host_key))
        self._write_known_hosts()

    def _write_known_hosts(self) -> None:
        names = ((sshd.hash_name(name) if self._hashed else name, key) for _, name, key in self._known)
        self.known_hosts.write_text("".join(f"{name} {key}\n" for name, key in names))

    def write_known_hosts(self, hashed: bool = False) -> None:
        """As the hosts are now. What happens to them later (another key, another address) is not written by itself."""
        self._hashed = hashed
        self._known.clear()
        for host in self.hosts:
            self._know(host, host.address, host.port)
        for host, proxy in self._proxies:
            self._know(host, proxy.host, proxy.port)

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
        config, text = self.directory / "ssh_config", self.ssh_config()
        if not config.exists() or config.read_text() != text:
            new = self.directory / f"ssh_config-{threading.get_ident()}"
            new.write_text(text)
            new.replace(config)  # ORDER: whole at once, as others may be reading
        return ["ssh", "-F", str(config), host.name, *argv]

    @staticmethod
    def swap_addresses(one: LabHost, other: LabHost) -> None:
        """Each answers at the other's address, with its own key."""
        first, second = one.address, other.address
        one.set_address(second)
        other.set_address(first)

    def close(self) -> None:
        """End all hosts at once, and remove what belongs to no process after the processes are gone."""
        if self._closed:
            return
        self._closed = True
        for _, proxy in self._proxies:
            proxy.close()
        for host in self.hosts:
            host.thaw()
        if self._made is not None:
            self._made.close()
        for host in self.hosts:
            host.forget()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._slot.release()

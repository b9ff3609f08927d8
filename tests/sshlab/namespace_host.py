"""A host in namespaces of its own: what it cannot tell from a machine."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import clock, inside, pythons, rootfs, sshd
from .boot import Boot
from .cgroups import Cgroup
from .commands import ENVIRON, run, send, wait_for
from .host import LabHost, new_boot_id
from .network import Faults
from .spec import HostSpec, LabError, parse_size

if TYPE_CHECKING:
    from .namespaces import Namespaces

FIRST_UID = 700_000_000  # a user's limits count for all hosts of one uid: each host has its own
LOG = "/var/log/sshd.log"
SSHD_CONFIG = "/etc/ssh/sshd_config"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"


class NamespaceHost(LabHost):
    def __init__(self, lab: Namespaces, number: int, spec: HostSpec, key_path: Path) -> None:
        assert lab.router is not None
        super().__init__(number, lab.router.address(number), spec, key_path)
        self._lab, self._router = lab, lab.router
        self._boot: Boot | None = None
        self._faults = Faults()
        self._cgroup = Cgroup(f"{lab.slot.number}-{self.name}")
        self._files = lab.directory / self.name
        layers = lab.directory / "layers" / self.name
        shared = spec.home_of
        assert shared is None or isinstance(shared, NamespaceHost)
        self.uid: int = shared.uid if shared else FIRST_UID + lab.slot.number * 1000 + number
        home: Path = shared.places.home if shared else self._files / "home"
        self.places: rootfs.Places = rootfs.Places(self._files, layers, lab.seen(layers), home)
        if spec.internet:
            self.environ = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), lab.gateway().url)
        self._make_files()
        self._router.add_port(number)
        if spec.private_address:
            self._router.add_private_network()

    @property
    def private_address(self) -> str | None:
        return self._router.private(self.number) if self.spec.private_address else None

    @property
    def _own_time(self) -> bool:
        return self.spec.own_uptime and Path("/proc/self/ns/time").exists()

    @property
    def _addresses(self) -> list[str]:
        return [self.address, *filter(None, [self.private_address])]

    def _make_files(self) -> None:
        places, spec = self.places, self.spec
        (self._files / "root").mkdir(parents=True)
        (self._files / "fstab").write_text(rootfs.fstab(places, spec))
        upper = places.seen / "upper"
        rootfs.make_layer(upper, self.name, self.uid, spec)
        (places.seen / "work").mkdir()
        rootfs.set_pip_proxy(upper / "etc", self.environ.get("https_proxy"))
        self.host_key = sshd.make_key(upper / HOST_KEY[1:])
        (upper / SSHD_CONFIG[1:]).write_text(self._sshd_config())
        if spec.home_of is None:
            places.home.mkdir()
            if spec.home_size is not None:
                options = f"size={parse_size(spec.home_size)}"
                options += f",nr_inodes={spec.home_inodes}" if spec.home_inodes else ""
                run([*self._lab.enter("mount"), "mount", "-t", "tmpfs", "-o", options, "home", str(places.home)])
            public = self.key_path.with_suffix(".pub").read_text().strip()
            rootfs.make_home(self._lab.seen(places.home), self.uid, public)
        if spec.memory is not None:
            self._cgroup.limit_memory(parse_size(spec.memory))

    # Power

    @property
    def is_up(self) -> bool:
        return self._boot is not None and self._boot.goes_on

    @property
    def last_pid(self) -> int | None:
        """Of our child that ends when this boot does, or has ended with it."""
        return None if self._boot is None else self._boot.pid

    @property
    def booted(self) -> Boot:
        if self._boot is None or not self._boot.goes_on:
            raise LabError(f"{self.name} is down")
        return self._boot

    def power_on(self) -> None:
        if not self.is_up:
            self._enter(self._plug_in)
            self._wait_for_listener()
            self._set_faults(off=False)

    def boot(self) -> None:
        """As power_on(), of a host that need not have sshd, and whose network is there from the first moment."""

        def plug_in(pid: int) -> None:
            self._plug_in(pid)
            self._set_faults(off=False)

        if not self.is_up:
            self._enter(plug_in)

    def _enter(self, plug_in: Callable[[int], None]) -> None:
        self.power_off()  # one that ended itself has left its interface
        self.boot_id = new_boot_id()
        (self._files / "boot_id").write_text(f"{self.boot_id}\n")
        (self._files / "network").write_text(self._router.lines_inside(self.number, *self._addresses))
        arguments = [str(self._files), self.name, *self._cgroup.directories]
        try:
            self._boot = Boot(self._lab.enter("mount", "pid"), arguments, plug_in, self._own_time)
        except LabError:
            self._unplug()
            raise

    def power_off(self, clean: bool = False) -> None:
        if self._boot is None:
            return
        if clean and self.is_up and not self.is_paused:
            self._end_processes()
        # ORDER: the line is cut first, so that no FIN or RST tells the client what happens.
        self._set_faults(off=True)
        if self.is_paused:
            self._boot.signal_all(signal.SIGKILL)  # before they thaw: nobody does another thing
            if self._cgroup.can_freeze:
                self._cgroup.freeze(False)
            self.is_paused = False
        self._boot.end()
        self._unplug()
        self._boot = None
        self._is_throttled = False

    def _plug_in(self, pid: int) -> None:
        self._router.plug_in(self.number, pid, *self._addresses)

    def _unplug(self) -> None:
        with contextlib.suppress(LabError):  # the kernel may have been faster
            self._router.unplug(self.number)

    def _end_processes(self) -> None:
        """Ask, then force, until the kernel has closed their connections."""

        def left() -> list[int]:
            return [pid for pid, line in self.processes().items() if pid != 1 and line != "sleep infinity"]

        self._signal(left(), signal.SIGTERM)
        with contextlib.suppress(LabError):
            wait_for(lambda: not left(), "they end", deadline=1)
        self._signal(left(), signal.SIGKILL)
        wait_for(lambda: not left(), f"the processes of {self.name} end")

    @property
    def console(self) -> str:
        """What its boots have said."""
        path = self._files / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def disk(self) -> Path:
        """Where its own files are while it is off. Another way to them when it is up would confuse the overlay."""
        return self.places.seen / "upper"

    def wait_down(self, timeout: float = 20) -> str:
        assert self._boot is not None
        return self._boot.wait(timeout)

    def pause(self) -> None:
        if self._cgroup.can_freeze:
            self._cgroup.freeze(True)
        else:
            self.booted.signal_all(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        if self._cgroup.can_freeze:
            self._cgroup.freeze(False)
        else:
            self.booted.signal_all(signal.SIGCONT)
        self.is_paused = False

    # Network

    def _set_faults(self, **changes: bool | float) -> None:
        for name, value in changes.items():
            setattr(self._faults, name, value)
        self._router.apply(self.number, self._faults)

    def partition(self) -> None:
        self._set_faults(cut_in=True, cut_out=True)

    def partition_in(self) -> None:
        self._set_faults(cut_in=True)

    def partition_out(self) -> None:
        self._set_faults(cut_out=True)

    def hide_from_client(self) -> None:
        self._set_faults(hidden=True)

    def loss(self, percent: float) -> None:
        self._set_faults(loss=percent)

    def refuse(self) -> None:
        self._set_faults(reset=True)

    def firewall(self, allowed: Sequence[str] | None) -> None:
        """Drop new TCP connections to the host but those that match, in nft's words; None lets all pass."""
        self._faults.allowed = None if allowed is None else tuple(allowed)
        self._set_faults()

    def reset_connections(self) -> None:
        run([*self.booted.enter("net"), "ss", "--kill", "--tcp", "state", "connected"])

    def throttle(self, rate: str | None) -> None:
        """A token bucket each way: at the router's end of the veth, and at the host's."""
        ends = ((self._lab.enter("net"), f"h{self.number}"), (self.booted.enter("net"), "eth0"))
        for enter, device in ends:
            with contextlib.suppress(LabError):  # there is none
                run([*enter, "tc", "qdisc", "delete", "dev", device, "root"])
            if rate is not None:
                bucket = ["tbf", "rate", rate, "burst", "16kb", "latency", "200ms"]
                run([*enter, "tc", "qdisc", "add", "dev", device, "root", *bucket])
        self._is_throttled = rate is not None

    _is_throttled = False

    def heal(self) -> None:
        self._faults = Faults(off=not self.is_up, allowed=self._faults.allowed)
        self._set_faults()
        if self._is_throttled and self.is_up:
            self.throttle(None)

    def set_address(self, address: str) -> None:
        self.address = address
        if self.is_up:
            self._router.move(self.number, address)
            lines = self._router.lines_inside(self.number, *self._addresses)
            run([*self.booted.enter("net"), "ip", "-batch", "-"], lines)

    # sshd

    def _start_listener(self) -> None:
        self.exec(["/usr/sbin/sshd", "-E", LOG], root=True)
        self._wait_for_listener()

    def _wait_for_listener(self) -> None:
        wait_for(lambda: self.booted.listens(self.port), f"sshd of {self.name} listens")

    def sshd_log(self) -> str:
        return self.read(LOG, root=True).decode(errors="replace")

    def _sshd_config(self) -> str:
        lines = {"Port": str(self.port), "ListenAddress": "0.0.0.0", "HostKey": HOST_KEY}
        return sshd.config(self._sshd_options, lines, self.environ, self._sshd_extra)

    def _put_sshd_config(self) -> None:
        self.write(SSHD_CONFIG, self._sshd_config(), root=True)

    def _put_host_key(self) -> None:
        self.host_key = sshd.make_key(self._files / "key")
        self.write(HOST_KEY, (self._files / "key").read_bytes(), mode=0o600, root=True)

    # Inside

    def command(self, argv: Sequence[str], *, root: bool = False, env: Mapping[str, str] | None = None) -> list[str]:
        user, home = ("root", "/root") if root else (self.user, self.home)
        environ = {**ENVIRON, "HOME": home, "USER": user, "LOGNAME": user, **self.environ, **(env or {})}
        # What we start belongs to the host: paused with it, its memory counted. But a paused host can be looked into.
        cgroups = [] if self.is_paused else self._cgroup.directories
        join = "".join(f"echo 0 >{shlex.quote(cgroup)}/cgroup.procs && " for cgroup in cgroups)
        return [
            *("/bin/sh", "-c", join + 'exec "$@"', "sh"),
            *self.booted.enter(*self.booted.namespaces),
            *([] if root else [f"--setuid={self.uid}", f"--setgid={self.uid}"]),
            *("env", "-i", "-C", home, *(f"{name}={value}" for name, value in environ.items()), *argv),
        ]

    def read(self, path: str, *, root: bool = False) -> bytes:
        if inside.is_plain(where := self._absolute(path)):
            with contextlib.suppress(inside.NotPlain):
                return inside.read_inside(self.booted.root, where, 0 if root else self.uid)
        return super().read(path, root=root)

    def write(self, path: str, data: bytes | str, *, mode: int = 0o644, root: bool = False) -> None:
        if not root and inside.is_plain(where := self._absolute(path)):
            content = data.encode() if isinstance(data, str) else data
            with contextlib.suppress(inside.NotPlain):
                return inside.write_inside(self.booted.root, where, content, mode, self.uid)
        return super().write(path, data, mode=mode, root=root)

    def exists(self, path: str) -> bool:
        if inside.is_plain(where := self._absolute(path)):
            with contextlib.suppress(inside.NotPlain):
                return inside.exists_inside(self.booted.root, where)
        return super().exists(path)

    def processes(self) -> dict[int, str]:
        found = {}
        for outer, inner in self.booted.pids().items():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{outer}/cmdline").read_bytes().replace(b"\0", b" ")
                found[inner] = line.decode(errors="replace").strip()
        return found

    def _signal(self, pids: Sequence[int], sig: int) -> int:
        outer = [outer for outer, inner in self.booted.pids().items() if inner in pids]
        for pid in outer:
            send(pid, sig)
        return len(outer)

    def set_shell(self, path: str) -> None:
        self.sh(f'sed -i "s#^\\({self.user}:.*:\\).*#\\1$1#" /etc/passwd', path, root=True)

    def set_python(self, choice: str) -> None:
        self.sh(pythons.script(choice), root=True)

    def set_clock_offset(self, seconds: float) -> None:
        if not self.exists(clock.PRELOAD):
            self.write(clock.LIBRARY, clock.build(self._files / "clock.so"), root=True)
            self.write(clock.OFFSET, clock.encode(0), root=True)
            self.write(clock.PRELOAD, f"{clock.LIBRARY}\n", root=True)
            self.restart_sshd()
        self.exec(["/bin/sh", "-c", clock.CHANGE], data=clock.encode(seconds), root=True)

    # Disk and memory

    def fill_disk(self) -> None:
        self._needs_limited_home()
        self.exec(["/bin/sh", "-c", "cat /dev/zero >.filler-bytes"], check=False)

    def fill_inodes(self) -> None:
        self._needs_limited_home()
        script = "mkdir -p .filler-inodes; n=0; while : >.filler-inodes/$n; do n=$((n + 1)); done"
        self.exec(["/bin/sh", "-c", script], check=False)

    def free_disk(self) -> None:
        self.sh("rm -rf .filler-bytes .filler-inodes")

    def _needs_limited_home(self) -> None:
        if self.spec.home_size is None:
            raise LabError(f"the home of {self.name} is on this machine's disk: give it a home_size")

    def remount(self, path: str, options: str) -> None:
        self.exec(["mount", "-o", f"remount,bind,{options}", path], root=True)

    def limit_memory(self, size: str | None) -> None:
        self._cgroup.limit_memory(None if size is None else parse_size(size))

    def close(self) -> None:
        self.power_off()
        self._router.remove_port(self.number)
        self._cgroup.remove()
        enter = self._lab.enter("mount")
        if self.spec.home_size is not None:
            run([*enter, "umount", str(self.places.home)])
        run([*enter, "rm", "-rf", str(self.places.layers)])
        shutil.rmtree(self._files, ignore_errors=True)

    def forget(self) -> None:
        if self._boot is not None:
            self._boot.wait(20)
            self._boot = None

"""Hosts in namespaces of their own, for root: what a host cannot tell from a machine."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from . import pythons, rootfs, sshd
from .cgroups import Cgroup, remove_cgroups_of
from .commands import DEADLINE, ENVIRON, processes, run, start_time, wait_for
from .host import LabHost, new_boot_id
from .network import FIRST_NETWORK, Faults, Router
from .slots import Slot
from .spec import USER, HostSpec, LabError, parse_size

HERE = Path(__file__).parent
TOOLS = ("ip", "nft", "tc", "ss", "unshare", "nsenter", "mount", "pivot_root", "ssh-keygen")
FIRST_UID = 700_000_000
LOG = "/var/log/sshd.log"


def why_not() -> str | None:
    """Why hosts cannot have namespaces here."""
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=ENVIRON["PATH"]) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine (scripts/install-debian-packages test)"
    try:
        run(["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"])
    except LabError as error:
        return f"namespaces are forbidden here: {error}"
    return None


def is_usable(number: int) -> bool:
    """Whether this machine knows neither an interface nor a route of this lab's."""
    ours = FIRST_NETWORK + (number << 8)
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        to, mask = (int.from_bytes(bytes.fromhex(fields[place]), "little") for place in (1, 7))
        if mask and (to & mask & 0xFFFFFF00) == (ours & mask & 0xFFFFFF00):
            return False
    return not Path(f"/sys/class/net/cslab{number}").exists()


def read_line(stream: IO[bytes], what: str) -> str:
    """One line that a process of ours says, with a deadline."""
    line, until = b"", time.monotonic() + DEADLINE
    while not line.endswith(b"\n"):
        if not select.select([stream], [], [], max(0.0, until - time.monotonic()))[0]:
            raise LabError(f"not within {DEADLINE:g} s: {what}")
        if not (byte := os.read(stream.fileno(), 1)):
            raise LabError(f"ended before: {what}")
        line += byte
    return line.decode().strip()


class Namespaces:
    """What all hosts of one lab share: the keeper, who ends with us, and the router."""

    level = "namespaces"
    leaves_out = ""

    def __init__(self, slot: Slot, directory: Path) -> None:
        self.slot, self.directory = slot, directory
        self.router: Router | None = None
        (directory / "layers").mkdir()
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "sh", str(HERE / "keep-lab.sh"), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRON,
            start_new_session=True,
        )
        try:
            assert self._process.stdout is not None
            self.keeper = int(read_line(self._process.stdout, "the keeper's pid"))
            slot.record(directory, self.keeper)
            self.router = Router(slot.number, self.keeper)
        except BaseException:
            self.close()
            raise

    def seen(self, path: Path) -> Path:
        """A path as the keeper sees it, who has mounts of his own."""
        return Path(f"/proc/{self.keeper}/root{path}")

    def make_host(self, number: int, spec: HostSpec, key_path: Path) -> LabHost:
        return NamespaceHost(self, number, spec, key_path)

    def close(self) -> None:
        if self.router is not None:
            with contextlib.suppress(LabError):  # gone with a keeper who was killed
                self.router.close()
        self._process.communicate(timeout=DEADLINE)  # closes his stdin
        remove_cgroups_of(self.slot.number)


class NamespaceHost(LabHost):
    def __init__(self, lab: Namespaces, number: int, spec: HostSpec, key_path: Path) -> None:
        assert lab.router is not None
        super().__init__(number, lab.router.address(number), spec, key_path)
        self._lab, self._router = lab, lab.router
        self._faults = Faults()
        self._init = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._cgroup = Cgroup(f"{lab.slot.number}-{self.name}")
        self._files = lab.directory / self.name
        layers = lab.directory / "layers" / self.name
        shared = spec.home_of
        assert shared is None or isinstance(shared, NamespaceHost)
        self.uid: int = shared.uid if shared else FIRST_UID + lab.slot.number * 1000 + number
        home: Path = shared.places.home if shared else self._files / "home"
        self.places: rootfs.Places = rootfs.Places(self._files, layers, lab.seen(layers), home)
        self._make_files()
        self._router.add_port(number)
        self.power_on()
        if spec.python != "machine":
            self.set_python(spec.python)

    def _make_files(self) -> None:
        places, spec = self.places, self.spec
        (self._files / "root").mkdir(parents=True)
        rootfs.make_layer(places.seen / "upper", self.name, self.uid, spec.shell)
        (places.seen / "work").mkdir()
        (self._files / "fstab").write_text(rootfs.fstab(places, spec))
        self._make_key_in(places.seen / "upper/etc/ssh")
        (places.seen / "upper/etc/ssh/sshd_config").write_text(self._sshd_config())
        if spec.home_of is None:
            places.home.mkdir()
            if spec.home_size is not None:
                inodes = f",nr_inodes={spec.home_inodes}" if spec.home_inodes else ""
                size = f"size={parse_size(spec.home_size)}{inodes}"
                enter = ["nsenter", "--target", str(self._lab.keeper), "--mount"]
                run([*enter, "mount", "-t", "tmpfs", "-o", size, "home", str(places.home)])
            public = self.key_path.with_suffix(".pub").read_text().strip()
            rootfs.make_home(self._lab.seen(places.home), self.uid, public)
        if spec.memory is not None:
            self._cgroup.limit_memory(parse_size(spec.memory))

    # Power

    def power_on(self) -> None:
        if self.is_up:
            return
        self.boot_id = new_boot_id()
        (self._files / "boot_id").write_text(f"{self.boot_id}\n")
        (self._files / "network").write_text(self._router.lines_inside(self.number, self.address))
        enter = ["nsenter", "--target", str(self._lab.keeper), "--mount", "--pid"]
        unshare = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork"]
        script = ["sh", str(HERE / "enter-host.sh"), str(self._files), self.name, *self._cgroup.directories]
        with (self._files / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [*enter, *unshare, *script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                env=ENVIRON,
                start_new_session=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._init = int(read_line(self._process.stdout, f"{self.name} says its pid"))
            self._router.plug_in(self.number, self._init, self.address)
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()
            read_line(self._process.stdout, f"{self.name} is up")
            self.is_up = True
            self._wait_for_listener()
        except (LabError, OSError) as error:
            self._process.stdin.close()  # who still waits for it ends
            raise LabError(f"{error}\n{self.console()}") from error
        finally:
            self._process.stdout.close()
        self._set_faults(off=False)

    def console(self) -> str:
        """What was said on stderr while the host booted."""
        return (self._files / "console").read_text(errors="replace")

    def power_off(self, clean: bool = False) -> None:
        if not self.is_up:
            return
        if clean and not self.is_paused:
            self._end_processes()
        # ORDER: the line is cut first, so that no FIN or RST tells the client what happens.
        self._set_faults(off=True)
        if self.is_paused:
            for pid in self._all():  # before they thaw: nobody does another thing
                self._signal_outer(pid, signal.SIGKILL)
            self._signal_outer(self._init, signal.SIGKILL)
            self.resume()
        self._signal_outer(self._init, signal.SIGKILL)
        self._gone()

    def forget(self) -> None:
        self.is_up = self.is_paused = False
        if self._process is not None:
            self._process.wait(DEADLINE)

    def _end_processes(self) -> None:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._all():
                if pid != self._init:
                    self._signal_outer(pid, sig)

    def _gone(self) -> None:
        assert self._process is not None
        self._process.wait(DEADLINE)
        with contextlib.suppress(LabError):  # the kernel may have been faster
            self._router.unplug(self.number)
        self.is_up = self.is_paused = False

    def pause(self) -> None:
        if self._cgroup.can_freeze:
            self._cgroup.freeze(True)
        else:
            self._signal_all(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        if self._cgroup.can_freeze:
            self._cgroup.freeze(False)
        else:
            self._signal_all(signal.SIGCONT)
        self.is_paused = False

    def _signal_all(self, sig: int) -> None:
        """Again until no new process turns up, which one that was not yet stopped may have started."""
        done: set[int] = set()
        while new := set(self._all()) - done:
            for pid in new:
                self._signal_outer(pid, sig)
            done |= new

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

    def reset_connections(self) -> None:
        self._in_network(["ss", "--kill", "--tcp", "state", "connected"])

    def throttle(self, rate: str | None) -> None:
        """A token bucket each way: at the router's end of the veth, and at the host's."""
        ends = ((self._router.enter, f"h{self.number}"), (self._enter("net"), "eth0"))
        for enter, device in ends:
            if rate is None:
                with contextlib.suppress(LabError):  # there is none
                    run([*enter, "tc", "qdisc", "delete", "dev", device, "root"])
            else:
                bucket = ["tbf", "rate", rate, "burst", "16kb", "latency", "200ms"]
                run([*enter, "tc", "qdisc", "replace", "dev", device, "root", *bucket])

    def heal(self) -> None:
        self._faults = Faults(off=not self.is_up)
        self._set_faults()
        if self.is_up:
            self.throttle(None)

    def set_address(self, address: str) -> None:
        """As after a stop and start in a cloud. Old connections are left to their fate."""
        self.address = address
        self._router.move(self.number, address)
        if self.is_up:
            self._in_network(["ip", "-batch", "-"], self._router.lines_inside(self.number, address))

    # sshd

    def stop_sshd(self) -> None:
        for pid in self.pids(sshd.LISTENER):
            self.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.pids(sshd.LISTENER), f"sshd of {self.name} ends")

    def start_sshd(self) -> None:
        try:
            self.exec(["/usr/sbin/sshd", "-E", LOG], root=True)
        except LabError as error:
            raise LabError(f"{error}\n{self.sshd_log()}") from error
        self._wait_for_listener()

    def _wait_for_listener(self) -> None:
        def listens() -> bool:
            lines = Path(f"/proc/{self._init}/net/tcp").read_text().splitlines()[1:]
            return any(line.split()[1].endswith(f":{self.port:04X}") and line.split()[3] == "0A" for line in lines)

        wait_for(listens, f"sshd of {self.name} listens")

    def kill_sshd_sessions(self) -> None:
        for pid in self.pids(sshd.SESSION):
            with contextlib.suppress(ProcessLookupError):
                self.kill(pid)

    def sshd_log(self) -> str:
        return self.read(LOG, root=True).decode(errors="replace")

    def _sshd_config(self) -> str:
        lines = {"Port": str(self.port), "ListenAddress": "0.0.0.0", "HostKey": "/etc/ssh/ssh_host_ed25519_key"}
        return sshd.config(self._sshd_options, lines, self._sshd_extra)

    def _write_sshd_config(self) -> None:
        self.write("/etc/ssh/sshd_config", self._sshd_config(), root=True)

    def _make_key_in(self, directory: Path) -> None:
        self.host_key = sshd.make_key(directory / "ssh_host_ed25519_key")

    def _write_host_key(self) -> None:
        self._make_key_in(self._files)
        private = (self._files / "ssh_host_ed25519_key").read_bytes()
        self.write("/etc/ssh/ssh_host_ed25519_key", private, mode=0o600, root=True)

    # Inside

    def _enter(self, *namespaces: str) -> list[str]:
        if not self.is_up:
            raise LabError(f"{self.name} is off")
        return ["nsenter", "--target", str(self._init), *(f"--{name}" for name in namespaces)]

    def _in_network(self, command: Sequence[str], text: str = "") -> None:
        run([*self._enter("net"), *command], text)

    def command(self, argv: Sequence[str], *, root: bool = False, env: Mapping[str, str] | None = None) -> list[str]:
        enter = self._enter("mount", "net", "pid", "uts", "ipc")
        who = [] if root else [f"--setuid={self.uid}", f"--setgid={self.uid}"]
        home = "/root" if root else self.home
        environ = {**ENVIRON, "HOME": home, "USER": "root" if root else USER, "SHELL": self.spec.shell, **(env or {})}
        join = 'for cgroup in $1; do echo 0 >"$cgroup/cgroup.procs"; done; shift; exec "$@"'
        start = 'cd && exec "$@"'
        return [
            *("/bin/sh", "-c", join, "sh", " ".join(self._cgroup.directories)),
            *(*enter, *who, "env", "-i", *(f"{name}={value}" for name, value in environ.items())),
            *("/bin/sh", "-c", start, "sh", *argv),
        ]

    def _all(self) -> dict[int, int]:
        """All processes of the host: as this machine counts, and as the host does."""
        if not self.is_up:
            return {}
        ours = os.stat(f"/proc/{self._init}/ns/pid").st_ino
        found = {}
        for pid in processes():
            with contextlib.suppress(OSError, ValueError):
                if os.stat(f"/proc/{pid}/ns/pid").st_ino == ours and start_time(pid):
                    status = Path(f"/proc/{pid}/status").read_text()
                    found[pid] = int(status.split("NSpid:")[1].split("\n")[0].split()[-1])
        return found

    def processes(self) -> dict[int, str]:
        found = {}
        for outer, inner in self._all().items():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{outer}/cmdline").read_bytes().replace(b"\0", b" ")
                found[inner] = line.decode(errors="replace").strip()
        return found

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        for outer, inner in self._all().items():
            if inner == pid:
                self._signal_outer(outer, sig)
                return
        raise ProcessLookupError(f"{self.name} has no process {pid}")

    @staticmethod
    def _signal_outer(pid: int, sig: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)

    def set_shell(self, path: str) -> None:
        self.sh(f'sed -i "s#^\\({USER}:.*:\\).*#\\1$1#" /etc/passwd', path, root=True)

    def set_python(self, choice: str) -> None:
        self.sh(pythons.script(choice), root=True)

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
        run(["nsenter", "--target", str(self._lab.keeper), "--mount", "rm", "-rf", str(self.places.layers)])
        shutil.rmtree(self._files, ignore_errors=True)

"""The files of a host: the machine's own, seen through a layer that is the host's alone."""

from __future__ import annotations

import configparser
import os
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

from .spec import HostSpec

OF_EACH_MACHINE = {"bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sbin", "sys", "usr", "var"}
EMPTY = {"dev": 0o755, "home": 0o755, "media": 0o755, "mnt": 0o755, "root": 0o700, "run": 0o755, "srv": 0o755}
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


@dataclass(frozen=True)
class Places:
    """Where the parts of one host are. `layers` is seen by the lab's processes only: `seen` is our way to it."""

    files: Path
    layers: Path
    seen: Path
    home: Path


def pyenv_versions() -> Path | None:
    """Where pyenv has its interpreters on this machine: hosts have them too, but in no PATH."""
    found = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    return found.resolve() if found.is_dir() else None


def make_layer(upper: Path, name: str, uid: int, spec: HostSpec) -> None:
    """Write what makes the machine's files those of another machine."""
    upper.mkdir(parents=True)
    upper.chmod(0o755)
    for directory, mode in EMPTY.items():
        (upper / directory).mkdir()
        (upper / directory).chmod(mode)
        os.setxattr(upper / directory, "trusted.overlay.opaque", b"y")
    for entry in os.listdir("/"):
        path = Path("/", entry)
        if entry not in OF_EACH_MACHINE | EMPTY.keys() | {"tmp"} and not path.is_symlink():
            os.mknod(upper / entry, stat.S_IFCHR, os.makedev(0, 0))  # overlayfs: not there
    _make_devices(upper / "dev")
    (upper / "home" / spec.user).mkdir()
    if (versions := pyenv_versions()) is not None:
        for place in (*reversed(versions.relative_to("/").parents), versions.relative_to("/")):
            (upper / place).mkdir(exist_ok=True)
            (upper / place).chmod((upper / place).stat().st_mode | 0o111)
    _write_etc(upper / "etc", name, uid, spec)


def _make_devices(dev: Path) -> None:
    for name, numbers in DEVICES.items():
        os.mknod(dev / name, stat.S_IFCHR, os.makedev(*numbers))
        (dev / name).chmod(0o666)
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm"):
        (dev / name).mkdir()


def _write_etc(etc: Path, name: str, uid: int, spec: HostSpec) -> None:
    user = spec.user
    lines = {
        "passwd": (f"{user}:x:{uid}:{uid}:{user}:/home/{user}:{spec.shell}", 0o644),
        "group": (f"{user}:x:{uid}:", 0o644),
        "shadow": (f"{user}:*:19000:0:99999:7:::", 0o600),
    }
    etc.mkdir(exist_ok=True)
    etc.chmod(0o755)
    for file, (line, mode) in lines.items():
        others = [old for old in Path("/etc", file).read_text().splitlines() if not old.startswith(f"{user}:")]
        (etc / file).write_text("\n".join([*others, line, ""]))
        (etc / file).chmod(mode)
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
    (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    if Path("/etc/resolv.conf").exists():  # may be a mount, which the layer below does not show
        shutil.copyfile("/etc/resolv.conf", etc / "resolv.conf")
    (etc / "ssh").mkdir()
    (etc / "ssh").chmod(0o755)


def set_pip_proxy(etc: Path, url: str | None) -> None:
    """For pip of a job that does not inherit the variables. What the machine's pip.conf says stays."""
    if url is not None:
        conf = configparser.ConfigParser(interpolation=None)
        conf.read("/etc/pip.conf")
        conf.read_dict({"global": {"proxy": url}})
        with (etc / "pip.conf").open("w") as file:
            conf.write(file)


def make_home(home: Path, uid: int, authorized_key: str) -> None:
    for entry in Path("/etc/skel").glob(".*"):
        if entry.is_file():
            shutil.copyfile(entry, home / entry.name)
    (home / ".ssh").mkdir()
    (home / ".ssh" / "authorized_keys").write_text(f"{authorized_key}\n")
    for path in (home, home / ".ssh", *home.glob(".*"), home / ".ssh" / "authorized_keys"):
        os.chown(path, uid, uid)
    home.chmod(0o750)
    (home / ".ssh").chmod(0o700)


def fstab(places: Places, spec: HostSpec) -> str:
    """What a host mounts when it boots, in this order."""
    root = places.files / "root"
    runs = ",noexec" if spec.noexec else ""
    layers = f"lowerdir=/,upperdir={places.layers / 'upper'},workdir={places.layers / 'work'}"
    mounts: list[tuple[Path | str, Path, str, str]] = [("root", root, "overlay", layers)]
    mounts += [(where, root / str(where)[1:], "none", "bind,ro") for where in _mounted_parts()]
    mounts += [
        ("proc", root / "proc", "proc", "nosuid,nodev,noexec"),
        ("sysfs", root / "sys", "sysfs", "ro,nosuid,nodev,noexec"),
        ("devpts", root / "dev/pts", "devpts", "newinstance,gid=5,mode=620,ptmxmode=666"),
        ("shm", root / "dev/shm", "tmpfs", f"mode=1777{runs}"),
        ("tmp", root / "tmp", "tmpfs", f"mode=1777{runs}"),
        ("run", root / "run", "tmpfs", "mode=755"),
        ("sshd", root / "run/sshd", "tmpfs", "mode=755,size=4k,X-mount.mkdir"),  # its empty directory
        (places.home, root / "home" / spec.user, "none", f"bind{runs}"),
        (places.files / "boot_id", root / "proc/sys/kernel/random/boot_id", "none", "bind"),
    ]
    if Path("/proc/sysrq-trigger").exists():  # it is the whole machine's
        mounts.append(("/dev/null", root / "proc/sysrq-trigger", "none", "bind"))
    mounts.append(("tmp", root / "var/tmp", "tmpfs", f"mode=1777{runs}"))
    if (versions := pyenv_versions()) is not None:  # at their own path, which is written into the interpreters
        mounts.append((versions, root / versions.relative_to("/"), "none", "bind,ro"))
    return "".join(
        f"{escape(what)} {escape(where)} {kind} {escape(options)} 0 0\n" for what, where, kind, options in mounts
    )


def _mounted_parts() -> list[Path]:
    """File systems of the machine that an overlay of / alone would not show."""
    parts = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where = Path(line.split()[1].replace("\\040", " "))
        if len(where.parts) > 1 and where.parts[1] in {"usr", "opt", "var", "lib", "bin", "sbin"} and where.is_dir():
            parts.append(where)
    return parts


def escape(what: Path | str) -> str:
    return str(what).replace(" ", "\\040")

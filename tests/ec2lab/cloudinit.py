"""What the lab puts on a machine's disk so that its boot does as cloud-init with this user data."""

from __future__ import annotations

import base64
import gzip
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .userdata import BootPlan

HERE = Path(__file__).parent
PLACE = "/var/lib/cloud/lab"
ENDS = ("shutdown", "poweroff", "reboot", "halt")
STATUS = """#!/bin/sh
# cloud-init status [--wait]
[ "$1" = status ] || exit 2
while [ "$2" = --wait ] && [ ! -e /run/cloud-init/done ]; do sleep 0.1; done
if [ -e /run/cloud-init/done ]; then echo "status: done"; else echo "status: running"; fi
"""


def write_boot(root: Path, instance_id: str, user: str, public_key: str | None, plan: BootPlan) -> None:
    """Below the root directory of a machine that is off."""
    lab = root / PLACE[1:]
    for directory in ("boothooks", "files", "scripts"):
        (lab / directory).mkdir(parents=True)
    for number, hook in enumerate(plan.boothooks):
        _write(lab / "boothooks" / f"part-{number:03}", hook, 0o700)
    for number, script in enumerate(plan.scripts):
        _write(lab / "scripts" / f"part-{number:03}", script, 0o700)
    keys = [public_key] if public_key else []
    keys += [str(key) for key in plan.config.get("ssh_authorized_keys") or []]
    once = [*_write_files(plan.config, lab), *_host_keys(plan.config, lab), *_authorized(user, keys, lab)]
    _write(lab / "once.sh", _script(once), 0o700)
    bootcmd = [f"({_command(entry)}) || echo 'bootcmd failed'" for entry in plan.config.get("bootcmd") or []]
    _write(lab / "bootcmd.sh", _script(bootcmd), 0o700)
    runcmd = [_command(entry) for entry in plan.config.get("runcmd") or []]
    if runcmd:  # ORDER: after scripts of a name below `runcmd`, as cloud-init runs them by name
        _write(lab / "scripts" / "runcmd", _script(runcmd), 0o700)
    etc = root / "etc/lab"
    etc.mkdir()
    for name in ("before-sshd", "after-sshd"):
        text = (HERE / f"{name}.sh").read_text().replace("@INSTANCE@", instance_id)
        _write(etc / name, text.encode(), 0o755)
    _write(lab / "problems", "".join(f"{line}\n" for line in plan.problems).encode(), 0o600)
    _put_commands(root)
    sudoers = root / "etc/sudoers.d"
    sudoers.mkdir(exist_ok=True, mode=0o755)
    _write(sudoers / "90-cloud-init-users", f"{user} ALL=(ALL) NOPASSWD:ALL\n".encode(), 0o440)


def _put_commands(root: Path) -> None:
    for directory in ("usr", "usr/sbin", "usr/bin"):
        (root / directory).mkdir(exist_ok=True)
        (root / directory).chmod(0o755)
    end = (HERE / "machine-end.sh").read_bytes()
    for name in ENDS:
        _write(root / "usr/sbin" / name, end, 0o755)
    _write(root / "usr/bin/systemctl", end, 0o755)
    _write(root / "usr/bin/cloud-init", STATUS.encode(), 0o755)


def _write(path: Path, data: bytes | str, mode: int) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)


def _script(lines: list[str]) -> str:
    return "#!/bin/sh\n" + "".join(f"{line}\n" for line in lines)


def _command(entry: Any) -> str:
    return shlex.join(str(word) for word in entry) if isinstance(entry, list) else str(entry)


def _write_files(config: Mapping[str, Any], lab: Path) -> list[str]:
    lines = []
    for number, entry in enumerate(config.get("write_files") or []):
        source, target = lab / "files" / f"{number:03}", shlex.quote(str(entry["path"]))
        _write(source, _decode(entry), 0o600)
        content = f"{PLACE}/files/{source.name}"
        lines.append(f'mkdir -p "$(dirname {target})"')
        lines.append(f"cat {content} {'>>' if entry.get('append') else '>'}{target}")
        mode = entry.get("permissions", "0644")
        lines.append(f"chmod {mode if isinstance(mode, str) else f'{mode:o}'} {target}")
        if "owner" in entry:
            lines.append(f"chown {shlex.quote(entry['owner'])} {target}")
    return lines


def _decode(entry: Mapping[str, Any]) -> bytes:
    content = entry.get("content", "")
    data = content if isinstance(content, bytes) else str(content).encode()
    encoding = str(entry.get("encoding", "text/plain")).lower()
    if "b64" in encoding or "base64" in encoding:
        data = base64.b64decode(data)
    return gzip.decompress(data) if "gz" in encoding else data


def _host_keys(config: Mapping[str, Any], lab: Path) -> list[str]:
    keys = config.get("ssh_keys") or {}
    lines = ["sed -i '/^HostKey /d' /etc/ssh/sshd_config"] if keys else []
    # Those of the machine below are not this one's.
    lines.append("rm -f /etc/ssh/ssh_host_*" if keys else "rm -f /etc/ssh/ssh_host_rsa_* /etc/ssh/ssh_host_ecdsa_*")
    for kind in ("rsa", "ecdsa", "ed25519"):
        if f"{kind}_private" not in keys:
            continue
        path = f"/etc/ssh/ssh_host_{kind}_key"
        _write(lab / "files" / f"host-{kind}", str(keys[f"{kind}_private"]), 0o600)
        lines.append(f"install -m 600 {PLACE}/files/host-{kind} {path} && rm {PLACE}/files/host-{kind}")
        if f"{kind}_public" in keys:
            lines.append(f"echo {shlex.quote(str(keys[f'{kind}_public']).strip())} >{path}.pub")
        else:
            lines.append(f"ssh-keygen -y -f {path} >{path}.pub")
        lines.append(f"echo 'HostKey {path}' >>/etc/ssh/sshd_config")
    return lines


def _authorized(user: str, keys: list[str], lab: Path) -> list[str]:
    _write(lab / "files/authorized_keys", "".join(f"{key.strip()}\n" for key in keys), 0o600)
    home = f"/home/{user}/.ssh"
    return [f"install -m 600 -o {user} -g {user} {PLACE}/files/authorized_keys {home}/authorized_keys"]

"""The user's SSH configuration where there is no `ssh` program: paramiko's parser, and Include, which it lacks."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from .ssh_config import check_trusted

DEPTH_LIMIT = 16  # as ssh
_INCLUDE = re.compile(r"\s*include[\s=]+(.+)", re.IGNORECASE)
_SECTION = re.compile(r"\s*(host|match)[\s=]", re.IGNORECASE)


def read_without_ssh(host: str, user: str, config: Path | None) -> dict[str, list[str]]:
    """Each option for `host`, lower case, with its values, as `ssh -G` names them."""
    import paramiko

    files = [config] if config is not None else [Path.home() / ".ssh" / "config", Path("/etc/ssh/ssh_config")]
    found: dict[str, list[str]] = {}
    for path in files:
        if not path.is_file():
            continue
        parser = paramiko.SSHConfig.from_text("\n".join(with_includes(path, host)))
        for name, value in parser.lookup(host).items():
            values = value if isinstance(value, list) else [value]
            if name == "identityfile":
                found.setdefault(name, []).extend(values)
            else:
                found.setdefault(name, values)
    if user:
        found["user"] = [user]
    ssh = Path.home() / ".ssh"
    found.setdefault("identityfile", [str(ssh / f"id_{kind}") for kind in ("rsa", "ecdsa", "ed25519")])
    found.setdefault("userknownhostsfile", [f"{ssh}/known_hosts {ssh}/known_hosts2"])
    found.setdefault("globalknownhostsfile", ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"])
    return found


def with_includes(path: Path, host: str, depth: int = 0) -> list[str]:
    """The lines of a file with those of its includes in place, where their section is about `host`."""
    check_trusted(path)
    lines: list[str] = []
    section = "Host *"
    for line in path.read_text(errors="surrogateescape").splitlines():
        match = _INCLUDE.fullmatch(line)
        if _SECTION.match(line):
            section = line
        if match is None:
            lines.append(line)
            continue
        if depth >= DEPTH_LIMIT or not _is_about(section, host):
            continue
        for name in match[1].split():
            pattern = os.path.join(path.parent, os.path.expanduser(name.strip('"')))
            for included in sorted(glob.glob(pattern)):
                lines += with_includes(Path(included), host, depth + 1)
                lines.append(section)
    return lines


def _is_about(section: str, host: str) -> bool:
    import paramiko

    return "cloudsend" in paramiko.SSHConfig.from_text(f"{section}\n cloudsend here\n").lookup(host)

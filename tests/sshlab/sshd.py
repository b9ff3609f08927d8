"""The sshd of one host: its configuration, its key, and what tells its processes apart."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from .commands import ENVIRON, run

LISTENER = r"^/usr/sbin/sshd\b(?!.* -R$)|^sshd: .*\[listener\]"
SESSION = r"^sshd(-session|-auth)?: (?!.*\[listener\])"
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")


def find_sshd() -> str | None:
    return shutil.which("sshd", path=ENVIRON["PATH"])


def config(options: Mapping[str, str], lines: Mapping[str, str], environ: Mapping[str, str], extra: str) -> str:
    """The text of sshd_config: of two lines of one name sshd takes the first, so the options win."""
    ours = {
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PrintMotd": "no",
        "UseDNS": "no",
        "UsePAM": "no",
        "AcceptEnv": "LANG LC_*",
        "Subsystem": f"sftp {SFTP_SERVER if SFTP_SERVER.exists() else 'internal-sftp'}",
    }
    named = {name.lower(): value for name, value in options.items()}
    rest = {name: value for name, value in {**lines, **ours}.items() if name.lower() not in named}
    if environ:
        assigned = [f'"{name}={value}"' for name, value in environ.items()]
        rest = {"SetEnv": " ".join([*assigned, named.get("setenv", "")]), **rest}
        options = {name: value for name, value in options.items() if name.lower() != "setenv"}
    return "".join(f"{name} {value}\n" for name, value in {**options, **rest}.items()) + extra


def make_key(path: Path) -> str:
    """A new ed25519 key pair at this path; the public line without its comment."""
    for old in (path, path.with_name(path.name + ".pub")):
        old.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)])
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def known_name(address: str, port: int) -> str:
    return address if port == 22 else f"[{address}]:{port}"


def hash_name(name: str) -> str:
    """As `ssh-keygen -H` writes it."""
    salt = os.urandom(20)
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"

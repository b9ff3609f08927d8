"""What a machine is told at its first boot: the dead man's switch, its host key, who may log in. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

from cloudsend_cli.errors import ProviderError

from .identity import KeyPair

LARGEST = 16 * 1024  # bytes, before EC2's base64
_BOUNDARY = "==cloudsend=="
_END_OF_SCRIPT = "CLOUDSEND_END_OF_SCRIPT"
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


@dataclass(frozen=True, slots=True)
class Limits:
    """When the machine ends itself. Seconds."""

    idle: int
    life: int
    unadopted: int
    setting: str = "life"  # that decided `life`; its end is announced under this name


def render_user_data(user: str, limits: Limits, *, spot: bool, host_key: KeyPair, login_public: str) -> str:
    """The same text for the same arguments. ProviderError: it cannot be rendered, or is larger than EC2 takes."""
    if not _USER.fullmatch(user):
        raise ProviderError(f"{user!r} is no name of a user of a machine", hint="look at `user`")
    parts = [
        ("text/cloud-boothook", _render_boothook(user, limits, spot=spot)),
        ("text/cloud-config", _render_cloud_config(host_key, login_public)),
    ]
    lines = [f'Content-Type: multipart/mixed; boundary="{_BOUNDARY}"', "MIME-Version: 1.0", ""]
    for kind, text in parts:
        lines += [f"--{_BOUNDARY}", f'Content-Type: {kind}; charset="us-ascii"', "MIME-Version: 1.0", "", text]
    whole = "\n".join([*lines, f"--{_BOUNDARY}--", ""])
    if len(whole.encode("ascii")) > LARGEST:
        raise ProviderError(f"the user-data has {len(whole)} bytes, and EC2 takes {LARGEST}", hint="report this bug")
    return whole


def _render_boothook(user: str, limits: Limits, *, spot: bool) -> str:
    """A boothook is executed early in every boot; each file appears whole, so that an old one stays until then."""
    conf = [
        f"idle={limits.idle}",
        f"life={limits.life}",
        f"setting={limits.setting}",
        f"unadopted={limits.unadopted}",
        f"spot={int(spot)}",
        f"user={user}",
    ]
    return "\n".join([
        "#!/bin/sh",
        "umask 022",
        "state=${CLOUDSEND_DEADMAN_STATE:-/var/lib/cloudsend}",
        'mkdir -p "$state"',
        f"cat >\"$state/deadman.new\" <<'{_END_OF_SCRIPT}'",
        read_script().rstrip("\n"),
        _END_OF_SCRIPT,
        f"cat >\"$state/deadman.conf.new\" <<'{_END_OF_SCRIPT}'",
        *conf,
        _END_OF_SCRIPT,
        'mv -f "$state/deadman.conf.new" "$state/deadman.conf"',
        'mv -f "$state/deadman.new" "$state/deadman"',
        'exec /bin/sh "$state/deadman" boot',
        "",
    ])  # fmt: skip


def _render_cloud_config(host_key: KeyPair, login_public: str) -> str:
    """JSON is YAML. The host key in here can be read by any process of the machine: the first login replaces it."""
    settings = {
        "disable_root": True,
        "ssh_authorized_keys": [f"{login_public} cloudsend"],
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": f"{host_key.private}\n",
            "ed25519_public": f"{host_key.public} cloudsend-host",
        },
        "ssh_pwauth": False,
    }
    return "#cloud-config\n" + json.dumps(settings, sort_keys=True, indent=1) + "\n"


@cache
def read_script() -> str:
    from importlib.resources import files

    return files(__package__ or "").joinpath("deadman.sh").read_text("ascii")

"""What a host of the lab shall be like, and how the lab says that it cannot do something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .host import LabHost

PREFIX = "cloudsend-sshlab"  # of all that the lab leaves where others can see it
USER = "lab"
NEEDS_NAMESPACES = "needs hosts in namespaces: run the tests as root"


class LabError(Exception):
    """The lab itself failed: a mistake in the kit, or in its use."""


class NotHere(Exception):
    """This cannot be had on this machine or level; a test that needs it is skipped with these words."""


@dataclass(frozen=True)
class HostSpec:
    """How one host differs from an ordinary machine."""

    shell: str = "/bin/bash"
    """The user's login shell: a path inside the host."""
    python: str = "machine"
    """`machine`, `none`, `broken`, a version such as `3.6`, or the path of an interpreter inside the host."""
    sshd: Mapping[str, str] = field(default_factory=dict)
    """Lines of sshd_config that win over those of the lab."""
    home_size: str | None = None
    """A home of its own file system with so many bytes (`20m`), as fill_disk() needs it."""
    home_inodes: int | None = None
    noexec: bool = False
    """Nothing below the home directory, /tmp, /var/tmp and /dev/shm can be executed."""
    home_of: LabHost | None = None
    """The home directory is that of another host: shared, as by NFS."""
    internet: bool = False
    """The variables and pip.conf of the host name an HTTPS proxy, so that pip reaches its index."""
    memory: str | None = None
    """What all processes of the host may use together (`200m`)."""
    user: str = USER
    """Only in namespaces."""
    own_uptime: bool = False
    """/proc/uptime counts from its boot, where the kernel has namespaces of time."""
    private_address: bool = False
    """A second address, at which other hosts reach it and this machine does not."""


def parse_size(text: str) -> int:
    """Bytes of `20m`, `1g`, `512k`, `4096`."""
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    unit = units.get(text[-1:].lower(), 1)
    return int(text[:-1] if unit > 1 else text) * unit

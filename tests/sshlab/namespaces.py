"""What the hosts of one lab share at the level of namespaces: a keeper who ends with us, and a router."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from functools import cache
from pathlib import Path

from .cgroups import remove_cgroups_of
from .commands import DEADLINE, ENVIRON, read_line, run
from .gateway import Gateway
from .namespace_host import NamespaceHost
from .network import FIRST_NETWORK, Router
from .slots import Slot
from .spec import HostSpec, LabError

HERE = Path(__file__).parent
TOOLS = ("ip", "nft", "tc", "ss", "unshare", "nsenter", "mount", "pivot_root")


@cache
def why_not() -> str | None:
    """Why hosts cannot have namespaces here."""
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=ENVIRON["PATH"]) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine"
    try:
        run(["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"])
    except LabError as error:
        return f"namespaces are forbidden here: {error}".strip()
    return None


def is_usable(number: int) -> bool:
    """Whether this machine knows neither an interface nor a route of such a lab."""
    ours = FIRST_NETWORK + (number << 8)
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        to, mask = (int.from_bytes(bytes.fromhex(fields[place]), "little") for place in (1, 7))
        if mask and (to & mask & 0xFFFFFF00) == (ours & mask & 0xFFFFFF00):
            return False
    return not Path(f"/sys/class/net/cslab{number}").exists()


class Namespaces:
    level = "namespaces"
    leaves_out = ""

    def __init__(self, slot: Slot, directory: Path) -> None:
        self.slot, self.directory = slot, directory
        self.router: Router | None = None
        self._gateway: Gateway | None = None
        self._guard = threading.Lock()
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
            self.router = Router(slot.number, self.keeper, self.enter)
        except BaseException:
            self.close()
            raise

    def make_host(self, number: int, spec: HostSpec, key_path: Path) -> NamespaceHost:
        return NamespaceHost(self, number, spec, key_path)

    def seen(self, path: Path) -> Path:
        """A path as the keeper sees it, who has mounts of his own."""
        return Path(f"/proc/{self.keeper}/root{path}")

    def enter(self, *namespaces: str) -> list[str]:
        if self._process.poll() is not None:
            raise LabError("the lab's keeper was killed")
        return ["nsenter", "--target", str(self.keeper), *(f"--{name}" for name in namespaces)]

    def gateway(self) -> Gateway:
        """Made when the first host asks for it."""
        assert self.router is not None
        with self._guard:
            if self._gateway is None:
                self._gateway = Gateway(self.router.client, f"{self.router.address(0)}/24")
            return self._gateway

    def close(self) -> None:
        if self._gateway is not None:
            self._gateway.close()
        if self.router is not None:
            with contextlib.suppress(LabError):  # gone with a keeper who was killed
                self.router.close()
        self._process.communicate(timeout=DEADLINE)  # closes his stdin
        remove_cgroups_of(self.slot.number)

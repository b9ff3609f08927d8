"""Hosts for the benchmarks: real sshds in network namespaces (as in the tests), and a cloudsend that uses them."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.measuring import ROOT, Cloudsend, NotInstalled

sys.path.insert(0, str(ROOT / "tests"))
from sshlab import Lab, LabError, LabHost, NotHere

__all__ = ["PLACES", "HostsCloudsend", "Lab", "LabHost", "make_lab"]

PLACES = 2  # of each host


@contextmanager
def make_lab(count: int) -> Iterator[Lab]:
    """NotInstalled: hosts cannot be made here."""
    try:
        lab = Lab(count, sshd={"MaxStartups": "100", "MaxSessions": "100"})
    except (LabError, NotHere) as why:
        raise NotInstalled(str(why)) from why
    with lab:
        yield lab


class HostsCloudsend(Cloudsend):
    """Uses these hosts, whose keys it knows. `addresses` replace theirs, for a proxy between."""

    def __init__(
        self, directory: Path, lab: Lab, hosts: Sequence[LabHost], addresses: Sequence[tuple[str, int]] = ()
    ) -> None:
        super().__init__(directory)
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = self.state_dir / "known_hosts"
        shutil.copyfile(lab.known_hosts, known)
        known.chmod(0o600)
        entries = []
        for index, host in enumerate(hosts):
            entry = {"name": host.name, **host.provider_entry(), "cpus": PLACES}
            if addresses:
                entry["host"], entry["port"] = addresses[index]
            entries.append({k: str(v) if isinstance(v, Path) else v for k, v in entry.items()})
        provider = {"name": "lab", "type": "ssh", "hosts": entries}
        (directory / "providers.yml").write_text(json.dumps({"providers": [provider]}), encoding="utf-8")

    def write_config(self, jobs: int, command: str = "true") -> str:
        path = self.directory / f"jobs-{jobs}.yml"
        path.write_text(
            f"project: bench\nprovider: lab\nrecover: false\njobs:\n  - run: '{command}'\n    repeat: {jobs}\n"
        )
        return str(path)

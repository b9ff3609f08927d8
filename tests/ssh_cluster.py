"""A whole cloudsend that uses real sshd hosts: a state directory here, agents and jobs there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from real_stack import DEADLINE, Stack, wait_for
from sshlab import Lab, LabHost

from cloudsend_cli.core.views import Progress

PROVIDER = "lab"


class Cluster(Stack):
    """`files/providers.yml` names the hosts, whose keys are in the state directory's known_hosts."""

    def __init__(self, directory: Path, lab: Lab, hosts: Sequence[LabHost], **settings: object) -> None:
        super().__init__(directory)
        self.lab = lab
        self.hosts = list(hosts)
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.trust()
        self.write_providers(**settings)

    def trust(self) -> None:
        """Know the hosts' keys as they are now."""
        known = self.state / "known_hosts"
        shutil.copyfile(self.lab.known_hosts, known)
        known.chmod(0o600)

    def write_providers(self, special: Mapping[str, Mapping[str, object]] | None = None, **settings: object) -> None:
        """`settings` are laid over each host's entry, `special` over those of the hosts it names; None leaves out."""
        entries = []
        for host in self.hosts:
            entry = {"name": host.name, "labels": host.name, **host.provider_entry(), **settings}
            entry.update((special or {}).get(host.name, {}))
            entries.append({k: str(v) if isinstance(v, Path) else v for k, v in entry.items() if v is not None})
        lab = {"name": PROVIDER, "type": "ssh", "hosts": entries}
        (self.files / "providers.yml").write_text(json.dumps({"providers": [lab]}), encoding="utf-8")

    def config(self, name: str = "jobs.json", **config: object) -> str:
        return super().config(name, **{"provider": PROVIDER, **config})

    def run(self, *jobs: object, deadline: float = DEADLINE, **config: object) -> str:
        """Submit these jobs and wait until they are settled."""
        run = self.submit(jobs=list(jobs), **config)
        self.settle(run, deadline)
        return run

    def until(self, run: str, happened: object, deadline: float = DEADLINE) -> Progress:
        """The first moment of the run for which `happened(progress)` is true."""
        assert callable(happened)
        last = None
        for progress in self.client.follow(run, timeout=deadline):
            last = progress
            if happened(progress):
                return progress
        raise AssertionError(f"not within {deadline:g} s: {last}")

    def phase(self, run: str, job: str) -> str:
        return self.jobs(run)[job].phase

    def until_phase(self, run: str, job: str, phase: str, deadline: float = DEADLINE) -> float:
        """Seconds until the job is shown so."""
        begun = time.monotonic()
        wait_for(lambda: self.phase(run, job) == phase, deadline)
        return time.monotonic() - begun

    def ledger(self, host: LabHost, name: str = "ledger") -> list[str]:
        """The lines that jobs appended to this file in the home directory of `host`."""
        try:
            return host.read(name).decode().splitlines()
        except FileNotFoundError:
            return []

    def node(self, host: LabHost) -> str:
        return f"{PROVIDER}-{host.name}"

    def log_of_maestro(self) -> str:
        path = self.state / "maestro.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def tail(self, job: str, stream: str = "stdout") -> bytes:
        return b"".join(self.client.read_log(job, stream))

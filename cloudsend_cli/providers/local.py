"""This machine as a provider. Nothing is ever created or destroyed: an instance is a claim file.

Idempotency: the claim's file name is its node and generation, and it is created exclusively.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cloudsend_cli.core.model import HostAddress, InstanceSpec, InstanceStatus, MachinePlan, Resources
from cloudsend_cli.errors import ProviderError, UnreachableError

_CLAIM = re.compile(r"(?P<run>[a-z0-9]+)--(?P<node>[^/\0]+)--(?P<generation>\d+)\.json")


class LocalProvider:
    """Claims on this machine, kept in `<state directory>/claims`."""

    name = "local"

    def __init__(self, state_dir: Path) -> None:
        self._claims = state_dir / "claims"
        self._home = state_dir / "agent"

    def check(self, spec: InstanceSpec) -> list[str]:
        here = list_resources()
        problems = []
        if spec.number != 1:
            problems.append(f"number: {spec.number}: there is one machine here")
        if spec.capacity is not None and not spec.capacity.fits_in(here):
            problems.append(f"more is asked than this machine has: {here.cpus:g} CPUs and {here.memory} bytes")
        return problems

    def largest(self, spec: InstanceSpec) -> Resources | None:
        return spec.capacity or list_resources()

    def plan_machines(self, specs: Sequence[InstanceSpec]) -> Sequence[MachinePlan]:
        sizes = [self.largest(spec) for spec in specs for _ in range(spec.number)]
        return [MachinePlan(json.dumps({"cpus": size.cpus if size else None}), size) for size in sizes]

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        instance_id = f"{run}--{node}--{generation}"
        try:
            self._claims.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._claims / f"{instance_id}.json"
            with contextlib.suppress(FileExistsError), open(path, "x", encoding="ascii") as file:
                json.dump({"token": token, "request": request}, file)
        except OSError as problem:
            raise ProviderError(f"the claim on this machine could not be written: {problem}") from problem
        return instance_id

    def list_instances(self, run: str) -> Sequence[InstanceStatus]:
        try:
            names = sorted(os.listdir(self._claims))
        except FileNotFoundError:
            return ()
        except OSError as problem:
            raise UnreachableError(f"the claims on this machine cannot be read: {problem}") from problem
        address = HostAddress(kind="local", key=f"local:{self._home}", home=str(self._home))
        found = []
        for name in names:
            match = _CLAIM.fullmatch(name)
            if match is not None and match["run"] == run:
                instance_id = name.removesuffix(".json")
                found.append(InstanceStatus(instance_id, match["node"], int(match["generation"]), "running", address))
        return found

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        """Release the claim. What runs on this machine is never touched by it."""
        if _CLAIM.fullmatch(f"{instance_id}.json"):
            try:
                (self._claims / f"{instance_id}.json").unlink()
            except FileNotFoundError:
                pass
            except OSError as problem:
                raise ProviderError(f"the claim on this machine could not be released: {problem}") from problem


def list_resources() -> Resources:
    """CPUs that this process may use, the machine's memory, and its NVIDIA GPUs."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cpus = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        gpus = len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        gpus = 0
    return Resources(float(cpus), memory, gpus)

"""This machine as a provider. Nothing is ever created or destroyed: an instance is a claim.

Idempotency: see claims.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from cloudsend_cli.core.model import HostAddress, InstanceSpec, InstanceStatus, MachinePlan, Offer, Resources

from .claims import Claims


class LocalProvider:
    """Claims on this machine."""

    name = "local"
    slow = False

    def __init__(self, state_dir: Path) -> None:
        self._claims = Claims(state_dir, self.name)
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
        return [MachinePlan((Offer(json.dumps({"cpus": size.cpus if size else None}), size),)) for size in sizes]

    def create_instance(self, run: str, node: str, generation: int, token: str, request: str) -> str:
        return self._claims.make(run, node, generation, token, request)

    def list_instances(self, run: str) -> Sequence[InstanceStatus]:
        address = HostAddress(kind="local", key=f"local:{self._home}", home=str(self._home))
        # The claim of this machine says nothing that its name does not: a damaged one is as good.
        return [
            InstanceStatus(claim.instance_id, claim.node, claim.generation, "running", address, claim.problem)
            for claim in self._claims.list(run)
        ]

    def terminate_instance(self, run: str, node: str, instance_id: str) -> None:
        """Release the claim. What runs on this machine is never touched by it."""
        self._claims.release(instance_id)


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

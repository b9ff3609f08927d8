"""A run with a rented machine in a real state directory, and what carries out commands about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudsend_cli.core.model import InstanceSpec, JobSpec, ProviderDefinition, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import RentalRecord, RunState
from cloudsend_cli.store.sqlite import SqliteStore
from cloudsend_cli.testing.fake_renter import REQUESTS, FakeRenter

AWS = ProviderDefinition("aws", "aws", '{"profile":null,"region":"eu-west-3"}')
Line = Callable[..., tuple[int, str, str]]  # its exit status, stdout and stderr
Ask = Callable[..., Any]  # what the line says with -o json


def put_run(
    state_dir: Path,
    renter: FakeRenter,
    run: str = "rtest1",
    *,
    ended: bool = False,
    hours: float = 1.0,
    cpus: float = 1.0,
) -> str:
    """A run of two jobs, of which one has run for half the time that its machine is rented; the machine's id."""
    now = time.time()
    since = now - hours * 3600
    machine = renter.create_instance(run, "aws-0", 1, f"token of {run}", REQUESTS[0])
    renter.machines[machine].launched_at = since
    jobs = tuple(JobSpec(name, (name,), name, resources=Resources(cpus)) for name in ("train", "report"))
    spec = RunSpec("p", "", jobs, providers=(AWS,), budget=10.0)
    (plan,) = renter.plan_machines([InstanceSpec("aws")])
    state = plan_run(spec, [NodePlan("aws-0", "aws", plan.offers)], run, since)
    node = replace(state.nodes["aws-0"], state="running", instance_id=machine, generation=1, created_at=since)
    job = replace(
        state.jobs[1], state="succeeded", attempt=1, node="aws-0", started_at=since, ended_at=since + hours * 1800
    )
    rental = RentalRecord(f"{machine}@1", machine, "aws-0", "aws", 0.02, since, note="small, here-1a, spot")
    if ended:
        node = replace(node, state="released", instance_id="")
        rental = replace(rental, until=now)
        state.run = replace(state.run, ended_at=now)
        state.jobs[2] = replace(state.jobs[2], state="cancelled", ended_at=now)
    state.nodes["aws-0"], state.jobs[1], state.rentals[rental.id] = node, job, rental
    with SqliteStore.open(state_dir) as store:
        store.create_run(
            RunState(state.run, state.jobs.values(), state.nodes.values(), (), (), state.rentals.values())
        )
    return machine

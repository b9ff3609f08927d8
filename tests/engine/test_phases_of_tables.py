"""Tables are read without loading a run; the phases that they show are those of the loaded one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from cloudsend_cli.core.explain import phase_of
from cloudsend_cli.core.model import JOB_STATES, JobGroup, JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import Changes
from cloudsend_cli.engine.lookup import RunFacts, job_view
from cloudsend_cli.store.sqlite import SqliteStore

NODE = NodePlan("n-0", "local", (Offer("{}", Resources(4.0)),))


def make_jobs(random: Random) -> list[JobSpec]:
    jobs = []
    for n in range(12):
        stage = random.choice((0, 1, 2, 3))
        earlier = [f"j{k}" for k in range(n)]
        after = tuple(random.sample(earlier, min(n, random.choice((0, 0, 1, 2)))))
        any_end = tuple(random.sample(earlier, min(n, random.choice((0, 0, 1, 2)))))
        group = f"{stage}/g" if stage else ""
        jobs.append(JobSpec(f"j{n}", ("x",), "x", after=after, after_any=any_end, stage=stage, group=group))
    return jobs


@pytest.mark.parametrize("seed", range(12))
def test_phases_are_those_of_the_state(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    groups = tuple(JobGroup(f"{n}/g", ((),)) for n in (1, 2, 3))
    state = plan_run(RunSpec("p", "/c.yml", tuple(make_jobs(random)), groups=groups), [NODE], "rtest1", 0.0)
    words = random.choice((JOB_STATES, ("pending", "succeeded"), ("pending", "failed", "succeeded", "succeeded")))
    jobs = {n: replace(j, state=random.choice(words), attempt=1) for n, j in state.jobs.items()}
    nodes = {"n-0": replace(state.nodes["n-0"], state="running" if seed else "creating")}
    state.apply(Changes(jobs=jobs, nodes=nodes))
    with SqliteStore.open(tmp_path) as store:
        store.create_run(state)
        facts = RunFacts(store, "rtest1", {})
        told = {row.number: job_view(row, facts).phase for row in store.list_jobs("rtest1")}
    wanted = {n: phase_of(state, job, {}) for n, job in state.jobs.items()}
    assert told == wanted

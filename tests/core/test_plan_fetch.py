"""Results that could not be brought home are asked for again; nothing else changes."""

from __future__ import annotations

from dataclasses import replace

from cloudsend_cli.core.model import JobSpec, Offer, Output, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_continue, plan_fetch, plan_run
from cloudsend_cli.core.state import Changes, RunState

SPEC = RunSpec("p", "/c.yml", (JobSpec("a", (), "a", outputs=(Output("o"),)), JobSpec("b", (), "b")))
NODES = [NodePlan("local-0", "local", (Offer("{}", Resources(2.0)),)), NodePlan("local-1", "local", (Offer("{}"),))]


def ended(fetch: str) -> RunState:
    state = plan_run(SPEC, NODES, "rtest1", 0.0)
    job = replace(state.jobs[1], state="succeeded", attempt=1, node="local-0", fetch=fetch, fetch_tries=3)
    nodes = {name: replace(node, state="released") for name, node in state.nodes.items()}
    state.apply(Changes(run=replace(state.run, ended_at=9.0), jobs={1: job}, nodes=nodes))
    return state


def test_the_machine_of_the_job_is_wanted_again() -> None:
    changes = plan_fetch(ended("failed: no room"), [1])
    assert changes.run is not None and changes.run.ended_at is None
    assert (changes.jobs[1].fetch, changes.jobs[1].fetch_tries, changes.jobs[1].state) == ("wanted", 0, "succeeded")
    assert {name: node.state for name, node in changes.nodes.items()} == {"local-0": "wanted"}


def test_what_is_home_stays_home() -> None:
    assert plan_fetch(ended("home"), [1]).jobs[1].fetch == "home"


def test_running_the_config_again_brings_home_what_was_left() -> None:
    changes, continued = plan_continue(ended("failed: no room"), SPEC, NODES, 10.0)
    assert continued.kept == (1,)
    assert changes.jobs[1].fetch == "wanted"

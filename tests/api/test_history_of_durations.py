"""What earlier runs tell a later one: which of its jobs take long."""

from __future__ import annotations

from real_stack import Stack

from cloudsend_cli.api import SubmitOptions

JOBS = [{"name": "short", "run": "sleep 0.1"}, {"name": "long", "run": "sleep 1"}]


def test_second_run_begins_with_what_took_longest_in_the_first(stack: Stack) -> None:
    def order(run: str) -> list[str]:
        assert stack.settle(run).counts["succeeded"] == 2
        return sorted(stack.jobs(run), key=lambda name: stack.jobs(run)[name].started_at or 0.0)

    config = {"project": "timed", "max_parallel": 1, "jobs": JOBS}
    assert order(stack.submit(fresh=True, **config)) == ["short", "long"]
    assert order(stack.submit(fresh=True, **config)) == ["long", "short"]
    plan = stack.client.plan(stack.config(**config), options=SubmitOptions(fresh=True))
    assert plan.history.by_name["long"] >= 1.0 > plan.history.by_name["short"] >= 0.1

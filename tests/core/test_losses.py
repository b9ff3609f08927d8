"""What users are told of executions whose results did not come home."""

from __future__ import annotations

from dataclasses import replace

from cloudsend_cli.core import decide_nodes
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.losses import GIVEN_UP, SHOWN_MOST, STOPPED, WITH_MACHINE, Earlier, describe_losses
from cloudsend_cli.core.model import InstanceStatus, JobSpec, Observation, Offer, Policy, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import RESULTS_GONE, Changes, RunState

BY_ITSELF = f"{WITH_MACHINE}shut down from within"


def make(**job: object) -> RunState:
    spec = RunSpec("p", "/c.yml", (JobSpec("j1", ("true",), "true"),))
    state = plan_run(spec, [NodePlan("n-0", "aws", (Offer("{}", Resources(2.0)),))], "rtest1", 0.0)
    node = replace(state.nodes["n-0"], state="running", generation=1, instance_id="i-1")
    state.apply(Changes(jobs={1: replace(state.jobs[1], **job)}, nodes={"n-0": node}))  # type: ignore[arg-type]
    return state


def said(state: RunState, *earlier: Earlier) -> tuple[str, ...]:
    return explain(state, state.jobs[1], {}, 0.0, earlier=earlier).reasons


def test_job_that_is_done_again_says_what_went_with_its_machine_and_what_to_do() -> None:
    """Seen: a job was silently executed twice, and nothing said that a machine had ended with its results."""
    state = make(state="running", attempt=2, node="n-0", started_at=5.0)
    running, lost, ways = said(state, Earlier(1, "n-0", BY_ITSELF))
    assert running == "attempt 2 on n-0"
    assert lost.startswith("attempt 1 was lost with its machine n-0, which was shut down from within: ")
    assert all(key in ways for key in ("`idle`", "`retries_lost: 0`", "an hour"))


def test_reason_that_decide_gives_is_known_here() -> None:
    state = make(state="running", attempt=1, node="n-0", started_at=5.0)
    for status, reason in (("terminated", BY_ITSELF), ("stopped", STOPPED)):
        listed = (InstanceStatus("i-1", "n-0", 1, status, reason="shut down from within"),)
        job = decide(state, Observation(9.0, instances={"aws": listed}), Policy()).changes.jobs[1]
        assert job.reason == f"retry after {reason}"
    assert f"{WITH_MACHINE}{decide_nodes.GONE}" == GIVEN_UP


def test_other_ends_are_no_losses_with_a_machine() -> None:
    ends = ("exit 1", "preempted", "lost: the host was restarted", STOPPED)
    assert describe_losses(Earlier(n, "n-0", reason) for n, reason in enumerate(ends, 1)) == ()


def test_who_gave_the_machine_up_is_not_told_how_to_keep_it() -> None:
    (only,) = describe_losses([Earlier(1, "n-0", GIVEN_UP)])
    assert "given up by the user" in only


def test_many_losses_are_counted() -> None:
    texts = describe_losses(Earlier(n, "n-0", BY_ITSELF) for n in range(1, SHOWN_MOST + 3))
    assert len(texts) == SHOWN_MOST + 2
    assert texts[0] == "2 attempts before were lost with their machines as well"


def test_last_loss_of_a_job_that_is_given_up_is_told_as_well() -> None:
    state = make(state="failed", attempt=2, node="n-0", reason=BY_ITSELF)
    texts = said(state, Earlier(1, "n-0", BY_ITSELF))
    assert [text[:9] for text in texts[1:3]] == ["attempt 1", "attempt 2"]


def test_why_results_are_not_at_home() -> None:
    gone = make(state="succeeded", attempt=1, fetch=f"{RESULTS_GONE}, which was terminated")
    assert said(gone)[1] == (
        "its results did not come home: gone with its machine, which was terminated; "
        "run its config again, and it is done again"
    )
    failed = make(state="succeeded", attempt=1, fetch="failed: it changed")
    assert said(failed)[1] == "its results did not come home: it changed; `cloudsend fetch rtest1.1` tries again"
    assert said(make(state="succeeded", attempt=1, fetch="home")) == ("it ended well",)

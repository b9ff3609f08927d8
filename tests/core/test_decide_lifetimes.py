"""A machine whose own time is nearly over: what it had goes on elsewhere, and not without end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.actions import FetchOutputs, FetchResume, StartAttempts, TerminateInstance
from cloudsend_cli.core.decide import Decision, decide
from cloudsend_cli.core.decide_builds import LOSSES_MOST
from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.losses import Earlier, describe_absence, describe_losses, describe_outlived
from cloudsend_cli.core.model import AttemptStatus, EnvironmentBuild, Output
from cloudsend_cli.core.naming import build_id
from cloudsend_cli.core.state import RESULTS_GONE, BuildRecord, Changes, RunState

from .test_decide_renting import LEFT, NOW, POLICY, UP, change, listed, of_kind, rented, running, seeing, serving

ENDING = replace(UP, leaving=True, outlives="life")
OVER = AttemptStatus("exited", 20.0, 30.0, None, 15, "life-over")
FIRST = "rtest1.1.1"


def tell(state: RunState, status: AttemptStatus = OVER, **values: Any) -> Decision:
    return decide(state, seeing(ENDING, attempts={"n-0": {FIRST: status}}, instances=listed(), **values), POLICY)


def test_job_that_outlives_its_machine_goes_on_from_what_it_left_and_it_counts_as_lost() -> None:
    state = running(serving(rented(persist=("state",))))
    decision = tell(state)
    job = decision.changes.jobs[1]
    assert (job.state, job.losses, job.fetch, job.node) == ("pending", 1, "resume", "n-0")
    assert "`life`" in job.reason and "under `instances`" in job.reason
    assert of_kind(decision, FetchResume) == [FetchResume("n-0", FIRST, ("state",))]
    assert not of_kind(decision, TerminateInstance), "it is fetched first"
    state.apply(decision.changes)
    home = decide(state, seeing(ENDING, fetched={FIRST: ""}, persisted={FIRST: LEFT}, instances=listed()), POLICY)
    assert (home.changes.jobs[1].resume, home.changes.jobs[1].fetch) == (LEFT, "")


def test_machine_that_has_nothing_more_is_given_back_and_then_another_is_asked_for() -> None:
    state = running(serving(rented()), handed_at=200.0)
    state.apply(tell(state).changes)
    assert (state.jobs[1].state, state.nodes["n-0"].state) == ("pending", "releasing")
    assert set(state.nodes) == {"n-0"}, "nobody stands in for it meanwhile"
    state.apply(decide(state, seeing(None, instances=listed(state="terminated")), POLICY).changes)
    assert (state.nodes["n-0"].state, state.nodes["n-0"].barren) == ("wanted", 0)


@pytest.mark.parametrize("state", ["exited", "lost"])
def test_job_that_outlives_its_last_machine_has_failed_and_its_results_come_home(state: str) -> None:
    run = running(serving(rented(outputs=(Output("out"),), retries_lost=0)))
    decision = tell(run, replace(OVER, state=state, logs=True))
    job = decision.changes.jobs[1]
    assert (job.state, job.losses, job.fetch) == ("failed", 1, "wanted")
    assert job.reason == describe_outlived("life")
    assert [action.attempt for action in of_kind(decision, FetchOutputs)] == [FIRST]
    assert run.nodes["n-0"].state == "running" and "n-0" not in decision.changes.nodes, "it is used until then"


def test_job_that_is_cancelled_meanwhile_is_cancelled() -> None:
    job = tell(running(serving(rented()), cancel=True)).changes.jobs[1]
    assert (job.state, job.reason) == ("cancelled", "cancelled by the user")


def test_machine_that_is_gone_before_its_jobs_have_ended_says_why() -> None:
    view = replace(ENDING, connected=False, error="timed out")
    ended = listed(state="terminated", reason="shut down from within")
    job = decide(running(serving(rented())), seeing(view, instances=ended), POLICY).changes.jobs[1]
    assert job.reason == "retry after lost: the machine was shut down from within, as its `life` was over"
    taken = listed(state="terminated", reason="preempted")
    assert decide(running(serving(rented())), seeing(view, instances=taken), POLICY).changes.jobs[1].losses == 0


def test_attempt_that_waited_there_is_no_loss() -> None:
    state = running(serving(rented(2)))
    state.apply(Changes(jobs={2: replace(state.jobs[2], state="running", attempt=1, node="n-0", boot="b1")}))
    news = {"n-0": {"rtest1.2.1": AttemptStatus("cancelled", cause="life-over")}}
    decision = decide(state, seeing(ENDING, attempts=news, instances=listed()), POLICY)
    assert (decision.changes.jobs[2].state, decision.changes.jobs[2].losses) == ("pending", 0)
    assert not of_kind(decision, StartAttempts), "nothing more is handed to it"


def short_lived(state: RunState, view: Any = ENDING) -> None:
    serving(state)
    state.apply(decide(state, seeing(view, instances=listed()), POLICY).changes)


@pytest.mark.parametrize("setting", ["life", "budget"])
def test_machines_that_live_too_short_for_a_job_to_begin_are_not_rented_without_end(setting: str) -> None:
    state = rented()
    for count in range(1, POLICY.unanswered_most + 1):
        short_lived(state, replace(ENDING, outlives=setting))
        assert (state.nodes["n-0"].state, state.nodes["n-0"].barren) == ("releasing", count)
        state.apply(decide(state, seeing(None, instances=listed(state="terminated")), POLICY).changes)
    assert state.nodes["n-0"].state == "failed"
    job = state.jobs[1]
    assert job.reason.startswith("no-capacity: n-0: too short a life") and f"`{setting}`" in job.reason


def test_machines_whose_time_is_over_in_their_boot_are_not_rented_without_end() -> None:
    state = rented()
    for _ in range(POLICY.unanswered_most):
        assert state.nodes["n-0"].state == "wanted"
        change(state, state="creating", generation=1, token="t", created_at=100.0)
        gone = seeing(None, instances=listed(state="terminated", reason="shut down from within"))
        state.apply(decide(state, gone, POLICY).changes)
    assert state.nodes["n-0"].state == "failed"
    assert "a longer `life` or `eco_life` under `instances`" in state.jobs[1].reason


def test_machine_on_which_a_job_began_ends_the_count() -> None:
    state = rented()
    short_lived(state)
    state = running(serving(change(state, barren=2)), handed_at=150.0)
    state.apply(tell(state).changes)
    assert state.nodes["n-0"].barren == 0


def test_machine_of_the_users_own_is_not_given_back_for_a_notice() -> None:
    state = serving(rented())
    node = state.nodes["n-0"]
    state.apply(
        Changes(nodes={"n-0": replace(node, price=None, offers=(replace(node.offers[0], pool="", price=None),))})
    )
    assert "n-0" not in decide(state, seeing(ENDING, instances=listed()), POLICY).changes.nodes


# ---- environments --------------------------------------------------------------------------------------------------


def building(losses: int) -> RunState:
    state = serving(rented(environment="e"))
    state.environments["e"] = EnvironmentBuild("e", "env", "true")
    state.apply(Changes(builds={("n-0", "e"): BuildRecord("n-0", "e", boot="b1", losses=losses)}))
    return state


@pytest.mark.parametrize(
    ("cause", "losses", "expected"),
    [
        ("preempted", LOSSES_MOST, ("wanted", LOSSES_MOST, "")),
        ("life-over", 0, ("wanted", 1, "")),
        ("life-over", LOSSES_MOST, ("failed", LOSSES_MOST, describe_outlived("life"))),
    ],
)
def test_build_that_outlives_its_machine_is_done_again_a_few_times(
    cause: str, losses: int, expected: tuple[str, int, str]
) -> None:
    state = building(losses)
    news = {"n-0": {build_id("rtest1", "e", 1): replace(OVER, cause=cause)}}
    build = decide(state, seeing(replace(UP, leaving=True), attempts=news), POLICY).changes.builds["n-0", "e"]
    assert (build.state, build.losses, build.reason) == expected


# ---- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("life", "a longer `life` under `instances`"),
        ("eco_life", "a longer `eco_life` under `instances`"),
        ("budget", "a larger `budget`"),
    ],
)
def test_reason_names_the_setting_and_what_to_write(setting: str, words: str) -> None:
    reason = describe_outlived(setting)
    assert f"`{setting}`" in reason and words in reason and "`retries_lost`" in reason
    (told,) = describe_losses([Earlier(3, "n-0", reason)])
    assert told.startswith("attempt 3 was ended on n-0: its machine's ") and words in told


def test_explain_says_of_the_machine_that_it_ends_itself_soon() -> None:
    state = serving(rented())
    ((_, _, _, remark),) = explain(state, state.jobs[1], {"n-0": ENDING}, NOW).nodes
    assert remark == "it ends itself soon, as `life` says"


@pytest.mark.parametrize(
    ("state", "reason", "fetch", "expected"),
    [
        ("failed", "lost: the machine was shut down from within", "", "shut down from within"),
        ("succeeded", "", f"{RESULTS_GONE}, which was terminated", "terminated"),
        ("failed", "lost: the machine was stopped", "", ""),
        ("pending", "retry after lost: the machine was terminated", "", ""),
        ("failed", "exit 1", "home", ""),
        ("succeeded", "", "failed: no space", ""),
    ],
)
def test_what_went_with_its_machine(state: str, reason: str, fetch: str, expected: str) -> None:
    assert describe_absence(state, reason, fetch) == expected

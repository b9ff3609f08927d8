"""What `decide` promises whatever the world does, checked at each of its calls in whole simulated runs; its rules."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import cloudsend_cli.engine.tick as tick_module
from cloudsend_cli.core.actions import (
    AckAttempts,
    CancelAttempts,
    ConnectHost,
    FetchOutputs,
    StartAttempts,
    TerminateInstance,
)
from cloudsend_cli.core.decide import Decision, decide
from cloudsend_cli.core.model import (
    AttemptStatus,
    EnvironmentBuild,
    JobSpec,
    Observation,
    Offer,
    Output,
    Policy,
    Request,
    Resources,
    RunSpec,
)
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import BuildRecord, Changes, RunState
from cloudsend_cli.testing.rented_scenarios import ALL_SCENARIOS
from cloudsend_cli.testing.swarm import make_scenario
from cloudsend_cli.testing.world import Scenario, World

from .deciding import NOW, POLICY, UP, change_job, kinds, news, running, seeing, serving, state_with
from .test_state import indices, rebuilt

WORLDS = [*ALL_SCENARIOS, *(make_scenario(seed) for seed in range(60))]


class Watched:
    """Stands where the tick calls `decide`, and checks what it promises."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, state: RunState, seen: Observation, policy: Policy) -> Decision:
        self.calls += 1
        before = indices(state), dict(state.jobs), state.run
        decision = decide(state, seen, policy)
        assert (indices(state), state.jobs, state.run) == before, "the input was touched"
        assert decide(state, seen, policy) == decision, "equal arguments gave another decision"
        for number, new in decision.changes.jobs.items():
            old = state.jobs[number]
            assert not old.final or (new.state, new.attempt) == (old.state, old.attempt), "a final state changed"
            assert new.attempt - old.attempt in {0, 1}
        for action in decision.actions:
            if isinstance(action, StartAttempts | FetchOutputs):
                assert seen.hosts[action.node].connected, "asked of a host that is not seen"
            elif isinstance(action, AckAttempts | CancelAttempts):
                assert action.node in state.nodes
        assert decision.done or decision.wake_at is not None, "nothing would ever wake it"
        self.check_quiet(state, seen, decision, policy)
        return decision

    @staticmethod
    def check_quiet(state: RunState, seen: Observation, decision: Decision, policy: Policy) -> None:
        """Once nothing changes any more, an unchanged world yields no action."""
        copy = rebuilt(state)
        copy.apply(decision.changes)
        quiet = replace(
            seen,
            attempts={},
            requests=(),
            fetched={},
            call_errors={},
            fetching=frozenset(state.attempt_of(job) for job in copy.jobs.values()),
            hosts={node: replace(view, reported=None) for node, view in seen.hosts.items()},
        )
        for _ in range(20):
            copy.pop_delayed(quiet.now)
            following = decide(copy, quiet, policy)
            if not following.changes:
                break
            copy.apply(following.changes)
        else:
            raise AssertionError("it never comes to rest")
        # What is left may only be a repetition that its target makes harmless and that a pause separates.
        assert all(isinstance(a, ConnectHost | TerminateInstance) for a in following.actions), following.actions
        assert indices(copy) == indices(rebuilt(copy)) or any(j.not_before for j in copy.jobs.values())


@pytest.mark.parametrize("scenario", WORLDS, ids=lambda s: s.name.split(":")[0])
def test_promises_hold_in(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(tick_module, "decide", watched)
    world = World(scenario, scenario.plan(), crashes=(9, 30))
    assert world.run() == []
    assert watched.calls


# ---- single rules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (AttemptStatus("exited", 1.0, 2.0, 0), "succeeded", ""),
        (AttemptStatus("exited", 1.0, 2.0, 3), "failed", "exit 3"),
        (AttemptStatus("exited", 1.0, 2.0, 3, disk_full=True), "failed", "exit 3, disk-full"),
        (AttemptStatus("exited", 1.0, 2.0, None, 9), "failed", "killed by SIGKILL"),
        (AttemptStatus("exited", 1.0, 2.0, None, 9, disk_full=True), "failed", "killed by SIGKILL, disk-full"),
        (AttemptStatus("exited", 1.0, 2.0, None, 40), "failed", "killed by signal 40"),
        (AttemptStatus("exited", 1.0, 2.0, None, 9, "oom"), "failed", "oom"),
        (AttemptStatus("exited", 1.0, 2.0, 0, None, "timeout"), "failed", "timeout"),
        (AttemptStatus("exited", 1.0, 2.0, 0, None, "", ("a", "b")), "failed", "output-missing: a, b"),
        (AttemptStatus("exited", 1.0, 2.0, None, 15, "cancelled"), "cancelled", "cancelled by the user"),
        (AttemptStatus("exited", 1.0, 2.0, None, 15, "preempted"), "pending", ""),
        (AttemptStatus("exited", cause="upload-missing"), "pending", "retry after upload-missing"),
        (AttemptStatus("lost", cause="lost"), "pending", "retry after lost"),
        (AttemptStatus("lost"), "pending", "retry after lost"),
        (AttemptStatus("lost", cause="rebooted"), "pending", "retry after lost: the host was restarted"),
        (
            AttemptStatus("lost", cause="home-deleted"),
            "pending",
            "retry after lost: the agent's directory on the host was deleted",
        ),
        (AttemptStatus("lost", cause="never-started"), "pending", ""),
        (AttemptStatus("stale"), "pending", ""),
        (AttemptStatus("cancelled"), "pending", ""),
        (AttemptStatus("refused", cause="wrong-boot"), "pending", ""),
        (AttemptStatus("refused", cause="bad-spec"), "failed", "bad-spec"),
        (AttemptStatus("refused", cause="disk-full"), "pending", "retry after disk-full"),
        (AttemptStatus("exited", 1.0, 2.0, cause="disk-full"), "pending", "retry after disk-full"),
        (AttemptStatus("queued"), "running", ""),
        (AttemptStatus("running", 5.0), "running", ""),
        (AttemptStatus("running"), "running", ""),
    ],
)
def test_news_of_the_newest_attempt(status: AttemptStatus, state: str, reason: str) -> None:
    decision = decide(running(state_with()), seeing(UP, attempts={"n-0": {"rtest1.1.2": status}}), POLICY)
    job = decision.changes.jobs.get(1)
    assert (job.state if job else "running", job.reason if job else "") == (state, reason)
    assert ("AckAttempts" in kinds(decision)) == (status.state not in {"queued", "running"})
    assert job is None or job.started_at == status.started or state == "pending"


@pytest.mark.parametrize("cancelled", ["lost", "stale", "cancelled", "exited"])
def test_job_that_is_to_end_is_not_tried_again(cancelled: str) -> None:
    state = change_job(running(state_with(retries=5)), cancel=True)
    seen = seeing(UP, attempts=news("rtest1.1.2", cancelled, exit_code=1))
    job = decide(state, seen, POLICY).changes.jobs[1]
    assert job.state == ("failed" if cancelled == "exited" else "cancelled")


@pytest.mark.parametrize(
    ("attempt", "acknowledged"),
    [
        ("rtest1.1.1", True),
        ("rtest1.1.3", False),
        ("rtest1.9.1", False),
        ("rtest1.env-e1.1", False),
        ("rtest1.odd", False),
        ("other1.1.2", False),
    ],
)
def test_other_news_changes_nothing(attempt: str, acknowledged: bool) -> None:
    """Seen: a maestro whose state was old acknowledged the end of an attempt that it had never heard of."""
    decision = decide(running(state_with()), seeing(UP, attempts=news(attempt, "exited", exit_code=0)), POLICY)
    assert not decision.changes
    assert ("AckAttempts" in kinds(decision)) == acknowledged


def test_ends_are_acknowledged_to_the_host_that_told_them() -> None:
    state = running(state_with(nodes=2))
    seen = seeing(UP, attempts={"n-1": {"rtest1.1.1": AttemptStatus("exited", exit_code=0)}})
    assert AckAttempts("n-1", ("rtest1.1.1",)) in decide(state, seen, POLICY).actions


def acknowledged(decision: Decision) -> list[str]:
    return [attempt for a in decision.actions if isinstance(a, AckAttempts) for attempt in a.attempts]


def test_end_is_acknowledged_when_its_results_are_home() -> None:
    """Seen: a laptop was closed while results came home; the machine had nothing to wait for, and ended with them."""
    state = running(state_with(outputs=(Output("out"),)))
    told = seeing(UP, attempts=news("rtest1.1.2", "exited", exit_code=0))
    first = decide(state, told, POLICY)
    assert acknowledged(first) == []
    state.apply(first.changes)
    assert acknowledged(decide(state, told, POLICY)) == []
    troubled = decide(state, seeing(UP, fetched={"rtest1.1.2": "interrupted"}), POLICY)
    assert acknowledged(troubled) == []
    last = decide(change_job(state, fetch_tries=2), seeing(UP, fetched={"rtest1.1.2": "interrupted"}), POLICY)
    assert acknowledged(last) == ["rtest1.1.2"], "given up"
    home = decide(state, seeing(UP, fetched={"rtest1.1.2": ""}), POLICY)
    assert acknowledged(home) == ["rtest1.1.2"]
    assert home.changes.jobs[1].fetch == "home"
    state.apply(home.changes)
    assert acknowledged(decide(state, told, POLICY)) == ["rtest1.1.2"], "the first time it was lost"
    again = decide(state, seeing(UP, fetched={"rtest1.1.2": ""}), POLICY)
    assert acknowledged(again) == ["rtest1.1.2"] and not again.changes.jobs, "fetched twice"


def test_retries_wait_longer_each_time_and_not_for_ever() -> None:
    waits = []
    for failures in range(9):
        state = change_job(running(state_with(retries=99)), failures=failures)
        job = decide(state, seeing(UP, attempts=news("rtest1.1.2", "exited", exit_code=1)), POLICY).changes.jobs[1]
        waits.append(job.not_before - NOW)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_loss_beyond_the_policy_fails_with_its_reason_and_time() -> None:
    for ended in (None, 42.0):
        state = change_job(running(state_with()), losses=1)
        job = decide(state, seeing(UP, attempts=news("rtest1.1.2", "lost", ended=ended)), POLICY).changes.jobs[1]
        assert (job.state, job.reason, job.ended_at) == ("failed", "lost", ended or NOW)


def test_what_was_never_started_is_tried_again_whatever_the_policy_but_not_at_once() -> None:
    state = running(state_with(retries_lost=0))
    job = decide(state, seeing(UP, attempts=news("rtest1.1.2", "lost", cause="never-started")), POLICY).changes.jobs[1]
    assert (job.state, job.losses, job.not_before) == ("pending", 0, NOW + POLICY.retry_delay)


def test_what_went_with_a_shutdown_is_not_given_to_the_host_again_before_it_is_down() -> None:
    """Seen: both attempts that a job had were lost with one machine, as the second was handed out while it ended."""
    state = running(state_with())
    job = decide(state, seeing(UP, attempts=news("rtest1.1.2", "lost", cause="shut-down")), POLICY).changes.jobs[1]
    assert (job.state, job.losses, job.not_before) == ("pending", 1, NOW + POLICY.look_again)
    assert "as it does when it shuts down" in job.reason


@pytest.mark.parametrize(
    ("boot", "reason"),
    [
        ("b2.h1", "lost: the host was restarted"),
        ("b2.h2", "lost: the host was restarted"),
        ("b1.h2", "lost: the agent's directory on the host was deleted"),
        ("b1", "lost: the agent's directory on the host was deleted"),
    ],
)
def test_job_of_another_boot_or_of_a_deleted_directory_is_lost_and_not_offered_again(boot: str, reason: str) -> None:
    state = change_job(running(state_with(retries_lost=0)), boot="b1.h1")
    decision = decide(state, seeing(replace(UP, boot=boot, reported=frozenset())), POLICY)
    assert (decision.changes.jobs[1].state, decision.changes.jobs[1].reason) == ("failed", reason)
    assert "StartAttempts" not in kinds(decision)


@pytest.mark.parametrize(
    ("boot", "reported", "cancel", "action", "state"),
    [
        ("b1", {"rtest1.1.2"}, False, None, "running"),
        ("b1", {"rtest1.1.2"}, True, "CancelAttempts", "running"),
        ("b1", set(), False, "StartAttempts", "running"),
        ("b1", set(), True, "CancelAttempts", "running"),
        ("b2", set(), False, None, "pending"),
        ("b2", set(), True, None, "cancelled"),
        ("b2", {"rtest1.1.2"}, False, None, "running"),
    ],
)
def test_report_of_a_host(boot: str, reported: set[str], cancel: bool, action: str | None, state: str) -> None:
    view = replace(UP, boot=boot, reported=frozenset(reported))
    decision = decide(change_job(running(state_with()), cancel=cancel), seeing(view), POLICY)
    job = decision.changes.jobs.get(1)
    assert (job.state if job else "running") == state
    assert [k for k in kinds(decision) if k in {"StartAttempts", "CancelAttempts"}] == ([action] if action else [])


def test_silence_changes_nothing() -> None:
    blind = replace(UP, connected=False, since=0.0, error="no answer")
    for view in (blind, None):
        decision = decide(running(state_with()), seeing(view), POLICY)
        assert not decision.changes and not decision.actions
        assert decision.wake_at == NOW + POLICY.look_again


def test_job_whose_end_was_asked_for_is_asked_once_and_then_reminded_by_reports_alone() -> None:
    state = change_job(running(state_with()), cancel=True)
    decision = decide(state, seeing(UP, requests=(Request("r", "cancel", (1,)),)), POLICY)
    assert not decision.changes.jobs
    assert "CancelAttempts" not in kinds(decision)


def test_run_that_has_something_to_do_again_has_not_ended() -> None:
    state = state_with()
    state.apply(Changes(run=replace(state.run, ended_at=5.0)))
    run = decide(state, seeing(), POLICY).changes.run
    assert run is not None and run.ended_at is None


def test_requests_are_carried_out_once_and_all_of_many_are_remembered() -> None:
    state = serving(state_with(3))
    many = tuple(Request(f"r{i}", "cancel", (i % 9,)) for i in range(500))
    decision = decide(state, seeing(UP, requests=many), POLICY)
    assert decision.changes.run is not None
    assert len(decision.changes.run.requests_done) == 500
    assert {j.state for j in decision.changes.jobs.values()} == {"cancelled"}
    state.apply(decision.changes)
    assert "r0" in state.run.requests_done
    again = decide(state, seeing(UP, requests=many[:1]), POLICY)
    assert not again.changes.jobs
    unknown = decide(serving(state_with()), seeing(None, requests=(Request("x", "dance"),)), POLICY)
    assert unknown.changes.run is not None and not unknown.changes.jobs


# ---- builds, and the work of a decision ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state", "attempt", "reason"),
    [
        (AttemptStatus("queued"), "running", 1, ""),
        (AttemptStatus("exited", exit_code=0), "succeeded", 1, ""),
        (AttemptStatus("exited", exit_code=2), "failed", 1, "exit 2"),
        (AttemptStatus("exited", exit_code=0, cause="timeout"), "failed", 1, "timeout"),
        (AttemptStatus("exited", cause="upload-missing"), "running", 2, ""),
        (AttemptStatus("refused", cause="wrong-boot"), "running", 2, ""),
        (AttemptStatus("refused", cause="bad-spec"), "failed", 1, "bad-spec"),
        (AttemptStatus("refused", cause="disk-full"), "running", 2, ""),
        (AttemptStatus("exited", cause="disk-full"), "running", 2, ""),
        (AttemptStatus("lost"), "running", 2, ""),
    ],
)
def test_news_of_a_build(status: AttemptStatus, state: str, attempt: int, reason: str) -> None:
    """One that is to be repeated is asked for again in the same decision, under its next number."""
    planned = serving(
        plan_run(
            RunSpec("p", "/c", (JobSpec("j", (), "j", environment="e1"),), (EnvironmentBuild("e1", "e", "true"),)),
            [NodePlan("n-0", "fake", (Offer("{}", Resources(2.0)),))],
            "rtest1",
            0.0,
        )
    )
    planned.apply(Changes(builds={("n-0", "e1"): BuildRecord("n-0", "e1", boot="b1")}))
    decision = decide(planned, seeing(UP, attempts={"n-0": {"rtest1.env-e1.1": status}}), POLICY)
    build = decision.changes.builds.get(("n-0", "e1"), planned.builds["n-0", "e1"])
    assert (build.state, build.attempt, build.reason) == (state, attempt, reason)
    other = decide(planned, seeing(UP, attempts={"n-1": {"rtest1.env-e1.1": status}}), POLICY)
    assert not other.changes.builds, "another machine's build was taken for this one's"


def hanging(**build: Any) -> RunState:
    """A run whose last job was ended while its environment was being built."""
    state = change_job(serving(state_with(environment="e1")), state="cancelled", cancel=True)
    state.apply(Changes(builds={("n-0", "e1"): BuildRecord("n-0", "e1", boot="b1", **build)}))
    return state


def test_build_for_which_nobody_waits_is_ended_before_its_machine_is_given_back() -> None:
    """Seen: one that hung went on for ever, and every later run that wanted the same environment waited for it."""
    state = hanging()
    decision = decide(state, seeing(UP), POLICY)
    assert [a.attempts for a in decision.actions if isinstance(a, CancelAttempts)] == [("rtest1.env-e1.1",)]
    assert decision.changes.builds["n-0", "e1"].cancel and "n-0" not in decision.changes.nodes
    state.apply(decision.changes)
    waiting = decide(state, seeing(UP), POLICY)
    assert not waiting.actions and not waiting.changes and not waiting.done
    ended = decide(state, seeing(UP, attempts=news("rtest1.env-e1.1", "exited", cause="cancelled")), POLICY)
    build = ended.changes.builds["n-0", "e1"]
    assert (build.state, build.attempt, build.cancel) == ("wanted", 2, False)
    assert ended.changes.nodes["n-0"].state == "releasing"


def test_silent_machine_is_given_back_although_something_is_built_there() -> None:
    for view in (replace(UP, connected=False), None):
        decision = decide(hanging(cancel=True), seeing(view), POLICY)
        assert decision.changes.nodes["n-0"].state == "releasing"
    assert not any(isinstance(a, CancelAttempts) for a in decide(hanging(), seeing(None), POLICY).actions)


@pytest.mark.parametrize(
    ("boot", "reported", "state", "asked"),
    [("b1", {"rtest1.env-e1.1"}, "running", 1), ("b1", set(), "running", 1), ("b2", set(), "wanted", 0)],
)
def test_build_that_is_to_end_is_asked_again_after_a_silence(
    boot: str, reported: set[str], state: str, asked: int
) -> None:
    view = replace(UP, boot=boot, reported=frozenset(reported))
    decision = decide(hanging(cancel=True), seeing(view), POLICY)
    assert sum(isinstance(a, CancelAttempts) for a in decision.actions) == asked
    build = decision.changes.builds.get(("n-0", "e1"))
    assert (build.state if build else "running") == state
    assert not any(isinstance(a, StartAttempts) for a in decision.actions)


def test_build_that_its_machine_reports_is_left_alone() -> None:
    state = serving(state_with(environment="e1"))
    state.apply(Changes(builds={("n-0", "e1"): BuildRecord("n-0", "e1", boot="b1")}))
    decision = decide(state, seeing(replace(UP, reported=frozenset({"rtest1.env-e1.1"}))), POLICY)
    assert not decision.actions and not decision.changes


def test_build_that_dies_again_and_again_fails() -> None:
    planned = serving(state_with(environment="e1"))
    planned.apply(Changes(builds={("n-0", "e1"): BuildRecord("n-0", "e1", losses=2)}))
    decision = decide(planned, seeing(UP, attempts=news("rtest1.env-e1.1", "lost")), POLICY)
    assert decision.changes.builds["n-0", "e1"].reason == "lost"


class Counting(UserDict[int, Any]):
    """A mapping that counts how often it is read."""

    reads = 0

    def __getitem__(self, key: int) -> Any:
        Counting.reads += 1
        return self.data[key]

    def __iter__(self) -> Iterator[int]:
        for key in self.data:
            Counting.reads += 1
            yield key


def count_reads(jobs: int) -> int:
    state = serving(state_with(jobs))
    state.apply(decide(state, seeing(UP), POLICY).changes)
    state.jobs = Counting(state.jobs)  # type: ignore[assignment]
    for job_class, members in state.ready.items():
        state.ready[job_class] = Counting(members)  # type: ignore[assignment]
    seen = seeing(replace(UP, reported=frozenset()), attempts=news("rtest1.1.1", "exited", exit_code=0))
    Counting.reads = 0
    assert decide(state, seen, POLICY).changes.jobs[1].state == "succeeded"
    return Counting.reads


def test_work_is_in_proportion_to_the_news_and_not_to_the_jobs() -> None:
    assert count_reads(100) == count_reads(5000) < 100

"""What `decide` promises whatever the world does, checked at each of its calls in whole simulated runs."""

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
    CreateInstance,
    FetchOutputs,
    RevokeAttempts,
    StartAttempts,
    TerminateInstance,
)
from cloudsend_cli.core.decide import Decision, decide
from cloudsend_cli.core.explain import explain
from cloudsend_cli.core.model import (
    AttemptStatus,
    EnvironmentBuild,
    HostView,
    InstanceStatus,
    JobSpec,
    Observation,
    Offer,
    Output,
    Policy,
    Request,
    Resources,
    RunSpec,
    Upload,
)
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import BuildRecord, Changes, RunState
from cloudsend_cli.testing.rented_scenarios import ALL_SCENARIOS
from cloudsend_cli.testing.swarm import make_scenario
from cloudsend_cli.testing.world import Scenario, World

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

NOW = 100.0
POLICY = Policy()


def state_with(jobs: int = 1, nodes: int = 1, **job: Any) -> RunState:
    specs = tuple(replace(JobSpec(f"j{i}", ("true",), "true"), **job) for i in range(1, jobs + 1))
    plans = [NodePlan(f"n-{i}", "fake", (Offer("{}", Resources(2.0)),)) for i in range(nodes)]
    return plan_run(RunSpec("p", "/c.yml", specs), plans, "rtest1", 0.0)


def change_node(run: RunState, name: str = "n-0", /, **values: Any) -> RunState:
    run.apply(Changes(nodes={name: replace(run.nodes[name], **values)}))
    return run


def change_job(run: RunState, number: int = 1, /, **values: Any) -> RunState:
    run.apply(Changes(jobs={number: replace(run.jobs[number], **values)}))
    return run


def serving(state: RunState) -> RunState:
    return change_node(state, state="running", generation=1, instance_id="i-1", token="t")


def running(state: RunState) -> RunState:
    return change_job(serving(state), state="running", attempt=2, node="n-0", boot="b1", handed_at=1.0)


def seeing(view: HostView | None = None, **values: Any) -> Observation:
    hosts = {"n-0": view} if view is not None else {}
    return replace(Observation(NOW, hosts=hosts), **values)


UP = HostView(True, "b1", 0.0, Resources(2.0))


def news(attempt: str, state: str, **values: Any) -> dict[str, dict[str, AttemptStatus]]:
    return {"n-0": {attempt: AttemptStatus(state, **values)}}


def kinds(decision: Decision) -> list[str]:
    return [type(a).__name__ for a in decision.actions]


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


# ---- machines ------------------------------------------------------------------------------------------------------

CALL = "create n-0 1"


def creating(**values: Any) -> RunState:
    return change_node(
        state_with(), **{"state": "creating", "generation": 1, "token": "t", "created_at": 99.0} | values
    )


@pytest.mark.parametrize(
    ("code", "first", "state"),
    [
        ("capacity", True, "wanted"),
        ("quota", True, "failed"),
        ("provider", False, "failed"),
        ("auth", True, "failed"),
        ("auth", False, "creating"),
        ("unreachable", True, "creating"),
        ("expired", True, "creating"),
        ("error", True, "creating"),
    ],
)
def test_answer_to_a_create(code: str, first: bool, state: str) -> None:
    """Seen: a reply that was lost led to a second machine under a new token."""
    old = creating(not_before=0.0 if first else 150.0)
    node = decide(old, seeing(call_errors={CALL: (code, "words")}), POLICY).changes.nodes.get("n-0")
    assert (node.state if node else "creating") == state
    said = "denied: words" if (code, state) == ("auth", "failed") else "words"
    assert node is None or (node.token == "t" and node.reason == said)


def test_jobs_whose_machines_are_denied_say_so_and_not_that_there_are_none() -> None:
    """Seen: `no-capacity` for a policy without ec2:RunInstances, and the exit status of a job that failed."""
    state = state_with()
    denied = change_node(state, state="failed", reason="denied: you may not")
    (job,) = decide(denied, seeing(), POLICY).changes.jobs.values()
    assert (job.state, job.reason) == ("failed", "denied: you may not")


def test_create_is_repeated_in_time_with_the_same_token() -> None:
    def asked(state: RunState, **values: Any) -> list[CreateInstance]:
        return [a for a in decide(state, seeing(**values), POLICY).actions if isinstance(a, CreateInstance)]

    (again,) = asked(creating())
    assert (again.token, again.generation) == ("t", 1)
    assert asked(creating(), calls_pending=frozenset({CALL})) == []
    assert asked(creating(), calls_done=frozenset({CALL})) == []
    assert asked(creating(not_before=150.0)) == []
    assert len(asked(creating(created_at=80.0), calls_done=frozenset({CALL}))) == 1


def listed(state: str = "running", generation: int = 1, instance_id: str = "i-1", **values: Any) -> dict[str, Any]:
    status = replace(InstanceStatus(instance_id, "n-0", generation, state), **values)
    return {"instances": {"fake": (status,)}}


def test_machine_that_never_comes_up_is_given_back_and_asked_for_anew() -> None:
    state = creating(created_at=NOW - POLICY.boot_limit - 1)
    decision = decide(state, seeing(**listed("pending")), POLICY)
    assert decision.changes.nodes["n-0"].state == "releasing"
    assert kinds(decision) == ["DisconnectHost", "TerminateInstance"]
    state.apply(decision.changes)
    gone = decide(state, seeing(**listed("terminated")), POLICY).changes.nodes["n-0"]
    assert (gone.state, gone.instance_id) == ("wanted", "")


def test_machine_that_ended_before_use_is_not_asked_for_at_once() -> None:
    node = decide(creating(), seeing(**listed("terminated")), POLICY).changes.nodes["n-0"]
    assert (node.state, node.not_before) == ("wanted", NOW + POLICY.create_retry)
    wanted = change_node(state_with(), not_before=200.0)
    decision = decide(wanted, seeing(), POLICY)
    assert (decision.changes.nodes, decision.wake_at) == ({}, 200.0)


def test_silent_machine_that_complete_lists_omit_for_long_is_gone() -> None:
    """Seen: a laptop slept until the cloud had forgotten the machine that was taken meanwhile; the run never ended."""
    state, empty = running(state_with()), {"instances": {"fake": ()}}
    decision = decide(state, seeing(**empty), POLICY)
    limit = NOW + POLICY.absent_limit
    assert decision.changes.nodes["n-0"].not_before == limit
    state.apply(decision.changes)
    assert not decide(state, seeing(**empty), POLICY).changes
    back = decide(state, seeing(UP), POLICY).changes.nodes["n-0"]
    assert back.not_before == 0.0
    gone = decide(state, replace(seeing(**empty), now=limit), POLICY)
    assert gone.changes.jobs[1].reason == "retry after lost: the machine was forgotten by its provider"
    assert gone.changes.nodes["n-0"].state == "wanted"


def test_absence_alone_does_not_give_a_machine_back() -> None:
    """Seen: a list that lagged behind let a machine that lived go unbilled in our books and billed in theirs."""
    state = change_node(
        change_job(state_with(), state="succeeded"), state="releasing", instance_id="i-1", generation=1
    )
    empty = {"instances": {"fake": ()}}
    assert kinds(decide(state, seeing(**empty), POLICY)) == ["TerminateInstance"]
    done = decide(state, seeing(**empty, calls_done=frozenset({"terminate i-1"})), POLICY)
    assert done.changes.nodes["n-0"].state == "released"


@pytest.mark.parametrize(("generation", "node_state"), [(1, "running"), (2, "failed")])
@pytest.mark.parametrize("known", ["", "pending", "done"])
def test_machine_that_no_node_wants_is_given_back(generation: int, node_state: str, known: str) -> None:
    state = change_node(state_with(), state=node_state, generation=2, instance_id="i-2")
    calls = {f"calls_{known}": frozenset({"terminate i-1"})} if known else {}
    decision = decide(state, seeing(**listed(generation=generation), **calls), POLICY)
    asked = [a for a in decision.actions if isinstance(a, TerminateInstance)]
    assert [a.instance_id for a in asked] == ([] if known else ["i-1"])
    for other in (listed(generation=3), listed("terminated"), listed(node="foreign")):
        assert "TerminateInstance" not in kinds(decide(state, seeing(**other), POLICY))


def test_results_on_a_machine_that_ended_are_given_up_with_a_reason() -> None:
    """Seen: a job that ended in the same look as its machine asked the next machine for its results."""
    state = running(state_with(outputs=(Output("out"),)))
    ended = news("rtest1.1.2", "exited", exit_code=0)
    decision = decide(state, seeing(UP, attempts=ended, **listed("terminated", reason="preempted")), POLICY)
    job = decision.changes.jobs[1]
    assert job.state == "succeeded"
    assert job.fetch == "failed: gone with its machine, which was preempted"
    assert decision.changes.nodes["n-0"].state == "wanted"


# ---- handing out ---------------------------------------------------------------------------------------------------


def handed(decision: Decision) -> list[int]:
    starts = [a for a in decision.actions if isinstance(a, StartAttempts)]
    return [int(s.attempt.split(".")[1]) for a in starts for s in a.attempts]


def test_hosts_are_given_more_than_they_run_but_not_everything() -> None:
    decision = decide(serving(state_with(50)), seeing(UP), POLICY)
    assert handed(decision) == list(range(1, 2 + POLICY.ahead + 1))
    assert decision.wake_at == NOW


def test_quick_jobs_are_handed_out_in_larger_numbers() -> None:
    state = serving(state_with(4000))
    ends = {n: replace(state.jobs[n], state="succeeded", started_at=1.0, ended_at=1.0078125) for n in range(1, 50)}
    state.apply(Changes(jobs=ends))
    assert len(handed(decide(state, seeing(UP), POLICY))) == 128
    assert len(handed(decide(state, seeing(UP), replace(POLICY, hand_out_most=7)))) == 7


def test_place_of_a_job_that_ends_now_is_given_away_now() -> None:
    """Seen: with max_parallel 1 the second job was never started, as nothing happened any more."""
    state = running(state_with(2))
    state.apply(Changes(replace(state.run, max_parallel=1)))
    assert handed(decide(state, seeing(UP), POLICY)) == []
    decision = decide(state, seeing(UP, attempts=news("rtest1.1.2", "exited", exit_code=0)), POLICY)
    assert handed(decision) == [2]


def test_full_disk_holds_back_what_its_machine_would_be_given_and_says_so() -> None:
    """Seen: a machine with a full disk took job after job from the others and failed each at once."""
    state = change_node(serving(state_with(nodes=2)), "n-1", state="running", generation=1, instance_id="i-2")
    full, well = replace(UP, full=True), replace(UP)
    decision = decide(state, seeing(full, hosts={"n-0": full, "n-1": well}), POLICY)
    assert [a.node for a in decision.actions if isinstance(a, StartAttempts)] == ["n-1"]
    alone = serving(state_with())
    decision = decide(alone, seeing(full), POLICY)
    assert not handed(decision) and 1 not in decision.changes.jobs
    told = explain(alone, alone.jobs[1], {"n-0": full}, NOW)
    assert told.reasons == ("n-0: its disk is full, and nothing is handed to it for a while",)
    assert [remark for *_, remark in told.nodes] == ["its disk is full"]


def test_job_that_fits_nowhere_fails_although_a_machine_was_refused() -> None:
    state = change_node(serving(state_with(nodes=2, resources=Resources(3.0))), "n-1", state="failed", reason="quota")
    job = decide(state, seeing(UP), POLICY).changes.jobs[1]
    assert (job.state, job.reason) == ("failed", "no-capacity: 3 CPUs asked, the largest has 2 CPUs")


def test_environment_that_failed_on_all_large_machines_fails_its_jobs() -> None:
    state = serving(state_with(nodes=2, environment="e1", resources=Resources(2.0)))
    change_node(state, "n-1", state="running", capacity=Resources(1.0))
    state.apply(Changes(builds={("n-0", "e1"): BuildRecord("n-0", "e1", state="failed", reason="exit 1")}))
    seen = Observation(NOW, hosts={"n-0": UP, "n-1": replace(UP, resources=Resources(1.0))})
    job = decide(state, seen, POLICY).changes.jobs[1]
    assert (job.state, job.reason) == ("failed", "environment-failed: exit 1")


def test_nothing_planned_fails_what_waits() -> None:
    job = decide(state_with(nodes=0), seeing(), POLICY).changes.jobs[1]
    assert job.reason == "no-capacity: no machine is planned"


def test_full_place_beside_an_idle_one_does_not_busy_the_maestro() -> None:
    """Seen: a large job waited for a large machine, a small machine was idle, and the maestro ticked without end."""
    state = serving(state_with(12, nodes=2, resources=Resources(2.0)))
    change_node(state, "n-1", state="running", capacity=Resources(1.0))
    seen = Observation(NOW, hosts={"n-0": UP, "n-1": replace(UP, resources=Resources(1.0))})
    state.apply(decide(state, seen, POLICY).changes)
    rest = decide(state, seen, POLICY)
    assert not rest.changes
    assert rest.wake_at == NOW + POLICY.look_idle


def test_job_that_is_cancelled_now_is_not_handed_out_now() -> None:
    decision = decide(serving(state_with(2)), seeing(UP, requests=(Request("r", "cancel", (1,)),)), POLICY)
    assert handed(decision) == [2]
    misfits = serving(state_with(2, resources=Resources(9.0)))
    ended = decide(misfits, seeing(UP, requests=(Request("r", "cancel", (1,)),)), POLICY).changes.jobs
    assert [j.state for j in ended.values()] == ["cancelled", "failed"]


def test_job_that_is_cancelled_while_its_dependency_fails_is_cancelled() -> None:
    state = plan_run(
        RunSpec("p", "/c.yml", (JobSpec("a", (), "a"), JobSpec("b", (), "b", after=("a",)))), [], "rtest1", 0.0
    )
    change_job(state, 1, state="failed", reason="exit 1")
    decision = decide(state, seeing(requests=(Request("r", "cancel", (2,)),)), POLICY)
    assert decision.changes.jobs[2].state == "cancelled"
    assert decide(state, seeing(), POLICY).changes.jobs[2].reason == "dependency-failed: a"


def test_results_of_an_earlier_life_are_no_news() -> None:
    for attempt in ("rtest1.1.1", "rtest1.9.1", "rtest1.env-k.1"):
        assert not decide(running(state_with()), seeing(UP, fetched={attempt: ""}), POLICY).changes


def test_results_that_come_a_second_time_change_nothing_and_are_acknowledged() -> None:
    state = change_job(serving(state_with()), state="succeeded", node="n-0", attempt=1, fetch="home")
    decision = decide(state, seeing(UP, fetched={"rtest1.1.1": ""}), POLICY)
    assert not decision.changes.jobs
    assert [action.attempts for action in decision.actions if isinstance(action, AckAttempts)] == [("rtest1.1.1",)]


def test_results_of_an_earlier_attempt_do_not_count_for_the_newest() -> None:
    output = (Output("out"),)
    state = running(state_with(outputs=output))
    change_job(state, 1, attempt=2, state="succeeded", fetch="wanted")
    late, own = (state.run.id + f".1.{a}" for a in (1, 2))
    assert not decide(state, seeing(UP, fetched={late: ""}), POLICY).changes.jobs
    assert decide(state, seeing(UP, fetched={own: ""}), POLICY).changes.jobs[1].fetch == "home"


def test_files_of_several_attempts_are_sent_once() -> None:
    upload = Upload("data", "ab" * 32, 3, 0o644, "/data")
    decision = decide(serving(state_with(3, uploads=(upload,))), seeing(UP), POLICY)
    (start,) = [a for a in decision.actions if isinstance(a, StartAttempts)]
    assert (len(start.attempts), start.files) == (3, (upload,))


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


# ---- machines that refuse ------------------------------------------------------------------------------------------


def refusing(code: str = "host-key") -> HostView:
    return HostView(connected=False, error="its key has changed", error_code=code)


@pytest.mark.parametrize("code", ["host-key", "auth", "unfit"])
def test_machine_that_refuses_is_left_out_and_the_run_goes_on_without_it(code: str) -> None:
    state = serving(state_with(nodes=2))
    seen = replace(seeing(**listed()), hosts={"n-0": refusing(code)})
    decision = decide(state, seen, POLICY)
    assert kinds(decision) == ["DisconnectHost", "TerminateInstance", "CreateInstance"]  # n-1 is not made yet
    state.apply(decision.changes)
    empty = {"instances": {"fake": ()}, "calls_done": frozenset({"terminate i-1"})}
    left_out = decide(state, seeing(**empty), POLICY)
    assert left_out.changes.nodes["n-0"].state == "failed"
    assert left_out.changes.nodes["n-0"].reason == "refused: its key has changed"
    assert state.jobs[1].state == "pending"


def test_run_whose_machines_all_refuse_fails_with_each_reason() -> None:
    state = change_node(state_with(), state="failed", reason="refused: its key has changed")
    job = decide(state, seeing(), POLICY).changes.jobs[1]
    assert (job.state, job.reason) == ("failed", "no-capacity: n-0: refused: its key has changed")


@pytest.mark.parametrize(
    ("view", "used"),
    [
        (refusing("unreachable"), "no"),  # silence may end
        (refusing(), "running"),
        (refusing(), "fetch"),
        (refusing(), "build"),
    ],
)
def test_machine_that_may_hold_something_of_the_run_is_waited_for(view: HostView, used: str) -> None:
    state = serving(state_with(jobs=2))
    if used == "running":
        state = change_job(state, state="running", node="n-0", attempt=1)
    elif used == "fetch":
        state = change_job(state, state="succeeded", node="n-0", attempt=1, fetch="wanted")
    elif used == "build":
        state.apply(Changes(builds={("n-0", "k"): BuildRecord("n-0", "k")}))
    decision = decide(state, replace(seeing(**listed()), hosts={"n-0": view}), POLICY)
    assert "n-0" not in decision.changes.nodes


# ---- machines that the user gives up -------------------------------------------------------------------------------


def giving_up(node: str = "n-0") -> Observation:
    return seeing(requests=(Request("r1", "gone", at=1.0, node=node),))


def test_what_a_machine_had_is_done_elsewhere_on_the_users_word() -> None:
    state = running(state_with(jobs=2, nodes=2))
    state.apply(Changes(builds={("n-0", "k"): BuildRecord("n-0", "k")}))
    change_job(state, 2, state="succeeded", node="n-0", attempt=1, fetch="wanted")
    decision = decide(state, giving_up(), POLICY)
    job = decision.changes.jobs[1]
    assert (job.state, job.reason, job.losses) == (
        "pending",
        "retry after lost: the machine was given up by the user",
        1,
    )
    assert decision.changes.jobs[2].fetch.startswith("failed: gone with its machine")
    assert decision.changes.nodes["n-0"].state == "releasing"
    state.apply(decision.changes)
    assert decide(state, giving_up(), POLICY).changes.nodes.get("n-0") is None  # the request is known
    gone = seeing(instances={"fake": ()}, calls_done=frozenset({"terminate i-1"}))
    assert decide(state, gone, POLICY).changes.nodes["n-0"].state == "failed"


@pytest.mark.parametrize("node", ["n-1", "n-7"])
def test_giving_up_what_does_not_run_changes_no_job(node: str) -> None:
    state = running(state_with(nodes=2))
    decision = decide(state, giving_up(node), POLICY)
    assert not decision.changes.jobs
    assert decision.changes.run is not None


def test_old_attempt_on_a_machine_that_came_back_is_ended() -> None:
    state = running(state_with())
    decision = decide(state, seeing(UP, attempts=news("rtest1.1.1", "running", started=1.0)), POLICY)
    assert [(a.node, a.attempts) for a in decision.actions if isinstance(a, CancelAttempts)] == [
        ("n-0", ("rtest1.1.1",))
    ]
    assert not decision.changes.jobs


# ---- balance -------------------------------------------------------------------------------------------------------


def crowded(**late: Any) -> tuple[RunState, Observation]:
    """n-0 holds three jobs of two CPUs, of which it can run one; n-1 is idle."""
    state = serving(state_with(jobs=3, nodes=2, resources=Resources(2.0)))
    change_node(state, "n-1", state="running", instance_id="i-2")
    for number in (1, 2, 3):
        change_job(state, number, state="running", attempt=1, node="n-0", boot="b1", handed_at=NOW - 2.0)
    change_job(state, 1, started_at=NOW - 2.0)
    change_job(state, 3, **late)
    return state, Observation(NOW, hosts={"n-0": UP, "n-1": UP})


def revoked(decision: Decision) -> list[str]:
    return [a for action in decision.actions if isinstance(action, RevokeAttempts) for a in action.attempts]


def test_what_waits_behind_others_is_taken_back_for_an_idle_machine() -> None:
    """Seen: the machine that answered first was given all jobs of an hour each, and the others watched."""
    state, seen = crowded()
    decision = decide(state, seen, POLICY)
    assert revoked(decision) == ["rtest1.3.1"]
    assert decision.changes.jobs[3].not_before == NOW + POLICY.take_back_again
    state.apply(decision.changes)
    assert not revoked(decide(state, seen, POLICY)), "asked for twice"
    back = replace(seen, attempts=news("rtest1.3.1", "cancelled", cause="revoked"))
    state.apply(decide(state, back, POLICY).changes)
    again = decide(state, seen, POLICY).changes.jobs[3]
    assert (again.state, again.node, again.attempt) == ("running", "n-1", 2)


@pytest.mark.parametrize("late", [{"handed_at": NOW}, {"started_at": NOW}, {"cancel": True}])
def test_what_may_start_where_it_is_is_left_there(late: dict[str, Any]) -> None:
    state, seen = crowded(**late)
    change_job(state, 2, **late)
    decision = decide(state, seen, POLICY)
    assert not revoked(decision)
    assert decision.wake_at == (NOW + POLICY.take_back_after if "handed_at" in late else NOW + POLICY.look_idle)

"""One seeded bug for each safety rule, and more: what the crash world must catch, each put in through a seam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

import cloudsend_cli.core.decide as decide_module
import cloudsend_cli.core.decide_builds as builds
import cloudsend_cli.core.decide_jobs as jobs
import cloudsend_cli.core.decide_nodes as nodes
import cloudsend_cli.core.plan as plan_module
import cloudsend_cli.core.pools as pools_module
import cloudsend_cli.core.state as state_module
import cloudsend_cli.testing.world as world_module
from cloudsend_cli.core.actions import AckAttempts
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.draft import Draft
from cloudsend_cli.core.model import CANCELLED, PENDING, RUNNING, AttemptStatus, HostView, InstanceStatus
from cloudsend_cli.core.naming import attempt_id, digest, parse_attempt_id
from cloudsend_cli.core.places import Place
from cloudsend_cli.core.pools import Rooms
from cloudsend_cli.core.state import JobRecord, NodeRecord, RunState
from cloudsend_cli.engine.execute import execute
from cloudsend_cli.engine.observe import observe
from cloudsend_cli.engine.session import Session
from cloudsend_cli.engine.tick import Ticked
from cloudsend_cli.testing.fake_cloud import FakeProvider
from cloudsend_cli.testing.fake_machine import FakeMachine
from cloudsend_cli.testing.memory_store import MemoryStore, StoredRun

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    rule: str  # of DESIGN, "" for what follows from several
    what: str
    put_in: Callable[[Patch], None]
    hint: str = ""  # a scenario whose every crash point is tried first


# ---- rule 1: intent before effect ----------------------------------------------------------------------------------


def _tick(session: Session, now: float, *, early: type | None) -> Ticked:
    """The tick, with all actions (or those of one type) executed before the commit."""
    try:
        state = session.state = session.state or session.store.load(session.run)
        state.pop_delayed(now)
        decision = decide(state, observe(session, state, now), session.policy)
        first = [a for a in decision.actions if early is None or isinstance(a, early)]
        preview = RunState(state.run, state.jobs.values(), state.nodes.values())
        preview.apply(decision.changes)
        execute(session, preview, first)
        if decision.changes:
            version = session.store.commit(session.run, state.run.version, decision.changes, ())
            state.apply(decision.changes)
            state.set_version(version)
        execute(session, state, [a for a in decision.actions if a not in first])
    except BaseException:
        session.reset()
        raise
    return Ticked(bool(decision.changes), decision.done, decision.wake_at)


def execute_before_commit(patch: Patch) -> None:
    patch.setattr(world_module, "tick", lambda session, now: _tick(session, now, early=None))


def ack_before_commit(patch: Patch) -> None:
    patch.setattr(world_module, "tick", lambda session, now: _tick(session, now, early=AckAttempts))


def ack_before_home(patch: Patch) -> None:
    patch.setattr(jobs, "is_coming_home", lambda draft, attempt: False)


def start_without_record(patch: Patch) -> None:
    real = decide_module._hand_to

    def hand_to(draft: Draft, job: JobRecord, place: Place, slot: int) -> None:
        real(draft, job, place, slot)
        draft.jobs[job.number] = replace(draft.jobs[job.number], attempt=job.attempt)

    patch.setattr(decide_module, "_hand_to", hand_to)


# ---- rule 2: tokens ------------------------------------------------------------------------------------------------


def no_token(patch: Patch) -> None:
    """A provider as kind as moto: it does not know tokens."""
    patch.setattr(FakeProvider, "_known_token", lambda self, token, request: None)


def new_token_on_retry(patch: Patch) -> None:
    def await_reply(draft: Draft, node: NodeRecord) -> None:
        if node.not_before <= draft.seen.now:
            later = draft.seen.now + draft.policy.create_retry
            node = replace(node, not_before=later, token=digest(node.token, draft.seen.now))
            draft.put_node(node)
            nodes._create(draft, node)

    patch.setattr(nodes, "_await_reply", await_reply)


def token_without_generation(patch: Patch) -> None:
    patch.setattr(nodes, "token", lambda run, node, generation, request: digest(run, node, request))


def lost_reply_is_a_refusal(patch: Patch) -> None:
    patch.setattr(nodes, "PASSING_CREATE_ERRORS", frozenset({"capacity", "unreachable"}))


def expired_credentials_are_a_refusal(patch: Patch) -> None:
    real = nodes._await_reply
    patch.setattr(nodes, "_await_reply", lambda draft, node: real(draft, replace(node, not_before=0.0)))


# ---- rule 3: exclusive starts --------------------------------------------------------------------------------------


def start_not_exclusive(patch: Patch) -> None:
    patch.setattr(FakeMachine, "knows", lambda self, attempt: False)


def boot_not_checked(patch: Patch) -> None:
    patch.setattr(FakeMachine, "is_boot", lambda self, boot: True)


def tombstone_ignored(patch: Patch) -> None:
    patch.setattr(FakeMachine, "is_buried", lambda self, attempt: False)


# ---- rule 4: unknown is not dead -----------------------------------------------------------------------------------


def silence_is_death(patch: Patch) -> None:
    real = nodes._watch

    def watch(draft: Draft, node: NodeRecord) -> None:
        view = draft.seen.hosts.get(node.name)
        if view is not None and not view.connected:
            for job in draft.running_jobs(node.name):
                jobs.lose(draft, job, "lost: no answer")
        real(draft, node)

    patch.setattr(nodes, "_watch", watch)


def silence_is_termination(patch: Patch) -> None:
    real = nodes._watch

    def watch(draft: Draft, node: NodeRecord) -> None:
        view = draft.seen.hosts.get(node.name)
        if view is not None and not view.connected and view.error == "no answer":
            nodes._replace(draft, node, "silent")
        else:
            real(draft, node)

    patch.setattr(nodes, "_watch", watch)


def absence_is_termination(patch: Patch) -> None:
    real = nodes.find_instance

    def find_instance(draft: Draft, node: NodeRecord) -> InstanceStatus | None:
        found = real(draft, node)
        if found is None and node.provider in draft.seen.instances and node.state != "creating":
            return InstanceStatus(node.instance_id, node.name, node.generation, "terminated", None, "gone")
        return found

    patch.setattr(nodes, "find_instance", find_instance)


def absence_is_given_back(patch: Patch) -> None:
    real = nodes._release

    def release(draft: Draft, node: NodeRecord, *, wanted: bool) -> None:
        if node.provider in draft.seen.instances and nodes.find_instance(draft, node) is None:
            draft.put_node(replace(node, state="released"))
        else:
            real(draft, node, wanted=wanted)

    patch.setattr(nodes, "_release", release)


def missing_in_a_report_is_lost(patch: Patch) -> None:
    def take_report(draft: Draft, node: str, view: HostView) -> None:
        for job in draft.running_jobs(node):
            if attempt_id(draft.run.id, job.number, job.attempt) not in (view.reported or ()):
                jobs.lose(draft, job, "lost")

    patch.setattr(nodes, "take_report", take_report)


# ---- rule 5: one writer --------------------------------------------------------------------------------------------


def commit_without_comparing(patch: Patch) -> None:
    def compare(self: MemoryStore, stored: StoredRun, version: int) -> None:
        """Whatever the version is."""

    patch.setattr(MemoryStore, "_compare", compare)


def news_forgotten_at_a_conflict(patch: Patch) -> None:
    patch.setattr(Session, "reset", lambda self: setattr(self, "state", None))


# ---- rule 6: what is seen ------------------------------------------------------------------------------------------


def late_news_accepted(patch: Patch) -> None:
    def take_attempts(draft: Draft) -> None:
        for node, news in draft.seen.attempts.items():
            for attempt, status in news.items():
                parsed = parse_attempt_id(attempt)
                job = draft.job(parsed[1]) if parsed is not None else None
                if job is not None and job.state == RUNNING:
                    jobs._settle(draft, job, status)
                if status.state in jobs.ENDED:
                    draft.ack(node, attempt)

    patch.setattr(decide_module, "take_attempts", take_attempts)


def final_state_reopened(patch: Patch) -> None:
    real = jobs.take_attempts

    def take_attempts(draft: Draft) -> None:
        real(draft)
        for job in list(draft.state.jobs.values()):
            if job.state == "failed" and job.failures and job.number not in draft.jobs and not draft.state.unfinished:
                draft.put_job(replace(job, state=PENDING))

    patch.setattr(decide_module, "take_attempts", take_attempts)


def cancelled_job_handed_out(patch: Patch) -> None:
    real = jobs.cancel_job

    def cancel(draft: Draft, number: int) -> None:
        job = draft.job(number)
        if job is not None and job.state == PENDING:
            draft.put_job(replace(job, cancel=True))
        else:
            real(draft, number)

    patch.setattr(jobs, "cancel_job", cancel)


def lost_results(patch: Patch) -> None:
    def unsettled(draft: Draft) -> bool:
        return any((draft.job(n) or job).state in {PENDING, RUNNING} for n, job in draft.state.jobs.items())

    patch.setattr(decide_module, "_unsettled", unsettled)


def retries_without_end(patch: Patch) -> None:
    real = jobs._fail

    def fail(draft: Draft, job: JobRecord, reason: str, status: AttemptStatus) -> None:
        generous = replace(job.spec, retries=job.spec.retries + 1)
        real(draft, replace(job, spec=generous), reason, status)

    patch.setattr(jobs, "_fail", fail)


def losses_without_end(patch: Patch) -> None:
    patch.setattr(jobs, "lose", lambda draft, job, reason, **more: jobs.never_started(draft, job))
    patch.setattr(nodes, "lose", jobs.lose)


def environment_taken_for_granted(patch: Patch) -> None:
    patch.setattr(decide_module, "environment_ready", lambda draft, node, key, view: True)


def environment_believed_after_its_loss(patch: Patch) -> None:
    real = builds._again

    def again(draft: Draft, build: object, **settings: bool) -> None:
        if build.state == RUNNING:  # type: ignore[attr-defined]
            real(draft, build, **settings)  # type: ignore[arg-type]

    patch.setattr(builds, "_again", again)


def cancel_calls_it_dead(patch: Patch) -> None:
    real = jobs.cancel_job

    def cancel(draft: Draft, number: int) -> None:
        real(draft, number)
        job = draft.job(number)
        if job is not None and job.state == RUNNING:
            draft.put_job(replace(job, state=CANCELLED, reason="cancelled by the user"))

    patch.setattr(jobs, "cancel_job", cancel)


# ---- rule 7: nothing foreign, nothing left -------------------------------------------------------------------------


def untagged_machine_adopted(patch: Patch) -> None:
    real = FakeProvider.list_instances

    def list_instances(self: FakeProvider, run: str) -> tuple[InstanceStatus, ...]:
        foreign = [i for i in self.instances.values() if not i.ours]
        shown = tuple(self._status(i, self.timeline.now) for i in foreign if i.alive)
        return shown + tuple(real(self, run))

    patch.setattr(FakeProvider, "list_instances", list_instances)


def orphans_left(patch: Patch) -> None:
    patch.setattr(nodes, "list_orphans", lambda draft: iter(()))
    patch.setattr(decide_module, "list_orphans", lambda draft: iter(()))


def creating_forgotten_when_unwanted(patch: Patch) -> None:
    real = nodes._await_instance

    def await_instance(draft: Draft, node: NodeRecord, *, wanted: bool) -> None:
        if wanted:
            real(draft, node, wanted=wanted)
        else:
            draft.put_node(replace(node, state="released"))

    patch.setattr(nodes, "_await_instance", await_instance)
    for module in (decide_module, nodes):
        patch.setattr(module, "list_orphans", lambda draft: iter(()))


# ---- machines that are taken back, or never answer -----------------------------------------------------------------


def place_taken_twice(patch: Patch) -> None:
    real = nodes.ask_stand_in

    def ask(draft: Draft, node: NodeRecord) -> bool:
        asked = real(draft, node)
        if asked:
            draft.put_node(node)
        return asked

    patch.setattr(nodes, "ask_stand_in", ask)


def taken_back_and_asked_for_again(patch: Patch) -> None:
    real = nodes._replace
    patch.setattr(nodes, "_replace", lambda draft, node, why: real(draft, replace(node, retired=False), why))


def crowding_out_is_a_limit(patch: Patch) -> None:
    patch.setattr(nodes, "make_room", lambda draft, node: False)


def unanswered_without_end(patch: Patch) -> None:
    def give_back(draft: Draft, node: NodeRecord, instance_id: str) -> None:
        nodes._start_release(draft, node, instance_id, nodes.NEVER_CAME_UP)

    patch.setattr(nodes, "_give_back_unanswered", give_back)


# ---- sections and groups -------------------------------------------------------------------------------------------


def stage_begins_before_its_turn(patch: Patch) -> None:
    patch.setattr(RunState, "is_gated", lambda self, job: False)


def stage_over_when_all_is_handed_out(patch: Patch) -> None:
    """What was handed out counts no more for the stage: it may still be running, or fail and be tried again."""
    for name in ("_enter_stage", "_leave_stage"):
        real = getattr(RunState, name)

        def count(self: RunState, job: JobRecord, real: Callable[[RunState, JobRecord], None] = real) -> None:
            if job.state == PENDING:
                real(self, job)

        patch.setattr(RunState, name, count)


def place_free_before_its_end(patch: Patch) -> None:
    """As soon as its end is asked for."""
    real = Rooms.__init__

    def begin(self: Rooms, draft: Draft) -> None:
        real(self, draft)
        for job in draft.state.jobs.values():
            if job.state == RUNNING and job.spec.group and job.started_at is None:
                self._pool(job.spec.group).give_back(job.slot)

    patch.setattr(Rooms, "__init__", begin)


def place_of_each_machine(patch: Patch) -> None:
    """A pool for each hand-out rather than for the run."""
    patch.setattr(Rooms, "take", lambda self, name: 0 if name in self._groups else -1)


def place_forgotten_by_an_edited_pool(patch: Patch) -> None:
    patch.setattr(plan_module, "move_slots", lambda running, old, new: [])


def limit_of_a_group_ignored(patch: Patch) -> None:
    real = pools_module._has_room
    patch.setattr(pools_module, "_has_room", lambda group, pool: real(replace(group, max_parallel=None), pool))


def any_end_is_success(patch: Patch) -> None:
    patch.setattr(state_module, "_is_unfinished", state_module._is_open)


def memory_that_is_not_passed_on(patch: Patch) -> None:
    real = Draft.start_job
    patch.setattr(Draft, "start_job", lambda self, job: real(self, replace(job, memory=0)))


MUTANTS = (
    Mutant("1", "effects before their commit", execute_before_commit),
    Mutant("1", "ends acknowledged before their commit", ack_before_commit),
    Mutant("1", "an attempt handed out under a number that is not stored", start_without_record),
    Mutant("2", "a provider that does not know tokens", no_token),
    Mutant("2", "a new token for each retry", new_token_on_retry),
    Mutant("2", "a fallback with the token of the first try", token_without_generation),
    Mutant("2", "a lost reply taken for a refusal", lost_reply_is_a_refusal),
    Mutant("2", "expired credentials taken for a refusal of what was asked before", expired_credentials_are_a_refusal),
    Mutant("3", "starts that are not exclusive", start_not_exclusive),
    Mutant("3", "a boot id that is not compared", boot_not_checked),
    Mutant("3", "a tombstone that is not looked at", tombstone_ignored),
    Mutant("4", "silence taken for death", silence_is_death),
    Mutant("4", "silence taken for the end of the machine", silence_is_termination),
    Mutant("4", "absence from a list taken for the end of a machine", absence_is_termination),
    Mutant("4", "absence from a list taken for a machine given back", absence_is_given_back, "omitted from lists"),
    Mutant("4", "an attempt not in a report of its boot taken for lost", missing_in_a_report_is_lost),
    Mutant("4", "a job called cancelled when its end was only asked for", cancel_calls_it_dead),
    Mutant("5", "a commit that does not compare versions", commit_without_comparing),
    Mutant("5", "news forgotten with a lost commit", news_forgotten_at_a_conflict),
    Mutant("6", "news of an earlier attempt accepted", late_news_accepted),
    Mutant("6", "an environment that is not waited for", environment_taken_for_granted),
    Mutant("6", "an environment believed in after its loss", environment_believed_after_its_loss),
    Mutant("", "a failed job reopened without its user", final_state_reopened),
    Mutant("", "a cancelled job handed out", cancelled_job_handed_out),
    Mutant("", "results left on a machine that is given back", lost_results),
    Mutant("", "ends acknowledged before their results are home", ack_before_home),
    Mutant("", "one retry too many", retries_without_end),
    Mutant("", "losses that are not counted", losses_without_end),
    Mutant("", "two nodes for the place of one machine that is taken back", place_taken_twice),
    Mutant("", "a machine asked for again whose place is taken", taken_back_and_asked_for_again),
    Mutant("", "a limit that is used up by the machine that is taken back", crowding_out_is_a_limit),
    Mutant("", "machines that never answer, without end", unanswered_without_end),
    Mutant("", "a stage that begins before its turn", stage_begins_before_its_turn, "sections"),
    Mutant("", "a stage that is over when all is handed out", stage_over_when_all_is_handed_out, "sections"),
    Mutant("", "a place that is free before its attempt has ended", place_free_before_its_end, "sections"),
    Mutant("", "places that are not counted run-wide", place_of_each_machine, "sections"),
    Mutant("", "places forgotten when a pool is edited", place_forgotten_by_an_edited_pool, "sections, continued"),
    Mutant("", "the limit of a group ignored", limit_of_a_group_ignored, "sections"),
    Mutant("", "any end that has to be a good one", any_end_is_success, "after any end"),
    Mutant("", "memory that grew and is not given", memory_that_is_not_passed_on, "memory grows"),
    Mutant("7", "a machine without our tag adopted", untagged_machine_adopted),
    Mutant("7", "machines of superseded intents left", orphans_left),
    Mutant("7", "a machine in the making forgotten", creating_forgotten_when_unwanted, "cancel while it boots"),
)

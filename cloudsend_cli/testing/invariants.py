"""What must hold in every world, checked against the ledger, the bill and what was committed, not against beliefs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.losses import LIFETIMES
from cloudsend_cli.core.model import FINAL_STATES, PENDING, RUNNING, SUCCEEDED, Slot
from cloudsend_cli.core.naming import attempt_id, build_id, parse_attempt_id
from cloudsend_cli.core.state import Changes, JobRecord

from .fake_cloud import FakeInstance, FakeProvider
from .fake_machine import Execution, FakeMachine
from .memory_store import StoredRun

BILL_TOLERANCE = 20.0  # seconds: how late a list may tell that a machine has ended
IDLE_BOUND = 120.0  # seconds from the end of a run to the end of its last machine


class Judge:
    """Collects violations while a world goes on and at its end."""

    def __init__(self, ledger: list[Execution]) -> None:
        self.ledger = ledger
        self.violations: list[str] = []
        self.fenced = True  # no maestro slept between its commit and its calls
        self.executed: set[tuple[str, str]] = set()
        self.buried: set[str] = set()
        self.intents: set[tuple[str, int, str, str]] = set()
        self.releases: set[tuple[str, str]] = set()
        self.reopened: set[int] = set()
        self.refetched: set[int] = set()  # their user asked again for results that had been given up
        self.places: dict[tuple[str, Slot], int] = {}  # (group, pairs): how many places of these its pools have had
        self.cancels: dict[str, tuple[int, ...] | None] = {}  # the user's requests, by id
        self.cancelled: set[int] = set()  # jobs that had nothing on its way when their cancel was committed

    def blame(self, text: str) -> None:
        self.violations.append(text)

    # ---- during ----------------------------------------------------------------------------------------------------

    def on_execute(self, stored: StoredRun, machine: FakeMachine, start: AttemptStart) -> None:
        """Before a machine executes: exclusive, intended, not cancelled, alone, in its environment."""
        attempt = start.attempt
        where = machine.key if start.build else ""  # a build's id is the same on every machine
        if (attempt, where) in self.executed:
            self.blame(f"{attempt} was executed twice")
        self.executed.add((attempt, where))
        if attempt in self.buried:
            self.blame(f"{attempt} was started after its cancel was acknowledged")
        if start.build:
            keys = {build_id(stored.run.id, b.key, b.attempt) for b in stored.builds.values() if b.state == RUNNING}
            if attempt not in keys:
                self.blame(f"the build {attempt} was started without an intent")
            return
        if start.spec.environment and start.spec.environment not in machine.environments:
            self.blame(f"{attempt} was started without its environment")
        self._judge_intent(stored, attempt)
        self._judge_group(stored, start)
        number = attempt.rsplit(".", 1)[0]
        for other in self.ledger:
            if other.t1 is None and other.attempt.rsplit(".", 1)[0] == number:
                self.blame(f"{attempt} and {other.attempt} ran at the same time")

    def _judge_intent(self, stored: StoredRun, attempt: str) -> None:
        job = _job_of(stored, attempt)
        if job is None or job.state != RUNNING or attempt_id(stored.run.id, job.number, job.attempt) != attempt:
            self.blame(f"{attempt} was started without an intent: the store says {job and (job.state, job.attempt)}")
        elif job.number in self.cancelled - self.reopened:
            self.blame(f"{attempt} was started although its job was cancelled before")

    def _judge_group(self, stored: StoredRun, start: AttemptStart) -> None:
        """One job at a time in each place; no more than `max_parallel`; the place that the store says."""
        name = start.spec.group
        group = next((g for g in stored.run.groups if g.name == name), None)
        if group is None:
            return
        others = [e.start for e in self.ledger if e.t1 is None and e.start is not None and e.start.spec.group == name]
        if group.max_parallel is not None and len(others) >= group.max_parallel:
            self.blame(f"{start.attempt} is one more of {name} than {group.max_parallel} at once")
        if bool(group.slots) != (start.slot >= 0):
            self.blame(f"{start.attempt} of {name} has the place {start.slot} of {len(group.slots)}")
        # What was handed out before its user changed the pool may still begin.
        most = max(self.places.get((name, start.pairs), 0), group.slots.count(start.pairs))
        if group.slots and sum(1 for other in others if other.pairs == start.pairs) >= most:
            self.blame(f"{start.attempt} was begun in the place {start.pairs} of {name}, which is taken")

    def on_ack(self, stored: StoredRun, attempt: str) -> None:
        job = _job_of(stored, attempt)
        if job is None or attempt != attempt_id(stored.run.id, job.number, job.attempt):
            return
        if job.state == RUNNING:
            self.blame(f"{attempt} was acknowledged before its end was committed")
        elif job.fetch == "wanted" and job.number not in self.refetched:
            self.blame(f"{attempt} was acknowledged before its results were home")

    def on_commit(self, stored: StoredRun, changes: Changes, *, by_user: bool = False) -> None:
        """Before `changes` are written over `stored`."""
        for number, new in changes.jobs.items():
            old = stored.jobs.get(number)
            if old is not None and not by_user:
                self._check_step(stored, old, new)
            elif old is not None and old.final and not new.final:
                self.reopened.add(number)
            elif old is not None and old.fetch != new.fetch:
                self.refetched.add(number)
        if changes.run is not None:
            for request in set(changes.run.requests_done) - set(stored.run.requests_done):
                wanted = self.cancels.get(request)
                self.cancelled.update(
                    n for n, job in stored.jobs.items() if job.state == PENDING and (wanted is None or n in wanted)
                )
        for node in changes.nodes.values():
            if node.state == "creating":
                self.intents.add((node.name, node.generation, node.token, node.request))
            elif node.state == "releasing":
                self.releases.add((node.name, node.instance_id))

    def _check_step(self, stored: StoredRun, old: JobRecord, new: JobRecord) -> None:
        if old.final and (new.state, new.attempt, new.exit_code) != (old.state, old.attempt, old.exit_code):
            self.blame(f"job {old.number} was {old.state} and became {new.state}")
        if new.attempt < old.attempt:
            self.blame(f"job {old.number} went back from attempt {old.attempt} to {new.attempt}")
        if new.state == RUNNING and new.attempt > old.attempt and new.spec.stage:
            self._judge_hand_out(stored, new)
        if old.state == RUNNING and (new.state != RUNNING or new.attempt > old.attempt):
            self._check_dead(stored, old)

    def _judge_hand_out(self, stored: StoredRun, new: JobRecord) -> None:
        """No stage is overtaken, and what is in use is given to no other, whatever the pool was before."""
        name = new.spec.group
        slots = next((g.slots for g in stored.run.groups if g.name == name), ())
        if slots:
            pairs = slots[new.slot]
            self.places[name, pairs] = max(self.places.get((name, pairs), 0), slots.count(pairs))
            used = [e for e in self.ledger if e.t1 is None and e.start is not None and e.start.spec.group == name]
            if sum(1 for e in used if e.start is not None and e.start.pairs == pairs) >= slots.count(pairs):
                self.blame(f"job {new.spec.name} was given the place {pairs}, which is taken")
        for other in stored.jobs.values():
            if 0 < other.spec.stage < new.spec.stage and other.state not in FINAL_STATES:
                self.blame(f"job {new.spec.name} was begun before {other.spec.name} of an earlier stage had ended")

    def _check_dead(self, stored: StoredRun, old: JobRecord) -> None:
        attempt = attempt_id(stored.run.id, old.number, old.attempt)
        for execution in self.ledger:
            if execution.attempt == attempt and execution.t1 is None:
                self.blame(f"{attempt} was declared ended while it ran")

    def on_create(self, provider: FakeProvider, intent: tuple[str, int, str, str]) -> None:
        if intent not in self.intents:
            self.blame(f"a machine for {intent[0]} was asked for without an intent")

    def after_create(self, stored: StoredRun, provider: FakeProvider, node: str) -> None:
        generations = [i.generation for i in provider.living(node)]
        if (self.fenced and len(generations) > 1) or len(set(generations)) < len(generations):
            self.blame(f"{node} has two machines")
        planned = sum(1 for n in stored.nodes.values() if not n.stands_in_for)
        serving = [i.instance_id for i in provider.living() if not i.noticed and not i.kept]
        if self.fenced and len(serving) > planned:
            self.blame(f"{len(serving)} machines for {planned} nodes: {', '.join(serving)}")

    def on_terminate(self, stored: StoredRun, provider: FakeProvider, node: str, instance_id: str) -> None:
        instance = provider.instances.get(instance_id)
        if instance is None or not instance.ours:
            self.blame(f"{instance_id!r} was terminated, which we did not create")
        elif (node, instance_id) not in self.releases and not self._is_orphan(stored, instance):
            self.blame(f"{instance_id} was terminated without an intent")

    @staticmethod
    def _is_orphan(stored: StoredRun, instance: FakeInstance) -> bool:
        node = stored.nodes[instance.node]
        return instance.generation < node.generation or node.state in {"wanted", "released", "failed"}

    # ---- at the end ------------------------------------------------------------------------------------------------

    def judge_jobs(
        self,
        stored: StoredRun,
        allowed: Mapping[str, tuple[str, ...]],
        machines: Iterable[FakeMachine],
        homes: Collection[str],
    ) -> None:
        """Every job is accounted for, and the story agrees with the ledger."""
        lost = {attempt for machine in machines for attempt in machine.record_lost}
        ended: dict[int, list[Execution]] = {}
        for execution in self.ledger:
            parsed = parse_attempt_id(execution.attempt)
            if parsed is not None:
                ended.setdefault(parsed[1], []).append(execution)
        for job in stored.jobs.values():
            self._judge_job(stored.run.id, job, ended.get(job.number, []), lost)
            if not job.superseded_by and job.state not in allowed.get(job.spec.name, (SUCCEEDED,)):
                self.blame(f"job {job.spec.name} ended {job.state} ({job.reason})")
            if job.fetch == "wanted":
                self.blame(f"job {job.spec.name}: its results were forgotten")
            if job.fetch == "home" and attempt_id(stored.run.id, job.number, job.attempt) not in homes:
                self.blame(f"job {job.spec.name}: the results at home are not its own")

    def _judge_job(self, run: str, job: JobRecord, executions: list[Execution], lost: set[str]) -> None:
        name = job.spec.name
        newest = attempt_id(run, job.number, job.attempt)
        if job.state not in FINAL_STATES:
            self.blame(f"job {name} was lost: it is still {job.state} on {job.node!r} ({job.reason})")
        elif job.state != SUCCEEDED and not job.reason:
            self.blame(f"job {name} is {job.state} without a reason")
        if job.reason.startswith("exit ") and not any(
            e.attempt == newest and e.status and job.reason == f"exit {e.status.exit_code}" for e in executions
        ):
            self.blame(f"job {name} is said to have ended with {job.reason}, and did not")
        good = [e.attempt for e in executions if e.succeeded and e.attempt not in lost]
        if job.state == SUCCEEDED and not any(e.attempt == newest and e.succeeded for e in executions):
            self.blame(f"job {name} succeeded without an exit record of {newest}")
        if any(attempt != newest for attempt in good) or (good and job.state != SUCCEEDED):
            self.blame(f"job {name} did succeed as {good}, and is {job.state} as {newest}")
        if job.number in self.reopened:
            return
        failures = sum(
            1
            for e in executions
            if e.attempt not in lost
            and e.status
            and not e.succeeded
            and e.status.cause not in {"cancelled", "preempted", *LIFETIMES}
        )
        if failures > 1 + job.spec.retries or (failures > job.spec.retries and job.state == SUCCEEDED):
            self.blame(f"job {name} failed {failures} times with {job.spec.retries} retries")
        losses = max(job.losses, sum(1 for e in executions if e.rebooted and e.attempt not in lost))
        if losses > 1 + job.spec.retries_lost or (losses > job.spec.retries_lost and job.state == SUCCEEDED):
            self.blame(f"job {name} was lost {losses} times with {job.spec.retries_lost} retries")

    def judge_machines(self, stored: StoredRun, providers: Iterable[FakeProvider], done_at: float) -> None:
        """Nothing is left that costs money, and nothing cost much longer than it was of use."""
        for provider in providers:
            for instance in provider.instances.values():
                if not instance.ours:
                    if not instance.alive:
                        self.blame(f"{instance.instance_id} is gone, which we did not create")
                elif instance.ended_at is None:
                    self.blame(f"{instance.instance_id} of {instance.node} was never given back")
                elif instance.ended_at > done_at + IDLE_BOUND:
                    self.blame(f"{instance.instance_id} was billed {instance.ended_at - done_at:.0f} s too long")
        for node in stored.nodes.values():
            if node.state not in {"released", "failed"}:
                self.blame(f"{node.name} was left {node.state}")

    def judge_bill(self, stored: StoredRun, providers: Iterable[FakeProvider]) -> None:
        """What the run says that it pays for is what its machines were there for, as far as lists can tell."""
        for rental in stored.rentals.values():
            if rental.until is None:
                self.blame(f"{rental.instance_id} is paid for without an end")
        for provider in providers:
            for instance in provider.instances.values():
                mine = [r for r in stored.rentals.values() if r.instance_id == instance.instance_id and not r.waiting]
                spans = sorted((r.since, r.until or r.since) for r in mine)
                if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
                    self.blame(f"{instance.instance_id} is paid for twice: {spans}")
                sighted = provider.forget_after is None and not provider.omitted_until and not provider.blind_until
                if instance.ended_at is None or not instance.ours or instance.was_kept or instance.started_again:
                    continue
                if not sighted and len(spans) == 1:
                    continue  # how long it was there cannot be known
                paid = sum(until - since for since, until in spans)
                if abs(paid - (instance.ended_at - instance.created_at)) > provider.list_lag + BILL_TOLERANCE:
                    self.blame(f"{instance.instance_id} was there {instance.created_at}-{instance.ended_at}: {spans}")


def _job_of(stored: StoredRun, attempt: str) -> JobRecord | None:
    parsed = parse_attempt_id(attempt)
    return stored.jobs.get(parsed[1]) if parsed is not None else None

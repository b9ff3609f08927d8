"""A simulated machine and the agent on it, whose memory outlives every maestro. What it executes goes to a ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.model import AttemptStatus, JobSpec, Resources
from cloudsend_cli.core.records import replace

from .timeline import Timeline

KILL_SECONDS = 0.1
LIVE = frozenset({"queued", "running"})


@dataclass(frozen=True, slots=True)
class JobPlan:
    """How an execution goes, if nothing disturbs it."""

    seconds: float = 5.0
    exit_code: int | None = 0
    signal: int | None = None
    cause: str = ""
    missing: tuple[str, ...] = ()
    memory: int = 0  # bytes that it needs: with less it is ended for that


@dataclass(slots=True)
class Execution:
    """One line of the ledger outside the system: this was truly executed, there and then."""

    attempt: str
    name: str
    machine: str
    boot: str
    t0: float
    t1: float | None = None
    status: AttemptStatus | None = None  # how it ended, if it left a record
    rebooted: bool = False  # it ended with the boot
    start: AttemptStart | None = None

    @property
    def succeeded(self) -> bool:
        status = self.status
        return status is not None and status.exit_code == 0 and not status.cause and not status.missing


@dataclass(slots=True)
class Held:
    """What the agent keeps of an attempt, for ever."""

    start: AttemptStart
    status: AttemptStatus
    acked: bool = False
    execution: Execution | None = None


class Listener(Protocol):
    """The far end of a connection."""

    def tell(self, attempt: str) -> None: ...

    def refuse(self, attempt: str, status: AttemptStatus) -> None: ...

    def break_off(self, reason: str) -> None: ...

    def try_again(self) -> None: ...

    def see(self) -> None:
        """The machine says something else of its own end than before."""


class FakeMachine:
    """Executes each attempt at most once, whoever asks and however often; a tombstone outlives everything."""

    def __init__(
        self,
        timeline: Timeline,
        key: str,
        resources: Resources,
        plan: Callable[[AttemptStart], JobPlan],
        ledger: list[Execution],
    ) -> None:
        self.timeline = timeline
        self.key = key
        self.resources = resources
        self.plan = plan
        self.ledger = ledger
        self.boots = 1
        self.on = True
        self.gone = False
        self.partitioned = False
        self.noticed = False  # its end was announced
        self.leaves_as = ""  # ... with this cause of what it ends
        self.lease: float | None = None  # when it ends itself
        self.on_lease_end: Callable[[], None] = lambda: None
        self.attempts: dict[str, Held] = {}
        self.tombstones: dict[str, str] = {}
        self.environments: set[str] = set()
        self.queue: dict[str, None] = {}
        self.running: dict[str, None] = {}
        self.listeners: list[Listener] = []
        self.record_lost: set[str] = set()  # attempts whose record went with the machine or its disk
        self.on_execute: Callable[[FakeMachine, AttemptStart], None] = lambda machine, start: None
        self.on_cancel: Callable[[str], None] = lambda attempt: None
        self.on_ack: Callable[[str], None] = lambda attempt: None

    @property
    def boot(self) -> str:
        return f"{self.key}-boot-{self.boots}"

    @property
    def reachable(self) -> bool:
        return self.on and not self.partitioned

    # ---- requests --------------------------------------------------------------------------------------------------

    def receive_start(self, listener: Listener, boot: str, starts: Sequence[AttemptStart]) -> None:
        for start in starts:
            if self.knows(start.attempt):
                listener.tell(start.attempt)
            elif self.is_buried(start.attempt):
                listener.refuse(start.attempt, AttemptStatus("cancelled", cause="cancelled"))
            elif self.noticed:
                listener.refuse(start.attempt, AttemptStatus("refused", cause="preempted"))
            elif not self.is_boot(boot):
                listener.refuse(start.attempt, AttemptStatus("refused", cause="wrong-boot"))
            else:
                self.attempts[start.attempt] = Held(start, AttemptStatus("queued"))
                self.queue[start.attempt] = None
        self.run_queue()

    def knows(self, attempt: str) -> bool:
        return attempt in self.attempts

    def is_buried(self, attempt: str) -> bool:
        return attempt in self.tombstones

    def is_boot(self, boot: str) -> bool:
        return boot == self.boot

    def receive_cancel(self, listener: Listener, attempts: Sequence[str], cause: str) -> None:
        for attempt in attempts:
            held = self.attempts.get(attempt)
            if held is None:
                self.tombstones.setdefault(attempt, cause)
                self.on_cancel(attempt)
                listener.refuse(attempt, AttemptStatus("cancelled", cause=cause))
            elif held.status.state == "queued":
                self.tombstones.setdefault(attempt, cause)
                self.on_cancel(attempt)
                del self.queue[attempt]
                self._end(attempt, AttemptStatus("cancelled", cause=cause))
            elif held.status.state == "running":
                self._kill_soon(attempt, cause)
            else:
                listener.tell(attempt)

    def receive_revoke(self, attempts: Sequence[str]) -> None:
        for attempt in attempts:
            if attempt in self.queue:
                self.tombstones.setdefault(attempt, "revoked")
                self.on_cancel(attempt)
                del self.queue[attempt]
                self._end(attempt, AttemptStatus("cancelled", cause="revoked"))

    def receive_lease(self, seconds: float | None) -> None:
        self.lease = at = None if seconds is None else self.timeline.now + seconds

        def end() -> None:
            if self.lease == at is not None and self.on:
                self.on_lease_end()

        if seconds is not None:
            self.timeline.after(seconds, end)

    def receive_ack(self, attempts: Sequence[str]) -> None:
        for attempt in attempts:
            held = self.attempts.get(attempt)
            if held is not None and held.status.state not in LIVE:
                self.on_ack(attempt)
                held.acked = True

    def report(self) -> dict[str, AttemptStatus]:
        """All that is not acknowledged."""
        return {attempt: held.status for attempt, held in self.attempts.items() if not held.acked}

    # ---- executing -------------------------------------------------------------------------------------------------

    def run_queue(self) -> None:
        """Start what fits, in the order of arrival."""
        for attempt in list(self.queue):
            if self._has_room(self.attempts[attempt].start.spec):
                del self.queue[attempt]
                self._execute(attempt)

    def _has_room(self, spec: JobSpec) -> bool:
        free, slots = self.resources, set(spec.slots)
        for other in self.running:
            running = self.attempts[other].start.spec
            free = free.minus(running.resources)
            if slots.intersection(running.slots):
                return False
        return spec.resources.fits_in(free)

    def _execute(self, attempt: str) -> None:
        held = self.attempts[attempt]
        self.on_execute(self, held.start)
        now = self.timeline.now
        held.execution = execution = Execution(
            attempt, held.start.spec.name, self.key, self.boot, now, start=held.start
        )
        self.ledger.append(execution)
        held.status = AttemptStatus("running", started=now)
        self.running[attempt] = None
        self._tell(attempt)
        plan = self.plan(held.start)
        seconds, timeout = plan.seconds, held.start.spec.timeout
        status = AttemptStatus("exited", now, None, plan.exit_code, plan.signal, plan.cause, plan.missing)
        if plan.memory > held.start.spec.resources.memory:
            status = AttemptStatus("exited", now, None, None, 9, "oom")
        if timeout is not None and timeout < seconds:
            seconds = timeout
            status = AttemptStatus("exited", now, None, None, 15, "timeout")
        self.timeline.after(seconds, lambda: self._exit(attempt, execution, status))

    def _kill_soon(self, attempt: str, cause: str) -> None:
        execution = self.attempts[attempt].execution
        if execution is not None:
            killed = AttemptStatus("exited", execution.t0, None, None, 15, cause)
            self.timeline.after(KILL_SECONDS, lambda: self._exit(attempt, execution, killed))

    def _exit(self, attempt: str, execution: Execution, status: AttemptStatus) -> None:
        held = self.attempts.get(attempt)
        if held is None or held.execution is not execution or execution.t1 is not None:
            return
        execution.t1 = self.timeline.now
        execution.status = status = replace(status, ended=self.timeline.now)
        self.running.pop(attempt, None)
        if held.start.build and execution.succeeded:
            self.environments.add(held.start.spec.environment)
        self._end(attempt, status)
        self.run_queue()

    def _end(self, attempt: str, status: AttemptStatus) -> None:
        self.attempts[attempt].status = status
        self._tell(attempt)

    def _tell(self, attempt: str) -> None:
        for listener in self.listeners:
            listener.tell(attempt)

    # ---- what happens to machines ----------------------------------------------------------------------------------

    def partition(self) -> None:
        """Nothing passes in either direction; what runs goes on."""
        self.partitioned = True
        self._break_off("no answer")

    def heal(self) -> None:
        self.partitioned = False
        self._invite()

    def notice(self, cause: str = "preempted") -> None:
        """The provider's announcement, or its own: what waits never starts here, and what runs is ended."""
        self.noticed, self.leaves_as = True, cause
        self._show()
        for attempt in list(self.queue):
            self.tombstones.setdefault(attempt, cause)
            del self.queue[attempt]
            self._end(attempt, AttemptStatus("cancelled", cause=cause))
        for attempt in list(self.running):
            self._kill_soon(attempt, cause)

    def withdraw_notice(self) -> None:
        self.noticed, self.leaves_as = False, ""
        self._show()

    def _show(self) -> None:
        for listener in list(self.listeners):
            listener.see()

    def restart_agent(self) -> None:
        """The agent is killed and comes back: jobs go on, connections do not."""
        self._break_off("the agent was restarted")
        self._invite()

    def reboot(self, seconds: float = 5.0) -> None:
        """What ran is proved dead by the new boot id; what waited is stale."""
        if not self.on:
            return
        self._stop_all(rebooted=True)
        for attempt in self.queue:
            self.attempts[attempt].status = AttemptStatus("stale")
        self.queue.clear()
        self.boots += 1
        self.on = False
        self._break_off("connection reset")
        self.timeline.after(seconds, self._come_back)

    def lose_disk(self, seconds: float = 5.0) -> None:
        """The machine comes back empty, under another boot id. Its exclusive claims are gone with its old boot."""
        self.reboot(seconds)
        self.record_lost.update(a for a, held in self.attempts.items() if not held.acked)
        self.attempts.clear()
        self.tombstones.clear()
        self.environments.clear()

    def power_off(self) -> None:
        """The machine is gone with all that it knew."""
        self._stop_all(rebooted=False)
        self.record_lost.update(a for a, held in self.attempts.items() if not held.acked)
        self.on = False
        self.gone = True
        self._break_off("connection timed out")

    def _come_back(self) -> None:
        if not self.gone:
            self.on = True
            self._invite()

    def _stop_all(self, *, rebooted: bool) -> None:
        for attempt in self.running:
            held = self.attempts[attempt]
            if held.execution is not None:
                held.execution.t1 = self.timeline.now
                held.execution.rebooted = rebooted
            held.status = AttemptStatus("lost", held.status.started, cause="lost")
        self.running.clear()

    def _break_off(self, reason: str) -> None:
        for listener in list(self.listeners):
            listener.break_off(reason)

    def _invite(self) -> None:
        for listener in list(self.listeners):
            listener.try_again()

"""The changes that one decision is collecting: an overlay over a state that itself is never touched."""

from __future__ import annotations

from dataclasses import dataclass, field

from .actions import Action, AttemptStart, StartAttempts
from .model import Observation, Policy, Resources
from .naming import attempt_id
from .records import replace
from .state import BuildRecord, Changes, JobRecord, NodeRecord, RentalRecord, RunRecord, RunState


@dataclass(slots=True)
class Draft:
    """Reads see the overlay first. Building it leaves `state` as it was."""

    state: RunState
    seen: Observation
    policy: Policy
    jobs: dict[int, JobRecord] = field(default_factory=dict)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    builds: dict[tuple[str, str], BuildRecord] = field(default_factory=dict)
    rentals: dict[str, RentalRecord] = field(default_factory=dict)
    new_run: RunRecord | None = None
    actions: list[Action] = field(default_factory=list)
    acks: dict[str, list[str]] = field(default_factory=dict)
    cancels: dict[str, list[str]] = field(default_factory=dict)
    revokes: dict[str, list[str]] = field(default_factory=dict)
    starts: dict[str, list[AttemptStart]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)  # nodes of which the user says that they will never answer again
    wake_at: float | None = None

    @property
    def run(self) -> RunRecord:
        return self.new_run or self.state.run

    def job(self, number: int) -> JobRecord | None:
        return self.jobs.get(number) or self.state.jobs.get(number)

    def all_nodes(self) -> list[NodeRecord]:
        return list((self.state.nodes | self.nodes if self.nodes else self.state.nodes).values())

    def usable_nodes(self) -> list[NodeRecord]:
        """Nodes that serve jobs, now or when they have come up."""
        return [n for n in self.all_nodes() if n.state not in {"failed", "released"} and not n.retired]

    def capacity(self, node: NodeRecord) -> Resources:
        """What it says it has, and never more than was declared of it."""
        view = self.seen.hosts.get(node.name)
        told, planned = view.resources if view is not None else None, node.capacity
        if told is None or told == planned:
            return planned
        return Resources(min(told.cpus, planned.cpus), min(told.memory, planned.memory), min(told.gpus, planned.gpus))

    def build(self, node: str, key: str) -> BuildRecord | None:
        return self.builds.get((node, key)) or self.state.builds.get((node, key))

    def all_rentals(self) -> list[RentalRecord]:
        return list((self.state.rentals | self.rentals if self.rentals else self.state.rentals).values())

    def put_rental(self, rental: RentalRecord) -> None:
        self.rentals[rental.id] = rental

    def put_job(self, job: JobRecord) -> None:
        self.jobs[job.number] = job

    def put_node(self, node: NodeRecord) -> None:
        self.nodes[node.name] = node

    def put_build(self, build: BuildRecord) -> None:
        self.builds[build.node, build.key] = build

    def ack(self, node: str, attempt: str) -> None:
        self.acks.setdefault(node, []).append(attempt)

    def cancel(self, node: str, attempt: str) -> None:
        self.cancels.setdefault(node, []).append(attempt)

    def start(self, node: str, start: AttemptStart) -> None:
        self.starts.setdefault(node, []).append(start)

    def start_job(self, job: JobRecord) -> None:
        """Ask for its newest attempt. INVARIANT: one whose place is in its pool no more is never asked for again."""
        spec = replace(job.spec, resources=job.resources) if job.memory else job.spec
        attempt = attempt_id(self.run.id, job.number, job.attempt)
        group = self.state.groups.get(spec.group)
        if job.slot < 0:
            self.start(job.node, AttemptStart(attempt, spec, resume=job.resume))
        elif group is not None and job.slot < len(group.slots):
            pairs = group.slots[job.slot]
            self.start(job.node, AttemptStart(attempt, spec, resume=job.resume, slot=job.slot, pairs=pairs))
        else:
            self.cancel(job.node, attempt)  # it never began, which the host confirms, and is given another place

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def running_jobs(self, node: str) -> list[JobRecord]:
        """Jobs on `node` that the state holds as running and this draft has not ended."""
        found = []
        for number in self.state.on_node.get(node, ()):
            job = self.jobs.get(number) or self.state.jobs[number]
            if job.state == "running" and job.node == node:
                found.append(job)
        return found

    def start_action(self, node: str, boot: str) -> StartAttempts:
        starts = tuple(self.starts[node])
        files = {}
        for start in starts:
            for upload in (*start.spec.uploads, *start.resume):
                files[upload.sha256] = upload
        return StartAttempts(node, boot, starts, tuple(files.values()))

    @property
    def is_changed(self) -> bool:
        return bool(self.new_run or self.jobs or self.nodes or self.builds or self.rentals)

    def changes(self) -> Changes:
        return Changes(self.new_run, self.jobs, self.nodes, self.builds, self.rentals)

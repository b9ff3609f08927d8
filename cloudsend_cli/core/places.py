"""Connected machines while attempts are handed out: what each has, holds, and may hold. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .assignment import pick
from .draft import Draft
from .model import RUNNING, HostView, Resources
from .records import replace
from .renting import is_rented_node
from .state import JobClass, JobRecord, Load, NodeRecord, is_light

NO_LOAD = Load()  # never changed


@dataclass(slots=True)
class Place:
    """A connected node while attempts are handed out."""

    name: str
    view: HostView
    capacity: Resources
    used: Resources
    held: int
    most: int
    light: int = 0  # attempts that take no CPUs, as the pool of their group is their limit; they are not in `held`

    @property
    def free(self) -> Resources:
        return self.capacity.minus(self.used)

    def has_room(self, need: Resources) -> bool:
        """Whether it would be started at once."""
        return need.fits_in(self.free)

    def has_room_beside(self, need: Resources) -> bool:
        """Whether what takes no CPUs would be started at once, however many CPUs are asked for by what waits."""
        return need.fits_in(replace(self.free, cpus=0.0))

    def take(self, job: JobRecord) -> None:
        self._count(job, 1)
        self.used = self.used.plus(job.resources)

    def give_back(self, job: JobRecord) -> None:
        self._count(job, -1)
        self.used = self.used.minus(job.resources)

    def _count(self, job: JobRecord, change: int) -> None:
        if is_light(job):
            self.light += change
        else:
            self.held += change


def list_places(draft: Draft) -> list[Place]:
    freed: dict[str, list[JobRecord]] = {}
    for number, job in draft.jobs.items():
        old = draft.state.jobs[number]
        if old.state == RUNNING and job.state != RUNNING:
            freed.setdefault(old.node, []).append(old)
    places = []
    for node in draft.all_nodes():
        view = draft.seen.hosts.get(node.name)
        if node.state != "running" or node.retired or view is None or not view.connected:
            continue
        if view.full or view.leaving:
            continue
        capacity = draft.capacity(node)
        load = draft.state.load.get(node.name, NO_LOAD)
        held, light, used = load.held, load.light, load.resources
        for old in freed.get(node.name, ()):
            light, held = (light - 1, held) if is_light(old) else (light, held - 1)
            used = used.minus(old.resources)
        most = held + _ahead(draft, capacity, held, used)
        places.append(Place(node.name, view, capacity, used, held, most, light))
    return places


def _ahead(draft: Draft, capacity: Resources, held: int, used: Resources) -> int:
    """How many attempts more than now this host may hold, so that it need not wait for a round trip."""
    per_job = used.cpus / held if held and used.cpus > 0 else 1.0
    running_at_once = max(1.0, capacity.cpus / max(per_job, 0.01))
    target = running_at_once + draft.policy.ahead
    mean = draft.state.mean_duration
    if mean is not None:
        target = max(target, running_at_once * draft.policy.ahead_seconds / max(mean, 0.0005))
    return max(0, int(min(target, running_at_once + draft.policy.ahead_most)) - held)


def best_place(places: list[Place], job: JobRecord, *, spread: bool = False, ahead: bool = True) -> Place | None:
    """Best fit: the place that is left with fewest free GPUs, then CPUs; with `spread` the one that has most of them
    free. When all are full, the shortest queue with room, if it is handed out `ahead`.

    What takes no CPUs would all fit on one machine, and is spread instead.
    """
    need = job.resources
    if is_light(job):
        return min((p for p in places if p.has_room_beside(need)), key=lambda p: p.light, default=None)
    best: Place | None = None
    best_free: tuple[float, float] = (0, 0)
    for place in places:
        if place.held >= place.most:
            continue
        if place.has_room(need):
            room = place.free
            free = (
                (room.gpus - need.gpus, -room.cpus / max(place.capacity.cpus, 0.01))
                if spread
                else (room.gpus, room.cpus)
            )
            if best is None or not best.has_room(need) or free < best_free:
                best, best_free = place, free
        elif ahead and (best is None or (not best.has_room(need) and place.held < best.held)):
            best = place
    return best


def keep_drawn(draft: Draft, seed: str, job_class: JobClass, places: list[Place]) -> list[Place]:
    """With `assign: random`: of the places the one that was drawn for these jobs, none while it is not there yet.

    It is drawn among the machines of the run that could hold them, whether they are up or not, so that the same seed
    gives the same places whichever of them answers first. What is silent for long, or gone, is drawn for no more.
    """
    names = [node.name for node in draft.usable_nodes() if _is_drawn(draft, node, job_class)]
    picked = pick(seed, job_class.draw, names)
    return [place for place in places if place.name == picked]


def _is_drawn(draft: Draft, node: NodeRecord, job_class: JobClass) -> bool:
    if not job_class.resources.fits_in(draft.capacity(node)) or (node.state == "wanted" and is_rented_node(node)):
        return False
    build = draft.build(node.name, job_class.environment)
    if build is not None and build.state == "failed":
        return False
    view = draft.seen.hosts.get(node.name)
    if view is None:
        return True
    if view.connected:
        return not (view.full or view.leaving)
    return draft.seen.now - view.since < draft.policy.silence_limit

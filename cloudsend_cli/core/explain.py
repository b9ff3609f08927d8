"""Why a job is where it is, and what to call that: the same facts that `decide` reads, in user words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .explain_machines import NOT_NEEDED, describe_number, list_unasked
from .giving_up import describe_giving_up
from .losses import Earlier, describe_losses, describe_results
from .model import CANCELLED, FAILED, PENDING, RUNNING, SUCCEEDED, HostView, JobGroup, Resources, Slot, list_known
from .naming import job_id
from .offers import choose_offer, next_chance
from .pools import read_delay
from .silence import REFUSED, describe_silence, way_out
from .state import RESUME, JobRecord, NodeRecord, Pool, RunState, is_light

# The seeds' state words with their values, and when each is shown. The only table of this; docs/states.md is made
# from it.
PHASES: dict[str, tuple[int, str]] = {
    "UNKNOWN": (0, "no answer from the host now, or no such process"),
    "WAIT": (1, "its instance or environment is not ready yet"),
    "QUEUE": (2, "ready, waiting for a free place"),
    "IDLE": (4, "handed to the agent, about to start"),
    "RUNNING": (8, "executing"),
    "DONE": (16, "succeeded"),
    "ABORTED": (32, "failed or cancelled, with the reason"),
}


SHOWN_MOST = 5  # names in one message
NO_ROOM = "its disk is full"
LEAVING = "its provider is taking it back"


def describe(resources: Resources) -> str:
    """Such as `4 CPUs, 16.0 GiB, 1 GPU`; parts of a machine that are not known are left out."""
    known = list_known(resources)
    parts = [f"{resources.cpus:g} CPU{'' if resources.cpus == 1 else 's'}"] if "cpus" in known else []
    if known.get("memory"):
        parts.append(describe_bytes(resources.memory))
    if known.get("gpus"):
        parts.append(f"{resources.gpus} GPU{'' if resources.gpus == 1 else 's'}")
    return ", ".join(parts)


def describe_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def phase_word(state: str, *, started: bool, connected: bool | None, ready: bool) -> str:
    """The seeds' word for a job's state now. `connected` None: nobody asked its host, so stored facts are shown."""
    if state == SUCCEEDED:
        return "DONE"
    if state in {FAILED, CANCELLED}:
        return "ABORTED"
    if state == RUNNING:
        if connected is False:
            return "UNKNOWN"
        return "RUNNING" if started else "IDLE"
    return "QUEUE" if ready else "WAIT"


def environment_is_ready(state: RunState, key: str) -> bool:
    """Whether a machine is there on which jobs with this environment could start."""
    running = [n.name for n in _serving(state) if n.state == "running"]
    if not key:
        return bool(running)
    return any((b := state.builds.get((name, key))) is not None and b.state == SUCCEEDED for name in running)


_SILENCE_ENDS_NOTHING = (
    "silence ends nothing: the job may be running, and is watched again when its machine answers; "
    "if it never will, `cloudsend terminate instance {node} --gone` says so"
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is not running, with what it asks for and what each node has."""

    headline: str
    reasons: tuple[str, ...]
    asks: str
    nodes: tuple[tuple[str, str, str, str], ...]  # name, has, free, remark


def explain(
    state: RunState,
    job: JobRecord,
    views: Mapping[str, HostView],
    now: float,
    others: Mapping[str, int] | None = None,
    *,
    earlier: Iterable[Earlier] = (),
) -> Explanation:
    """Reads what decide reads, so that the answer is the true one.

    `others`: by node, how many jobs of other runs its machine executes; the figures are those of this run alone.
    `earlier`: the job's attempts before the newest.
    """
    found = _explain_state(state, job, views, now, others)
    attempts = [*earlier, Earlier(job.attempt, job.node, job.reason)] if job.final else earlier
    more = (*describe_results(job, job_id(state.run.id, job.number)), *describe_losses(attempts))
    if job.superseded_by > 0:
        more += (f"superseded: {job_id(state.run.id, job.superseded_by)} has its name now, with other content",)
    elif job.superseded_by:
        more += ("superseded: it is no longer in the config",)
    return replace(found, reasons=(*found.reasons, *more))


def _explain_state(
    state: RunState, job: JobRecord, views: Mapping[str, HostView], now: float, others: Mapping[str, int] | None
) -> Explanation:
    asks = describe(job.resources)
    if job.memory:
        asks += f" (grown from {describe_bytes(job.spec.resources.memory)}, which was too little)"
    if job.spec.environment:
        environment = state.environments.get(job.spec.environment)
        asks += f", environment {environment.name if environment else job.spec.environment}"
    shown = [n for n in state.nodes.values() if not (n.retired and n.state == "released")]
    unasked = list_unasked(state, views, now)
    remarks = {n.name: _describe_node(state, n, now) for n in shown if n.state != "running"}
    remarks.update((n.name, NOT_NEEDED) for n in unasked)
    nodes = tuple(
        _explain_node(state, job, name, views.get(name), remarks.get(name, ""), (others or {}).get(name, 0))
        for name in (n.name for n in shown)
    )
    if job.state == PENDING:
        reasons = tuple(_why_pending(state, job, views, now, unasked))
        return Explanation("waiting", reasons or ("it is next: a place will be given at the next look",), asks, nodes)
    if job.state == RUNNING:
        view = views.get(job.node)
        if view is not None and not view.connected:
            reasons = (f"{job.node}: {describe_silence(job.node, view)}", _SILENCE_ENDS_NOTHING.format(node=job.node))
            return Explanation("unknown", reasons, asks, nodes)
        if job.started_at is None:
            held = view.vitals.held if view is not None else ""
            waits = f"in the queue of {job.node}, which starts it in turn"
            why = [*_list_slots_in_use(state, job), *([f"{job.node}: {held}"] if held else [])]
            return Explanation("handed over", (waits, *why), asks, nodes)
        place = _describe_place(state, job)
        where = f"attempt {job.attempt} on {job.node}" + (f", with {place}" if place else "")
        return Explanation("running", (where,), asks, nodes)
    reason = job.reason or "it ended well"
    return Explanation(job.state, (reason,), asks, nodes)


def _list_slots_in_use(state: RunState, job: JobRecord) -> Iterator[str]:
    """Of the named slots that it asks for, those that others of its run have on its machine."""
    others = [state.jobs[n] for n in state.on_node.get(job.node, ()) if state.jobs[n].started_at is not None]
    for slot in job.spec.slots:
        holder = next((j for j in others if slot in j.spec.slots), None)
        if holder is not None:
            yield f"its slot {slot!r} of {job.node} is in use by {holder.spec.name}"


def _serving(state: RunState) -> list[NodeRecord]:
    return [n for n in state.nodes.values() if not n.retired]


def _why_pending(
    state: RunState, job: JobRecord, views: Mapping[str, HostView], now: float, unasked: list[NodeRecord]
) -> list[str]:
    reasons = [*_why_not_yet(state, job)]
    if job.fetch == RESUME:
        left = max(0.0, job.not_before - now)
        reasons.append(f"what it goes on from is brought from {job.node}, for at most {left:.0f} s more")
    elif job.not_before > now:
        reasons.append(f"{job.reason or 'retry'}: not before {job.not_before - now:.0f} s from now")
    full = [name for name in state.nodes if (v := views.get(name)) is not None and v.connected and v.full]
    reasons.extend(f"{name}: {NO_ROOM}, and nothing is handed to it for a while" for name in full)
    if not any(n.state == "running" for n in _serving(state)):
        awaited = [n for n in _serving(state) if n not in unasked]
        reasons.extend(f"{n.name} is {_describe_node(state, n, now)}" for n in awaited)
    limit = state.run.max_parallel
    if limit == 0:
        reasons.append("this run was rebuilt from its machines: run its config again to start what is left")
    elif limit is not None and state.counts.get(RUNNING, 0) >= limit:
        reasons.append(f"max_parallel is {limit}, and so many are running")
    if (group := state.groups.get(job.spec.group)) is not None:
        reasons.extend(_why_no_slot(state, group, now))
    key = job.spec.environment
    if key:
        for build in state.builds.values():
            if build.key == key and build.state != SUCCEEDED:
                text = f"its environment is not ready on {build.node}: {build.state}"
                reasons.append(text + (f" ({build.reason})" if build.reason else ""))
    return reasons or _why_no_place(state, job, views, describe_number(state, unasked, now))


def _why_not_yet(state: RunState, job: JobRecord) -> Iterator[str]:
    """What comes before it: other jobs, or the sections before its own."""
    jobs = state.jobs
    waiting = [jobs[d] for d in job.after if d in jobs and jobs[d].state != SUCCEEDED]
    if waiting:
        yield f"waits for {len(waiting)} of {len(job.after)} jobs before it: {_name_some(waiting)}"
    going = [jobs[d] for d in job.after_any if d in jobs and not jobs[d].final]
    if going:
        yield f"waits for the end, good or bad, of {len(going)} of {len(job.after_any)} jobs: {_name_some(going)}"
    if state.is_gated(job):
        stage = state.stages.begun
        left = [j for j in jobs.values() if j.spec.stage == stage and not j.final]
        name = left[0].spec.group
        section = state.groups.get(name, JobGroup(name)).section or name.partition("/")[0] or str(stage)
        verb = "job of it has" if len(left) == 1 else "jobs of it have"
        yield f"waits for section {section}: {len(left)} {verb} not ended"


def _name_some(jobs: Sequence[JobRecord]) -> str:
    names = ", ".join(j.spec.name for j in jobs[:SHOWN_MOST])
    return names + (f" and {len(jobs) - SHOWN_MOST} more" if len(jobs) > SHOWN_MOST else "")


def _why_no_slot(state: RunState, group: JobGroup, now: float) -> Iterator[str]:
    pool = state.pools.get(group.name, Pool())
    left = state.opened_last + read_delay(state.run.settings) - now
    if left > 0 and pool.lowest_free < len(group.slots) and (group.name, pool.lowest_free) not in state.opened:
        yield f"a place of group {group.name} begins `delay` after the one before it: {left:.0f} s from now"
    if group.max_parallel is not None and pool.running >= group.max_parallel:
        yield f"max_parallel of group {group.name} is {group.max_parallel}, and so many are running"
    if group.slots and pool.lowest_free >= len(group.slots):
        handed = (state.jobs[n] for numbers in state.on_node.values() for n in numbers)
        holders = sorted((j for j in handed if j.spec.group == group.name), key=lambda j: j.slot)
        told = ", ".join(_describe_holder(state, j) for j in holders[:SHOWN_MOST])
        more = f" and {len(holders) - SHOWN_MOST} more" if len(holders) > SHOWN_MOST else ""
        places = "the only place" if len(group.slots) == 1 else f"all {len(group.slots)} places"
        yield f"{places} of group {group.name} {'is' if len(group.slots) == 1 else 'are'} taken: {told}{more}"


def _describe_holder(state: RunState, job: JobRecord) -> str:
    pairs = _describe_place(state, job)
    return f"{job.spec.name} has {pairs}" if pairs else job.spec.name


def _describe_place(state: RunState, job: JobRecord) -> str:
    group = state.groups.get(job.spec.group)
    return describe_slot(group.slots[job.slot]) if group and 0 <= job.slot < len(group.slots) else ""


def describe_slot(slot: Slot) -> str:
    """Such as `--machine 0 --gpu 1`."""
    return " ".join(f"{name} {value}".strip() for name, value in slot)


def _why_no_place(state: RunState, job: JobRecord, views: Mapping[str, HostView], number: Iterable[str]) -> list[str]:
    running = [n.name for n in _serving(state) if n.state == "running"]
    silent = [name for name in running if (v := views.get(name)) is not None and not v.connected]
    if silent and len(silent) == len(running):
        return [f"{name}: {_describe_silent(state, name, views[name])}" for name in silent]
    ahead = sum(1 for n in state.ready.get(state.class_of(job), {}) if n < job.number)
    return [f"all places are taken; {ahead} jobs of its kind are before it", *number]


def _describe_node(state: RunState, node: NodeRecord, now: float) -> str:
    text = node.state + (f": {node.reason}" if node.reason else "")
    if node.state == "wanted" and choose_offer(node, state.run.shortages, now) is None:
        later = next_chance(node, state.run.shortages, now) - now
        text += f"; nothing that it could be is to be had now: asked again in {later:.0f} s"
    return f"{text}; {way_out(node.name)}" if node.reason.startswith(REFUSED) else text


def _describe_silent(state: RunState, name: str, view: HostView) -> str:
    return describe_silence(name, view) + describe_giving_up(state, state.nodes[name], view)


def _describe_leaving(view: HostView | None) -> str:
    return f"it ends itself soon, as `{view.outlives}` says" if view is not None and view.outlives else LEAVING


def _explain_node(
    state: RunState, job: JobRecord, name: str, view: HostView | None, remark: str, others: int
) -> tuple[str, str, str, str]:
    node = state.nodes[name]
    capacity = (view.resources if view is not None else None) or node.capacity
    load = state.load.get(name)
    free = capacity.minus(load.resources) if load else capacity
    told = view.vitals.free if view is not None and view.connected else None
    if told is not None:  # others use it, too
        free = Resources(min(free.cpus, told.cpus), min(free.memory, told.memory), min(free.gpus, told.gpus))
    if node.state != "running":
        pass
    elif view is not None and not view.connected:
        remark = _describe_silent(state, name, view)
    elif node.retired or (view is not None and view.leaving):
        remark = node.reason or _describe_leaving(view)
    elif view is not None and view.full:
        remark = NO_ROOM
    elif view is not None and view.vitals.held:
        remark = view.vitals.held
    elif not job.resources.fits_in(capacity):
        remark = "too small"
    elif not job.resources.fits_in(replace(free, cpus=max(0.0, free.cpus)) if is_light(job) else free):
        remark = "full"
    else:
        remark = "has room"
    if others:
        remark += f"; it executes {others} job{'' if others == 1 else 's'} of other runs"
    shown = Resources(max(0.0, free.cpus), max(0, free.memory), max(0, free.gpus))
    return (name, describe(capacity), describe(shown), remark)

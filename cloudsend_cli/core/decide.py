"""The heart: compare what is wanted with what is seen and ask for the difference. Pure.

`decide` reads a state and an observation and returns the records that change and the actions that follow. It never
touches its arguments. The caller commits the changes first and executes the actions after that: intent before effect.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from .actions import (
    AckAttempts,
    Action,
    CancelAttempts,
    FetchOutputs,
    FetchResume,
    RevokeAttempts,
)
from .assignment import FASTEST, rank_of, read_assign
from .decide_balance import take_back
from .decide_builds import build_failed_everywhere, end_builds, environment_ready, take_builds
from .decide_jobs import fail_doomed, go_on_without, is_coming_home, take_attempts, take_requests
from .decide_money import is_paying, keep_budget, take_rentals
from .decide_nodes import list_orphans, take_nodes
from .demand import may_serve
from .draft import Draft
from .empty_machines import plan_shares, take_share
from .explain import describe
from .growth import shrink
from .metrics import Metrics
from .model import FAILED, PENDING, RUNNING, Observation, Policy, Resources
from .naming import attempt_id, parse_attempt_id
from .places import Place, best_place, keep_drawn, list_places
from .pools import Rooms
from .records import replace
from .silence import DENIED
from .state import FETCHED, RESUME, Changes, JobClass, JobRecord, RunState

REASONS_MOST = 3


@dataclass(frozen=True, slots=True)
class Decision:
    """`changes` are to be committed, then `actions` executed in order. `wake_at`: look again then, news or not."""

    changes: Changes
    actions: tuple[Action, ...]
    wake_at: float | None
    done: bool  # nothing is left to do for this run


def decide(state: RunState, seen: Observation, policy: Policy) -> Decision:
    """Equal arguments give equal decisions; work is in proportion to the news and the hand-outs, not to the jobs."""
    draft = Draft(state, seen, policy)
    take_requests(draft)
    take_attempts(draft)
    take_builds(draft)
    take_rentals(draft)
    keep_budget(draft)
    fail_doomed(draft)
    _take_fetches(draft)
    unsettled = _unsettled(draft)
    if not unsettled:
        end_builds(draft)
    take_nodes(draft, wanted=unsettled)
    if unsettled:
        _fail_without_nodes(draft)
        _hand_out(draft)
    unsettled = _unsettled(draft)
    _end_run(draft, unsettled=unsettled)
    done = not unsettled and _is_done(draft)
    return Decision(draft.changes(), tuple(_ordered_actions(draft)), _wake_at(draft), done)


def _unsettled(draft: Draft) -> bool:
    """Whether any job needs a machine, with this draft's changes counted."""
    open_jobs = draft.state.unfinished
    to_fetch = len(draft.state.to_fetch)
    for number, new in draft.jobs.items():
        old = draft.state.jobs[number]
        open_jobs += (not new.final) - (not old.final)
        to_fetch += (new.fetch in FETCHED) - (old.fetch in FETCHED)
    return open_jobs > 0 or to_fetch > 0


# ---- handing out ---------------------------------------------------------------------------------------------------


Choose = Callable[[list[Place], JobRecord], Place | None]


def _hand_out(draft: Draft) -> None:
    places = list_places(draft)
    if places:
        _fill(draft, places)
        take_back(draft, places)
        return
    for job_class in list(draft.state.ready):
        _end_hopeless(draft, job_class, places)


def _fill(draft: Draft, places: list[Place]) -> None:
    if not draft.state.ready:
        return
    room = draft.policy.hand_out_most
    if draft.run.max_parallel is not None:
        room = min(room, draft.run.max_parallel - _count_running(draft))
    rooms = Rooms(draft)
    servable: dict[JobClass, list[Place]] = {}
    for job_class in list(draft.state.ready):
        found = _places_for(draft, job_class, places) if rooms.has_room(job_class.group) else []
        if found and draft.state.seed is not None:
            found = keep_drawn(draft, draft.state.seed, job_class, found)
        if found:
            servable[job_class] = found
    spread = read_assign(draft.run.settings) == FASTEST
    shares = plan_shares(draft, places) if draft.state.seed is None and not spread else None
    if shares:
        room = _fill_round(draft, dict(servable), rooms, room, partial(take_share, shares))
    # Where jobs are counted, what would wait in a machine's queue takes the place of none that could start at once.
    turns = (False,) if shares is not None else (True,) if draft.run.max_parallel is None else (False, True)
    for ahead in turns:
        room = _fill_round(draft, dict(servable), rooms, room, partial(best_place, spread=spread, ahead=ahead))


def _fill_round(draft: Draft, servable: dict[JobClass, list[Place]], rooms: Rooms, room: int, choose: Choose) -> int:
    """How many more may be handed out after this."""
    for number, job_class in _in_order(draft.state, servable) if room > 0 else ():
        job = draft.state.jobs[number]
        if number in draft.jobs:
            continue  # it ended, or was handed out, in this very decision
        found = servable[job_class] if rooms.has_room(job_class.group) else []
        place = choose(found, job)
        if place is None:
            del servable[job_class]
            continue
        _hand_to(draft, job, place, rooms.take(job_class.group))
        room -= 1
        if room == 0:
            break
    return room


def _count_running(draft: Draft) -> int:
    """Attempts that are handed out, with this draft's ends counted."""
    count = draft.state.counts.get(RUNNING, 0)
    for number, job in draft.jobs.items():
        count += (job.state == RUNNING) - (draft.state.jobs[number].state == RUNNING)
    return count


def _places_for(draft: Draft, job_class: JobClass, places: list[Place]) -> list[Place]:
    """The places where jobs of this class may go now; ends the class where no place ever can serve it."""
    key, resources = job_class.environment, job_class.resources
    fitting = [p for p in places if resources.fits_in(p.capacity)]
    if not fitting:
        _end_hopeless(draft, job_class, places)
    elif key:
        fitting = [p for p in fitting if environment_ready(draft, p.name, key, p.view)]
        if not fitting and (reason := build_failed_everywhere(draft, key, resources)) is not None:
            _fail_class(draft, job_class, f"environment-failed: {reason}")
    return fitting


def _end_hopeless(draft: Draft, job_class: JobClass, places: list[Place]) -> None:
    """INVARIANT: no machine that is there could hold it. Nor could any that is still to come, or to be asked for."""
    there = {place.name for place in places}
    others = [node for node in draft.usable_nodes() if node.name not in there]
    if any(node.state != "wanted" or may_serve(node, job_class.resources) for node in others):
        return
    capacities = [place.capacity for place in places] + [draft.capacity(node) for node in others]
    if capacities:
        _shrink_class(draft, job_class, capacities)
        _fail_class(draft, job_class, f"no-capacity: {_why_none_fits(draft, job_class.resources, capacities)}")


def _why_none_fits(draft: Draft, resources: Resources, capacities: list[Resources]) -> str:
    """Of machines that were to have enough it is told why they are left out."""
    largest = max(capacities, key=lambda c: (c.cpus, c.memory, c.gpus))
    left_out = [n for n in draft.all_nodes() if n.state == "failed" and resources.fits_in(n.capacity)]
    reasons = [f"{n.name}: {n.reason}" for n in left_out[:REASONS_MOST]]
    return "; ".join([f"{describe(resources)} asked, the largest has {describe(largest)}", *reasons])


def _shrink_class(draft: Draft, job_class: JobClass, capacities: list[Resources]) -> None:
    """What was given more after it had had too little is not failed for that by the loss of the largest machine."""
    for number in draft.state.ready[job_class]:
        if number not in draft.jobs and (smaller := shrink(draft.state.jobs[number], capacities)) is not None:
            draft.put_job(smaller)


def _fail_class(draft: Draft, job_class: JobClass, reason: str) -> None:
    for number in draft.state.ready[job_class]:
        job = draft.job(number)
        if job is not None and job.state == PENDING and job.memory == draft.state.jobs[number].memory:
            draft.put_job(replace(job, state=FAILED, reason=reason, ended_at=draft.seen.now))


def _in_order(state: RunState, servable: dict[JobClass, list[Place]]) -> Iterator[tuple[int, JobClass]]:
    """Ready jobs, the most work first, and of the same work low numbers first.

    Longest first keeps the end short: at most 4/3 of the least on equal places, where any order has up to twice that
    (Graham, "Bounds on multiprocessing timing anomalies", 1969). Jobs of several CPUs count as so much more work: they
    find no room at the end. Durations are those of earlier runs.
    A class that leaves `servable` meanwhile is looked at no further: what waits behind full places costs nothing.
    """
    heads: list[tuple[int, int, int, JobClass, Iterator[int]]] = []
    for index, job_class in enumerate(servable):
        waiting = iter(state.ready[job_class])
        heads.append((rank_of(job_class.size), next(waiting), index, job_class, waiting))
    heapq.heapify(heads)
    while heads:
        rank, number, index, job_class, waiting = heads[0]
        yield number, job_class
        following = next(waiting, None) if job_class in servable else None
        if following is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (rank, following, index, job_class, waiting))


def _hand_to(draft: Draft, job: JobRecord, place: Place, slot: int) -> None:
    job = replace(
        job,
        state=RUNNING,
        reason="",
        exit_code=None,
        attempt=job.attempt + 1,
        node=place.name,
        boot=place.view.boot,
        not_before=0.0,
        handed_at=draft.seen.now,
        started_at=None,
        ended_at=None,
        fetch="",
        slot=slot,
        metrics=(),
    )
    draft.put_job(job)
    draft.start_job(job)
    place.take(job)


def _fail_without_nodes(draft: Draft) -> None:
    """With no node left that could serve, what still waits can never run."""
    if not draft.usable_nodes():
        failed = [n for n in draft.all_nodes() if n.state == "failed"]
        kind, reasons = "no-capacity", [f"{n.name}: {n.reason}" for n in failed]
        if failed and all(n.reason.startswith(DENIED) for n in failed):
            # The machines of a run are mostly denied for one and the same reason.
            kind, reasons = DENIED, list(dict.fromkeys(n.reason.removeprefix(f"{DENIED}: ") for n in failed))
        why = "; ".join(reasons[:REASONS_MOST]) or "no machine is planned"
        for job_class in list(draft.state.ready):
            _fail_class(draft, job_class, f"{kind}: {why}")


# ---- results and the end -------------------------------------------------------------------------------------------


def _take_fetches(draft: Draft) -> None:
    for attempt, problem in draft.seen.fetched.items():
        parsed = parse_attempt_id(attempt)
        job = draft.job(parsed[1]) if parsed is not None else None
        # What a fetch of an earlier attempt brought is not what the newest one left.
        if job is None or attempt_id(draft.run.id, job.number, job.attempt) != attempt:
            continue
        job = _take_metrics(draft, job, draft.seen.metrics.get(attempt))
        if job.fetch in FETCHED:
            _take_fetch(draft, job, attempt, problem)
        if not is_coming_home(draft, attempt):
            draft.ack(job.node, attempt)
    for number in draft.state.to_fetch:
        job = draft.job(number)
        if job is not None and job.fetch == RESUME:
            draft.wake(job.not_before)
            if job.not_before <= draft.seen.now:
                draft.put_job(go_on_without(job))


def _take_metrics(draft: Draft, job: JobRecord, metrics: Metrics | None) -> JobRecord:
    """What its newest attempt reported in a log that came home later than its end."""
    if metrics is None or metrics == job.metrics:
        return job
    job = replace(job, metrics=metrics)
    draft.put_job(job)
    return job


def _take_fetch(draft: Draft, job: JobRecord, attempt: str, problem: str) -> None:
    tries = job.fetch_tries + 1
    if job.fetch == RESUME:
        _take_resume(draft, replace(job, fetch_tries=tries), attempt, problem)
    elif not problem:
        draft.put_job(replace(job, fetch="home", fetch_tries=tries))
    elif tries >= draft.policy.fetch_tries:
        draft.put_job(replace(job, fetch=f"failed: {problem}", fetch_tries=tries))
    else:
        later = draft.seen.now + draft.policy.retry_delay * 2 ** (tries - 1)
        draft.put_job(replace(job, fetch_tries=tries, not_before=later))


def _take_resume(draft: Draft, job: JobRecord, attempt: str, problem: str) -> None:
    """What an attempt left is given to the next one; without it, what an earlier one left, or nothing."""
    if not problem:
        left = draft.seen.persisted.get(attempt, ())
        draft.put_job(replace(go_on_without(job), resume=left or job.resume))
    elif job.fetch_tries >= draft.policy.fetch_tries:
        draft.put_job(go_on_without(job))
    else:
        draft.put_job(job)


def _fetch_actions(draft: Draft) -> Iterator[FetchOutputs | FetchResume]:
    numbers = dict.fromkeys(draft.state.to_fetch)
    numbers.update(dict.fromkeys(draft.jobs))
    for number in numbers:
        job = draft.job(number)
        if job is None or job.fetch not in FETCHED:
            continue
        if job.fetch == "wanted" and job.not_before > draft.seen.now:
            draft.wake(job.not_before)
            continue
        attempt = attempt_id(draft.run.id, number, job.attempt)
        view = draft.seen.hosts.get(job.node)
        if view is None or not view.connected or attempt in draft.seen.fetching:
            continue
        if job.fetch == RESUME:
            yield FetchResume(job.node, attempt, job.spec.persist)
        else:
            patterns = tuple(o.pattern for o in job.spec.outputs)
            yield FetchOutputs(job.node, attempt, patterns, job.spec.name)


def _end_run(draft: Draft, *, unsettled: bool) -> None:
    if not unsettled and draft.run.ended_at is None:
        draft.new_run = replace(draft.run, ended_at=draft.seen.now)
    elif unsettled and draft.run.ended_at is not None:
        draft.new_run = replace(draft.run, ended_at=None)


def _is_done(draft: Draft) -> bool:
    """Whether nothing is left of what a settled run had."""
    if any(n.state not in {"released", "failed"} for n in draft.all_nodes()):
        return False
    return next(list_orphans(draft), None) is None and not is_paying(draft)


def _ordered_actions(draft: Draft) -> Iterator[Action]:
    """Acknowledgements and cancels before starts: a host hears of ends before it is given more."""
    for node, attempts in draft.acks.items():
        yield AckAttempts(node, tuple(dict.fromkeys(attempts)))
    for node, attempts in draft.cancels.items():
        yield CancelAttempts(node, tuple(attempts))
    for node, attempts in draft.revokes.items():
        yield RevokeAttempts(node, tuple(attempts))
    fetches = list(_fetch_actions(draft))
    yield from (a for a in draft.actions)
    for node in draft.starts:
        view = draft.seen.hosts[node]
        yield draft.start_action(node, view.boot)
    yield from fetches


def _wake_at(draft: Draft) -> float | None:
    """After a change, now: its consequences are decided until nothing changes, and only then does the run sleep."""
    if draft.is_changed:
        return draft.seen.now
    if draft.state.delayed:
        draft.wake(draft.state.delayed[0][0])
    if is_paying(draft):
        draft.wake(draft.seen.now + draft.policy.look_idle)
    return draft.wake_at

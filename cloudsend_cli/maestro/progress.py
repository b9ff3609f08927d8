"""What a maestro tells those who follow a run. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from cloudsend_cli.core.explain import NO_ROOM
from cloudsend_cli.core.explain_machines import list_unasked
from cloudsend_cli.core.giving_up import describe_giving_up
from cloudsend_cli.core.model import FAILED, RUNNING, HostView, Offer
from cloudsend_cli.core.naming import job_id, list_call
from cloudsend_cli.core.offers import choose_offer, current_offer, list_offers
from cloudsend_cli.core.renting import is_rented_node
from cloudsend_cli.core.silence import REFUSED, describe_silence, way_out
from cloudsend_cli.core.state import Changes, NodeRecord, RunState
from cloudsend_cli.core.views import live_counts, run_state_word

from .sockets import Message

SHOWN = 10
PREEMPTED = "preempted"


class RecentFailures:
    """The newest bad ends of a run, gathered from its commits so that no message scans all jobs."""

    def __init__(self, state: RunState) -> None:
        bad = [j for j in state.live_jobs() if j.state == FAILED]
        self._newest = deque(bad, maxlen=SHOWN)

    def take(self, changes: Changes) -> None:
        self._newest.extend(j for j in changes.jobs.values() if j.state == FAILED and not j.superseded_by)

    def render(self, run: str) -> list[dict[str, str]]:
        newest = {j.number: j for j in self._newest}
        return [{"id": job_id(run, j.number), "name": j.spec.name, "reason": j.reason} for j in newest.values()]


class Tables(Protocol):
    """How far the tables of a run are that has settled."""

    problem: str

    @property
    def holds(self) -> bool: ...


def render_progress(
    state: RunState,
    views: Mapping[str, HostView],
    troubles: Mapping[str, str],
    failures: RecentFailures,
    sequence: int,
    tables: Tables | None = None,
) -> Message:
    """A moment of the run; its size does not grow with the number of jobs."""
    counts = live_counts(state)
    # No host holds more than a bounded number of attempts, so this does not grow with the run.
    handed_out = (state.jobs[number] for jobs in state.on_node.values() for number in jobs)
    executing = [job.spec.name for job in handed_out if job.started_at is not None]
    return {
        "run": state.run.id,
        "state": run_state_word(counts),
        "counts": counts,
        "running": executing[:SHOWN],
        "failed": failures.render(state.run.id),
        "notes": _list_troubles(state, troubles)
        + _notes(state, views)
        + ([tables.problem] if tables and tables.problem else []),
        "settled": state.settled and not (tables and tables.holds),
        "sequence": sequence,
        "executing": len(executing),
        "rentals": [[r.price, r.since, r.until, r.least] for r in state.rentals.values()],
    }


def _list_troubles(state: RunState, troubles: Mapping[str, str]) -> list[str]:
    """What providers answer instead of a list of machines, and instead of taking one back: that one costs money."""
    providers = dict.fromkeys(node.provider for node in state.nodes.values())
    blind = [f"{name}: {told}" for name in providers if (told := troubles.get(list_call(name)))]
    nodes = [node for node in state.nodes.values() if node.state in {"releasing", "keeping"}]
    stuck = [f"{node.name} is not given back yet: {node.trouble}" for node in nodes if node.trouble]
    return blind + stuck


def _notes(state: RunState, views: Mapping[str, HostView]) -> list[str]:
    """What is in the way comes first: a terminal shows a few of them."""
    notes = [f"{state.run.stopped}: what has not started is given up"] if state.run.stopped else []
    notes += [note for node in state.nodes.values() if (note := _trouble(state, node, views.get(node.name)))]
    for build in state.builds.values():
        if build.state == RUNNING:
            environment = state.environments.get(build.key)
            notes.append(
                f"environment {environment.name if environment else build.key} is being built on {build.node}"
            )
    notes += _awaited(state, views)
    if state.to_fetch:
        jobs = "1 job" if len(state.to_fetch) == 1 else f"{len(state.to_fetch):,} jobs"
        notes.append(f"results of {jobs} are on the way home")
    return notes


def _awaited(state: RunState, views: Mapping[str, HostView]) -> list[str]:
    """Machines that are not there yet: those that something is wrong with, else those that could not be had as was
    wished, else how many. Those that nothing needs now are not awaited."""
    resting = {node.name for node in list_unasked(state, views, 0.0)}
    nodes = [node for node in state.nodes.values() if node.name not in resting]
    awaited = [node for node in nodes if node.state in {"wanted", "creating"}]
    if len(awaited) == 1 or not any(is_rented_node(node) for node in awaited):
        return [
            _fallback(node, state) or f"{node.name} is on its way" + (f": {node.reason}" if node.reason else "")
            for node in awaited
        ]
    notes = [note for node in awaited if (note := _fallback(node, state))]
    # What was short is told by what is tried instead.
    reasons = [
        n for n in awaited if n.reason and not _fallback(n, state) and not (n.offers[1:] and _is_short(n, state))
    ]
    notes += [f"{node.name}: {node.reason}" for node in reasons]
    return [*dict.fromkeys(notes), f"{len(awaited)} machines are on their way"]


def _is_short(node: NodeRecord, state: RunState) -> bool:
    short = {key for key, _ in state.run.shortages}
    return node.reason != PREEMPTED and any({offer.pool, offer.quota} & short for offer in list_offers(node))


def _fallback(node: NodeRecord, state: RunState) -> str:
    """That the machine which is wished for is short, and what is tried; "" where it is not."""
    offers = list_offers(node)
    if len(offers) < 2 or not offers[0].note:
        return ""
    if node.state == "creating":
        current = current_offer(node)
        if current == offers[0]:
            return ""
        return f"{_newest_short(offers[: offers.index(current)], state)}: none to be had; trying {current.note}"
    if choose_offer(node, state.run.shortages, 0.0) is not None:
        return ""
    return f"{node.name}: none of {len(offers)} kinds of machine is to be had now; they are asked for again later"


def _newest_short(before: Sequence[Offer], state: RunState) -> str:
    """Of what is preferred to what is tried, that of which was heard last."""
    for key, _ in reversed(state.run.shortages):
        for offer in before:
            if key in {offer.pool, offer.quota}:
                return offer.note
    return before[0].note


def _trouble(state: RunState, node: NodeRecord, view: HostView | None) -> str:
    if node.state == "failed":
        known = f"; {way_out(node.name)}" if node.reason.startswith(REFUSED) else ""
        return f"{node.name} is left out: {node.reason}{known}"
    if node.state != "running" or view is None:
        return ""
    if not view.connected:
        return f"{node.name}: {describe_silence(node.name, view)}{describe_giving_up(state, node, view)}"
    if view.full:
        return f"{node.name}: {NO_ROOM}; jobs wait until there is room, or go elsewhere"
    return ""

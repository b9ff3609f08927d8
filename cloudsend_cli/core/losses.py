"""Executions whose results did not come home, as users are told of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .model import FAILED
from .state import RESULTS_GONE, JobRecord

WITH_MACHINE = "lost: the machine was "  # of reasons that decide_nodes gives
OUTLIVED = "lost: its machine's "  # ... and decide_jobs: the setting that said how long it lives
STOPPED = f"{WITH_MACHINE}stopped"  # ... one whose disk is kept
GIVEN_UP = f"{WITH_MACHINE}given up by the user"
SHOWN_MOST = 5
_DONE_AGAIN = "run its config again, and it is done again"
# Causes of ends, in the agent's words, and the settings that machines end by.
LIFETIMES = {"life-over": "life", "eco-life-over": "eco_life", "budget-over": "budget"}
_WAYS_OUT = (
    "a rented machine waits for its results to be fetched until an hour after its last job has ended, and then its "
    "`idle`: where cloudsend is away for longer, give machines a longer `idle`, or run cloudsend where nothing sleeps"
    "; when its `life`, its `eco_life` or its part of the `budget` is over, it ends whatever it has"
    "; with `retries_lost: 0` a lost job is not done again by itself"
)


class Earlier(NamedTuple):
    """An attempt with the reason of its end."""

    attempt: int
    node: str
    reason: str


def describe_absence(state: str, reason: str, fetch: str) -> str:
    """How the machine went that had the log and the results of an ended attempt; "" where it may still have them."""
    if fetch.startswith(RESULTS_GONE):
        return fetch.removeprefix(RESULTS_GONE).removeprefix(", which was ")
    lost = state == FAILED and reason.startswith(WITH_MACHINE) and reason != STOPPED
    return reason.removeprefix(WITH_MACHINE) if lost else ""


def describe_outlived(setting: str) -> str:
    """The reason of a job that was still at work when its machine's time was over, with what to write."""
    longer = "a larger `budget`" if setting == "budget" else f"a longer `{setting}` under `instances`"
    over = "part of the `budget` was used up" if setting == "budget" else f"`{setting}` was over"
    return f"{OUTLIVED}{over}; write {longer}, or what it goes on from in `persist` and more `retries_lost`"


def describe_losses(earlier: Iterable[Earlier]) -> tuple[str, ...]:
    """Which of these went with their machines, and what can be done about it; nothing where none did."""
    attempts = list(earlier)
    ended = [e for e in attempts if e.reason.startswith(OUTLIVED)][-SHOWN_MOST:]
    told = tuple(f"attempt {e.attempt} was ended on {e.node}: {e.reason.removeprefix('lost: ')}" for e in ended)
    return (*told, *_describe_lost([e for e in attempts if e.reason.startswith(WITH_MACHINE) and e.reason != STOPPED]))


def _describe_lost(lost: Sequence[Earlier]) -> tuple[str, ...]:
    if not lost:
        return ()
    texts = [
        f"attempt {e.attempt} was lost with its machine {e.node}, which was {e.reason[len(WITH_MACHINE) :]}: "
        "whatever it had done and not brought home is gone"
        for e in lost[-SHOWN_MOST:]
    ]
    if len(lost) > SHOWN_MOST:
        texts.insert(0, f"{len(lost) - SHOWN_MOST} attempts before were lost with their machines as well")
    return tuple(texts) if all(e.reason == GIVEN_UP for e in lost) else (*texts, _WAYS_OUT)


def describe_results(job: JobRecord, ident: str) -> tuple[str, ...]:
    """Why the results of a job that ended are not here; nothing where they are, or are on their way."""
    if not job.fetch.startswith("failed"):
        return ()
    why = job.fetch.partition(": ")[2]
    way = _DONE_AGAIN if job.fetch.startswith(RESULTS_GONE) else f"`cloudsend fetch {ident}` tries again"
    return (f"its results did not come home: {why}; {way}",)

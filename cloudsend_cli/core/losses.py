"""Executions whose results did not come home, as users are told of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .state import RESULTS_GONE, JobRecord

WITH_MACHINE = "lost: the machine was "  # of reasons that decide_nodes gives
STOPPED = f"{WITH_MACHINE}stopped"  # ... one whose disk is kept
GIVEN_UP = f"{WITH_MACHINE}given up by the user"
SHOWN_MOST = 5
_DONE_AGAIN = "run its config again, and it is done again"
_WAYS_OUT = (
    "a rented machine waits for its results to be fetched until an hour after its last job has ended, and then its "
    "`idle`: where cloudsend is away for longer, give machines a longer `idle`, or run cloudsend where nothing sleeps"
    "; with `retries_lost: 0` a lost job is not done again by itself"
)


class Earlier(NamedTuple):
    """An attempt with the reason of its end."""

    attempt: int
    node: str
    reason: str


def describe_losses(earlier: Iterable[Earlier]) -> tuple[str, ...]:
    """Which of these went with their machines, and what can be done about it; nothing where none did."""
    lost = [e for e in earlier if e.reason.startswith(WITH_MACHINE) and e.reason != STOPPED]
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

"""Of which attempts a machine may speak: those that it was given. Pure."""

from __future__ import annotations

from cloudsend_cli.core.naming import parse_attempt_id, parse_build_id, run_of_attempt
from cloudsend_cli.core.state import RunState

HERE, PAST, NOTHING = "here", "past", ""


def is_attempt_of(run: str, attempt: str) -> bool:
    """Whether this is an id that we make, of this run. Files are named after it."""
    known = parse_attempt_id(attempt) or parse_build_id(attempt)
    return known is not None and run_of_attempt(attempt) == run


def weigh(state: RunState | None, node: str, attempt: str) -> str:
    """What an end of `attempt` is worth, told by the machine of `node`.

    HERE: it is the newest of its job or build, and was given to that node. PAST: it may have been given to it once, or
    nothing is known now, as the state is being loaded; it is for `decide` to say. NOTHING: it never was.
    """
    if state is None:
        return PAST
    job, build = parse_attempt_id(attempt), parse_build_id(attempt)
    if job is not None and (record := state.jobs.get(job[1])) is not None:
        number, newest, place = job[2], record.attempt, record.node
    elif build is not None and (built := state.builds.get((node, build[1]))) is not None:
        number, newest, place = build[2], built.attempt, node
    else:
        return NOTHING
    if number == newest and place == node:
        return HERE
    return PAST if 0 < number < newest else NOTHING

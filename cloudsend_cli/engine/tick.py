"""tick = load -> observe -> decide -> commit -> execute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloudsend_cli.core.decide import Decision, decide
from cloudsend_cli.core.ports import Event
from cloudsend_cli.core.state import RunState

from .execute import execute
from .observe import observe
from .session import Session


@dataclass(frozen=True, slots=True)
class Ticked:
    """`changed`: something was committed. `done`: nothing is left to do for this run."""

    changed: bool
    done: bool
    wake_at: float | None


def tick(session: Session, now: float) -> Ticked:
    """One step of one run. ConflictError: another writer acted; nothing was executed.

    Whatever is raised, the session is reset: news was drained that no commit has carried out, or actions are left.
    """
    try:
        state = session.state
        if state is None:
            state = session.state = session.store.load(session.run)
        state.pop_delayed(now)
        seen = observe(session, state, now)
        decision = decide(state, seen, session.policy)
        if decision.changes:
            # ORDER: intent before effect. Nothing below runs unless this is durable.
            version = session.store.commit(
                session.run, state.run.version, decision.changes, list(_events(state, decision))
            )
            state.apply(decision.changes)
            state.set_version(version)
        execute(session, state, decision.actions)
    except BaseException:
        session.reset()
        raise
    return Ticked(bool(decision.changes), decision.done, decision.wake_at)


def _events(state: RunState, decision: Decision) -> Iterator[Event]:
    """The audit trail of a decision: ends, machines, builds. Starts are seen in the attempts themselves."""
    for number, job in decision.changes.jobs.items():
        old = state.jobs.get(number)
        if job.final and (old is None or not old.final):
            yield Event("job-ended", f"{state.run.id}.{number}", f"{job.state} {job.reason}".strip())
        elif old is not None and old.state != job.state and job.reason:
            yield Event("job-reopened", f"{state.run.id}.{number}", job.reason)
    for name, node in decision.changes.nodes.items():
        before = state.nodes.get(name)
        if before is None or before.state != node.state:
            yield Event("node", f"{state.run.id}/{name}", f"{node.state} {node.reason}".strip())
    for (name, key), build in decision.changes.builds.items():
        yield Event("build", f"{state.run.id}/{name}/{key}", f"{build.state} {build.reason}".strip())

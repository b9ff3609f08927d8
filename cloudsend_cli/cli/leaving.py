"""What becomes of a run's machines at its end, and what goes on costing something: said wherever a run ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .render import duration, plural
from .session import Session

if TYPE_CHECKING:
    from cloudsend_cli.api.money import Kept

GIVING_BACK_MOST = 5.0  # seconds for which the end of a run is waited on to hear what became of its machines
LOOK_AGAIN = 0.2
_TODAY = 20 * 3600.0  # seconds within which the time of day says enough


def tell_end(session: Session, run: str) -> None:
    """Of a run whose jobs have ended, or were asked to end."""
    screen = session.screen
    kept = await_giving_back(session, run)
    if kept.machines:
        screen.say(_waiting_text(kept.machines, _waits_until(session, run, kept)))
    for name, told in kept.troubles:
        screen.warn(f"{name} is not given back, and goes on costing money: {told}")
    if kept.ending and session.client.find_run(run).state == "running":
        screen.say(going_on_text(kept))
    elif kept.ending:
        screen.say(f"{plural(kept.ending, 'machine')} on the way out; `cloudsend list instances` shows them")


def tell_waiting(session: Session, run: str) -> None:
    """Of a run that may have ended long ago: machines that wait still, as far as is known here."""
    now = time.time()
    machines = session.client.find_run_cost(run).machines
    left = [until for machine in machines if (until := machine.waits_until) is not None and until > now]
    if left:
        session.screen.say(_waiting_text(len(left), max(left)))


def await_giving_back(session: Session, run: str) -> Kept:
    """What became of the run's machines; a provider that refuses to take one back says so within moments."""
    until = time.monotonic() + GIVING_BACK_MOST
    while (kept := session.client.count_kept(run)).ending and not kept.troubles and time.monotonic() < until:
        time.sleep(LOOK_AGAIN)
    return kept


def _waits_until(session: Session, run: str, kept: Kept) -> float:
    """As the run has noted it; a machine that is just let go has no such note yet."""
    machines = session.client.find_run_cost(run).machines
    ends = [machine.waits_until for machine in machines if machine.waits_until is not None]
    return max(ends, default=time.time() + kept.seconds)


def going_on_text(kept: Kept) -> str:
    """Of machines whose jobs were asked to end, and have not yet."""
    count = plural(kept.ending, "machine")
    if not kept.seconds:
        return f"{count} {'is' if kept.ending == 1 else 'are'} given back once the jobs have ended"
    verb, them = ("waits", "it") if kept.ending == 1 else ("wait", "them")
    return (
        f"once the jobs have ended, {count} {verb} {duration(kept.seconds)} for the next run of this project; "
        f"`cloudsend terminate instance --all` ends {them} then"
    )


def _waiting_text(count: int, until: float) -> str:
    """Such as `3 machines wait 10m00s, until 16:12, for the next run of this project; …`."""
    left = until - time.time()
    at = time.strftime("%H:%M" if left < _TODAY else "%Y-%m-%d %H:%M", time.localtime(until))
    verb, them = ("waits", "it") if count == 1 else ("wait", "them")
    wait = duration(round(left / 10) * 10 if left > 60 else left)  # the moments that telling took say nothing
    return (
        f"{plural(count, 'machine')} {verb} {wait}, until {at}, for the next run of this project; "
        f"`cloudsend terminate instance --all` ends {them} now"
    )

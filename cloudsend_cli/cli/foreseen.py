"""What `run --dry-run` foresees, in words: what runs where, for how long, for how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from .render import duration, plural

if TYPE_CHECKING:
    from cloudsend_cli.core.cost_forecast import ExpectedCost
    from cloudsend_cli.core.forecast import Forecast

MACHINES: Final = 8  # of which is shown what runs there


def used_rows(foreseen: Forecast) -> Iterator[tuple[str, str, str]]:
    """What runs where, of the first machines."""
    for machine in foreseen.machines[:MACHINES]:
        more = f" and {machine.jobs - len(machine.first):,} more" if machine.jobs > len(machine.first) else ""
        yield machine.name, f"{machine.jobs:,}", ", ".join(machine.first) + more
    others = foreseen.machines[MACHINES:]
    if others:
        yield f"and {plural(len(others), 'more machine')}", f"{sum(m.jobs for m in others):,}", ""


def forecast_lines(foreseen: Forecast) -> Iterator[str]:
    """Such as `Search/GTX 2080: 27 jobs, 4 at once` and `about 12 min; 3 of 40 jobs have no history`."""
    for group in foreseen.groups[:MACHINES]:
        at_once = f"{group.at_once} at once" if group.at_once is not None else "as many at once as there is room for"
        yield f"{group.name}: {plural(group.jobs, 'job')}, {at_once}"
    if len(foreseen.groups) > MACHINES:
        yield f"and {plural(len(foreseen.groups) - MACHINES, 'more group')}"
    if foreseen.why_not:
        yield f"what runs where is not foreseen: {foreseen.why_not}"
    elif foreseen.seconds is not None:
        yield f"about {duration(foreseen.seconds)}{_ready_text(foreseen.cost)}{_unknown_text(foreseen)}"
    elif foreseen.jobs:
        which = "this job has not" if foreseen.jobs == 1 else "none of these jobs has"
        yield f"how long it takes is not known: {which} succeeded in an earlier run of this project"


def _ready_text(cost: ExpectedCost | None) -> str:
    """That it counts from when machines are there, which they are not yet."""
    if cost is None or cost.starting == 0.0:
        return ""
    takes = f", which takes about {duration(cost.starting)}" if cost.starting is not None else ""
    return f" once machines are ready{takes}"


def _unknown_text(foreseen: Forecast) -> str:
    if not foreseen.unknown:
        return ""
    has = "has" if foreseen.unknown == 1 else "have"
    text = f"; {foreseen.unknown:,} of {plural(foreseen.jobs, 'job')} {has} no history"
    if not foreseen.estimated:
        return text
    if foreseen.estimated < foreseen.unknown:
        which = f"{foreseen.estimated:,} of these {'is' if foreseen.estimated == 1 else 'are'}"
    else:
        which = "this is" if foreseen.unknown == 1 else "these are"
    whose = "its" if foreseen.estimated == 1 else "their"
    return f"{text}, and {which} estimated: as long as others of {whose} sweep took"


def cost_lines(foreseen: Forecast, budget: float | None) -> Iterator[str]:
    """Such as `about $0.42 from now on: …`, with what is counted and what is not; nothing where nothing is known."""
    from cloudsend_cli.core.costs import describe_dollars

    cost = foreseen.cost
    if cost is None:
        return
    least = "at least" if cost.at_least else "about"
    waiting = f", {duration(cost.keep)} of waiting for another run included" if cost.keep else ""
    ends = budget is not None and cost.total > budget
    over = f"; the budget of {describe_dollars(budget or 0.0)} ends it before" if ends else ""
    missing = list_missing(cost)
    without = f"; not in it: {', '.join(missing)}" if missing else ""
    what = f"{plural(cost.machines, 'machine')} from launch to end{waiting}"
    yield f"{least} {describe_dollars(cost.total)} from now on: {what}{without}{over}"


def list_missing(cost: ExpectedCost) -> list[str]:
    """What is not in the sum, as nobody knows it."""
    parts = (
        (cost.starting is None, "the start of machines, which no run has timed"),
        (cost.jobs, f"{plural(cost.jobs, 'job')} without history"),
        (cost.homeless, f"{plural(cost.homeless, 'job')} that no machine could begin"),
        (cost.unpriced, f"{plural(cost.unpriced, 'machine')} of unknown price"),
    )
    return [text for count, text in parts if count]

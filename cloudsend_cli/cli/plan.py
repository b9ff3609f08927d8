"""`run --dry-run`, and the line that `run` begins with: what would be done, on which machines, for how much."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .render import Screen, duration, plural
from .sanitise import one_line
from .session import Session
from .setup import show_warnings

if TYPE_CHECKING:
    from cloudsend_cli.api import PlanView, SubmitOptions
    from cloudsend_cli.core.forecast import Forecast
    from cloudsend_cli.core.model import Aside, Offer, RunSpec
    from cloudsend_cli.core.plan import Continued, NodePlan
    from cloudsend_cli.engine.submit import Announce

VERBS: Final = ("using", "taking", "renting")  # of machines of the run, of those that wait, and of new ones
BARE_VERBS: Final = ("use", "take", "rent")
ALTERNATIVES: Final = 5  # that are shown of each kind of machine
JOBS: Final = 1000  # of which a table is read
GROUPS: Final = {
    "kept": "kept: succeeded before with the same content",
    "attached": "attached: under way already",
    "reopened": "tried again: failed or cancelled before",
    "added": "new",
    "superseded": "superseded: edited, so that a new job takes the place",
    "dropped": "dropped: no longer in the config",
}


def continued_text(continued: Continued) -> str:
    """Such as `3 kept, 1 tried again, 2 new`."""
    counts = [(len(getattr(continued, group)), text.split(":")[0]) for group, text in GROUPS.items()]
    return ", ".join(f"{count:,} {word}" for count, word in counts if count) or "nothing to do"


# ---- kinds of machines ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Machines of a plan that are alike."""

    nodes: tuple[NodePlan, ...]

    @property
    def offers(self) -> tuple[Offer, ...]:
        return self.nodes[0].offers

    @property
    def names(self) -> str:
        first, last = self.nodes[0].name, self.nodes[-1].name
        return first if len(self.nodes) == 1 else f"{first} to {last} ({len(self.nodes)})"


def rented_nodes(nodes: Iterable[NodePlan]) -> list[NodePlan]:
    from cloudsend_cli.core.renting import is_rented

    return [node for node in nodes if is_rented(node.offers[0])]


def group_nodes(nodes: Iterable[NodePlan]) -> list[Group]:
    """In the order of the plan; what is the same but for its name stands together."""
    groups: dict[tuple[str, tuple[Offer, ...]], list[NodePlan]] = {}
    for node in nodes:
        groups.setdefault((node.provider, node.offers), []).append(node)
    return [Group(tuple(members)) for members in groups.values()]


# ---- before it is submitted ----------------------------------------------------------------------------------------


def announcer(screen: Screen) -> Announce:
    """Says in one line what will be rented; says nothing where nothing will be."""

    def announce(spec: RunSpec, nodes: Sequence[NodePlan], continued: Continued | None) -> None:
        for warning in list_warnings(nodes):
            screen.warn(warning)
        if rented_nodes(nodes) and not has_nothing_to_do(continued):
            screen.say(one_line(announcement(spec, nodes, VERBS) + more_later(spec, nodes, continued)))

    return announce


def has_nothing_to_do(continued: Continued | None) -> bool:
    return continued is not None and not (continued.attached or continued.reopened or continued.added)


def list_warnings(nodes: Iterable[NodePlan]) -> list[str]:
    return list(dict.fromkeys(one_line(warning) for node in nodes for warning in node.warnings))


def announcement(spec: RunSpec, nodes: Sequence[NodePlan], verbs: tuple[str, str, str]) -> str:
    """Such as `renting 3 machines for $0.42/h: 2 x m7i.large spot in eu-west-3a, …; the budget is $20.00, …`."""
    from cloudsend_cli.core.costs import plan_cost
    from cloudsend_cli.core.renting import describe_plan

    rented = rented_nodes(nodes)
    at_hand = sum(node.at_hand for node in rented)
    waiting = min(sum(node.waiting for node in rented), len(rented) - at_hand)
    parts = (
        (at_hand, verbs[0], " that the run has"),
        (waiting, verbs[1], " that waits" if waiting == 1 else " that wait"),
        (len(rented) - at_hand - waiting, verbs[2], ""),
    )
    what = ", ".join(f"{verb} {plural(count, 'machine')}{more}" for count, verb, more in parts if count)
    offers = [node.offers for node in rented]
    cost = plan_cost(offers)
    text = f"{what} for {_rate_text(cost.per_hour, cost.unknown)}"
    return f"{text}: {describe_plan(offers)}" + _budget_text(spec.budget, cost.per_hour)


def more_later(
    spec: RunSpec, nodes: Sequence[NodePlan], continued: Continued | None, kept: Collection[str] | None = None
) -> str:
    """That not all of them are rented at once, where that is so: their number follows the queue."""
    from cloudsend_cli.core.forecast import list_first

    rented = {node.name for node in rented_nodes(nodes)}
    if len(rented) < 2:
        return ""
    if continued is not None and kept is None:
        return "; no more than the open jobs need"
    first = len(rented & list_first(spec, nodes, kept or ()))
    if first == len(rented):
        return ""
    return f"; {plural(first, 'machine')} at first, the others when more jobs are ready than that can take"


def _rate_text(per_hour: float, unknown: int) -> str:
    from cloudsend_cli.core.costs import describe_rate

    if unknown and not per_hour:
        return "an unknown price"
    return describe_rate(per_hour) + (f" and {unknown} of unknown price" if unknown else "")


def _budget_text(budget: float | None, per_hour: float) -> str:
    from cloudsend_cli.core.costs import describe_dollars, hours_of

    if budget is None:
        return "; no budget is set"
    hours = hours_of(budget, per_hour)
    lasts = f", which lasts {duration(hours * 3600)}" if hours is not None else ""
    return f"; the budget is {describe_dollars(budget)}{lasts}"


# ---- instead of submitting it --------------------------------------------------------------------------------------


def show_plan(session: Session, config: str | None, argv: tuple[str, ...], options: SubmitOptions) -> None:
    screen = session.screen
    screen.refuse("csv", "name")
    plan = session.client.plan(config, argv, options)
    foreseen = _forecast(plan)
    if screen.format in {"json", "yaml"}:
        from .plan_json import plan_json

        screen.data(plan_json(plan, foreseen))
        return
    from cloudsend_cli.core.explain import describe

    from .foreseen import cost_lines, forecast_lines, used_rows

    names = {environment.key: environment.name for environment in plan.spec.environments}
    show_warnings(screen, plan.warnings)
    for warning in list_warnings(plan.nodes):
        screen.warn(warning)
    shown = plan.spec.jobs[:JOBS]
    rows = [(j.name, describe(j.resources), names.get(j.environment, ""), j.display) for j in shown]
    screen.rows(("JOB", "ASKS FOR", "ENVIRONMENT", "COMMAND"), rows)
    if len(plan.spec.jobs) > len(shown):
        screen.say(f"{len(shown):,} of {len(plan.spec.jobs):,} jobs are shown; -o json has all")
    screen.write("\n")
    rented = rented_nodes(plan.nodes)
    if rented:
        _show_rented(screen, plan)
    else:
        machines = [(n.name, n.provider, _size(n)) for n in plan.nodes]
        screen.rows(("MACHINE", "PROVIDER", "HAS"), machines)
    if foreseen.machines:
        screen.write("\n")
        screen.rows(("ON", "JOBS", "SUCH AS"), list(used_rows(foreseen)))
    screen.out.flush()
    _say_plan(screen, plan)
    for line in (*forecast_lines(foreseen), *cost_lines(foreseen, plan.spec.budget)):
        screen.say(one_line(line))


def _forecast(plan: PlanView) -> Forecast:
    from cloudsend_cli.core.forecast import plan_forecast

    under_way = plan.continued is not None and bool(plan.continued.attached)
    return plan_forecast(plan.spec, plan.nodes, plan.history, plan.kept, under_way=under_way)


def _size(node: NodePlan) -> str:
    from cloudsend_cli.core.explain import describe

    return (describe(node.capacity) if node.capacity else "") or "not known yet"


def _show_rented(screen: Screen, plan: PlanView) -> None:
    groups = group_nodes(plan.nodes)
    screen.rows(
        ("MACHINE", "PROVIDER", "HAS", "TYPE", "MARKET", "PLACE", "PRICE"),
        [(g.names, g.nodes[0].provider, _size(g.nodes[0]), *_offer_row(g.offers[0])) for g in groups],
    )
    rows = [row for group in groups for row in _alternatives(group)]
    if rows:
        screen.write("\n")
        screen.rows(("OR ELSE, FOR", "", "TYPE", "MARKET", "PLACE", "PRICE", ""), rows)


def _offer_row(offer: Offer) -> tuple[str, str, str, str]:
    from cloudsend_cli.core.costs import describe_rate
    from cloudsend_cli.core.renting import is_rented, parse_note

    kind = parse_note(offer.note)
    return kind.type, kind.market, kind.place, describe_rate(offer.price) if is_rented(offer) else ""


def _alternatives(group: Group) -> list[tuple[str, ...]]:
    """What is tried next, in this order; a cheaper one is not first where the user's order says so."""
    from cloudsend_cli.core.costs import is_cheaper

    offers = group.offers
    rows: list[tuple[str, ...]] = [
        (group.names, f"{n}.", *_offer_row(offer), "cheaper" if is_cheaper(offer, offers[0]) else "")
        for n, offer in enumerate(offers[1 : ALTERNATIVES + 1], 2)
    ]
    if len(offers) > ALTERNATIVES + 1:
        rows.append((group.names, "", f"and {len(offers) - ALTERNATIVES - 1} more", "", "", "", ""))
    rows += [(group.names, "-", *_aside_row(aside)) for aside in group.nodes[0].asides]
    return rows


def _aside_row(aside: Aside) -> tuple[str, ...]:
    from cloudsend_cli.core.costs import describe_rate
    from cloudsend_cli.core.renting import parse_note

    kind = parse_note(aside.note)
    return kind.type, kind.market, kind.place, f"about {describe_rate(aside.price)}", f"cheaper; {aside.why}"


def _say_plan(screen: Screen, plan: PlanView) -> None:
    nodes = rented_nodes(plan.nodes)
    if nodes and not has_nothing_to_do(plan.continued):
        more = more_later(plan.spec, plan.nodes, plan.continued, plan.kept)
        screen.say(one_line(f"it would {announcement(plan.spec, plan.nodes, BARE_VERBS)}{more}"))
        dearest = _dearest(nodes)
        if dearest:
            screen.say(dearest)
    if plan.continued is None:
        screen.say(f"a new run of {plural(len(plan.spec.jobs), 'job')}; nothing was started")
        return
    screen.say(f"run {plan.run} would be continued; nothing was started")
    for group, text in GROUPS.items():
        numbers = getattr(plan.continued, group)
        if numbers:
            screen.say(f"  {len(numbers):>6,} {text}")


def _dearest(nodes: Sequence[NodePlan]) -> str:
    from cloudsend_cli.core.costs import describe_rate, plan_cost

    first = plan_cost([node.offers for node in nodes]).per_hour
    most = sum(max((o.price for o in node.offers if o.price is not None), default=0.0) for node in nodes)
    return (
        f"at most {describe_rate(most)}, if the dearest alternatives are all that is to be had" if most > first else ""
    )

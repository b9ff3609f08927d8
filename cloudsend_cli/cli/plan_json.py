"""`run --dry-run -o json`: what would be done, as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .plan import GROUPS, list_warnings, rented_nodes
from .problems import problem_json

if TYPE_CHECKING:
    from cloudsend_cli.api import PlanView
    from cloudsend_cli.core.cost_forecast import ExpectedCost
    from cloudsend_cli.core.forecast import Forecast
    from cloudsend_cli.core.model import Aside, Offer
    from cloudsend_cli.core.plan import NodePlan


def plan_json(plan: PlanView, foreseen: Forecast) -> dict[str, Any]:
    names = {environment.key: environment.name for environment in plan.spec.environments}
    continued = plan.continued
    return {
        "run": plan.run,
        "jobs": [
            {
                "name": job.name,
                "command": job.display,
                "argv": list(job.argv),
                "cpus": job.resources.cpus,
                "memory_bytes": job.resources.memory or None,
                "gpus": job.resources.gpus,
                "environment": names.get(job.environment),
                "after": list(job.after),
                "uploads": [upload.path for upload in job.uploads],
                "outputs": [output.pattern for output in job.outputs],
            }
            for job in plan.spec.jobs
        ],
        "nodes": [_node_json(node) for node in plan.nodes],
        "cost": _cost_json(plan, foreseen.cost),
        "forecast": _forecast_json(plan, foreseen),
        "continued": {g: list(getattr(continued, g)) for g in (*GROUPS, "overtaken")}
        if continued is not None
        else None,
        "warnings": [*map(problem_json, plan.warnings), *map(problem_json, list_warnings(plan.nodes))],
    }


def _forecast_json(plan: PlanView, found: Forecast) -> dict[str, Any]:
    from cloudsend_cli.core.forecast import list_first

    return {
        "jobs": found.jobs,
        "jobs_without_history": found.unknown,
        "jobs_estimated": found.estimated,
        "seconds": None if found.seconds is None else round(found.seconds, 3),
        "machines": [{"name": m.name, "jobs": m.jobs, "first": list(m.first)} for m in found.machines],
        "rented_at_first": sorted(list_first(plan.spec, plan.nodes, plan.kept)),
        "groups": [{"name": g.name, "jobs": g.jobs, "at_once": g.at_once} for g in found.groups],
        "why_not": found.why_not or None,
    }


def _node_json(node: NodePlan) -> dict[str, Any]:
    from cloudsend_cli.core.machine_views import resources_json
    from cloudsend_cli.core.renting import is_rented

    rented = is_rented(node.offers[0])
    return {
        "name": node.name,
        "provider": node.provider,
        **resources_json(node.capacity),
        "rented": rented,
        "price_per_hour": node.offers[0].price,
        "offers": [_offer_json(offer, node.offers[0]) for offer in node.offers] if rented else [],
        "at_hand": node.at_hand,
        "waiting": node.waiting and not node.at_hand,
        "not_taken": [_aside_json(aside) for aside in node.asides],
    }


def _aside_json(aside: Aside) -> dict[str, Any]:
    from cloudsend_cli.core.renting import parse_note

    kind = parse_note(aside.note)
    about = {"type": kind.type, "market": kind.market, "place": kind.place}
    return {**about, "price_per_hour": aside.price, "why": aside.why}


def _offer_json(offer: Offer, first: Offer) -> dict[str, Any]:
    from cloudsend_cli.core.costs import is_cheaper
    from cloudsend_cli.core.machine_views import resources_json
    from cloudsend_cli.core.renting import parse_note

    kind = parse_note(offer.note)
    return {
        "type": kind.type or None,
        "market": kind.market or None,
        "place": kind.place or None,
        "price_per_hour": offer.price,
        "cheaper": is_cheaper(offer, first),
        **resources_json(offer.capacity),
    }


def _cost_json(plan: PlanView, expected: ExpectedCost | None) -> dict[str, Any] | None:
    from cloudsend_cli.core.costs import hours_of, plan_cost

    nodes = rented_nodes(plan.nodes)
    if not nodes:
        return None
    cost = plan_cost([node.offers for node in nodes])
    budget = plan.spec.budget
    hours = hours_of(budget, cost.per_hour) if budget is not None else None
    return {
        "per_hour": round(cost.per_hour, 6),
        "unknown": cost.unknown,
        "budget": budget,
        "budget_hours": None if hours is None else round(hours, 4),
        "expected": None if expected is None else _expected_json(expected),
    }


def _expected_json(cost: ExpectedCost) -> dict[str, Any]:
    return {
        "total": round(cost.total, 6),
        "at_least": cost.at_least,
        "machines": cost.machines,
        "starting_seconds": cost.starting,
        "waiting_seconds": cost.keep,
        "jobs_left_out": cost.jobs + cost.homeless,
        "machines_left_out": cost.unpriced,
    }

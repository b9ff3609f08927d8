"""Machines that cost money: one item of `instances` and the run's own keys, as the text pairs that providers read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cloudsend_cli.core.model import InstanceSpec

from .check import Report
from .context import ProviderInfo
from .document import Node, Scalar, render_inline
from .given import Given, Values, value_of
from .schema import INSTANCE

IDLE = 600  # seconds
IDLE_DEV = 3600
LIFE = 86400
SHORTEST_IDLE = 60  # a shorter one, given without a unit, was probably meant in minutes

_ORDER = [field.name for field in INSTANCE.fields if field.name not in {"provider", "labels", "number"}]
_SIZES = frozenset({"cpus", "memory", "gpu"})


@dataclass(frozen=True, slots=True)
class RunKeys:
    """What the top level says of rented machines."""

    project: str = ""
    profile: str | None = None
    dev: bool = False
    auto_stop: bool = True
    budget: float | None = None


def build_rented(values: Values, info: ProviderInfo, run: RunKeys) -> InstanceSpec:
    """In base units: bytes, seconds, dollars. Which machines that can be is the provider's to say."""
    pairs = [(name, _render(values[name])) for name in _ORDER if name in values and values[name].value is not None]
    pairs += [(name, str(seconds)) for name, seconds, _ in list_defaults(values, run)]
    pairs.append(("project", run.project))
    if run.dev:
        pairs.append(("dev", "true"))
    if run.budget is not None:
        pairs.append(("budget", show_number(run.budget)))
    number = value_of(values, "number")
    return InstanceSpec(info.name, number if isinstance(number, int) else 1, None, tuple(pairs))


def list_defaults(values: Values, run: RunKeys) -> Iterator[tuple[str, int, str]]:
    """(key, seconds, why) of the limits that nobody gave."""
    if "idle" not in values:
        life = value_of(values, "life")
        if not run.auto_stop:
            yield "idle", int(life) if isinstance(life, float) else LIFE, "auto_stop"
        else:
            yield "idle", IDLE_DEV if run.dev else IDLE, "dev" if run.dev else "default"
    if "life" not in values:
        yield "life", LIFE, "default"


def warn_rented(report: Report, values: Values, run: RunKeys) -> None:
    """Keys that have no effect on this machine, or contradict the run's, and an idle time that looks like minutes."""
    spot = values["spot"].value if "spot" in values else False
    life = values.get("eco_life")
    if life is not None and life.value is not None and spot is False:
        message = f"{life.path} has no effect: the machine is not a spot machine"
        report.warn(message, life.key.place, "write spot: true, or spot: prefer", life.path)
    idle = values.get("idle")
    if idle is not None and idle.value is not None and not run.auto_stop:
        message = f"{idle.path}: {render_inline(idle.node)} contradicts auto_stop: false"
        hint = "leave one out: idle ends machines so long after their work, auto_stop: false when their life is over"
        report.error(message, idle.key.place, hint, idle.path)
    elif idle is not None and isinstance(idle.value, float) and 0 < idle.value < SHORTEST_IDLE and _is_bare(idle.node):
        message = f"{idle.path}: a machine ends itself after {idle.value:g} seconds without work"
        report.warn(message, idle.node.place, f"write {idle.value:g}m for minutes", idle.path)


def choose_profile(info: ProviderInfo, run: RunKeys) -> ProviderInfo:
    """The provider with the config's own profile, where it names one."""
    if run.profile is None:
        return info
    settings = {**json.loads(info.rendered), "profile": run.profile}
    origins = tuple(row for row in info.origins if row[0] != "profile")
    return replace(info, rendered=render_json(settings), origins=origins)


def render_json(settings: dict[str, object]) -> str:
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def render_size(given: Given) -> str:
    """CPUs, memory or GPUs in base units, with `+` for at least so many."""
    value = given.value
    more = "+" if isinstance(given.node, Scalar) and given.node.text.strip().endswith("+") else ""
    if isinstance(value, tuple):
        return f"{value[0]}:{value[1]}{more}" if value[0] else f"{value[1]}{more}"
    return f"{int(value) if isinstance(value, float) and value.is_integer() else value}{more}"


def show_number(value: float) -> str:
    """Without an exponent and without zeros that say nothing."""
    return str(value) if isinstance(value, int) else f"{value:.9f}".rstrip("0").rstrip(".")


def show_duration(seconds: int) -> str:
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _render(given: Given) -> str:
    value = given.value
    if given.name in _SIZES:
        return render_size(given)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(item) for item, _ in value)
    if isinstance(value, (int, float)):
        return show_number(value)
    return value if isinstance(value, str) else render_inline(given.node)


def _is_bare(node: Node) -> bool:
    return isinstance(node, Scalar) and node.text.strip().replace(".", "", 1).isdigit()

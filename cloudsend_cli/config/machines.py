"""`provider:` and `instances:` to InstanceSpecs, layered over the providers' defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudsend_cli.core.model import InstanceSpec, Resources

from .check import Given, Report, Values, check_mapping, did_you_mean
from .context import LoadContext, ProviderInfo
from .document import Items, Mapping, Node, Place, Scalar, is_null, render_inline
from .schema import ENVIRONMENT, HARMLESS, INSTANCE, JOB, NO_EFFECT_YET, TOP
from .values import show_size


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines of a run, and the most that one job may ask for; None: not known."""

    instances: tuple[InstanceSpec, ...]
    largest: tuple[Resources, ...] | None


def warn_no_effect(report: Report, values: Values, where: str) -> None:
    """A warning for each key that is accepted and checked but does nothing in this version."""
    for name, given in values.items():
        reason = NO_EFFECT_YET.get((where, name))
        if reason is None or given.value is None or HARMLESS.get((where, name), values) == given.value:
            continue
        report.warn(f"{given.path} has no effect yet: {reason}", given.key.place, path=given.path)


def choose_providers(
    report: Report, given: Given | None, override: str | None, context: LoadContext
) -> list[ProviderInfo]:
    """The providers of the run, in order of preference; those of this version first and alone."""
    wanted: list[tuple[str, Place]] = []
    if override is not None:
        wanted = [(override, Place("--provider"))]
    elif given is not None and isinstance(given.value, list):
        wanted = [(name, node.place) for name, node in given.value]
    if not wanted:
        others = [name for name, info in context.providers.items() if info.type != "local"]
        wanted = [(others[0] if len(others) == 1 else "local", Place(""))]
    chosen = []
    refused = []
    for name, place in wanted:
        info = context.providers.get(name)
        if info is None:
            hint = did_you_mean(name, context.providers) or "known: " + ", ".join(sorted(context.providers))
            report.error(f"unknown provider {name!r}", place, hint, "provider")
        elif info.unavailable:
            refused.append((info, place))
        else:
            chosen.append(info)
    for info, place in refused:
        if chosen:
            report.warn(f"provider {info.name!r} is left out: {info.unavailable}", place, path="provider")
        else:
            report.error(f"provider {info.name!r}: {info.unavailable}", place, "use --provider local", "provider")
    return chosen


class InstanceReader:
    """Reads `instances:` for the chosen providers."""

    def __init__(self, report: Report, context: LoadContext, chosen: Sequence[ProviderInfo]) -> None:
        self.report = report
        self.context = context
        self.chosen = chosen

    def read(self, node: Node | None) -> Machines:
        nodes: list[Node] = []
        if node is not None and not is_null(node):
            nodes = node.items if isinstance(node, Items) else [node]
        found: list[InstanceSpec] = []
        for index, item in enumerate(nodes):
            path = f"instances[{index}]"
            values = check_mapping(self.report, item, INSTANCE, path, (TOP, JOB, ENVIRONMENT))
            warn_no_effect(self.report, values, "instances")
            info = self._provider(values)
            if info is not None:
                found.append(self._build(values, info, item, path))
        if not nodes:
            empty = Mapping([], Place(""))
            found = [self._build({}, info, empty, "defaults") for info in self.chosen[:1]]
        instances = self._one_local(found, nodes)
        infos = [self.context.providers[spec.provider] for spec in instances]
        sizes = [spec.capacity or info.largest for spec, info in zip(instances, infos, strict=True)]
        known = tuple(size for size in sizes if size is not None)
        return Machines(instances, known if sizes and len(known) == len(sizes) else None)

    def _provider(self, values: Values) -> ProviderInfo | None:
        given = values.get("provider")
        if given is None or not isinstance(given.value, str):
            return self.chosen[0] if self.chosen else None
        info = self.context.providers.get(given.value)
        if info is None:
            hint = did_you_mean(given.value, self.context.providers)
            self.report.error(f"{given.path}: unknown provider {given.value!r}", given.node.place, hint, given.path)
        elif info.unavailable:
            message = f"{given.path}: provider {info.name!r}: {info.unavailable}"
            self.report.error(message, given.node.place, "use --provider local", given.path)
            info = None
        return info

    def _build(self, values: Values, info: ProviderInfo, node: Node, path: str) -> InstanceSpec:
        place = Place(node.place.file)
        entries = [(Scalar(key, False, place), value) for key, value in info.defaults.items() if key not in values]
        defaults = check_mapping(
            self.report, Mapping(entries, place, len(entries)), INSTANCE, f"defaults of {info.name}"
        )
        every = {**defaults, **values}
        number = _value(every, "number")
        capacity = self._capacity(every, info)
        settings = tuple((name, render_inline(g.node)) for name, g in every.items() if name != "provider")
        return InstanceSpec(info.name, number if isinstance(number, int) else 1, capacity, settings)

    def _capacity(self, values: Values, info: ProviderInfo) -> Resources | None:
        """What is asked for, where something is; never more than the machine is known to have."""
        cpus, memory, gpu = _value(values, "cpus"), _value(values, "memory"), _value(values, "gpu")
        if cpus is None and memory is None and gpu is None:
            return None
        limit = info.largest
        room = limit or Resources(1.0, 0, 0)
        asked = Resources(
            cpus if isinstance(cpus, float) and not _at_least(values, "cpus") else max(room.cpus, _float(cpus)),
            memory if isinstance(memory, int) and not _at_least(values, "memory") else max(room.memory, _int(memory)),
            gpu[1] if isinstance(gpu, tuple) else room.gpus,
        )
        if limit is None or asked.fits_in(limit):
            return asked
        for name, want, have in (
            ("cpus", f"{asked.cpus:g}", f"{limit.cpus:g}") if asked.cpus > limit.cpus else ("", "", ""),
            ("memory", show_size(asked.memory), show_size(limit.memory))
            if asked.memory > limit.memory
            else ("", "", ""),
            ("gpu", f"{asked.gpus}", f"{limit.gpus}") if asked.gpus > limit.gpus else ("", "", ""),
        ):
            if name and name in values:
                given = values[name]
                message = f"{given.path}: {want} is more than provider {info.name!r} has: {have}; {have} is used"
                self.report.warn(message, given.node.place, path=given.path)
        return Resources(min(asked.cpus, limit.cpus), min(asked.memory, limit.memory), min(asked.gpus, limit.gpus))

    def _one_local(self, found: list[InstanceSpec], nodes: Sequence[Node]) -> tuple[InstanceSpec, ...]:
        """This machine exists once: several entries, or a number, become one, and a warning says so."""
        kept: list[InstanceSpec] = []
        local: set[str] = set()
        for index, spec in enumerate(found):
            info = self.context.providers[spec.provider]
            if info.type != "local":
                kept.append(spec)
                continue
            place = nodes[index].place if index < len(nodes) else Place("")
            if spec.number > 1:
                message = f"instances[{index}]: there is one machine here; {spec.number} were asked for"
                self.report.warn(message, place, path=f"instances[{index}].number")
            if spec.provider in local:
                message = f"instances[{index}] has no effect: this machine is given once already"
                self.report.warn(message, place, path=f"instances[{index}]")
                continue
            local.add(spec.provider)
            settings = tuple(pair for pair in spec.settings if pair[0] != "number")
            kept.append(InstanceSpec(spec.provider, 1, spec.capacity, settings))
        return tuple(kept)


def check_fits(report: Report, wanted: Resources, machines: Machines, node: Node, path: str) -> None:
    """Report a job that no machine can hold, with the largest one."""
    if machines.largest is None or any(wanted.fits_in(size) for size in machines.largest):
        return
    largest = max(machines.largest, key=lambda size: (size.gpus, size.cpus, size.memory))
    wants = []
    if wanted.cpus > largest.cpus:
        wants.append(f"{wanted.cpus:g} CPUs")
    if wanted.memory > largest.memory:
        wants.append(f"{show_size(wanted.memory)} of memory")
    if wanted.gpus > largest.gpus:
        wants.append(f"{wanted.gpus} GPUs" if wanted.gpus != 1 else "1 GPU")
    message = f"{path} wants {' and '.join(wants) or 'more than one machine has'}; the largest machine has "
    message += f"{largest.cpus:g} CPUs, {show_size(largest.memory)} of memory and {largest.gpus} GPUs"
    report.error(message, node.place, path=path)


def _value(values: Values, name: str) -> object:
    return values[name].value if name in values else None


def _at_least(values: Values, name: str) -> bool:
    node = values[name].node
    return isinstance(node, Scalar) and node.text.strip().endswith("+")


def _float(value: object) -> float:
    return value if isinstance(value, float) else 0.0


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0

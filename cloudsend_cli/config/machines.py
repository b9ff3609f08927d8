"""`provider:` and `instances:` to InstanceSpecs, layered over the providers' defaults."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from cloudsend_cli.core.model import InstanceSpec, ProviderDefinition, Resources, list_known
from cloudsend_cli.core.ports import Provider
from cloudsend_cli.errors import ConfigError

from .check import Report, check_mapping
from .choice import Providers
from .context import LoadContext, ProviderInfo
from .document import Mapping, Node, Place, Scalar, is_null, items_of, render_inline
from .effects import RENTED_TYPES, warn_wrong_type
from .given import Given, Values, node_of, value_of
from .rented import RunKeys, build_rented, choose_profile, list_defaults, render_size, show_duration, warn_rented
from .schema import ENVIRONMENT, INSTANCE, JOB, TOP
from .values import show_size


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines of a run, and the most that one job may ask for; None: not known."""

    instances: tuple[InstanceSpec, ...]
    largest: tuple[Resources, ...] | None
    providers: tuple[ProviderDefinition, ...] = ()
    types: frozenset[str] = frozenset()  # of the providers
    origins: tuple[tuple[str, str, str], ...] = ()  # what providers.yml says of them: (key, value, place)


@dataclass(slots=True)
class Entry:
    """One item of `instances:` over its provider's defaults."""

    spec: InstanceSpec
    info: ProviderInfo
    values: Values
    path: str
    place: Place


class InstanceReader:
    """Reads `instances:` for the chosen providers."""

    def __init__(
        self,
        report: Report,
        context: LoadContext,
        providers: Providers,
        chosen: Sequence[ProviderInfo],
        run: RunKeys,
    ) -> None:
        self.report = report
        self.run = run
        self.open_provider = context.open_provider
        self.providers = providers
        self.chosen = chosen
        self._origins: list[tuple[str, str, str]] = []

    def read(self, node: Node | None) -> Machines:
        nodes: list[Node] = []
        if node is not None and not is_null(node):
            nodes = items_of(node)
        entries: list[Entry] = []
        for index, item in enumerate(nodes):
            path = f"instances[{index}]"
            values = check_mapping(self.report, item, INSTANCE, path, (TOP, JOB, ENVIRONMENT))
            info = self._provider(values)
            if info is not None:
                warn_wrong_type(self.report, values, info.type)
                entries.append(self._build(values, info, item.place, path))
        if not nodes:
            entries = [self._build({}, info, Place(""), "instances[0]") for info in self.chosen[:1]]
        entries = self._one_local(entries)
        used = {entry.info.name: entry.info for entry in entries}
        used = {n: choose_profile(i, self.run) if i.type in RENTED_TYPES else i for n, i in used.items()}
        self._warn_unused(used)
        for info in used.values():
            self.report.warnings += info.warnings
            self._origins += [(f"providers.{info.name}.{key}", value, place) for key, value, place in info.origins]
        sizes = [size for info in used.values() for size in self._sizes(info, entries)]
        known = tuple(size for size in sizes if size is not None)
        return Machines(
            tuple(entry.spec for entry in entries),
            known if sizes and len(known) == len(sizes) else None,
            tuple(info.definition for info in used.values()),
            frozenset(info.type for info in used.values()),
            tuple(self._origins),
        )

    def _provider(self, values: Values) -> ProviderInfo | None:
        given = values.get("provider")
        if given is None or not isinstance(given.value, str):
            return self.chosen[0] if self.chosen else None
        info = self.providers.find(given.value, given.node.place, given.path, f"{given.path}: ")
        override = self.providers.override
        if info is not None and override not in (None, info.name):
            message = f"{given.path}: {info.name!r} is used here, not {override!r} of --provider"
            self.report.warn(message, given.node.place, f"--set {given.path}={override} changes it", given.path)
        if info is not None and info.unavailable:
            message = f"{given.path}: provider {info.name!r}: {info.unavailable}"
            self.report.error(message, given.node.place, "use --provider local", given.path)
            info = None
        return info

    def _warn_unused(self, used: dict[str, ProviderInfo]) -> None:
        for info in self.chosen[1:]:
            if info.name not in used:
                first = next(iter(used), self.chosen[0].name)
                message = f"provider {info.name!r} is not used: {first!r} is; the next one is not tried yet"
                self.report.warn(message, self.providers.places[info.name], "name both in instances", "provider")

    def _build(self, values: Values, info: ProviderInfo, item: Place, path: str) -> Entry:
        place = Place(item.file)
        own = {*values, *([] if self.run.auto_stop else ["idle"])}  # what the run says comes before defaults
        layered = {key: value for key, value in info.defaults.items() if key not in own}
        entries: list[tuple[Scalar, Node]] = [(Scalar(key, False, place), value) for key, value in layered.items()]
        defaults = check_mapping(
            self.report, Mapping(entries, place, len(entries)), INSTANCE, f"defaults of {info.name}"
        )
        for key, node in layered.items():
            self._origins.append((f"{path}.{key}", render_inline(node), node.place.origin))
        every = {**defaults, **values}
        if info.type in RENTED_TYPES:
            spec = self._rent(every, info, path)
        else:
            spec = (self._select_hosts if info.type == "ssh" else self._size_machine)(every, info)
        return Entry(spec, info, every, path, item)

    # ---- machines that are rented --------------------------------------------------------------------

    def _rent(self, values: Values, info: ProviderInfo, path: str) -> InstanceSpec:
        warn_rented(self.report, values, self.run)
        for key, seconds, why in list_defaults(values, self.run):
            self._origins.append((f"{path}.{key}", show_duration(seconds), why))
        return build_rented(values, info, self.run)

    # ---- machines that are sized ---------------------------------------------------------------------

    def _size_machine(self, values: Values, info: ProviderInfo) -> InstanceSpec:
        number = value_of(values, "number")
        settings = tuple((name, render_inline(g.node)) for name, g in values.items() if name != "provider")
        return InstanceSpec(
            info.name, number if isinstance(number, int) else 1, self._capacity(values, info), settings
        )

    def _capacity(self, values: Values, info: ProviderInfo) -> Resources | None:
        """What is asked for, where something is; never more than the machine is known to have."""
        cpus, memory, gpu = value_of(values, "cpus"), value_of(values, "memory"), value_of(values, "gpu")
        if cpus is None and memory is None and gpu is None:
            return None
        limit = info.largest
        room = limit or Resources(1.0, 0, 0)
        asked = Resources(
            cpus if isinstance(cpus, float) and not _at_least(values, "cpus") else max(room.cpus, _float(cpus)),
            memory if isinstance(memory, int) and not _at_least(values, "memory") else max(room.memory, _int(memory)),
            gpu[1] if isinstance(gpu, tuple) and not _at_least(values, "gpu") else max(room.gpus, _count(gpu)),
        )
        if limit is None or asked.fits_in(limit):
            return asked
        for name, want, have in (
            ("cpus", f"{asked.cpus:g}", f"{limit.cpus:g}") if asked.cpus > limit.cpus else ("", "", ""),
            ("memory", _show_memory(asked.memory), _show_memory(limit.memory))
            if asked.memory > limit.memory
            else ("", "", ""),
            ("gpu", f"{asked.gpus}", f"{limit.gpus}") if asked.gpus > limit.gpus else ("", "", ""),
        ):
            if name and name in values:
                given = values[name]
                message = f"{given.path}: {want} is more than provider {info.name!r} has: {have}; {have} is used"
                self.report.warn(message, given.node.place, path=given.path)
        return Resources(min(asked.cpus, limit.cpus), min(asked.memory, limit.memory), min(asked.gpus, limit.gpus))

    def _one_local(self, found: Sequence[Entry]) -> list[Entry]:
        """This machine exists once: several entries, or a number, become one, and a warning says so."""
        kept: list[Entry] = []
        local: set[str] = set()
        for entry in found:
            if entry.info.type == "local":
                if entry.spec.number > 1:
                    message = f"{entry.path}: there is one machine here; {entry.spec.number} were asked for"
                    self.report.warn(message, entry.place, path=f"{entry.path}.number")
                if entry.info.name in local:
                    message = f"{entry.path} has no effect: this machine is given once already"
                    self.report.warn(message, entry.place, path=entry.path)
                    continue
                local.add(entry.info.name)
                settings = tuple(pair for pair in entry.spec.settings if pair[0] != "number")
                entry.spec = InstanceSpec(entry.spec.provider, 1, entry.spec.capacity, settings)
            kept.append(entry)
        return kept

    # ---- hosts that are chosen -----------------------------------------------------------------------

    def _select_hosts(self, values: Values, info: ProviderInfo) -> InstanceSpec:
        """What the provider selects by, in one form: numbers, bytes, and `+` for at least so many."""
        number = value_of(values, "number")
        gpu = values.get("gpu")
        if gpu is not None and isinstance(gpu.value, tuple) and gpu.value[0]:
            message = f"{gpu.path}: the kind {gpu.value[0]!r} does not choose hosts"
            self.report.warn(message, gpu.node.place, "give them labels, and choose by 'labels'", gpu.path)
        settings = tuple((name, _setting(g)) for name, g in values.items() if name not in {"provider", "number"})
        return InstanceSpec(info.name, number if isinstance(number, int) else 0, None, settings)

    # ---- what providers know -------------------------------------------------------------------------

    def _sizes(self, info: ProviderInfo, entries: Sequence[Entry]) -> list[Resources | None]:
        """How large each machine is, None where that is not known; what cannot be had is reported."""
        mine = [entry for entry in entries if entry.info.name == info.name]
        if self.open_provider is None:
            return [entry.spec.capacity or info.largest for entry in mine]
        provider = self.open_provider(info.definition)
        before = len(self.report.problems)
        for entry in mine:
            for text in provider.check(entry.spec):
                self._report(entry, text)
        if len(self.report.problems) > before:
            return [None]
        if provider.slow:  # planning would ask the network; what is known without it is enough here
            return [self._known_size(entry, provider) for entry in mine]
        try:
            return [plan.capacity for plan in provider.plan_machines([entry.spec for entry in mine])]
        except ConfigError as raised:
            first = bisect_left(range(len(mine)), True, key=lambda at: _fails(provider, mine[: at + 1]))
            for problem in raised.problems:
                self._report(mine[first], problem.message)
            return [None]

    def _known_size(self, entry: Entry, provider: Provider) -> Resources | None:
        largest = provider.largest(entry.spec)
        given = entry.values.get("type")
        if largest is None and given is not None and given.value:
            message = f"{given.path}: {render_inline(given.node)} is not wholly in the table of this version"
            hint = "whether it exists and what fits is told when the run is planned"
            self.report.warn(message, given.node.place, hint, given.path)
        return largest

    def _report(self, entry: Entry, text: str) -> None:
        """A provider's words, at the key that they begin with."""
        key, colon, rest = text.partition(": ")
        given = entry.values.get(key) if colon else None
        if given is not None:
            self.report.error(f"{given.path}: {rest}", given.node.place, path=given.path)
        else:
            self.report.error(f"{entry.path}: {text}", entry.place, path=entry.path)


def _fails(provider: Provider, entries: Sequence[Entry]) -> bool:
    try:
        provider.plan_machines([entry.spec for entry in entries])
    except ConfigError:
        return True
    return False


def check_fits(report: Report, wanted: Resources, machines: Machines, values: Values, node: Node, path: str) -> None:
    """Report a job that no machine can hold, with the largest one, at the key that asks for too much."""
    if machines.largest is None or any(wanted.fits_in(size) for size in machines.largest):
        return
    parts = _list_wanted(wanted)
    beyond = [n for n, _ in parts if all(getattr(wanted, n) > getattr(size, n) for size in machines.largest)]
    order = [*beyond, "gpus", "cpus", "memory"]
    largest = max(machines.largest, key=lambda size: [list_known(size).get(name, 0) for name in order])
    # Where each part exists, on different machines, all of them are named.
    more = [name for name, _ in parts if not beyond or getattr(wanted, name) > getattr(largest, name)]
    wants = [text for name, text in parts if name in more]
    known = list_known(largest)
    has = [f"{largest.cpus:g} CPUs"] if "cpus" in known else []
    has += [f"{_show_memory(largest.memory)} of memory"] if "memory" in known else []
    has += [f"{largest.gpus} GPUs"] if "gpus" in known else []
    together = "" if beyond else " on one machine"
    message = f"{path} wants {' and '.join(wants) or 'more than one machine has'}{together}; the largest machine has "
    message += f"{', '.join(has[:-1])} and {has[-1]}" if len(has) > 1 else has[0]
    asked = [node_of(values, "gpu" if name == "gpus" else name) for name in [*more, *order]]
    report.error(message, next((found for found in asked if found is not None), node).place, path=path)


def _show_memory(size: int) -> str:
    """As configs say it; what is no whole number of GB, as most machines, also as `--dry-run` and lists do."""
    from cloudsend_cli.core.explain import describe_bytes

    return f"{show_size(size)} ({describe_bytes(size)})" if size % 10**9 else show_size(size)


def _list_wanted(wanted: Resources) -> list[tuple[str, str]]:
    parts = [("cpus", f"{wanted.cpus:g} CPUs")] if wanted.cpus else []
    parts += [("memory", f"{_show_memory(wanted.memory)} of memory")] if wanted.memory else []
    return parts + ([("gpus", f"{wanted.gpus} GPUs" if wanted.gpus != 1 else "1 GPU")] if wanted.gpus else [])


def _setting(given: Given) -> str:
    """A value of `instances` in the one form that providers read."""
    value = given.value
    if given.name in {"cpus", "memory", "gpu"}:
        return render_size(given)
    if given.name == "labels" and isinstance(value, list):
        return ",".join(value)
    return render_inline(given.node)


def _at_least(values: Values, name: str) -> bool:
    node = values[name].node
    return isinstance(node, Scalar) and node.text.strip().endswith("+")


def _float(value: object) -> float:
    return value if isinstance(value, float) else 0.0


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _count(gpu: object) -> int:
    return gpu[1] if isinstance(gpu, tuple) else 0

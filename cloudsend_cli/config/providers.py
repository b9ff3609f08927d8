"""`providers.yml`: where machines come from. `local` always exists, and `aws` for who names it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cloudsend_cli.errors import ConfigError

from .addresses import parse_name
from .aws_entry import AWS_TYPE, implicit_aws, read_aws
from .check import Field, Report, Table, check_mapping, choice_value, did_you_mean, read_value
from .context import ProviderInfo
from .document import Mapping as MappingNode
from .document import Node, Place, is_null, items_of, render_inline
from .given import Given, Values, node_of, value_of
from .host_fields import DEFAULTS
from .hosts import HostsReader
from .schema import FREE, INSTANCE, TEXT, node_value
from .sources import read_document

LOCAL = "local"
TYPES = (LOCAL, "ssh", "slurm", "aws", "gcp")
RESERVED = frozenset({"all", *TYPES})  # names that mean something in `defaults`
FILE_NAME = "providers.yml"

FILE = Table(
    "providers.yml",
    (
        Field("providers", (), node_value, {}, "The list of providers."),
        Field("defaults", (), node_value, {}, "Defaults of machines: all, a type, or a provider's name."),
    ),
)
ENTRY = Table(
    "providers",
    (
        Field("name", (), read_value(parse_name), TEXT, "What configs call it; default: the type."),
        Field("type", (), choice_value(*TYPES), {"enum": list(TYPES)}, "What kind of place it is."),
        Field("defaults", (), node_value, {}, "Defaults of its machines."),
    ),
)


def list_search_paths(folder: str, environ: Mapping[str, str]) -> list[str]:
    """Where providers.yml may lie, the nearest first: beside the config, then the user's own."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", os.path.expanduser("~")), ".config")
    return [os.path.join(folder, FILE_NAME), os.path.join(home, "cloudsend", FILE_NAME)]


def load_providers(paths: Sequence[str], environ: Mapping[str, str] | None = None) -> dict[str, ProviderInfo]:
    """Providers by name from the first of `paths` that exists; `local` is always there, and `aws` for
    who names it, unless the file has one of that type under another name. Raises ConfigError.

    `environ` says where `~` is, os.environ without it.
    """
    for path in paths:
        if os.path.lexists(path):
            return _read(path, (os.environ if environ is None else environ).get("HOME", ""))
    return {LOCAL: ProviderInfo(LOCAL, LOCAL), AWS_TYPE: implicit_aws({})}


def _read(path: str, home: str) -> dict[str, ProviderInfo]:
    absolute = os.path.abspath(path)
    root, problems = read_document(path, absolute)
    report = Report(problems=problems)
    top = check_mapping(report, root, FILE, "", free=FREE)
    layers = _read_layers(report, top.get("defaults"))
    found: dict[str, ProviderInfo] = {}
    node = node_of(top, "providers")
    nodes = items_of(node) if node is not None else []
    reader = _EntryReader(report, layers, os.path.dirname(absolute), home)
    for index, item in enumerate(nodes):
        info = reader.read(item, f"providers[{index}]")
        if info is None:
            continue
        if info.name in found:
            report.error(f"providers[{index}]: a second provider is called {info.name!r}", item.place)
        found[info.name] = info
    if LOCAL not in found:
        found = {LOCAL: ProviderInfo(LOCAL, LOCAL, _layer(layers, LOCAL, LOCAL, {})), **found}
    if all(info.type != AWS_TYPE for info in found.values()):
        found[AWS_TYPE] = implicit_aws(_layer(layers, AWS_TYPE, AWS_TYPE, {}))
    for name in layers:
        if name not in RESERVED and name not in found and "defaults" in top:
            place = _key_place(top["defaults"], name)
            hint = did_you_mean(name, (*RESERVED, *found))
            message = f"defaults: {name!r} is neither 'all', a type nor a provider"
            report.error(message, place, hint, f"defaults.{name}")
    if report.problems:
        raise ConfigError(report.problems)
    return found


def _key_place(given: Given, name: str) -> Place:
    if isinstance(given.node, MappingNode):
        return next((key.place for key, _ in given.node.entries if key.text == name), given.key.place)
    return given.key.place


def _read_layers(report: Report, given: Given | None) -> dict[str, Values]:
    if given is None or is_null(given.node):
        return {}
    if not isinstance(given.node, MappingNode):
        report.error("defaults: expected a mapping such as {all: {disk: 30GB}}", given.node.place, path="defaults")
        return {}
    return {
        key.text: check_mapping(report, value, INSTANCE, f"defaults.{key.text}")
        for key, value in given.node.entries
        if not is_null(value)
    }


def _layer(layers: Mapping[str, Values], kind: str, name: str, own: Values) -> dict[str, Node]:
    """Canonical key -> node: all, then the type, then the name, then the provider's own `defaults`."""
    merged: dict[str, Node] = {}
    for values in (layers.get("all", {}), layers.get(kind, {}), layers.get(name, {}) if name != kind else {}, own):
        merged.update({key: given.node for key, given in values.items()})
    return merged


class _EntryReader:
    """Reads entries of `providers:`."""

    def __init__(self, report: Report, layers: Mapping[str, Values], folder: str, home: str) -> None:
        self.report = report
        self.layers = layers
        self.folder = folder
        self.home = home

    def read(self, node: Node, path: str) -> ProviderInfo | None:
        if not isinstance(node, MappingNode):
            self.report.error(f"{path}: expected a provider with 'name' and 'type'", node.place, path=path)
            return None
        known = [(key, value) for key, value in node.entries if key.text in ENTRY.by_name]
        rest = [(key, value) for key, value in node.entries if key.text not in ENTRY.by_name]
        own_part = MappingNode(known, node.place, len(known))
        values = check_mapping(self.report, own_part, ENTRY, path)
        kind, name = self._identify(values, node, path)
        if not kind or not name:
            return None
        own: Values = {}
        if "defaults" in values:
            own = check_mapping(self.report, values["defaults"].node, INSTANCE, f"{path}.defaults")
        settings = MappingNode(rest, node.place, min(node.own, len(rest)))
        if kind == AWS_TYPE:
            info, own = read_aws(self.report, settings, own, path)
            return replace(info, name=name, defaults=_layer(self.layers, kind, name, own))
        info = ProviderInfo(name, kind, _layer(self.layers, kind, name, own))
        if kind == "ssh":
            return self._ssh(info, settings, path)
        if kind == LOCAL:
            check_mapping(self.report, settings, ENTRY, path, (DEFAULTS,))
            return info
        return replace(
            info,
            settings=tuple((key.text, render_inline(value)) for key, value in rest),
            unavailable=f"provider type {kind!r} arrives in a later version",
        )

    def _identify(self, values: Values, node: MappingNode, path: str) -> tuple[str, str]:
        """(type, name), "" for what cannot be told."""
        kind = value_of(values, "type")
        name = values["name"].value if "name" in values else kind
        if "type" not in values:
            self.report.error(f"{path}: a provider needs 'type': {', '.join(TYPES)}", node.place, path=path)
        if not isinstance(kind, str) or not isinstance(name, str):
            return "", ""
        if name in RESERVED and name != kind:
            what = "this machine" if name == LOCAL else "every provider" if name == "all" else f"the type {name!r}"
            message = f"{path}.name: {name!r} means {what}; a provider of type {kind!r} needs another name"
            self.report.error(message, values["name"].node.place, path=f"{path}.name")
        return kind, name

    def _ssh(self, info: ProviderInfo, node: MappingNode, path: str) -> ProviderInfo:
        report = Report(problems=self.report.problems)
        hosts = HostsReader(report, self.folder, self.home).read(node, path)
        return replace(info, rendered=hosts.settings, warnings=tuple(report.warnings), origins=tuple(hosts.origins))

"""`providers.yml`: where machines come from. `local` always exists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from cloudsend_cli.errors import ConfigError

from .check import Field, Given, Report, Table, Values, check_mapping, choice_value, word_value
from .context import ProviderInfo
from .document import Items, Node, Place, is_null, render_inline
from .document import Mapping as MappingNode
from .load import read_document
from .schema import INSTANCE, TEXT, node_value

TYPES = ("local", "ssh", "slurm", "aws", "gcp")
AVAILABLE = frozenset({"local"})
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
        Field("name", (), word_value, TEXT, "What configs call it."),
        Field("type", (), choice_value(*TYPES), {"enum": list(TYPES)}, "What kind of place it is."),
        Field("defaults", (), node_value, {}, "Defaults of its machines."),
    ),
)


def list_search_paths(folder: str, environ: Mapping[str, str]) -> list[str]:
    """Where providers.yml may lie, the nearest first: beside the config, then the user's own."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", os.path.expanduser("~")), ".config")
    return [os.path.join(folder, FILE_NAME), os.path.join(home, "cloudsend", FILE_NAME)]


def load_providers(paths: Sequence[str]) -> dict[str, ProviderInfo]:
    """Providers by name from the first of `paths` that exists; `local` is always there. Raises ConfigError."""
    for path in paths:
        if os.path.lexists(path):
            return _read(path)
    return {"local": ProviderInfo("local", "local")}


def _read(path: str) -> dict[str, ProviderInfo]:
    root, problems = read_document(path, os.path.abspath(path))
    report = Report(problems=problems)
    top = check_mapping(report, root, FILE, "", free="x-")
    layers = _read_layers(report, top.get("defaults"))
    found: dict[str, ProviderInfo] = {}
    node = top["providers"].node if "providers" in top else None
    nodes: list[Node] = node.items if isinstance(node, Items) else [node] if node is not None else []
    for index, item in enumerate(nodes):
        info = _read_provider(report, item, f"providers[{index}]", layers)
        if info is None:
            continue
        if info.name in found:
            report.error(f"providers[{index}]: a second provider is called {info.name!r}", item.place)
        found[info.name] = info
    if "local" not in found:
        found = {"local": ProviderInfo("local", "local", _layer(layers, "local", "local", {})), **found}
    for name in layers:
        if name not in ("all", *TYPES, *found) and top.get("defaults"):
            place = _key_place(top["defaults"], name)
            report.error(f"defaults: {name!r} is neither 'all', a type nor a provider", place, path=f"defaults.{name}")
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


def _read_provider(report: Report, node: Node, path: str, layers: Mapping[str, Values]) -> ProviderInfo | None:
    if not isinstance(node, MappingNode):
        report.error(f"{path}: expected a provider with 'name' and 'type'", node.place, path=path)
        return None
    known = [(key, value) for key, value in node.entries if key.text in ENTRY.by_name]
    settings = [(key, value) for key, value in node.entries if key.text not in ENTRY.by_name]
    values = check_mapping(report, MappingNode(known, node.place, len(known)), ENTRY, path)
    kind = values["type"].value if "type" in values else None
    name = values["name"].value if "name" in values else kind
    if not isinstance(kind, str) or not isinstance(name, str):
        if "type" not in values:
            report.error(f"{path}: a provider needs 'type': {', '.join(TYPES)}", node.place, path=path)
        return None
    own: Values = {}
    if "defaults" in values:
        own = check_mapping(report, values["defaults"].node, INSTANCE, f"{path}.defaults")
    return ProviderInfo(
        name,
        kind,
        _layer(layers, kind, name, own),
        settings=tuple((key.text, render_inline(value)) for key, value in settings),
        unavailable="" if kind in AVAILABLE else f"provider type {kind!r} arrives in a later version",
    )

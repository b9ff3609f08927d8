"""`hosts:` of a provider of type ssh, and `ssh:HOST` without any file, to the settings of its definition."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from .addresses import HostWord
from .check import Report, check_mapping, clip
from .document import Items, Mapping, Node, Place, Scalar, is_null, items_of, render_inline, show_text
from .given import Given, Values, value_of
from .host_fields import DEFAULTS, HOST, SSH, host_value, without_secrets

MAX_HOSTS = 10_000
AD_HOC = "ssh:"

Json = dict[str, object]

_KEPT = ("user", "port", "key", "jump", "python", "home", "shared", "max_load", "labels")
_SIZES = ("cpus", "memory", "gpus")


@dataclass(slots=True)
class Hosts:
    """What became of `hosts`: complete entries, and where each value comes from."""

    entries: list[Json] = field(default_factory=list)
    origins: list[tuple[str, str, str]] = field(default_factory=list)  # (hosts[0].user, value, place)

    @property
    def settings(self) -> str:
        return json.dumps({"hosts": self.entries}, sort_keys=True, separators=(",", ":"))


class HostsReader:
    """Reads one provider. Paths of keys are relative to `folder`, `~` is `home`."""

    def __init__(self, report: Report, folder: str, home: str) -> None:
        self.report = report
        self.folder = folder
        self.home = home
        self._names: dict[str, Place] = {}
        self._machines: dict[tuple[object, ...], Place] = {}
        self._keys: set[str] = set()

    def read(self, node: Mapping, path: str) -> Hosts:
        """The keys of the provider besides name, type and defaults."""
        values = check_mapping(self.report, without_secrets(self.report, node, path), SSH, path, (HOST, DEFAULTS))
        found = Hosts()
        given = values.get("hosts")
        nodes = [] if given is None else items_of(given.node)
        if not nodes:
            message = f"{path}: a provider of type ssh needs 'hosts'"
            place = node.place if given is None else given.node.place
            self.report.error(message, place, "write hosts: [gpu1, me@gpu2.lab]", path)
        if len(nodes) > MAX_HOSTS:
            self.report.error(f"{path}.hosts: more than {MAX_HOSTS:,} hosts", nodes[0].place, path=f"{path}.hosts")
            nodes = []
        for index, item in enumerate(nodes):
            where = (
                f"{path}.hosts[{index}]" if given is not None and isinstance(given.node, Items) else f"{path}.hosts"
            )
            self._read_host(item, where, values, found)
        return found

    def _read_host(self, node: Node, path: str, shared: Values, found: Hosts) -> None:
        if not isinstance(node, Mapping):
            word = host_value(self.report, node, path)
            values: Values = {}
            if word is not None and isinstance(node, Scalar):
                values["host"] = Given("host", word, node, node, path)
        elif not any(isinstance(value, Scalar) and not is_null(value) for _, value in node.entries):
            # `gpu1: {cpus: 8}`, or an empty mapping: its keys are no keys of a host.
            self.report.error(f"{path}: a host needs 'host'", node.place, "write {host: gpu1, cpus: 8}", path)
            return
        else:
            before = len(self.report.problems)
            values = check_mapping(self.report, without_secrets(self.report, node, path), HOST, path, (SSH,))
            if "host" not in values and len(self.report.problems) == before:
                self.report.error(f"{path}: a host needs 'host'", node.place, "write {host: gpu1, cpus: 8}", path)
        given = values.get("host")
        if given is None or not isinstance(given.value, HostWord):
            return
        entry = self._complete(values, given.value, shared, found)
        self._check_twice(entry, given, values, path)
        found.entries.append(entry)

    def _complete(self, values: Values, word: HostWord, shared: Values, found: Hosts) -> Json:
        """The entry with all that holds for it: its own keys, then what its word says, then the provider's."""
        host = values["host"]
        entry: Json = {"host": word.host, "name": value_of(values, "name") or word.name}
        origins = {"host": (word.host, host.node.place)}
        if "name" in values:
            origins["name"] = (str(entry["name"]), values["name"].node.place)
        said: dict[str, object] = {"user": word.user, "port": word.port}
        for key in _KEPT:
            own = values.get(key)
            if own is not None and said.get(key) and own.value not in (None, said[key]):
                message = f"{own.path}: {clip(_show(own.value))} here, but {clip(_show(said[key]))} in 'host'"
                self.report.error(message, own.node.place, "give it once", own.path)
            inherited = shared.get(key)
            if own is not None:
                self._put(entry, origins, key, own.value, own)
            elif said.get(key):
                self._put(entry, origins, key, said[key], host)
            elif inherited is not None:
                self._put(entry, origins, key, inherited.value, inherited)
        for key in _SIZES:
            if key in values:
                self._put(entry, origins, key, values[key].value, values[key])
        index = len(found.entries)
        found.origins += [(f"hosts[{index}].{key}", text, place.origin) for key, (text, place) in origins.items()]
        return entry

    def _put(self, entry: Json, origins: dict[str, tuple[str, Place]], key: str, value: object, given: Given) -> None:
        if value is None:
            return
        if key == "key" and isinstance(value, str):
            value = self._find_key(value, given)
        elif isinstance(value, float) and value.is_integer():
            value = int(value)
        if value != "none" or key != "jump":
            entry[key] = value
        written = given.name == key != "key" and key != "labels"
        origins[key] = (render_inline(given.node) if written else _show(value), given.node.place)

    def _find_key(self, text: str, given: Given) -> str:
        if self.home and (text == "~" or text.startswith("~/")):
            text = self.home + text[1:]
        absolute = os.path.normpath(os.path.join(self.folder, os.path.expanduser(text)))
        if absolute not in self._keys and not os.path.isfile(absolute):
            what = "is a directory, not a key" if os.path.isdir(absolute) else "does not exist"
            self.report.warn(f"{given.path}: {show_text(absolute)} {what}", given.node.place, path=given.path)
        self._keys.add(absolute)
        return absolute

    def _check_twice(self, entry: Json, host: Given, values: Values, path: str) -> None:
        place = host.node.place
        machine = (str(entry["host"]).lower(), *(entry.get(key) for key in ("user", "port", "jump", "home")))
        if machine in self._machines:
            hint = self._machines[machine].first_given
            shown = HostWord(str(entry["host"]), str(entry.get("user") or ""), _whole(entry.get("port")))
            self.report.error(f"{path}: {clip(str(shown))} is given twice", place, hint, path)
            return
        self._machines[machine] = place
        name, named = str(entry["name"]), values.get("name", host).node.place
        if name in self._names:
            line = self._names[name].line
            hint = f"the first is on line {line}; give one of them a 'name'" if line else "give one of them a 'name'"
            self.report.error(f"{path}: a second host is called {clip(name)}", named, hint, path)
        self._names[name] = named


def read_ad_hoc(report: Report, name: str, place: Place) -> Hosts | None:
    """The one host of `ssh:user@host:port`, as the user's SSH configuration has it."""
    word = host_value(report, Scalar(name.removeprefix(AD_HOC), False, place), "provider")
    if word is None:
        return None
    found = Hosts()
    entry: Json = {"host": word.host, "name": word.name, "user": word.user, "port": word.port}
    found.entries.append({key: value for key, value in entry.items() if value})
    where = place.origin
    found.origins += [
        (f"hosts[0].{key}", str(value), where) for key, value in found.entries[0].items() if key != "name"
    ]
    return found


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _show(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)

"""Security groups, for new TCP connections: what moto has stored becomes rules in front of each machine."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from .fleet import Fleet
from .instance import Instance
from .moto_server import MotoServer
from .wire import text


@dataclass(frozen=True)
class Rule:
    ports: tuple[int, int] | None  # None: all
    source: str | None  # None: a group
    group: str | None = None


class Firewall:
    def __init__(self, moto: MotoServer, fleet: Fleet) -> None:
        self._moto, self._fleet = moto, fleet
        self._groups: dict[str, dict[str, list[Rule]]] = {}
        self._guard = threading.Lock()
        fleet.apply_firewall = self.apply

    def clear(self) -> None:
        with self._guard:
            self._groups.clear()

    def reload(self, region: str) -> None:
        """After a change of a group."""
        with self._guard:
            self._groups[region] = self._fetch(region)
        for one in list(self._fleet.instances.values()):
            if one.region == region and one.host is not None:
                self.apply(one)

    def apply(self, one: Instance) -> None:
        with self._guard:
            groups = self._groups.get(one.region)
            if groups is None or not set(one.groups) <= groups.keys():
                groups = self._groups[one.region] = self._fetch(one.region)
        host = one.host
        if host is not None:
            rules = [rule for group in one.groups for rule in groups.get(group, [])]
            host.firewall(list(dict.fromkeys(self._matches(rules))))

    def _fetch(self, region: str) -> dict[str, list[Rule]]:
        found = self._moto.query(region, "DescribeSecurityGroups", {})
        groups = {}
        for group in found.iterfind("securityGroupInfo/item"):
            rules = groups[text(group, "groupId")] = []
            for entry in group.iterfind("ipPermissions/item"):
                if text(entry, "ipProtocol") not in {"tcp", "6", "-1"}:
                    continue
                first, last = text(entry, "fromPort"), text(entry, "toPort")
                ports = (int(first), int(last)) if first and last and first != "-1" else None
                rules += [Rule(ports, text(source, "cidrIp")) for source in entry.iterfind("ipRanges/item")]
                rules += [Rule(ports, None, text(source, "groupId")) for source in entry.iterfind("groups/item")]
        return groups

    def _matches(self, rules: Iterable[Rule]) -> Iterable[str]:
        for rule in rules:
            port = "" if rule.ports is None else f"tcp dport {rule.ports[0]}-{rule.ports[1]}"
            if rule.ports is not None and rule.ports[0] == rule.ports[1]:
                port = f"tcp dport {rule.ports[0]}"
            for source in [rule.source] if rule.source is not None else self._members(rule.group):
                yield " ".join(part for part in (_from(source), port) if part)

    def _members(self, group: str | None) -> Iterable[str]:
        for one in list(self._fleet.instances.values()):
            host = one.host
            if host is not None and group in one.groups:
                yield host.address
                if host.private_address is not None:
                    yield host.private_address


def _from(source: str) -> str:
    return "" if source == "0.0.0.0/0" else f"ip saddr {source}"

"""Where in a region machines start: subnets by zone, and which zones have the type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudsend_cli.errors import ConfigError, Problem

from .clients import Account
from .settings import Wanted

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Place:
    """One zone with the subnet that is used there."""

    zone: str
    vpc: str
    subnet: str
    public: bool = True  # whether the internet reaches machines there
    free: int = 0  # addresses


def fetch_subnets(account: Account, region: str) -> list[Mapping[str, Any]]:
    """All subnets of the region that the account may use."""
    pages = account.pages(f"list the networks of {region}", "ec2", "describe_subnets", region)
    return [entry for page in pages for entry in page.get("Subnets", [])]


def fetch_offerings(account: Account, region: str, names: Sequence[str]) -> dict[str, frozenset[str]]:
    """The zones that have each type; a type that is nowhere in the region has none."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for page in account.pages(
        f"list the zones of {region} that have {', '.join(names[:3])}{' …' if len(names) > 3 else ''}",
        "ec2",
        "describe_instance_type_offerings",
        region,
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": list(names)}],
    ):
        for entry in page.get("InstanceTypeOfferings", []):
            found.setdefault(entry["InstanceType"], set()).add(entry["Location"])
    return {name: frozenset(zones) for name, zones in found.items()}


def fetch_routed(account: Account, region: str, vpc: str, subnets: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The subnets of a network from which the internet is reached directly, and which it reaches."""
    tables: list[Mapping[str, Any]] = []
    wanted = [{"Name": "vpc-id", "Values": [vpc]}]
    for page in account.pages(f"look at the routes of {vpc}", "ec2", "describe_route_tables", region, Filters=wanted):
        tables += page.get("RouteTables", [])
    return find_routed([str(entry["SubnetId"]) for entry in subnets if entry["VpcId"] == vpc], tables)


def find_routed(subnets: Sequence[str], tables: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Those whose table, their own or else the network's main one, leads to an internet gateway."""
    own: dict[str, Mapping[str, Any]] = {}
    main: Mapping[str, Any] = {}
    for table in tables:
        for association in table.get("Associations", []):
            if association.get("Main"):
                main = table
            elif association.get("SubnetId"):
                own[association["SubnetId"]] = table
    return frozenset(subnet for subnet in subnets if _leads_out(own.get(subnet, main)))


def _leads_out(table: Mapping[str, Any]) -> bool:
    return any(
        route.get("DestinationCidrBlock") == "0.0.0.0/0" and str(route.get("GatewayId", "")).startswith("igw-")
        for route in table.get("Routes", [])
    )


def choose_places(
    region: str, wanted: Wanted, subnets: Sequence[Mapping[str, Any]], routed: frozenset[str] | None = None
) -> tuple[tuple[Place, ...], list[str]]:
    """One subnet for each zone, by name of the zone, and warnings. ConfigError: there is none.

    `routed`: subnets that the internet reaches; None: those count that give public addresses by themselves.

    A network that does not exist is replaced by the account's default one; a subnet or a zone is not, as somebody
    who names one has a reason to want nothing else.
    """
    warnings: list[str] = []
    if wanted.subnet:
        found = [entry for entry in subnets if entry["SubnetId"] == wanted.subnet]
        if not found:
            raise _wrong(f"subnet: {wanted.subnet} is not in {region}", _show_subnets(subnets, wanted.vpc))
        if wanted.vpc and found[0]["VpcId"] != wanted.vpc:
            warnings.append(f"vpc: {wanted.subnet} is in {found[0]['VpcId']}, not in {wanted.vpc}; it is used there")
    else:
        found, warnings = _in_network(region, wanted.vpc, subnets)
    usable = [_place(entry, routed) for entry in found if entry.get("State", "available") == "available"]
    places = _one_each_zone(region, wanted, [place for place in usable if place.free > 0])
    if not places:
        raise _wrong(*_explain(region, wanted, usable))
    if not any(place.public for place in places):
        warnings.append(
            f"vpc: no subnet of {places[0].vpc} leads to the internet: machines have private addresses only, and are "
            "reached from inside of that network"
        )
    return places, warnings


def _in_network(
    region: str, vpc: str, subnets: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[str]]:
    default = [entry for entry in subnets if entry.get("DefaultForAz")]
    own = [entry for entry in subnets if vpc and entry["VpcId"] == vpc]
    if own:
        return own, []
    if not default:
        what = f"vpc: {vpc} has no subnet in {region}, and" if vpc else "vpc:"
        raise _wrong(f"{what} the account has no default network in {region}", _show_networks(subnets))
    if vpc:
        return default, [f"vpc: {vpc} has no subnet in {region}; the default network {default[0]['VpcId']} is used"]
    return default, []


def _one_each_zone(region: str, wanted: Wanted, places: Sequence[Place]) -> tuple[Place, ...]:
    """Of several subnets in a zone: a public one, then that with most addresses. Local zones only where named."""
    best: dict[str, Place] = {}
    for place in sorted(places, key=lambda p: (not p.public, -p.free, p.subnet)):
        named = place.zone in wanted.zones or bool(wanted.subnet)
        if named or (not wanted.zones and re.fullmatch(re.escape(region) + "[a-z]", place.zone)):
            best.setdefault(place.zone, place)
    return tuple(best[zone] for zone in sorted(best))


def _explain(region: str, wanted: Wanted, usable: Sequence[Place]) -> tuple[str, str]:
    if usable and all(place.free <= 0 for place in usable):
        return f"subnet: no free address is left in {', '.join(p.subnet for p in usable[:_SHOWN])}", "use another"
    zones = sorted({place.zone for place in usable})
    if wanted.zones and zones:
        return f"zone: there is no subnet in {', '.join(wanted.zones)}", f"there are some in {', '.join(zones)}"
    return f"vpc: no subnet of {region} can be used", "they are still being made, or outside of the region's zones"


def _place(entry: Mapping[str, Any], routed: frozenset[str] | None) -> Place:
    subnet = str(entry["SubnetId"])
    return Place(
        str(entry["AvailabilityZone"]),
        str(entry["VpcId"]),
        subnet,
        bool(entry.get("MapPublicIpOnLaunch")) if routed is None else subnet in routed,
        int(entry.get("AvailableIpAddressCount", 1)),
    )


def _show_networks(subnets: Sequence[Mapping[str, Any]]) -> str:
    networks = sorted({str(entry["VpcId"]) for entry in subnets})
    if networks:
        return f"name one: {', '.join(networks[:_SHOWN])}"
    return "`aws ec2 create-default-vpc` makes one"


def _show_subnets(subnets: Sequence[Mapping[str, Any]], vpc: str) -> str:
    found = [str(entry["SubnetId"]) for entry in subnets if not vpc or entry["VpcId"] == vpc]
    return f"there are {', '.join(sorted(found)[:_SHOWN])}" if found else "leave it out"


def _wrong(message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(f"{message}; {hint}")])

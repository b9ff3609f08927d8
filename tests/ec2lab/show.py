"""What DescribeInstances shows: moto's words, with what the lab knows better."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from xml.etree import ElementTree as Tree

from .instance import CODES, Instance
from .wire import put, text

OF_THE_LAB = {
    "instance-state-name", "instance-state-code", "client-token", "ip-address", "private-ip-address", "dns-name",
    "instance-lifecycle", "spot-instance-request-id", "state-reason-code", "instance.group-id", "launch-time",
}  # fmt: skip
LOST = ("ipAddress", "dnsName", "privateIpAddress", "subnetId", "vpcId", "networkInterfaceSet", "blockDeviceMapping")


def stamp(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(when))


def transition(since: float, words: str) -> str:
    return f"{words} ({time.strftime('%Y-%m-%d %H:%M:%S GMT', time.gmtime(since))})" if words else ""


def overlay(item: Tree.Element, one: Instance, when: float) -> None:
    """As it was at a time, for one that is shown late."""
    moment = one.at(when)
    put(item, "instanceState", {"code": CODES[moment.state], "name": moment.state})
    put(item, "launchTime", stamp(one.launched))
    put(item, "clientToken", one.token)
    put(item, "imageId", one.image)
    put(item, "keyName", one.key_name)
    put(
        item,
        "dnsName",
        f"ec2-{moment.public.replace('.', '-')}.{one.region}.compute.amazonaws.com" if moment.public else "",
    )
    put(item, "ipAddress", moment.public)
    if one.private is not None:
        put(item, "privateIpAddress", one.private)
    put(item, "groupSet", [{"groupId": group, "groupName": group} for group in one.groups])
    put(item, "instanceLifecycle", "spot" if one.market == "spot" else None)
    put(item, "spotInstanceRequestId", one.spot_request)
    cores, threads = one.cpus or (max(1, one.vcpus // 2), 2)
    put(item, "cpuOptions", {"coreCount": cores, "threadsPerCore": threads})
    reason = moment.reason
    put(item, "stateReason", None if reason is None else {"code": reason.code, "message": reason.message})
    put(item, "reason", transition(one.asked_at(moment), reason.transition) if reason else "")
    if moment.state == "terminated":
        for name in LOST:
            put(item, name, None)
    for interface in item.iterfind("networkInterfaceSet/item"):
        _interface(interface, one, moment.public)


def _interface(interface: Tree.Element, one: Instance, public: str | None) -> None:
    if one.private is not None:
        put(interface, "privateIpAddress", one.private)
        for element in interface.iterfind("privateIpAddressesSet/item"):
            put(element, "privateIpAddress", one.private)
    for element in (interface, *interface.iterfind("privateIpAddressesSet/item")):
        put(element, "association", {"publicIp": public, "ipOwnerId": "amazon"} if public else None)


def fits(item: Tree.Element, filters: Mapping[str, Iterable[str]]) -> bool:
    """By the filters that moto cannot apply, on what is shown."""
    for name, wanted in filters.items():
        found = _values(item, name)
        if not any(fnmatchcase(value, pattern) for value in found for pattern in wanted):
            return False
    return True


def _values(item: Tree.Element, name: str) -> list[str]:
    paths = {
        "instance-state-name": "instanceState/name",
        "instance-state-code": "instanceState/code",
        "client-token": "clientToken",
        "ip-address": "ipAddress",
        "private-ip-address": "privateIpAddress",
        "dns-name": "dnsName",
        "instance-lifecycle": "instanceLifecycle",
        "spot-instance-request-id": "spotInstanceRequestId",
        "state-reason-code": "stateReason/code",
        "launch-time": "launchTime",
    }
    if name == "instance.group-id":
        return [text(group, "groupId") for group in item.iterfind("groupSet/item")]
    return [text(item, paths[name])]

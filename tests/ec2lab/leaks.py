"""What is still there and would cost money or clutter an account."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .fleet import Fleet
from .moto_server import ACCOUNT, MotoServer
from .spot_requests import SpotRequests
from .wire import text

# action, filters, items, id
KINDS = (
    ("volume", "DescribeVolumes", {}, "volumeSet/item", "volumeId"),
    ("address", "DescribeAddresses", {}, "addressesSet/item", "publicIp"),
    ("interface", "DescribeNetworkInterfaces", {}, "networkInterfaceSet/item", "networkInterfaceId"),
    ("key pair", "DescribeKeyPairs", {}, "keySet/item", "keyName"),
    ("group", "DescribeSecurityGroups", {}, "securityGroupInfo/item", "groupId"),
    ("snapshot", "DescribeSnapshots", {"Owner.1": ACCOUNT}, "snapshotSet/item", "snapshotId"),
    ("template", "DescribeLaunchTemplates", {}, "launchTemplates/item", "launchTemplateId"),
)


def list_leaks(moto: MotoServer, fleet: Fleet, spot: SpotRequests, regions: Sequence[str]) -> list[str]:
    found = [
        f"instance {one.id} {one.state} in {one.region}"
        for one in list(fleet.instances.values())
        if one.state != "terminated"
    ]
    found += [f"spot request {one.id} in {one.region}" for one in spot.open()]
    return [*found, *(line for region in regions for line in _list_in(moto, region))]


def _list_in(moto: MotoServer, region: str) -> Iterator[str]:
    for kind, action, params, items, name in KINDS:
        for item in moto.query(region, action, params).iterfind(items):
            is_given = text(item, "groupName") == "default" or text(item, "description").startswith(
                "Auto-created snapshot"
            )
            if not is_given:
                yield f"{kind} {text(item, name)} in {region}"

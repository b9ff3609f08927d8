"""What of AWS's answers is a left-over of ours, and whether it may go. No network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudsend_cli.providers.aws.clients import Account
from cloudsend_cli.providers.aws.leftovers import parse_leftover, read_tags
from cloudsend_cli.providers.aws.tenant import Tenant

IDS = {
    "volume": "VolumeId", "address": "AllocationId", "interface": "NetworkInterfaceId", "key": "KeyName",
    "group": "GroupId", "snapshot": "SnapshotId", "spot-request": "SpotInstanceRequestId",
}  # fmt: skip


@pytest.fixture
def tenant(state_dir: Path) -> Tenant:
    return Tenant("aws", Account("", "eu-west-3"), state_dir)


def entry(kind: str, owner: str | None, **more: Any) -> dict[str, Any]:
    tags = [] if owner is None else [{"Key": "cloudsend:owner", "Value": owner}]
    return {IDS[kind]: "x-1", "TagSet" if kind == "interface" else "Tags": tags, **more}


@pytest.mark.parametrize(
    ("kind", "more", "removable", "why"),
    [
        ("volume", {"State": "available", "Size": 8}, True, "8 GB; no machine uses it"),
        ("volume", {"State": "creating", "Size": 8}, False, "8 GB; it is being made"),
        (
            "volume",
            {"State": "in-use", "Size": 8, "Attachments": [{"State": "attached", "InstanceId": "i-1"}]},
            False,
            "8 GB; i-1 uses it",
        ),
        (
            "volume",
            {"State": "in-use", "Size": 8, "Attachments": [{"State": "detaching", "InstanceId": "i-1"}]},
            False,
            "8 GB; i-1 uses it",
        ),
        (
            "volume",
            {"State": "available", "Size": 8, "Attachments": [{"State": "detached"}]},
            True,
            "8 GB; no machine",
        ),
        ("address", {"PublicIp": "192.0.2.1"}, True, "192.0.2.1; nothing uses it"),
        ("address", {"PublicIp": "192.0.2.1", "InstanceId": "i-1"}, False, "192.0.2.1; i-1 uses it"),
        ("address", {"PublicIp": "192.0.2.1", "NetworkInterfaceId": "eni-1"}, False, "192.0.2.1; eni-1 uses it"),
        ("interface", {"Status": "available"}, True, "no machine uses it"),
        ("interface", {"Status": "in-use"}, False, "a machine uses it"),
        (
            "interface",
            {"Status": "in-use", "Attachment": {"Status": "attached", "InstanceId": "i-1"}},
            False,
            "i-1 uses it",
        ),
        ("key", {"KeyPairId": "key-1"}, True, "key-1; logins do not need it"),
        ("group", {"GroupName": "g", "VpcId": "vpc-1"}, True, "g; made again when a machine is rented in vpc-1"),
        ("snapshot", {"VolumeSize": 8}, True, "8 GB"),
        ("spot-request", {"State": "open"}, True, "it may still start a machine"),
        ("spot-request", {"State": "active", "InstanceId": "i-1"}, False, "i-1 runs by it"),
    ],
)
def test_what_is_left_over(tenant: Tenant, kind: str, more: dict[str, Any], removable: bool, why: str) -> None:
    found = parse_leftover(tenant, "eu-west-3", kind, entry(kind, tenant.identity.owner, **more))
    assert found is not None
    assert (found.kind, found.id, found.region, found.removable) == (kind, "x-1", "eu-west-3", removable)
    assert found.why.startswith(why)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("volume", {"State": "deleting"}),
        ("spot-request", {"State": "closed"}),
        ("spot-request", {"State": "cancelled"}),
        ("spot-request", {"State": "failed"}),
    ],
)
def test_what_is_gone_anyway(tenant: Tenant, kind: str, more: dict[str, Any]) -> None:
    assert parse_leftover(tenant, "eu-west-3", kind, entry(kind, tenant.identity.owner, **more)) is None


@pytest.mark.parametrize("kind", list(IDS))
@pytest.mark.parametrize("owner", [None, "", "0" * 16])
def test_what_does_not_carry_our_tag_is_not_ours_whatever_the_filter_let_through(
    tenant: Tenant, kind: str, owner: str | None
) -> None:
    assert parse_leftover(tenant, "eu-west-3", kind, entry(kind, owner, State="open", Size=8)) is None


def test_interfaces_have_their_tags_under_another_name() -> None:
    assert read_tags({"TagSet": [{"Key": "a", "Value": "b"}]}) == read_tags({"Tags": [{"Key": "a", "Value": "b"}]})
    assert read_tags({}) == {}

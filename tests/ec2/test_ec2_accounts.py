"""`check` and what is left over, on the lab of AWS: each question's answer when all is well, and when it is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ec2lab import Cloud

from cloudsend_cli.core.model import Finding, Leftover, ProviderDefinition
from cloudsend_cli.errors import AuthError, NotFoundError, ProviderError, UnreachableError
from cloudsend_cli.providers.aws.accounts import judge_clock
from cloudsend_cli.providers.aws.clients import Account, forget_clients
from cloudsend_cli.providers.aws.firewall import VARIABLE, open_group
from cloudsend_cli.providers.aws.identity import record_region
from cloudsend_cli.providers.aws.leftovers import list_leftovers, remove_leftover
from cloudsend_cli.providers.aws.policy import load_policy
from cloudsend_cli.providers.aws.provider import AwsProvider
from cloudsend_cli.providers.aws.tenant import Tenant

REGION, ELSEWHERE = "eu-west-3", "us-east-1"
CALLER = "192.0.2.7/32"
Check = Callable[..., dict[str, Finding]]


@pytest.fixture
def aws(ec2: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ec2.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(VARIABLE, CALLER)
    forget_clients()
    yield ec2
    forget_clients()


@pytest.fixture
def tenant(aws: Cloud, state_dir: Path) -> Tenant:
    """An installation that has rented something in two regions."""
    made = Tenant("aws", Account("", REGION), state_dir)
    assert made.identity.owner
    for region in (REGION, ELSEWHERE):
        record_region(state_dir, region)
    return made


@pytest.fixture
def check(aws: Cloud, state_dir: Path) -> Check:
    def ask(fix: bool = False, region: str | None = REGION) -> dict[str, Finding]:
        definition = ProviderDefinition("aws", "aws", json.dumps({"profile": None, "region": region}))
        found = list(AwsProvider(definition, state_dir).check_account(fix=fix))
        return {finding.name: finding for finding in found}

    return ask


def tags(owner: str, kind: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": "cloudsend:owner", "Value": owner}]}]


# ---- check ---------------------------------------------------------------------------------------------------------


def test_all_is_well_before_the_first_machine(check: Check, state_dir: Path, aws: Cloud) -> None:
    found = check()
    assert [name for name, finding in found.items() if not finding.ok] == []
    assert list(found) == [
        "boto3", "credentials", "clock", "region", "image", "network", "permissions", "quotas", "prices", "firewall",
    ]  # fmt: skip
    assert found["region"].text == REGION
    assert "Standard on-demand 1152 vCPUs (0 in use), Standard spot 1152" in found["quotas"].text
    assert found["permissions"].text == "may: RunInstances, CreateSecurityGroup"
    assert found["image"].text.endswith(f"({aws.image()}), user ubuntu")
    assert found["prices"].text == "t3.micro $0.0104/h on demand"
    assert not (state_dir / "aws" / "identity").exists(), "whoever only looks leaves nothing behind"
    assert aws.leaks() == [] and aws.instances == []


def test_with_a_machine_every_act_on_it_is_tried(check: Check, tenant: Tenant, aws: Cloud) -> None:
    vpc = aws.client().describe_vpcs()["Vpcs"][0]["VpcId"]
    open_group(tenant.account, tenant.identity.owner, REGION, vpc)
    owned = tags(tenant.identity.owner, "instance")
    aws.client().run_instances(
        ImageId=aws.image(), InstanceType="t3.micro", MinCount=1, MaxCount=1, TagSpecifications=owned
    )
    found = check()
    assert found["permissions"].text == (
        "may: RunInstances, AuthorizeSecurityGroupIngress, TerminateInstances, StopInstances, StartInstances, "
        "CreateTags"
    )
    assert found["firewall"].ok and f"lets in {CALLER}" in found["firewall"].text
    assert len(aws.alive) == 1


def test_a_missing_permission_is_named_with_what_to_do(check: Check, tenant: Tenant, aws: Cloud) -> None:
    vpc = aws.client().describe_vpcs()["Vpcs"][0]["VpcId"]
    open_group(tenant.account, tenant.identity.owner, REGION, vpc)
    aws.deny("RunInstances")
    found = check()["permissions"]
    assert (found.ok, found.code) == (False, "auth")
    assert found.text == "may not: RunInstances; may: AuthorizeSecurityGroupIngress"
    assert "cloudsend aws policy" in found.hint


def test_a_launch_behind_a_foreign_group_says_nothing(check: Check, aws: Cloud) -> None:
    aws.deny("RunInstances")
    found = check()["permissions"]
    assert found.ok
    assert found.text == "may: CreateSecurityGroup; not known before the first machine: RunInstances"


def test_the_shipped_policy_is_enough_for_all_that_check_and_gc_ask(check: Check, tenant: Tenant, aws: Cloud) -> None:
    allowed = {
        a
        for s in load_policy()["Statement"]
        for a in (s["Action"] if isinstance(s["Action"], list) else [s["Action"]])
    }
    aws.credential.may = lambda request: f"{request.service}:{request.action}" in allowed | {"sts:GetCallerIdentity"}
    assert [finding for finding in check().values() if not finding.ok] == []
    assert list_leftovers(tenant) == []


@pytest.mark.parametrize(
    ("action", "name", "code"),
    [
        ("GetCallerIdentity", "credentials", "auth"),
        ("GetParameters", "image", "auth"),
        ("DescribeSubnets", "permissions", "auth"),
        ("GetServiceQuota", "quotas", "auth"),
    ],
)
def test_what_cannot_be_asked_is_told(check: Check, aws: Cloud, action: str, name: str, code: str) -> None:
    aws.deny(action)
    found = check()[name]
    assert (found.ok, found.code) == (False, code) and found.hint


def test_prices_that_cannot_be_asked_are_no_fault(check: Check, aws: Cloud) -> None:
    aws.deny("GetProducts")
    found = check()["prices"]
    assert found.ok and found.text.startswith("AWS does not tell: the shipped table is used")


def test_expired_credentials_end_the_questions(check: Check, aws: Cloud) -> None:
    aws.expire_credentials()
    found = check()
    assert list(found) == ["boto3", "credentials"]
    assert (found["credentials"].ok, found["credentials"].code) == (False, "auth") and found["credentials"].hint


def test_a_clock_that_aws_does_not_accept(check: Check, aws: Cloud) -> None:
    aws.access.skew = 3600
    try:
        found = check()["credentials"]
    finally:
        aws.access.skew = 0
    assert not found.ok and "clock" in found.hint


def test_p8_no_region(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    found = check(region=None)
    assert not found["credentials"].ok and "region" in found["credentials"].hint


def test_p8_a_region_that_is_not_enabled(check: Check, aws: Cloud) -> None:
    aws.inject(
        "DescribeRegions", "AuthFailure", message="AWS was not able to validate the provided access credentials"
    )
    found = check()
    assert not found["region"].ok and list(found)[-1] == "region"


def test_limits_of_nothing_are_no_good(check: Check, aws: Cloud) -> None:
    aws.market.quotas.update({(REGION, "L-1216C47A"): 0, (REGION, "L-34B43A08"): 0})
    found = check()["quotas"]
    assert (found.ok, found.code) == (False, "quota") and "servicequotas" in found.hint


def test_another_address_is_let_in_by_fix(
    check: Check, tenant: Tenant, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    vpc = aws.client().describe_vpcs()["Vpcs"][0]["VpcId"]
    group = open_group(tenant.account, tenant.identity.owner, REGION, vpc)
    monkeypatch.setenv(VARIABLE, "192.0.2.99/32")
    found = check()["firewall"]
    assert (found.ok, found.text) == (False, f"{group.id} in {REGION} lets in {CALLER}")
    assert "this machine is 192.0.2.99/32" in found.hint and "--fix" in found.hint
    found = check(fix=True)["firewall"]
    assert (found.ok, found.text) == (True, f"{group.id} in {REGION} lets in 192.0.2.99/32")
    rules = aws.client().describe_security_groups(GroupIds=[group.id])["SecurityGroups"][0]["IpPermissions"]
    assert [r["CidrIp"] for rule in rules for r in rule["IpRanges"]] == ["192.0.2.99/32"]
    assert check()["firewall"].ok


@pytest.mark.parametrize(
    ("date", "started", "ok", "word"),
    [
        ("Sat, 21 Nov 2026 12:00:00 GMT", 1795262400.0, True, "agrees"),
        ("Sat, 21 Nov 2026 12:00:00 GMT", 1795262400.9, True, "agrees"),
        ("Sat, 21 Nov 2026 12:00:00 GMT", 1795262430.0, True, "29 s off"),
        ("Sat, 21 Nov 2026 12:00:00 GMT", 1795262600.0, False, "199 s ahead of"),
        ("Sat, 21 Nov 2026 12:00:00 GMT", 1795262200.0, False, "200 s behind"),
    ],
)
def test_the_clock_by_the_date_of_an_answer(date: str, started: float, ok: bool, word: str) -> None:
    found = judge_clock(date, started, started)
    assert found is not None and found.ok is ok and word in found.text


def test_an_answer_without_a_date_says_nothing_of_the_clock() -> None:
    assert judge_clock("", 1.0, 2.0) is None and judge_clock("yesterday", 1.0, 2.0) is None


# ---- what is left over ---------------------------------------------------------------------------------------------


def make_everything(aws: Cloud, owner: str, region: str) -> dict[str, str]:
    """One of each kind that nothing uses, with this owner's tag."""
    client = aws.client("ec2", region)
    volume = client.create_volume(
        AvailabilityZone=f"{region}a", Size=10, VolumeType="gp3", TagSpecifications=tags(owner, "volume")
    )["VolumeId"]
    vpc = client.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = client.describe_subnets()["Subnets"][0]["SubnetId"]
    group = client.create_security_group(
        GroupName=f"g-{owner}", Description="d", VpcId=vpc, TagSpecifications=tags(owner, "security-group")
    )["GroupId"]
    made = {
        "volume": volume,
        "address": client.allocate_address(Domain="vpc", TagSpecifications=tags(owner, "elastic-ip"))["AllocationId"],
        "interface": client.create_network_interface(
            SubnetId=subnet, TagSpecifications=tags(owner, "network-interface")
        )["NetworkInterface"]["NetworkInterfaceId"],
        "snapshot": client.create_snapshot(VolumeId=volume, TagSpecifications=tags(owner, "snapshot"))["SnapshotId"],
        "group": group,
    }
    made["key"] = client.create_key_pair(KeyName=f"k-{owner}", TagSpecifications=tags(owner, "key-pair"))["KeyName"]
    return made


def by_kind(found: list[Leftover], region: str) -> dict[str, Leftover]:
    return {leftover.kind: leftover for leftover in found if leftover.region == region}


def test_everything_of_ours_is_found_in_all_regions_used_and_nothing_else(tenant: Tenant, aws: Cloud) -> None:
    owner = tenant.identity.owner
    ours = {region: make_everything(aws, owner, region) for region in (REGION, ELSEWHERE)}
    for region in (REGION, ELSEWHERE):
        make_everything(aws, "0" * 16, region)
    unused = make_everything(aws, owner, "eu-west-1")
    found = list_leftovers(tenant)
    for region, made in ours.items():
        assert {kind: leftover.id for kind, leftover in by_kind(found, region).items()} == made
    assert len(found) == 12 and not {leftover.id for leftover in found} & {unused["volume"], unused["group"]}
    assert all(leftover.removable and leftover.why and leftover.provider == "aws" for leftover in found)
    volume, address = by_kind(found, REGION)["volume"], by_kind(found, REGION)["address"]
    assert volume.why == "10 GB; no machine uses it" and volume.price == pytest.approx(0.0011, abs=0.0001)
    assert address.price == 0.005


def test_all_that_is_left_over_is_removed_and_what_is_not_ours_stays(tenant: Tenant, aws: Cloud) -> None:
    make_everything(aws, tenant.identity.owner, REGION)
    others = make_everything(aws, "0" * 16, REGION)
    for leftover in list_leftovers(tenant):
        remove_leftover(tenant, leftover)
    assert list_leftovers(tenant) == []
    client = aws.client()
    assert client.describe_volumes(VolumeIds=[others["volume"]])["Volumes"]
    assert client.describe_security_groups(GroupIds=[others["group"]])["SecurityGroups"]
    assert client.describe_addresses(AllocationIds=[others["address"]])["Addresses"]


def test_what_lost_our_tag_since_it_was_listed_is_left_alone(tenant: Tenant, aws: Cloud) -> None:
    volume = make_everything(aws, tenant.identity.owner, REGION)["volume"]
    leftover = by_kind(list_leftovers(tenant), REGION)["volume"]
    aws.client().create_tags(Resources=[volume], Tags=[{"Key": "cloudsend:owner", "Value": "0" * 16}])
    remove_leftover(tenant, leftover)
    assert aws.client().describe_volumes(VolumeIds=[volume])["Volumes"]
    assert aws.calls_of("DeleteVolume") == []


def test_a_disk_in_use_is_left_alone_and_said(tenant: Tenant, aws: Cloud) -> None:
    owner = tenant.identity.owner
    made = aws.client().run_instances(
        ImageId=aws.image(), InstanceType="t3.micro", MinCount=1, MaxCount=1,
        TagSpecifications=[*tags(owner, "instance"), *tags(owner, "volume")],
    )["Instances"][0]["InstanceId"]  # fmt: skip
    aws.wait(made, "running")
    [leftover] = [one for one in list_leftovers(tenant) if one.kind == "volume"]
    assert (leftover.removable, f"{made} uses it" in leftover.why) == (False, True)
    with pytest.raises(ProviderError, match=f"is left alone: .*{made} uses it"):
        remove_leftover(tenant, leftover)
    assert aws.calls_of("DeleteVolume") == []


def test_a_group_in_use_is_left_alone_and_said(tenant: Tenant, aws: Cloud) -> None:
    group = make_everything(aws, tenant.identity.owner, REGION)["group"]
    aws.client().run_instances(
        ImageId=aws.image(), InstanceType="t3.micro", MinCount=1, MaxCount=1, SecurityGroupIds=[group]
    )
    leftover = by_kind(list_leftovers(tenant), REGION)["group"]
    with pytest.raises(ProviderError, match=f"group {group} in {REGION} is in use"):
        remove_leftover(tenant, leftover)


def test_what_somebody_removed_meanwhile_is_fine(tenant: Tenant, aws: Cloud) -> None:
    volume = make_everything(aws, tenant.identity.owner, REGION)["volume"]
    leftover = by_kind(list_leftovers(tenant), REGION)["volume"]
    aws.inject("DeleteVolume", "InvalidVolume.NotFound", status=400)
    remove_leftover(tenant, leftover)
    aws.client().delete_volume(VolumeId=volume)
    remove_leftover(tenant, leftover)


def test_an_open_spot_request_may_still_start_a_machine(tenant: Tenant, aws: Cloud) -> None:
    """What a request of ours could only become by another's hand; it is cancelled all the same."""
    owner = tenant.identity.owner
    made = aws.client().run_instances(
        ImageId=aws.image(), InstanceType="t3.micro", MinCount=1, MaxCount=1,
        InstanceMarketOptions={"MarketType": "spot"}, TagSpecifications=tags(owner, "spot-instances-request"),
    )["Instances"][0]  # fmt: skip
    [leftover] = [one for one in list_leftovers(tenant) if one.kind == "spot-request"]
    assert (leftover.removable, leftover.why) == (False, f"{made['InstanceId']} runs by it")


def test_a_region_that_does_not_answer_is_no_answer(tenant: Tenant, aws: Cloud) -> None:
    aws.outage(ELSEWHERE, "ServiceUnavailable")
    with pytest.raises(UnreachableError):
        list_leftovers(tenant)
    aws.outage(ELSEWHERE, None)
    aws.deny("DescribeSnapshots")
    with pytest.raises(AuthError, match="look for snapshots of ours"):
        list_leftovers(tenant)


def test_many_are_found_page_by_page(tenant: Tenant, aws: Cloud) -> None:
    client, owner = aws.client(), tenant.identity.owner
    for _ in range(3):
        client.create_volume(AvailabilityZone=f"{REGION}a", Size=1, TagSpecifications=tags(owner, "volume"))
    assert len([one for one in list_leftovers(tenant) if one.kind == "volume"]) == 3


def test_a_new_installation_has_left_nothing_and_asks_nothing(aws: Cloud, state_dir: Path) -> None:
    assert list_leftovers(Tenant("aws", Account("", REGION), state_dir)) == []
    assert aws.calls == []


def test_an_unknown_kind_is_not_removed(tenant: Tenant) -> None:
    with pytest.raises(NotFoundError, match="of a kind that is not removed"):
        remove_leftover(tenant, Leftover("aws", "castle", "c-1", REGION, ""))

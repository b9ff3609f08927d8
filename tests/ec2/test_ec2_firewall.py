"""The installation's security group: who makes it, whom it lets in, and how that is mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_user import User, surroundings
from ec2lab import Cloud

from cloudsend_cli.errors import ProviderError, UnreachableError
from cloudsend_cli.providers.aws import firewall
from cloudsend_cli.providers.aws.clients import Account
from cloudsend_cli.providers.aws.firewall import (
    VARIABLE,
    find_group,
    fix_group,
    list_caller_networks,
    open_group,
)

REGION, OWNER = "eu-west-3", "0123456789abcdef"


@pytest.fixture
def user(ec2: Cloud, state_dir: Path) -> Iterator[User]:
    with surroundings(ec2):
        firewall._groups.clear()
        yield User(ec2, state_dir)


@pytest.fixture
def vpc(user: User, ec2: Cloud) -> str:
    return str(ec2.client().describe_vpcs()["Vpcs"][0]["VpcId"])


@pytest.fixture
def account() -> Account:
    return Account("", REGION)


def rules(ec2: Cloud, group: str) -> list[tuple[Any, ...]]:
    [found] = ec2.client().describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return sorted(
        (rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"), source)
        for rule in found["IpPermissions"]
        for source in [r["CidrIp"] for r in rule["IpRanges"]] + [r["CidrIpv6"] for r in rule["Ipv6Ranges"]]
    )


def test_one_group_for_all_machines_open_to_the_caller_alone(
    account: Account, ec2: Cloud, vpc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "192.0.2.7, 2001:db8::1")
    group = open_group(account, OWNER, REGION, vpc)
    firewall._groups.clear()
    assert open_group(account, OWNER, REGION, vpc).id == group.id
    assert rules(ec2, group.id) == [("tcp", 22, 22, "192.0.2.7/32"), ("tcp", 22, 22, "2001:db8::1/128")]
    [found] = ec2.client().describe_security_groups(GroupIds=[group.id])["SecurityGroups"]
    tags = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
    assert tags["cloudsend:owner"] == OWNER and found["GroupName"] == f"cloudsend-{OWNER}"
    assert open_group(account, "f" * 16, REGION, vpc).id != group.id, "another installation has its own"


@pytest.mark.parametrize("fault", ["lose_reply", "lose_request"])
@pytest.mark.parametrize("action", ["CreateSecurityGroup", "AuthorizeSecurityGroupIngress"])
def test_lost_replies_leave_one_group_with_one_rule(
    account: Account, ec2: Cloud, vpc: str, fault: str, action: str
) -> None:
    getattr(ec2, fault)(action, times=4)
    with pytest.raises(UnreachableError):
        open_group(account, OWNER, REGION, vpc)
    group = open_group(account, OWNER, REGION, vpc)
    assert rules(ec2, group.id) == [("tcp", 22, 22, f"{ec2.client_address}/32")]
    named = ec2.client().describe_security_groups(Filters=[{"Name": "group-name", "Values": ["cloudsend-*"]}])
    assert len(named["SecurityGroups"]) == 1


def test_group_of_its_name_that_is_not_ours_is_not_used(account: Account, ec2: Cloud, vpc: str) -> None:
    ec2.client().create_security_group(GroupName=f"cloudsend-{OWNER}", Description="foreign", VpcId=vpc)
    with pytest.raises(UnreachableError, match="not seen with our tag"):
        open_group(account, OWNER, REGION, vpc)


def test_other_refusals_pass(account: Account, ec2: Cloud, vpc: str) -> None:
    ec2.inject("CreateSecurityGroup", "SomethingNew")
    with pytest.raises(ProviderError, match="SomethingNew"):
        open_group(account, OWNER, REGION, vpc)


def test_caller_who_moved_rents_nothing_until_the_group_is_mended(
    user: User, ec2: Cloud, vpc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.create("t-1")
    monkeypatch.setenv(VARIABLE, "192.0.2.8")
    with pytest.raises(UnreachableError, match=r"lets in .*, and this machine is 192\.0\.2\.8/32") as caught:
        user.create("t-2")
    assert "check --fix" in caught.value.hint
    assert len(ec2.calls_of("RunInstances")) == 1
    findings = {f.name: f for f in user.provider.check_account(fix=True)}
    assert any(f.ok for name, f in findings.items() if "firewall" in name), findings
    assert user.create("t-2")
    group = find_group(Account("", REGION), user.provider._tenant.identity.owner, REGION, vpc)
    assert group is not None
    assert rules(ec2, group.id) == [("tcp", 22, 22, "192.0.2.8/32")]


def test_mending_replaces_our_own_rule_and_no_other(
    account: Account, ec2: Cloud, vpc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = open_group(account, OWNER, REGION, vpc)
    ec2.client().authorize_security_group_ingress(
        GroupId=group.id, IpProtocol="tcp", FromPort=8888, ToPort=8888, CidrIp="203.0.113.0/24"
    )
    ec2.lose_reply("RevokeSecurityGroupIngress", times=4)
    with pytest.raises(UnreachableError):
        fix_group(account, REGION, group, ["192.0.2.9/32"])
    again = find_group(account, OWNER, REGION, vpc)
    assert again is not None
    fixed = fix_group(account, REGION, again, ["192.0.2.9/32"])
    assert fixed.open_to == ("192.0.2.9/32",)
    assert rules(ec2, group.id) == [("tcp", 22, 22, "192.0.2.9/32"), ("tcp", 8888, 8888, "203.0.113.0/24")]


def test_nobody_who_tells_is_told_and_opens_nothing(
    account: Account, ec2: Cloud, vpc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(firewall, "CHECKIP", "http://127.0.0.1:1/")
    with pytest.raises(UnreachableError, match="public address"):
        list_caller_networks()
    with pytest.raises(UnreachableError, match="public address"):
        open_group(account, OWNER, REGION, vpc)
    group = find_group(account, OWNER, REGION, vpc)
    assert group is not None and group.open_to == ()


def test_group_that_is_open_is_used_where_nobody_tells_our_address(
    account: Account, vpc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = open_group(account, OWNER, REGION, vpc)
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(firewall, "CHECKIP", "http://127.0.0.1:1/")
    firewall._groups.clear()
    assert open_group(account, OWNER, REGION, vpc).id == group.id

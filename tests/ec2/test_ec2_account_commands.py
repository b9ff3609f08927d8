"""`check` and `gc` by the real command: whatever may be wrong with an account, and whatever may be left over there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_command import Desk, desk_of
from ec2lab import Cloud

REGION = "eu-west-3"
STRANGER = "0123456789abcdef"


@pytest.fixture
def desk(ec2: Cloud, state_dir: Path, tmp_path: Path) -> Iterator[Desk]:
    with desk_of(ec2, state_dir, tmp_path) as made:
        yield made
    assert ec2.failures == []


def _no_credentials(ec2: Cloud, desk: Desk) -> None:
    del desk.environ["AWS_ACCESS_KEY_ID"]


def _wrong_credentials(ec2: Cloud, desk: Desk) -> None:
    desk.environ["AWS_SECRET_ACCESS_KEY"] = "another"


def _may_not_open(ec2: Cloud, desk: Desk) -> None:
    ec2.deny("CreateSecurityGroup")


def _limit_of_nothing(ec2: Cloud, desk: Desk) -> None:
    ec2.market.quotas.update(dict.fromkeys([(REGION, "L-1216C47A"), (REGION, "L-34B43A08")], 0.0))


def _clock(ec2: Cloud, desk: Desk) -> None:
    ec2.access.skew = 3600


def _no_region(ec2: Cloud, desk: Desk) -> None:
    del desk.environ["AWS_REGION"], desk.environ["AWS_DEFAULT_REGION"]


@pytest.mark.parametrize(
    ("spoil", "name", "status", "words"),
    [
        (_no_credentials, "credentials", 4, ["AWS_PROFILE"]),
        (_wrong_credentials, "credentials", 4, ["SignatureDoesNotMatch"]),
        (_may_not_open, "permissions", 4, ["CreateSecurityGroup", "cloudsend aws policy"]),
        (_limit_of_nothing, "quotas", 5, ["Standard on-demand 0 vCPUs", "servicequotas"]),
        (_clock, "credentials", 4, ["clock"]),
        (_no_region, "credentials", 2, ["region"]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_check_says_what_is_wrong_and_what_to_do(
    ec2: Cloud, desk: Desk, spoil: Callable[[Cloud, Desk], None], name: str, status: int, words: list[str]
) -> None:
    spoil(ec2, desk)
    found = {view["name"]: view for view in desk.json("check", "-p", "aws", status=status)}
    wrong = found[f"aws {name}"]
    assert not wrong["ok"] and wrong["hint"]
    assert all(word in f"{wrong['text']} {wrong['hint']}" for word in words), wrong
    assert ec2.instances == []


CONFIG = """
provider: aws
instances: {type: t3.small}
jobs: [{name: first, run: "true"}, {name: later, run: "true", after: first}]
"""


def test_a_run_whose_launch_is_denied_says_which_action_and_what_allows_it(ec2: Cloud, desk: Desk) -> None:
    """Seen: `no-capacity`, exit status 1."""
    ec2.deny("RunInstances")
    done = desk("run", desk.config(CONFIG), status=4)
    for words in ("denied: AWS would not launch t3.small", "denied is ec2:RunInstances", "LaunchTagged", "aws policy"):
        assert words in done.stderr, done.stderr
    (run,) = desk.json("list", "runs")
    desk("wait", run["id"], status=4)
    assert "no-capacity" not in done.stdout + done.stderr


def test_credentials_that_are_over_end_each_command_with_the_same_status(ec2: Cloud, desk: Desk) -> None:
    """Seen: exit status 6 of some of them."""
    desk("create", "instance", "-p", "aws", "--set", "type=t3.small")
    config = desk.config(CONFIG)
    ec2.expire_credentials()
    for words in (
        ("run", config),
        ("run", config, "--dry-run"),
        ("create", "instance", "-p", "aws", "--set", "type=t3.small"),
        ("terminate", "instance", "--all", "--yes"),
        ("gc",),
        ("check", "-p", "aws"),
    ):
        done = desk(*words, status=4)
        assert "aws sso login" in done.stdout + done.stderr, words


def _rules(ec2: Cloud) -> list[dict[str, Any]]:
    groups = ec2.client().describe_security_groups()["SecurityGroups"]
    return [
        {"GroupId": group["GroupId"], "IpPermissions": group["IpPermissions"]}
        for group in groups
        if group["GroupName"].startswith("cloudsend-")
    ]


def test_closed_firewall_is_told_and_mended(ec2: Cloud, desk: Desk) -> None:
    name = desk.json("create", "instance", "-p", "aws", "--set", "type=t3.small")["name"]
    (group,) = _rules(ec2)
    ec2.client().revoke_security_group_ingress(**group)
    found = {view["name"]: view for view in desk.json("check", "-p", "aws", status=None)}
    assert not found["aws firewall"]["ok"] and "--fix" in found["aws firewall"]["hint"]
    assert all(view["ok"] for view in desk.json("check", "-p", "aws", "--fix"))
    assert _rules(ec2) == [group]
    assert desk("ssh", name, "--", "echo", "here").stdout == "here\n"


def _plant(ec2: Cloud, owner: str) -> dict[str, str]:
    """One of each kind of thing, which nothing uses."""
    client = ec2.client()

    def tags(kind: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": [{"Key": "cloudsend:owner", "Value": owner}]}]

    volume = client.create_volume(
        AvailabilityZone=f"{REGION}a", Size=10, VolumeType="gp3", TagSpecifications=tags("volume")
    )["VolumeId"]
    vpc = client.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = client.describe_subnets()["Subnets"][0]["SubnetId"]
    group = client.create_security_group(
        GroupName=f"g-{owner}", Description="d", VpcId=vpc, TagSpecifications=tags("security-group")
    )
    interface = client.create_network_interface(SubnetId=subnet, TagSpecifications=tags("network-interface"))
    return {
        "volume": volume,
        "address": client.allocate_address(Domain="vpc", TagSpecifications=tags("elastic-ip"))["AllocationId"],
        "interface": interface["NetworkInterface"]["NetworkInterfaceId"],
        "snapshot": client.create_snapshot(VolumeId=volume, TagSpecifications=tags("snapshot"))["SnapshotId"],
        "group": group["GroupId"],
    }


def test_gc_shows_what_is_left_over_and_removes_it_when_told(ec2: Cloud, desk: Desk) -> None:
    machine = desk.json("create", "instance", "-p", "aws", "--set", "type=t3.small")["instance_id"]
    desk("terminate", "instance", machine)
    ec2.wait(machine, "terminated")
    owner = (desk.state_dir / "aws" / "identity").read_text().strip()
    ours, theirs = _plant(ec2, owner), _plant(ec2, STRANGER)
    before = sorted(ec2.leaks())
    found = {one["id"]: one for one in desk.json("gc")}
    assert set(ours.values()) <= set(found) and not set(theirs.values()) & set(found)
    assert all(one["why"] for one in found.values())
    assert found[ours["volume"]]["price_per_hour"] > 0 and found[ours["address"]]["price_per_hour"] > 0
    said = desk("gc")
    assert "nothing was removed" in said.stderr and all(kind in said.stdout for kind in ours)
    assert sorted(ec2.leaks()) == before

    removed = desk.json("gc", "--yes")
    assert {one["outcome"] for one in removed} == {"removed"}
    assert {one["id"] for one in removed} == set(found)
    left = " ".join(ec2.leaks())
    assert not [one for one in ours.values() if one in left]
    assert len(ec2.leaks()) == len(theirs)
    assert "nothing is left over" in desk("gc", "--yes").stderr


def test_what_may_not_be_removed_is_said_and_the_rest_is_removed(ec2: Cloud, desk: Desk) -> None:
    machine = desk.json("create", "instance", "-p", "aws", "--set", "type=t3.small")["instance_id"]
    desk("terminate", "instance", machine)
    ec2.wait(machine, "terminated")
    ours = _plant(ec2, (desk.state_dir / "aws" / "identity").read_text().strip())
    ec2.deny("DeleteVolume")
    done = {one["kind"]: one for one in desk.json("gc", "--yes", status=4) if one["id"] in ours.values()}
    assert done["volume"]["outcome"].startswith("failed") and done["volume"]["code"] == "auth"
    assert {one["outcome"] for kind, one in done.items() if kind != "volume"} == {"removed"}


def test_gc_finds_the_group_by_its_tag_when_the_note_of_regions_is_gone(ec2: Cloud, desk: Desk) -> None:
    """Seen: "nothing is left over" beside a security group, after most of the state directory was removed."""
    machine = desk.json("create", "instance", "-p", "aws", "--set", "type=t3.small")["instance_id"]
    desk("terminate", "instance", machine)
    ec2.wait(machine, "terminated")
    for path in [*desk.state_dir.glob("state.db*"), desk.state_dir / "aws" / "regions"]:
        path.unlink()
    assert [one["kind"] for one in desk.json("gc")] == ["group"]
    shutil.rmtree(desk.state_dir / "aws")
    assert "carries its tag cloudsend:owner" in desk("gc").stderr

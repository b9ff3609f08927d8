"""From an intent to RunInstances and its user-data: pure, the same to the byte, and safe by default."""

from __future__ import annotations

import email
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudsend_cli.errors import ProviderError
from cloudsend_cli.providers.aws.identity import Identity, render_key_pair
from cloudsend_cli.providers.aws.launch import Intent, parse_request, render_launch
from cloudsend_cli.providers.aws.userdata import LARGEST, Limits, render_user_data

IDENTITY = Identity("0123456789abcdef", b"s" * 32, "ssh-ed25519 AAAALOGIN", "/state/aws/login")
INTENT = Intent("rabc12", "aws-0", 2, "cs-00112233445566778899aabbccddeeff")
REQUEST: dict[str, Any] = {
    "v": 1,
    "region": "eu-west-3",
    "zone": "eu-west-3a",
    "vpc": "vpc-1",
    "subnet": "subnet-1",
    "type": "m7i.large",
    "market": "on-demand",
    "max_price": None,
    "image": "ami-1",
    "user": "ubuntu",
    "root_device": "/dev/sda1",
    "disk": {"size": 30, "type": "gp3"},
    "cores": None,
    "threads": None,
    "project": "sweep",
    "idle": 600,
    "life": 86400,
    "unadopted": 1200,
    "eco_life": None,
    "reuse": True,
}


def render(intent: Intent = INTENT, identity: Identity = IDENTITY, **changes: Any) -> dict[str, Any]:
    return render_launch(parse_request(json.dumps({**REQUEST, **changes})), intent, identity, "sg-1")


def tags_of(arguments: dict[str, Any], kind: str = "instance") -> dict[str, str]:
    (found,) = [spec["Tags"] for spec in arguments["TagSpecifications"] if spec["ResourceType"] == kind]
    return {tag["Key"]: tag["Value"] for tag in found}


def parts_of(text: str) -> dict[str, str]:
    message = email.message_from_string(text)
    return {p.get_content_type(): str(p.get_payload()) for p in message.walk() if not p.is_multipart()}


def test_same_intent_renders_the_same_bytes() -> None:
    assert json.dumps(render()) == json.dumps(render())


@pytest.mark.parametrize(
    "other",
    [
        render(Intent("rabc12", "aws-0", 3, "cs-other")),
        render(type="m7i.xlarge"),
        render(zone="eu-west-3b"),
        render(identity=Identity("0123456789abcdef", b"t" * 32, "ssh-ed25519 AAAALOGIN", "")),
    ],
)
def test_another_intent_is_another_request(other: dict[str, Any]) -> None:
    assert other != render()


def test_request_on_demand() -> None:
    arguments = render()
    assert arguments["ClientToken"] == INTENT.token and len(INTENT.token) <= 64
    assert (arguments["MinCount"], arguments["MaxCount"]) == (1, 1)
    assert (arguments["ImageId"], arguments["InstanceType"]) == ("ami-1", "m7i.large")
    assert arguments["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert arguments["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
    }
    assert arguments["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/sda1",
            "Ebs": {"DeleteOnTermination": True, "Encrypted": True, "VolumeSize": 30, "VolumeType": "gp3"},
        }
    ]
    assert arguments["NetworkInterfaces"] == [
        {
            "DeviceIndex": 0,
            "DeleteOnTermination": True,
            "AssociatePublicIpAddress": True,
            "Groups": ["sg-1"],
            "SubnetId": "subnet-1",
        }
    ]
    assert arguments["Placement"] == {"AvailabilityZone": "eu-west-3a"}
    assert not {"KeyName", "InstanceMarketOptions", "CpuOptions", "IamInstanceProfile"} & set(arguments)


def test_tags_come_with_the_call_on_all_that_it_makes() -> None:
    arguments = render()
    assert tags_of(arguments) == {
        "Name": "cloudsend-sweep-aws-0",
        "cloudsend:owner": "0123456789abcdef",
        "cloudsend:run": "rabc12",
        "cloudsend:node": "aws-0",
        "cloudsend:generation": "2",
        "cloudsend:token": INTENT.token,
        "cloudsend:project": "sweep",
        "cloudsend:schema": "1",
    }
    kinds = [spec["ResourceType"] for spec in arguments["TagSpecifications"]]
    assert kinds == ["instance", "volume", "network-interface"]
    assert all(tags_of(arguments, kind) == tags_of(arguments) for kind in kinds)
    assert tags_of(render(expires=1800000000))["cloudsend:expires"] == "1800000000"


def test_spot_machine_is_asked_for_once_and_tagged() -> None:
    arguments = render(market="spot", max_price="0.02", eco_life=3600)
    assert arguments["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {
            "SpotInstanceType": "one-time",
            "InstanceInterruptionBehavior": "terminate",
            "MaxPrice": "0.02",
        },
    }
    assert tags_of(arguments, "spot-instances-request") == tags_of(arguments)
    assert "MaxPrice" not in render(market="spot")["InstanceMarketOptions"]["SpotOptions"]
    hook = parts_of(arguments["UserData"])["text/cloud-boothook"]
    assert "\nlife=3600\n" in hook and "\nspot=1\n" in hook


def test_cores_and_private_networks() -> None:
    assert render(cores=2, threads=1)["CpuOptions"] == {"CoreCount": 2, "ThreadsPerCore": 1}
    assert render(public=False)["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    assert "SubnetId" not in render(subnet=None)["NetworkInterfaces"][0]
    assert "VolumeSize" not in render(disk=None)["BlockDeviceMappings"][0]["Ebs"]


def test_long_names_fit_in_a_tag() -> None:
    assert max(map(len, tags_of(render(project="p" * 400)).values())) <= 256


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"v": 2}', json.dumps({"v": 1, "region": "eu-west-3"}), "null"])
def test_request_of_another_version_is_told(text: str) -> None:
    with pytest.raises(ProviderError, match="cannot be read"):
        parse_request(text)


def test_kind_is_that_of_requests_that_one_machine_serves() -> None:
    def kind(**changes: Any) -> str:
        return parse_request(json.dumps({**REQUEST, **changes})).kind

    assert kind() == kind(reuse=False) == kind(expires=5)
    others = [kind(type="c7i.large"), kind(project="q"), kind(zone="eu-west-3b"), kind(idle=3600), kind(image="ami-2")]
    assert len({kind(), *others}) == 6


# ---- user-data ----------------------------------------------------------------------------------------------------


def test_user_data_is_what_cloud_init_reads(tmp_path: Path) -> None:
    text = render()["UserData"]
    assert len(text.encode("ascii")) < LARGEST * 3 // 4
    parts = parts_of(text)
    assert list(parts) == ["text/cloud-boothook", "text/cloud-config"]
    config = yaml.safe_load(parts["text/cloud-config"])
    key = IDENTITY.host_key(INTENT.token)
    assert config["ssh_keys"]["ed25519_private"] == key.private + "\n"
    assert config["ssh_keys"]["ed25519_public"].startswith(key.public)
    assert config["ssh_authorized_keys"] == ["ssh-ed25519 AAAALOGIN cloudsend"]
    assert config["ssh_deletekeys"] is True and config["ssh_pwauth"] is False and config["disable_root"] is True
    hook = tmp_path / "hook"
    hook.write_text(parts["text/cloud-boothook"])
    assert hook.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(hook)], check=True)
    for line in ("idle=600", "life=86400", "unadopted=1200", "spot=0", "user=ubuntu"):
        assert f"\n{line}\n" in hook.read_text()


def test_machine_in_use_is_not_ended_by_an_idle_time_that_is_too_short() -> None:
    assert "\nidle=15\n" in render(idle=1)["UserData"]


def test_user_data_has_no_secret_but_the_first_host_key() -> None:
    text = render()["UserData"]
    assert IDENTITY.secret.hex() not in text
    assert text.count("PRIVATE KEY") == 2


@pytest.mark.parametrize("user", ["", "a b", "x;reboot", "$(id)", "a\nb", "é"])
def test_user_that_is_no_name_is_refused(user: str) -> None:
    with pytest.raises(ProviderError, match="no name of a user"):
        render(user=user)


def test_user_data_that_ec2_would_not_take_is_refused() -> None:
    with pytest.raises(ProviderError, match="16384"):
        render_user_data(
            "ubuntu",
            Limits(600, 86400, 1200),
            spot=False,
            host_key=render_key_pair(b"k" * 32, "h"),
            login_public="x" * LARGEST,
        )

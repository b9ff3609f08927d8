"""What the price list says, the file of prices, and images' users. No network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudsend_cli.providers.aws.catalog import load_types
from cloudsend_cli.providers.aws.images import guess_user, list_parameters, parse_image
from cloudsend_cli.providers.aws.prices import Prices, _read, estimate_storage, parse_product


def product(*prices: str, unit: str = "Hrs") -> str:
    parts = {f"k{n}": {"unit": unit, "pricePerUnit": {"USD": price}} for n, price in enumerate(prices)}
    return json.dumps({"product": {}, "terms": {"OnDemand": {"sku": {"priceDimensions": parts}}}})


@pytest.mark.parametrize(
    ("text", "price"),
    [
        (product("0.1008000000"), 0.1008),
        (product("0.0000000000"), None),
        (product("0.0000000000", "0.2"), 0.2),
        (product("5", unit="Quantity"), None),
        ("{}", None),
        ("[]", None),
        ("no json", None),
        (json.dumps({"terms": {"OnDemand": []}}), None),
        (json.dumps({"terms": {"OnDemand": {"s": {"priceDimensions": {"k": {"pricePerUnit": {"CNY": "1"}}}}}}}), None),
    ],
)
def test_an_entry_of_the_price_list(text: str, price: float | None) -> None:
    assert parse_product(text) == price


def test_a_spot_price_that_is_not_known_is_at_most_that_on_demand() -> None:
    prices = Prices("eu-west-3", {"m7i.large": 0.1}, {("m7i.large", "eu-west-3a"): 0.03})
    assert prices.find("m7i.large", "eu-west-3a", "spot") == 0.03
    assert prices.find("m7i.large", "eu-west-3b", "spot") == 0.1
    assert prices.find("m7i.large", "eu-west-3a", "on-demand") == 0.1
    assert prices.find("c5.large", "eu-west-3a", "spot") is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"k": 1}', '{"k": {"at": 1}}', '{"k": {"at": 1, "price": "x"}}', '{"k": {"at": 1, "zones": 3}}'],
)
def test_a_damaged_file_of_prices_is_as_good_as_none(text: str, state_dir: Path) -> None:
    (state_dir / "aws").mkdir()
    (state_dir / "aws" / "prices.json").write_text(text)
    assert _read(state_dir) == {}


def test_disks_cost_by_the_month() -> None:
    assert estimate_storage("gp3", 730) == pytest.approx(0.08)
    assert estimate_storage("io9", 730) is None


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261001", "ubuntu"),
        ("Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261001", "ubuntu"),
        ("Deep Learning Base AMI with Single CUDA (Amazon Linux 2023)", "ec2-user"),
        ("al2023-ami-2023.9.20261001.0-kernel-6.1-x86_64", "ec2-user"),
        ("amzn2-ami-kernel-5.10-hvm-2.0.20261001.0-x86_64-gp2", "ec2-user"),
        ("debian-12-amd64-20261001-1800", "admin"),
        ("Rocky-9-EC2-Base-9.6-20261001.0.x86_64", "rocky"),
        ("RHEL-9.6.0_HVM-20261001-x86_64-0-Hourly2-GP3", "ec2-user"),
        ("suse-sles-15-sp7-v20261001-hvm-ssd-x86_64", "ec2-user"),
        ("Fedora-Cloud-Base-AmazonEC2.x86_64-43-1.6", "fedora"),
        ("AlmaLinux OS 9.6.20261001 x86_64", "ec2-user"),
        ("CentOS Linux 7 x86_64 HVM EBS", "centos"),
        ("CentOS Stream 9 x86_64 20261001", "ec2-user"),
        ("bitnami-nodejs-22.0.0-0-r01-linux-vm-x86_64-ebs", "bitnami"),
        ("my-own-image", ""),
    ],
)
def test_who_logs_in_by_the_name_of_the_image(name: str, user: str) -> None:
    assert guess_user(name) == user


def test_an_image_that_says_nothing_of_its_user() -> None:
    reply = {"ImageId": "ami-1", "Name": "mine", "Architecture": "arm64", "RootDeviceName": "/dev/xvda"}
    image = parse_image(reply)
    assert (image.user, image.root_device, image.arch) == ("ec2-user", "/dev/xvda", "arm64")
    assert image.warnings == ("image: who logs in to ami-1 (mine) is not known; ec2-user is tried, 'user' names it",)
    assert parse_image(reply, "me").user == "me" and parse_image(reply, "me").warnings == ()


def test_the_size_of_an_image_is_that_of_its_root() -> None:
    disks = [
        {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 500}},
        {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 75}},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
    ]
    reply = {"ImageId": "ami-1", "Name": "ubuntu", "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": disks}
    assert parse_image(reply).disk == 75


def test_the_default_image_is_the_newest_ubuntu_for_the_architecture_with_drivers_for_gpus() -> None:
    known = load_types()
    ubuntu = "/aws/service/canonical/ubuntu/server/{}/stable/current/{}/hvm/ebs-gp3/ami-id"
    assert list_parameters(known["m7i.large"]) == [ubuntu.format("26.04", "amd64"), ubuntu.format("24.04", "amd64")]
    assert list_parameters(known["c8g.large"])[0] == ubuntu.format("26.04", "arm64")
    driver = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    assert list_parameters(known["g5.xlarge"])[0] == driver
    assert ubuntu.format("26.04", "amd64") in list_parameters(known["g5.xlarge"])

"""Plans of AWS, asked of the lab: which machines, where, at what price, and what is told when they cannot be had."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ec2lab import Cloud
from ec2lab.images import DEBIAN, IMAGES, STRANGER

from cloudsend_cli.core.model import InstanceSpec, MachinePlan, ProviderDefinition
from cloudsend_cli.errors import AuthError, ConfigError, QuotaError, UnreachableError
from cloudsend_cli.providers.aws.catalog import load_types, price_date
from cloudsend_cli.providers.aws.clients import Account, forget_clients
from cloudsend_cli.providers.aws.planning import Planner
from cloudsend_cli.providers.aws.prices import list_prices

REGION = "eu-west-3"
STANDARD = (REGION, "L-1216C47A")
Plan = Callable[..., list[MachinePlan]]


def definition(region: str | None = REGION) -> ProviderDefinition:
    return ProviderDefinition("aws", "aws", json.dumps({"profile": None, "region": region}))


def spec(number: int = 1, **settings: str) -> InstanceSpec:
    return InstanceSpec("aws", number, None, tuple(settings.items()))


@pytest.fixture
def aws(ec2: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The lab as what this process's environment says of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ec2.environ.items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield ec2
    forget_clients()


@pytest.fixture
def planner(aws: Cloud, state_dir: Path) -> Planner:
    return Planner(definition(), Account("", REGION), state_dir)


@pytest.fixture
def plan(planner: Planner) -> Plan:
    def ask(number: int = 1, **settings: str) -> list[MachinePlan]:
        return planner.plan([spec(number, project="p", **settings)])

    return ask


def requests(plan: MachinePlan) -> list[dict[str, Any]]:
    return [json.loads(offer.request) for offer in plan.offers]


def refusal(ask: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as raised:
        ask()
    return raised.value.message


def test_a_plan_is_what_can_be_launched(aws: Cloud, plan: Plan) -> None:
    [machine] = plan(type="m7i.large")
    assert machine.warnings == ()
    assert [offer.note for offer in machine.offers] == [
        f"m7i.large, {REGION}{zone}, on-demand" for zone in "abc"
    ]  # fmt: skip
    assert {offer.price for offer in machine.offers} == {0.1008}
    request = requests(machine)[0]
    assert (request["image"], request["user"], request["root_device"]) == (aws.image(), "ubuntu", "/dev/sda1")
    made = aws.client().run_instances(
        ImageId=request["image"], InstanceType=request["type"], SubnetId=request["subnet"], MinCount=1, MaxCount=1
    )["Instances"][0]
    assert made["Placement"]["AvailabilityZone"] == request["zone"] and made["VpcId"] == request["vpc"]


def test_one_kind_of_machine_takes_at_most_ten_calls_and_the_second_plan_none(aws: Cloud, planner: Planner) -> None:
    wanted = [spec(6, type="m7i.large,m6i.large", spot="prefer", project="p")]
    first = planner.plan(wanted)
    assert len(aws.calls) <= 10
    asked = len(aws.calls)
    assert planner.plan(wanted) == first and len(first) == 6
    assert len(aws.calls) == asked
    assert {call.action[:3] for call in aws.calls} <= {"Des", "Get"}


def test_prices_are_asked_once_a_week_and_those_of_spot_machines_every_ten_minutes(
    aws: Cloud, plan: Plan, planner: Planner, state_dir: Path
) -> None:
    plan(type="m7i.large", spot="prefer")
    another = Planner(definition(), Account("", REGION), state_dir)
    another.plan([spec(type="m7i.large", spot="prefer")])
    assert len(aws.calls_of("GetProducts")) == len(aws.calls_of("DescribeSpotPriceHistory")) == 1
    file = state_dir / "aws" / "prices.json"
    kept = json.loads(file.read_text())
    assert file.stat().st_mode & 0o077 == 0
    file.write_text(json.dumps({key: {**entry, "at": entry["at"] - 700} for key, entry in kept.items()}))
    prices = list_prices(Account("", REGION), REGION, [load_types()["m7i.large"]], ["spot", "on-demand"], state_dir)
    assert len(aws.calls_of("GetProducts")) == 1 and len(aws.calls_of("DescribeSpotPriceHistory")) == 2
    assert prices.find("m7i.large", f"{REGION}a", "spot") == pytest.approx(0.0353)
    file.write_text(json.dumps({key: {**entry, "at": entry["at"] - 8 * 86400} for key, entry in kept.items()}))
    list_prices(Account("", REGION), REGION, [load_types()["m7i.large"]], ["on-demand"], state_dir)
    assert len(aws.calls_of("GetProducts")) == 2


def test_spot_zones_are_tried_by_their_price(aws: Cloud, plan: Plan) -> None:
    for zone, price in (("a", 0.05), ("b", 0.02), ("c", 0.03)):
        aws.market.spot[f"{REGION}{zone}", "m7i.large"] = price
    [machine] = plan(type="m7i.large", spot="prefer", max_price="0.2", eco_life="7200")
    assert [(o.note, o.price) for o in machine.offers] == [
        (f"m7i.large, {REGION}b, spot", 0.02),
        (f"m7i.large, {REGION}c, spot", 0.03),
        (f"m7i.large, {REGION}a, spot", 0.05),
        *[(f"m7i.large, {REGION}{zone}, on-demand", 0.1008) for zone in "abc"],
    ]
    spot, on_demand = requests(machine)[0], requests(machine)[-1]
    assert (spot["max_price"], spot["eco_life"], on_demand["max_price"]) == ("0.2", 7200, None)


def test_by_need_the_cheapest_that_the_region_has(aws: Cloud, plan: Plan) -> None:
    [machine] = plan(cpus="4+", memory="16000000000+")
    kinds = [load_types()[request["type"]] for request in requests(machine)]
    assert all(kind.cpus >= 4 and kind.memory >= 16e9 and not kind.arm for kind in kinds)
    assert len({kind.name for kind in kinds}) == 4 and len(kinds) == 12
    prices = [offer.price or 0 for offer in machine.offers]
    assert prices == sorted(prices)
    assert len(aws.calls) <= 12


def test_what_is_slowed_down_under_load_is_shown_beside_what_is_taken(aws: Cloud, plan: Plan) -> None:
    [machine] = plan(cpus="1+")
    [aside] = machine.asides
    assert aside.note == f"t3a.small, {REGION}, on-demand" and aside.price < (machine.offers[0].price or 0) / 2
    assert "taken only where `type` names it" in aside.why
    assert not any(request["type"].startswith("t") for request in requests(machine))
    assert plan(type="m7i.large")[0].asides == ()


def test_a_machine_with_a_gpu_has_an_image_with_its_driver(aws: Cloud, plan: Plan) -> None:
    aws.market.on_demand.update({f"g5.{size}": 9.0 for size in ("4xlarge", "8xlarge", "16xlarge")})
    [machine] = plan(gpu="A10G:1")
    assert (requests(machine)[0]["type"], requests(machine)[0]["image"]) == ("g5.xlarge", aws.image())
    assert machine.capacity is not None and machine.capacity.gpus == 1
    assert f"g5.xlarge: no image with GPU drivers is known in {REGION}; plain Ubuntu has none" in machine.warnings
    driver = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    aws.set_parameter(driver, aws.image("jammy"))
    [machine] = plan(type="g5.2xlarge")
    assert requests(machine)[0]["image"] == aws.image("jammy")
    assert machine.warnings == ()


def test_explode_and_number(aws: Cloud, plan: Plan) -> None:
    machines = plan(2, type="c5.4xlarge", cpus="12", explode="true")
    assert [m.capacity.cpus for m in machines if m.capacity] == [8.0, 4.0, 8.0, 4.0]
    assert [(requests(m)[0]["cores"], requests(m)[0]["threads"]) for m in machines] == [(8, 1), (4, 1)] * 2
    said = "number: 2 times the 2 machines of explode are 4 machines"
    assert [said in machine.warnings for machine in machines] == [True, False, False, False]
    assert not any("explode" in text for text in plan(type="c5.4xlarge", cpus="12", explode="true")[0].warnings)


def test_a_type_that_is_newer_than_the_table_is_asked_for(aws: Cloud, plan: Plan, monkeypatch: Any) -> None:
    table = {name: kind for name, kind in load_types().items() if name != "m7i.large"}
    monkeypatch.setattr("cloudsend_cli.providers.aws.planning.load_types", lambda: table)
    [machine] = plan(type="m7i.large")
    assert machine.capacity is not None and machine.capacity.cpus == 2
    assert len(aws.calls_of("DescribeInstanceTypes")) == 1


def test_a_type_that_aws_does_not_have(aws: Cloud, plan: Plan) -> None:
    assert refusal(lambda: plan(type="m99z.large")).startswith("type: AWS has no m99z.large in eu-west-3")


# ---- images --------------------------------------------------------------------------------------------------------


def test_the_default_image_goes_with_the_architecture(aws: Cloud, plan: Plan) -> None:
    [machine] = plan(type="m7i.large,m7g.large")
    images = {request["type"]: request["image"] for request in requests(machine)}
    assert images == {"m7i.large": aws.image(), "m7g.large": aws.image(arch="arm64")}


def test_an_image_of_ones_own(aws: Cloud, plan: Plan) -> None:
    made = aws.client().run_instances(ImageId=aws.image(), InstanceType="t3.micro", MinCount=1, MaxCount=1)
    own = aws.client().create_image(InstanceId=made["Instances"][0]["InstanceId"], Name="trained on ubuntu")["ImageId"]
    [machine] = plan(type="m7i.large", image=own)
    assert (requests(machine)[0]["image"], requests(machine)[0]["user"]) == (own, "ubuntu")
    assert not [text for text in machine.warnings if text.startswith("image:")]


def test_a_disk_that_is_too_small_for_the_image_is_told_where_it_was_asked_for(aws: Cloud, plan: Plan) -> None:
    [machine] = plan(type="m7i.large", disk="8000000000")
    assert requests(machine)[0]["disk"] == {"size": 15, "type": "gp3"}
    assert machine.warnings == (f"disk: the image {aws.image()} needs 15 GB; machines get as much",)


def test_an_image_by_a_parameter(aws: Cloud, plan: Plan) -> None:
    name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    [machine] = plan(type="m7i.large", image=f"ssm:{name}")
    request = requests(machine)[0]
    assert (request["image"], request["user"], request["root_device"]) == (
        aws.image("al2023"),
        "ec2-user",
        "/dev/xvda",
    )
    assert refusal(lambda: plan(type="m7i.large", image="ssm:/aws/service/none")).startswith(
        "image: there is no parameter /aws/service/none in eu-west-3; there are ami-"
    )


def test_an_image_of_a_stranger_is_used_with_a_warning_that_names_him(aws: Cloud, plan: Plan) -> None:
    stranger = next(image for image in IMAGES if image.owner == STRANGER)
    [machine] = plan(type="m7i.large", image=stranger.id(REGION))
    [warning] = [text for text in machine.warnings if text.startswith("image:")]
    assert STRANGER in warning and "neither you, Amazon nor Canonical" in warning
    for trusted in (aws.image(), aws.image("al2023")):
        assert plan(type="m7i.large", image=trusted)[0].warnings == ()
    debian = next(image for image in IMAGES if image.owner == DEBIAN)
    [machine] = plan(type="m7i.large", image=debian.id(REGION))
    assert requests(machine)[0]["user"] == "admin"


def test_a_newer_image_of_the_same_name_by_a_stranger_is_never_chosen(aws: Cloud, plan: Plan) -> None:
    stranger = next(image for image in IMAGES if image.owner == STRANGER)
    [machine] = plan(type="m7i.large")
    assert requests(machine)[0]["image"] == aws.image() != stranger.id(REGION)
    assert not [c for c in aws.calls_of("DescribeImages") if any("name" in str(v) for v in c.params.values())]


def test_an_image_that_is_not_there_lists_those_that_are(aws: Cloud, plan: Plan) -> None:
    message = refusal(lambda: plan(type="m7i.large", image="ami-0123456789abcdef0"))
    assert message == f"image: ami-0123456789abcdef0 is not in eu-west-3; there are {aws.image()} (Ubuntu 24.04)"
    elsewhere = aws.image(region="us-east-1")
    assert refusal(lambda: plan(type="m7i.large", image=elsewhere)).startswith(
        f"image: {elsewhere} is not in eu-west-3"
    )


def test_an_image_for_another_architecture(aws: Cloud, plan: Plan) -> None:
    arm = aws.image(arch="arm64")
    assert refusal(lambda: plan(type="m7i.large", image=arm)) == (
        f"image: {arm} is made for arm64; the machines are m7i.large x86_64"
    )
    [machine] = plan(type="m7i.large,m7g.large", image=arm)
    assert {request["type"] for request in requests(machine)} == {"m7g.large"}
    assert f"image: {arm} is made for arm64: m7i.large cannot use it" in machine.warnings
    [machine] = plan(cpus="4+", image=arm)
    assert {load_types()[request["type"]].arch for request in requests(machine)} == {"arm64"}


# ---- networks ------------------------------------------------------------------------------------------------------


def test_a_wrong_network_falls_back_to_the_default_one(aws: Cloud, plan: Plan) -> None:
    [usual], [machine] = plan(type="m7i.large"), plan(type="m7i.large", vpc="vpc-0123456789abcdef0")
    assert requests(machine) == requests(usual)
    assert machine.warnings[0].startswith("vpc: vpc-0123456789abcdef0 has no subnet in eu-west-3; the default network")


def test_a_network_with_a_way_out_and_without(aws: Cloud, plan: Plan, state_dir: Path) -> None:
    client = aws.client()
    vpc = client.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    made = client.create_subnet(VpcId=vpc, CidrBlock="10.7.1.0/24", AvailabilityZone=f"{REGION}b")["Subnet"]
    [machine] = plan(type="m7i.large", vpc=vpc)
    assert [(r["subnet"], r["zone"], r["public"]) for r in requests(machine)] == [
        (made["SubnetId"], f"{REGION}b", False),
    ]  # fmt: skip
    assert "private addresses only" in machine.warnings[0]
    gateway = client.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    client.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    filters = [{"Name": "vpc-id", "Values": [vpc]}]
    table = client.describe_route_tables(Filters=filters)["RouteTables"][0]["RouteTableId"]
    client.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    [machine] = Planner(definition(), Account("", REGION), state_dir).plan([spec(type="m7i.large", vpc=vpc)])
    assert requests(machine)[0]["public"] and machine.warnings == ()


def test_a_region_without_a_default_network(aws: Cloud, plan: Plan) -> None:
    client = aws.client()
    for subnet in client.describe_subnets()["Subnets"]:
        client.delete_subnet(SubnetId=subnet["SubnetId"])
    assert refusal(lambda: plan(type="m7i.large")) == (
        "vpc: the account has no default network in eu-west-3; `aws ec2 create-default-vpc` makes one"
    )


def test_zones_that_do_not_have_the_type(aws: Cloud, plan: Plan) -> None:
    offerings = aws.client().describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "location", "Values": [f"{REGION}a"]}]
    )["InstanceTypeOfferings"]
    there = {entry["InstanceType"] for entry in offerings}
    absent = next(
        kind.name for kind in load_types().values() if kind.name not in there and kind.price and not kind.flags
    )
    assert refusal(lambda: plan(type=absent, zone=f"{REGION}a")) == f"type: {absent} cannot be had in {REGION}a"
    [machine] = plan(type=f"{absent},m7i.large", zone=f"{REGION}a")
    assert {request["type"] for request in requests(machine)} == {"m7i.large"}
    assert f"type: {absent} cannot be had in the subnets of {REGION}" in machine.warnings


# ---- limits, prices, money -----------------------------------------------------------------------------------------


def test_limits_are_read_before_anything_is_rented(aws: Cloud, plan: Plan) -> None:
    aws.client().run_instances(ImageId=aws.image(), InstanceType="m5.xlarge", MinCount=2, MaxCount=2)
    aws.market.quotas[STANDARD] = 20
    [first, *others] = plan(12, type="m7i.large")
    [warning] = first.warnings
    assert "12 m7i.large (on-demand) need 24 vCPUs" in warning and "may have 20" in warning
    assert "uses 8: 6 of 12 can run at once now" in warning
    assert all(machine.warnings == () for machine in others)


def test_a_machine_that_the_account_may_never_have_is_refused_at_once(aws: Cloud, plan: Plan) -> None:
    aws.market.quotas[REGION, "L-DB2E81BA"] = 0
    with pytest.raises(QuotaError) as raised:
        plan(type="g5.xlarge")
    assert "g5.xlarge needs 4 vCPUs, and the account may have 0 (G and VT on-demand) in eu-west-3" in str(raised.value)
    [machine] = plan(type="g5.xlarge", spot="prefer")
    assert {request["market"] for request in requests(machine)} == {"spot"}
    assert machine.warnings[-1].startswith("quota: g5.xlarge needs 4 vCPUs")


@pytest.mark.parametrize("action", ["GetServiceQuota", "DescribeSpotPriceHistory", "GetProducts"])
def test_what_is_only_good_to_know_may_be_refused(aws: Cloud, plan: Plan, action: str) -> None:
    aws.deny(action)
    [machine] = plan(type="m7i.large", spot="prefer")
    assert machine.offers[0].price is not None


def test_without_the_price_list_the_shipped_table_is_told_with_its_date(
    aws: Cloud, plan: Plan, state_dir: Path
) -> None:
    aws.deny("GetProducts")
    [machine] = plan(type="m7i.large")
    assert machine.offers[0].price == pytest.approx(0.1008 * 1.167, abs=0.001)
    assert machine.warnings == (
        f"prices on demand are those of {price_date()}, and are approximations for this region: AWS did not tell them "
        "now",
    )


def test_the_budget_becomes_the_life_of_the_machines(aws: Cloud, plan: Plan) -> None:
    aws.market.on_demand["m7i.large"] = 0.1
    machines = plan(4, type="m7i.large", budget="2")
    assert {requests(machine)[0]["life"] for machine in machines} == {5 * 3600}
    assert all(machine.warnings == () for machine in machines)
    [machine, *_] = plan(4, type="m7i.large", budget="0.04")
    assert machine.warnings == ("budget: $0.04 keeps 4 machines for 6 min",)


def test_a_budget_that_the_first_minute_overruns_is_refused(aws: Cloud, plan: Plan) -> None:
    """Seen: a run that spent more than its budget of "$0.00" on a single job."""
    assert refusal(lambda: plan(3, type="m7i.large", budget="0.005")) == (
        "budget: $0.005 does not pay for the first minute of 3 machines, which costs $0.00504 at $0.30/h and is "
        "charged whole"
    )
    assert len(plan(3, type="m7i.large", budget="0.00504")) == 3
    [machine] = plan(type="m7i.large,m7i.24xlarge", budget="0.002")
    assert {offer.note.partition(",")[0] for offer in machine.offers} == {"m7i.large"}


def test_a_price_that_nobody_asks_for_is_refused(aws: Cloud, plan: Plan) -> None:
    message = refusal(lambda: plan(type="m7i.large", spot="true", max_price="0.001"))
    assert message == f"max_price: $0.001 is less than the cheapest costs: $0.0353/h (m7i.large, {REGION}a, spot)"


# ---- the way there -------------------------------------------------------------------------------------------------


def test_a_config_that_cannot_be_asks_nothing_of_aws(aws: Cloud, plan: Plan) -> None:
    assert refusal(lambda: plan(type="m7i.lage")) == "type: AWS has no 'm7i.lage'; did you mean 'm7i.large'?"
    assert aws.calls == []


def test_all_that_only_aws_can_tell_is_told_at_once(aws: Cloud, planner: Planner) -> None:
    """Seen: one mistake, and another one when that was mended."""
    wrong = {"type": "t3.12xlarge,m7i.large", "image": "ami-00000000000000000", "max_price": "0.001", "project": "p"}
    with pytest.raises(ConfigError) as raised:
        planner.plan([spec(1, **wrong), spec(1, type="m7i.large", subnet="subnet-00000000")])
    assert [problem.message.partition(":")[0] for problem in raised.value.problems] == [
        "type",
        "image",
        "max_price",
        "subnet",
    ]


def test_another_region_than_the_providers(aws: Cloud, plan: Plan) -> None:
    [machine] = plan(type="m7i.large", region="us-east-1")
    assert requests(machine)[0]["region"] == "us-east-1"
    assert requests(machine)[0]["image"] == aws.image(region="us-east-1")


def test_the_region_of_the_environment(aws: Cloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anywhere = Planner(definition(None), Account("", ""), state_dir)
    [machine] = anywhere.plan([spec(type="m7i.large")])
    assert requests(machine)[0]["region"] == REGION
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError) as raised:
        anywhere.plan([spec(type="m7i.large")])
    assert "name a `region`" in raised.value.hint


def test_by_need_as_spot_machines_only(aws: Cloud, plan: Plan) -> None:
    [machine] = plan(cpus="2+", spot="true")
    assert {request["market"] for request in requests(machine)} == {"spot"}
    assert len({request["type"] for request in requests(machine)}) == 4
    assert aws.calls_of("GetProducts") == [] and machine.warnings == ()


def test_errors_say_what_was_tried(aws: Cloud, plan: Plan) -> None:
    aws.deny("DescribeSubnets")
    with pytest.raises(AuthError, match="list the networks of eu-west-3"):
        plan(type="m7i.large")
    aws.allow()
    aws.outage(REGION)
    with pytest.raises(UnreachableError):
        plan(type="m6i.large")
    aws.outage(REGION, None)
    assert plan(type="m6i.large")


def test_several_specs_share_the_budget_and_the_limits(aws: Cloud, planner: Planner) -> None:
    aws.market.quotas[STANDARD] = 4
    aws.market.on_demand.update({"m7i.large": 0.1, "m6i.xlarge": 0.3})
    specs = [spec(1, type=name, budget="4", project="p") for name in ("m7i.large", "m6i.xlarge")]
    machines = planner.plan(specs)
    assert [requests(machine)[0]["life"] for machine in machines] == [36000, 36000]
    [warning] = machines[0].warnings
    assert "1 m7i.large (on-demand), 1 m6i.xlarge (on-demand) need 6 vCPUs" in warning
    assert planner.plan([]) == []

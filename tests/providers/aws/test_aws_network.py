"""Which subnets machines start in. No network."""

from __future__ import annotations

from typing import Any

import pytest

from cloudsend_cli.errors import ConfigError
from cloudsend_cli.providers.aws.network import Place, choose_places, find_routed
from cloudsend_cli.providers.aws.settings import Wanted

REGION = "eu-west-3"


def subnet(name: str, zone: str = "a", vpc: str = "vpc-0default", **more: Any) -> dict[str, Any]:
    return {
        "SubnetId": f"subnet-{name}",
        "AvailabilityZone": zone if "-" in zone else f"{REGION}{zone}",
        "VpcId": vpc,
        "State": "available",
        "AvailableIpAddressCount": 100,
        "MapPublicIpOnLaunch": True,
        "DefaultForAz": vpc == "vpc-0default",
        **more,
    }


DEFAULT = [subnet("da"), subnet("db", "b"), subnet("dc", "c")]
OWN = [subnet("oa", vpc="vpc-11111111"), subnet("ob", "b", vpc="vpc-11111111")]


def choose(subnets: list[dict[str, Any]], **wanted: Any) -> tuple[list[str], list[str]]:
    places, warnings = choose_places(REGION, Wanted(**wanted), subnets)
    return [place.subnet for place in places], warnings


def refusal(subnets: list[dict[str, Any]], **wanted: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        choose(subnets, **wanted)
    return raised.value.message


def test_by_default_one_subnet_of_the_default_network_in_each_zone() -> None:
    assert choose(OWN + DEFAULT) == (["subnet-da", "subnet-db", "subnet-dc"], [])


def test_the_network_that_was_asked_for() -> None:
    assert choose(OWN + DEFAULT, vpc="vpc-11111111") == (["subnet-oa", "subnet-ob"], [])


def test_a_wrong_network_falls_back_to_the_default_one() -> None:
    found, warnings = choose(OWN + DEFAULT, vpc="vpc-99999999")
    assert found == ["subnet-da", "subnet-db", "subnet-dc"]
    assert warnings == ["vpc: vpc-99999999 has no subnet in eu-west-3; the default network vpc-0default is used"]


def test_no_default_network_names_the_others() -> None:
    assert refusal(OWN) == "vpc: the account has no default network in eu-west-3; name one: vpc-11111111"
    assert refusal(OWN, vpc="vpc-99999999") == (
        "vpc: vpc-99999999 has no subnet in eu-west-3, and the account has no default network in eu-west-3; "
        "name one: vpc-11111111"
    )
    assert "`aws ec2 create-default-vpc` makes one" in refusal([])


def test_the_subnet_that_was_asked_for_and_no_other() -> None:
    assert choose(OWN + DEFAULT, subnet="subnet-ob") == (["subnet-ob"], [])
    assert refusal(OWN + DEFAULT, subnet="subnet-zz") == (
        "subnet: subnet-zz is not in eu-west-3; there are subnet-da, subnet-db, subnet-dc, subnet-oa, subnet-ob"
    )


def test_a_subnet_outside_of_the_network_wins_and_is_told() -> None:
    found, warnings = choose(OWN + DEFAULT, subnet="subnet-oa", vpc="vpc-0default")
    assert found == ["subnet-oa"]
    assert warnings == ["vpc: subnet-oa is in vpc-11111111, not in vpc-0default; it is used there"]


def test_the_zones_that_were_asked_for() -> None:
    assert choose(DEFAULT, zones=("eu-west-3b", "eu-west-3z"))[0] == ["subnet-db"]
    assert refusal(DEFAULT, zones=("eu-west-3z",)) == (
        "zone: there is no subnet in eu-west-3z; there are some in eu-west-3a, eu-west-3b, eu-west-3c"
    )


def test_of_several_in_a_zone_a_public_one_with_room() -> None:
    vpc = "vpc-11111111"
    subnets = [
        subnet("private", vpc=vpc, MapPublicIpOnLaunch=False, AvailableIpAddressCount=4000),
        subnet("small", vpc=vpc, AvailableIpAddressCount=3),
        subnet("large", vpc=vpc, AvailableIpAddressCount=200),
        subnet("full", vpc=vpc, AvailableIpAddressCount=0),
        subnet("coming", vpc=vpc, State="pending", AvailableIpAddressCount=9000),
    ]
    assert choose(subnets, vpc=vpc)[0] == ["subnet-large"]


def test_full_subnets_are_named() -> None:
    full = [subnet("a", AvailableIpAddressCount=0)]
    assert refusal(full) == "subnet: no free address is left in subnet-a; use another"


def test_local_zones_only_where_they_are_named() -> None:
    local = subnet("local", "eu-west-3-mrs-1a")
    assert choose([*DEFAULT, local])[0] == ["subnet-da", "subnet-db", "subnet-dc"]
    assert choose([*DEFAULT, local], zones=("eu-west-3-mrs-1a",))[0] == ["subnet-local"]
    assert choose([*DEFAULT, local], subnet="subnet-local")[0] == ["subnet-local"]


def test_subnets_that_no_route_leads_out_of_have_private_machines() -> None:
    private = [subnet("oa", vpc="vpc-11111111", MapPublicIpOnLaunch=False)]
    places, warnings = choose_places(REGION, Wanted(vpc="vpc-11111111"), private, frozenset())
    assert places == (Place("eu-west-3a", "vpc-11111111", "subnet-oa", False, 100),)
    assert warnings == [
        "vpc: no subnet of vpc-11111111 leads to the internet: machines have private addresses only, and are reached "
        "from inside of that network"
    ]
    places, warnings = choose_places(REGION, Wanted(vpc="vpc-11111111"), private, frozenset({"subnet-oa"}))
    assert places[0].public and warnings == []


def test_routes() -> None:
    out = {"Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}]}
    nat = {"Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}]}
    tables = [{**nat, "Associations": [{"Main": True}]}, {**out, "Associations": [{"SubnetId": "subnet-b"}]}]
    assert find_routed(["subnet-a", "subnet-b"], tables) == {"subnet-b"}
    assert find_routed(["subnet-a"], [{**out, "Associations": [{"Main": True}]}]) == {"subnet-a"}
    assert find_routed(["subnet-a"], []) == frozenset()

"""What the user may ask of AWS, and what is told when it makes no sense."""

from __future__ import annotations

import pytest

from cloudsend_cli.core.model import InstanceSpec, ProviderDefinition
from cloudsend_cli.providers.aws.planning import check_spec, find_largest
from cloudsend_cli.providers.aws.settings import Amount, Wanted, parse_account, parse_settings


def definition(settings: str = '{"profile":null,"region":"eu-west-3"}') -> ProviderDefinition:
    return ProviderDefinition("aws", "aws", settings)


def spec(number: int = 1, **settings: str) -> InstanceSpec:
    return InstanceSpec("aws", number, None, tuple(settings.items()))


def parse(**settings: str) -> Wanted:
    wanted, problems = parse_settings(definition(), spec(**settings))
    assert problems == []
    return wanted


def test_nothing_said_is_the_defaults() -> None:
    wanted = parse()
    assert wanted == Wanted(region="eu-west-3")
    assert (wanted.disk, wanted.disk_type, wanted.markets) == (30, "gp3", ("on-demand",))
    assert (wanted.idle, wanted.life) == (600, 86400)


@pytest.mark.parametrize(
    ("key", "text", "field", "value"),
    [
        ("type", "t3.medium,m7i.large", "types", ("t3.medium", "m7i.large")),
        ("type", "t3.medium, t3.medium", "types", ("t3.medium",)),
        ("type", "u7i-12tb.224xlarge", "types", ("u7i-12tb.224xlarge",)),
        ("type", "m7i.metal-24xl", "types", ("m7i.metal-24xl",)),
        ("cpus", "8", "cpus", Amount(8)),
        ("cpus", "8+", "cpus", Amount(8, more=True)),
        ("memory", "16000000000+", "memory", Amount(16e9, more=True)),
        ("disk", "30000000000", "disk", 30),
        ("disk", "30000000001", "disk", 31),
        ("disk", "500000000", "disk", 1),
        ("disk_type", "gp2", "disk_type", "gp2"),
        ("spot", "true", "markets", ("spot",)),
        ("spot", "prefer", "markets", ("spot", "on-demand")),
        ("spot", "false", "markets", ("on-demand",)),
        ("eco_life", "21600", "eco_life", 21600),
        ("max_price", "0.02", "max_price", 0.02),
        ("explode", "true", "explode", True),
        ("image", "ami-0123456789abcdef0", "image", "ami-0123456789abcdef0"),
        ("image", "ssm:/aws/service/x/y", "image", "ssm:/aws/service/x/y"),
        ("user", "ec2-user", "user", "ec2-user"),
        ("region", "ap-southeast-4", "region", "ap-southeast-4"),
        ("region", "us-gov-west-1", "region", "us-gov-west-1"),
        ("zone", "eu-west-3a,eu-west-3c", "zones", ("eu-west-3a", "eu-west-3c")),
        ("vpc", "vpc-0123456789abcdef0", "vpc", "vpc-0123456789abcdef0"),
        ("subnet", "subnet-12345678", "subnet", "subnet-12345678"),
        ("budget", "20", "budget", 20.0),
        ("idle", "1800.5", "idle", 1800),
        ("idle", "0", "idle", 0),
        ("idle", "0.5", "idle", 1),
        ("dev", "true", "idle", 3600),
        ("project", "p", "project", "p"),
    ],
)
def test_settings_are_read(key: str, text: str, field: str, value: object) -> None:
    assert getattr(parse(**{key: text}), field) == value


@pytest.mark.parametrize(
    ("text", "gpus", "kind"),
    [
        ("1", Amount(1), ""),
        ("2+", Amount(2, more=True), ""),
        ("A10G:1", Amount(1), "A10G"),
        ("A10G:4+", Amount(4, more=True), "A10G"),
        ("A10G", Amount(1), "A10G"),
        ("RTX PRO Server 6000:1", Amount(1), "RTX PRO Server 6000"),
        ("0", None, ""),
    ],
)
def test_gpus_are_read(text: str, gpus: Amount | None, kind: str) -> None:
    wanted = parse(gpu=text)
    assert (wanted.gpus, wanted.gpu_kind) == (gpus, kind)


def test_a_local_zone_is_a_zone() -> None:
    assert parse(region="us-west-2", zone="us-west-2-lax-1a").zones == ("us-west-2-lax-1a",)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"type": "large"}, "type: 'large' is not a type of machine; write m7i.large"),
        ({"type": "m7i.lage"}, "type: AWS has no 'm7i.lage'; did you mean 'm7i.large'?"),
        ({"type": "m7j.large;x"}, "type: 'm7j.large;x' is not a type of machine; write m7i.large"),
        ({"cpus": "many"}, "cpus: 'many' is not a number"),
        ({"cpus": "0"}, "cpus: '0' must be more than 0"),
        ({"cpus": "nan"}, "cpus: 'nan' must be more than 0"),
        ({"gpu": "A10G:x"}, "gpu: 'A10G:x' is not a number of GPUs; write 1 or A10G:1"),
        ({"disk": "99999999999999"}, "disk: '99999999999999' is not between 1 and 16384 GB"),
        ({"disk_type": "io2"}, "disk_type: 'io2' is not one of gp3, gp2, standard"),
        ({"spot": "maybe"}, "spot: 'maybe' is not true, false or prefer"),
        ({"image": "ubuntu"}, "image: 'ubuntu' is not an image; write ami-…, or ssm:/aws/service/… for a parameter"),
        ({"user": "Root!"}, "user: 'Root!' is not the name of a user"),
        ({"region": "Paris"}, "region: 'Paris' is not a region; write eu-west-3"),
        ({"zone": "a"}, "zone: 'a' is not a zone; write eu-west-3a"),
        ({"zone": "us-east-1a"}, "zone: us-east-1a is not in region eu-west-3"),
        ({"vpc": "default"}, "vpc: 'default' is not a network; write vpc-…"),
        ({"subnet": "sn"}, "subnet: 'sn' is not a subnet; write subnet-…"),
        ({"max_price": "-1"}, "max_price: '-1' must be more than 0"),
        ({"explode": "true", "cpus": "8"}, "explode: needs a type, which decides how many CPUs each machine has"),
        (
            {"explode": "true", "cpus": "8+", "type": "c5.4xlarge"},
            "explode: needs a whole number of cpus, not 8+",
        ),
        (
            {"explode": "true", "cpus": "9", "type": "c5.4xlarge"},
            "cpus: 9 on c5.4xlarge leaves 1 for the last machine, which can have 2, 4, 6, 8; write 8 or 10",
        ),
        (
            {"explode": "true", "cpus": "1", "type": "c5.4xlarge"},
            "cpus: 1 on c5.4xlarge leaves 1 for the last machine, which can have 2, 4, 6, 8; write 2",
        ),
        (
            {"explode": "true", "cpus": "9", "type": "t2.medium"},
            "cpus: 9 cannot be spread over t2.medium, which has 2 and no other number; write 8 or 10",
        ),
        (
            {"type": "c5.4xlarge", "cpus": "5"},
            "cpus: 5 cannot be had: c5.4xlarge has 16, or with one thread each 2, 4, 6, 8",
        ),
        (
            {"type": "c5.4xlarge", "cpus": "17+"},
            "cpus: 17 cannot be had: c5.4xlarge has 16, or with one thread each 2, 4, 6, 8",
        ),
        (
            {"type": "t3.medium", "memory": "8000000000"},
            "memory: 8 GB cannot be had: t3.medium has 4.295 GB",
        ),
        ({"type": "m7i.large", "gpu": "1"}, "gpu: 1 GPU cannot be had: m7i.large has none"),
        ({"type": "g5.xlarge", "gpu": "T4:1"}, "gpu: 1 T4 cannot be had: g5.xlarge has 1 A10G"),
        (
            {"cpus": "7"},
            "cpus: no type of AWS has 7 CPUs; the next is c6a.2xlarge with 8 CPUs and 17.18 GB; "
            "add '+' for at least so much",
        ),
        ({"cpus": "4000+"}, "cpus: no type of AWS has 4000 or more CPUs; name one with 'type'"),
    ],
)
def test_what_cannot_be_is_told_at_its_key(settings: dict[str, str], problem: str) -> None:
    assert check_spec(definition(), spec(**settings)) == [problem]


def test_all_problems_come_at_once() -> None:
    problems = check_spec(definition(), spec(type="x", disk="0", spot="no", zone="b"))
    assert [text.partition(":")[0] for text in problems] == ["type", "disk", "spot", "zone"]


def test_a_slip_in_the_type_is_told_with_the_others() -> None:
    """Seen: the region alone; the type when that was mended; then the rest."""
    problems = check_spec(
        definition(), spec(type="t3.smal", region="paris", max_price="none", image="ubuntu", cpus="many")
    )
    assert sorted(text.partition(":")[0] for text in problems) == ["cpus", "image", "max_price", "region", "type"]
    assert "did you mean 't3.small'?" in problems[-1]


def test_an_unknown_kind_of_gpu_lists_the_known_ones() -> None:
    [problem] = check_spec(definition(), spec(gpu="TPU:1"))
    assert problem.startswith("gpu: no type of AWS has 1 TPU; there are A100, A10G, B200")


def test_a_type_newer_than_the_table_is_left_to_aws() -> None:
    assert check_spec(definition(), spec(type="m99z.large")) == []
    assert find_largest(definition(), spec(type="m99z.large")) is None


def test_the_largest_is_known_beforehand() -> None:
    largest = find_largest(definition(), spec(type="m7i.large,m7i.2xlarge"))
    assert largest is not None and (largest.cpus, largest.gpus) == (8.0, 0)
    assert 32e9 < largest.memory < 8 * 4 * 2**30
    exploded = find_largest(definition(), spec(type="c5.4xlarge", cpus="12", explode="true"))
    assert exploded is not None and exploded.cpus == 8.0


@pytest.mark.parametrize(
    ("settings", "account"),
    [
        ('{"profile":"p","region":"eu-west-3"}', ("p", "eu-west-3")),
        ('{"profile":null,"region":null}', ("", "")),
        ("{}", ("", "")),
        ("no json", ("", "")),
        ("[]", ("", "")),
        ('{"profile":3,"later":true}', ("", "")),
    ],
)
def test_the_definition_says_whose_account_it_is(settings: str, account: tuple[str, str]) -> None:
    assert parse_account(definition(settings)) == account


def test_a_machine_may_be_in_another_region_than_its_provider() -> None:
    wanted, problems = parse_settings(definition(), spec(region="us-east-1", zone="us-east-1f"))
    assert problems == [] and wanted.region == "us-east-1"

"""The shipped table of types, and which of them fit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.resources import files

import pytest

from cloudsend_cli.providers.aws.catalog import (
    Choice,
    InstanceType,
    choose_cores,
    estimate_price,
    find_burstable,
    list_choices,
    load_types,
    parse_described,
    price_date,
)
from cloudsend_cli.providers.aws.settings import Amount, Wanted

GIB = 1 << 30
KNOWN = load_types()


def first(**wanted: object) -> InstanceType:
    return list_choices(Wanted(**wanted), KNOWN)[0].type  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Wanted(), "t3a.small"),
        (Wanted(cpus=Amount(1, more=True)), "t3a.small"),
        (Wanted(memory=Amount(3e9, more=True)), "t3a.medium"),
        (Wanted(cpus=Amount(64)), None),
        (Wanted(gpus=Amount(1)), None),
        (Wanted(types=("t3.small",)), None),
    ],
)
def test_the_cheapest_burstable_type_is_known_but_not_chosen(wanted: Wanted, name: str | None) -> None:
    """Seen: c5.large at four times the price of t3.small, called the cheapest, and no word of the other."""
    found = find_burstable(wanted, KNOWN)
    assert (found.name if found is not None else None) == name
    assert wanted.types or not any("b" in choice.type.flags for choice in list_choices(wanted, KNOWN))


def test_the_table_is_whole() -> None:
    assert len(KNOWN) > 1300
    assert re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", price_date())
    for kind in KNOWN.values():
        assert kind.cpus > 0 and kind.memory >= GIB // 2, kind
        assert not kind.cores or max(kind.cores) * max(kind.threads) == kind.cpus, kind
        assert kind.price is None or 0.003 < kind.price < 600, kind
        assert set(kind.flags) <= set("mboxsp"), kind


def test_a_name_is_there_once() -> None:
    rows = json.loads(files("cloudsend_cli.providers.aws").joinpath("types.json").read_text("utf-8"))["types"]
    assert len(rows) == len(KNOWN)


@pytest.mark.parametrize(
    ("kind", "price"),
    [
        (InstanceType("c5.4xlarge", 16, 32 * GIB, (2, 4, 6, 8), (1, 2)), 0.68),
        (InstanceType("m7i.large", 2, 8 * GIB, (1,), (1, 2)), 0.1008),
        (InstanceType("c8g.large", 2, 4 * GIB, (1, 2), (1,), arm=True), 0.07976),
        (InstanceType("g5.xlarge", 4, 16 * GIB, gpus=1, gpu_kind="A10G"), 1.006),
        (InstanceType("p5.48xlarge", 192, 2048 * GIB, tuple(range(12, 97, 12)), (1, 2), 8, "H100"), 55.04),
        (InstanceType("t2.micro", 1, 1 * GIB, flags="bx"), 0.0116),
        (InstanceType("c5a.4xlarge", 16, 32 * GIB, (1, 2, 3, 4, 8), (1, 2)), 0.616),
    ],
)
def test_known_types(kind: InstanceType, price: float) -> None:
    assert KNOWN[kind.name] == replace(kind, price=price)


def test_the_same_type_by_the_table_and_by_aws() -> None:
    """The table's form and that of DescribeInstanceTypes mean the same."""
    described = {
        "InstanceType": "c5.4xlarge",
        "MemoryInfo": {"SizeInMiB": 32768},
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        "SupportedUsageClasses": ["on-demand", "spot"],
        "VCpuInfo": {"DefaultVCpus": 16, "ValidCores": [2, 4, 6, 8], "ValidThreadsPerCore": [1, 2]},
    }
    made = parse_described(described)
    table = KNOWN["c5.4xlarge"]
    assert (made.cpus, made.memory, made.cores, made.threads, made.arch, made.spot) == (
        (table.cpus, table.memory, table.cores, table.threads, table.arch, table.spot)
    )
    part = {"Gpus": [{"Count": 0, "LogicalGpuCount": 1, "Name": "L4"}]}
    assert parse_described({**described, "GpuInfo": part}).gpus == 1
    assert not parse_described({**described, "SupportedUsageClasses": ["on-demand"]}).spot


@pytest.mark.parametrize(
    ("name", "cpus", "choice"),
    [
        ("c5.4xlarge", None, (None, None)),
        ("c5.4xlarge", Amount(16), (None, None)),
        ("c5.4xlarge", Amount(8), (8, 1)),
        ("c5.4xlarge", Amount(2), (2, 1)),
        ("c5.4xlarge", Amount(12), (6, 2)),
        ("c5.4xlarge", Amount(8, more=True), (None, None)),
        ("c5.4xlarge", Amount(10), None),
        ("c5.4xlarge", Amount(1), None),
        ("c5.4xlarge", Amount(0.5), None),
        ("c5.4xlarge", Amount(32), None),
        ("c8g.xlarge", Amount(3), (3, 1)),
        ("g5.xlarge", Amount(2), None),
    ],
)
def test_cores_of_a_named_type(name: str, cpus: Amount | None, choice: tuple[int | None, int | None] | None) -> None:
    made = choose_cores(Wanted(types=(name,), cpus=cpus), KNOWN[name])
    assert (None if made is None else (made.cores, made.threads)) == choice


def test_the_capacity_is_that_of_the_chosen_cores() -> None:
    whole, part = Choice(KNOWN["c5.4xlarge"]), Choice(KNOWN["c5.4xlarge"], 6, 2)
    assert (whole.capacity.cpus, part.capacity.cpus) == (16.0, 12.0)
    assert 30e9 < part.capacity.memory < 32 * GIB


def test_by_need_the_cheapest_comes_first() -> None:
    found = list_choices(Wanted(cpus=Amount(8, more=True), memory=Amount(16e9, more=True)), KNOWN)
    prices = [choice.type.price for choice in found if choice.type.price is not None]
    assert prices == sorted(prices) and len(prices) > 100
    assert all(c.type.cpus >= 8 and c.type.memory >= 16e9 and not c.type.arm and not c.type.gpus for c in found)


def test_by_need_nothing_that_only_bursts_or_needs_other_software() -> None:
    names = {choice.type.name for choice in list_choices(Wanted(cpus=Amount(2, more=True)), KNOWN)}
    assert not {
        n for n in names if n.startswith(("t2.", "t3", "t4g.", "mac", "inf", "trn", "hpc", "u-")) or "metal" in n
    }


def test_exact_sizes_are_exact() -> None:
    assert {c.type.cpus for c in list_choices(Wanted(cpus=Amount(8)), KNOWN)} == {8}
    sizes = {c.type.memory // GIB for c in list_choices(Wanted(memory=Amount(16e9)), KNOWN)}
    assert sizes in ({15, 16}, {16})


def test_gpus_by_kind_and_number() -> None:
    assert first(gpus=Amount(1), gpu_kind="a10g").name == "g5.xlarge"
    assert first(gpus=Amount(4), gpu_kind="A10G").gpus == 4
    assert first(gpus=Amount(1), gpu_kind="NVIDIA L4").name == "g6.xlarge"
    assert first(gpus=Amount(1), gpu_kind="rtx-pro-6000").gpu_kind == "RTX PRO Server 6000"
    assert first(gpus=Amount(2, more=True)).gpus >= 2
    assert first(gpus=Amount(1)).gpus == 1
    assert first(gpu_kind="H100").name == "p5.4xlarge"


def test_t4_is_not_t4g() -> None:
    assert {c.type.gpu_kind for c in list_choices(Wanted(gpus=Amount(1), gpu_kind="T4"), KNOWN)} == {"T4"}


def test_a_part_of_a_gpu_is_rented_only_by_name() -> None:
    assert "g6f.large" not in {c.type.name for c in list_choices(Wanted(gpus=Amount(1)), KNOWN)}
    assert [c.type.name for c in list_choices(Wanted(types=("g6f.large",), gpus=Amount(1)), KNOWN)] == ["g6f.large"]


def test_machines_for_arm_only_where_the_image_is() -> None:
    wanted = Wanted(cpus=Amount(4, more=True))
    assert {c.type.arch for c in list_choices(wanted, KNOWN)} == {"x86_64"}
    assert {c.type.arch for c in list_choices(wanted, KNOWN, arm=True)} == {"arm64"}


def test_named_types_stay_in_order_and_those_that_are_too_small_go() -> None:
    wanted = Wanted(types=("m7i.2xlarge", "t3.nano", "m7i.large"), memory=Amount(8e9))
    assert [choice.type.name for choice in list_choices(wanted, KNOWN)] == ["m7i.2xlarge", "m7i.large"]


def test_prices_elsewhere_are_approximations() -> None:
    kind = KNOWN["m5.large"]
    assert estimate_price(kind, "us-east-1") == 0.096
    assert estimate_price(kind, "eu-west-3") == pytest.approx(0.112, abs=0.0005)
    assert estimate_price(kind, "mars-north-1") is None
    assert estimate_price(KNOWN["hpc7a.12xlarge"], "us-east-1") is None

"""Limits of an account: which one counts for a type, and what they leave. No network."""

from __future__ import annotations

import pytest

from cloudsend_cli.providers.aws.catalog import load_types
from cloudsend_cli.providers.aws.quotas import Quota, is_hopeless, list_shortages, quota_code, quota_name

KNOWN = load_types()


@pytest.mark.parametrize(
    ("kind", "on_demand", "spot"),
    [
        ("m7i.large", "L-1216C47A", "L-34B43A08"),
        ("t3.nano", "L-1216C47A", "L-34B43A08"),
        ("im4gn.large", "L-1216C47A", "L-34B43A08"),
        ("d3.xlarge", "L-1216C47A", "L-34B43A08"),
        ("h1.2xlarge", "L-1216C47A", "L-34B43A08"),
        ("g5.xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("gr6.4xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("vt1.3xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("p4d.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p3dn.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p5.48xlarge", "L-417A185B", "L-C4BD4855"),
        ("x2idn.16xlarge", "L-7295265B", "L-E3A00192"),
        ("inf2.xlarge", "L-1945791B", "L-B5D1601B"),
        ("trn1.2xlarge", "L-2C3B7624", "L-6B0D517C"),
        ("dl1.24xlarge", "L-6E869C2A", "L-85EED4F7"),
        ("f2.6xlarge", "L-74FC7D96", "L-88CF9481"),
        ("hpc7a.12xlarge", "L-F7808C92", ""),
        ("u-6tb1.56xlarge", "L-43DA4232", ""),
        ("u7i-12tb.224xlarge", "L-43DA4232", ""),
    ],
)
def test_codes(kind: str, on_demand: str, spot: str) -> None:
    assert (quota_code(kind, "on-demand"), quota_code(kind, "spot")) == (on_demand, spot)


def test_every_type_has_a_limit_on_demand() -> None:
    assert all(quota_code(name, "on-demand") for name in KNOWN)
    assert quota_name("m7i.large", "spot") == "Standard spot"


def quota(limit: float, used: float = 0.0) -> dict[str, Quota]:
    return {"L-1216C47A": Quota("L-1216C47A", "Standard on-demand", limit, used)}


def test_a_shortage_is_told_with_the_number_that_will_be_had() -> None:
    machines = [(KNOWN["m7i.2xlarge"], "on-demand")] * 12
    assert list_shortages("eu-west-3", machines, quota(64, 16)) == [
        "quota: 12 m7i.2xlarge (on-demand) need 96 vCPUs in eu-west-3, where the account may have 64 "
        "(Standard on-demand) and uses 16: 6 of 12 can run at once now; "
        "more: https://eu-west-3.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/L-1216C47A"
    ]


def test_kinds_of_one_limit_are_counted_together() -> None:
    machines = [(KNOWN["m7i.2xlarge"], "on-demand"), (KNOWN["c5.large"], "on-demand")] * 2
    [warning] = list_shortages("eu-west-3", machines, quota(12))
    assert "2 m7i.2xlarge (on-demand), 2 c5.large (on-demand) need 20 vCPUs" in warning
    assert "3 of 4 can run at once now" in warning


def test_the_last_cpu_may_be_used() -> None:
    assert list_shortages("eu-west-3", [(KNOWN["m7i.2xlarge"], "on-demand")], quota(8)) == []


def test_one_machine_too_many() -> None:
    [warning] = list_shortages("eu-west-3", [(KNOWN["m7i.2xlarge"], "on-demand")], quota(8, 8))
    assert "1 m7i.2xlarge (on-demand) needs 8 vCPUs" in warning and "0 of 1 can run at once now" in warning


def test_an_unknown_limit_warns_of_nothing() -> None:
    assert list_shortages("eu-west-3", [(KNOWN["g5.xlarge"], "on-demand")] * 99, quota(1)) == []
    assert list_shortages("eu-west-3", [(KNOWN["m7i.large"], "spot")] * 99, quota(1)) == []


def test_more_than_there_is_used_leaves_nothing() -> None:
    assert Quota("c", "n", 8, 96).left == 0


@pytest.mark.parametrize(("limit", "hopeless"), [(0, True), (7, True), (8, False), (640, False)])
def test_a_machine_that_the_account_can_never_have(limit: float, hopeless: bool) -> None:
    assert is_hopeless(KNOWN["m7i.2xlarge"], "on-demand", quota(limit, used=limit)) is hopeless

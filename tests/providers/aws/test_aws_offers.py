"""Which machines are tried, in which order, and what is asked for. No network."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cloudsend_cli.providers.aws.catalog import list_choices, load_types
from cloudsend_cli.providers.aws.images import Image
from cloudsend_cli.providers.aws.launch import parse_request
from cloudsend_cli.providers.aws.network import Place
from cloudsend_cli.providers.aws.offers import (
    MOST_OFFERS,
    Candidate,
    Facts,
    Refused,
    decide_life,
    describe_refusal,
    explain_short_life,
    find_split_problem,
    plan_candidates,
    plan_lives,
    render_offers,
    split_machines,
)
from cloudsend_cli.providers.aws.prices import Prices
from cloudsend_cli.providers.aws.quotas import Quota
from cloudsend_cli.providers.aws.settings import Amount, Wanted

REGION = "eu-west-3"
ZONES = ("eu-west-3a", "eu-west-3b", "eu-west-3c")
KNOWN = load_types()
IMAGE = Image("ami-0", "ubuntu", "/dev/sda1", "x86_64", 8, "ubuntu", "099720109477")


def facts(
    *names: str,
    spot: dict[tuple[str, str], float] | None = None,
    quotas: dict[str, Quota] | None = None,
    zones: dict[str, frozenset[str]] | None = None,
) -> Facts:
    places = tuple(Place(zone, "vpc-1", f"subnet-{zone[-1]}", True, 100) for zone in ZONES)
    on_demand = {name: KNOWN[name].price or 1.0 for name in names}
    everywhere = {name: frozenset(ZONES) for name in names}
    prices = Prices(REGION, on_demand, spot or {})
    return Facts(REGION, places, {**everywhere, **(zones or {})}, dict.fromkeys(names, IMAGE), prices, quotas or {})


def candidates(wanted: Wanted, known: Facts) -> list[Candidate]:
    return plan_candidates(wanted, list_choices(wanted, KNOWN), known)[0]


def notes(wanted: Wanted, known: Facts) -> list[str]:
    return [f"{c.choice.type.name} {c.place.zone[-1]} {c.market}" for c in candidates(wanted, known)]


# ---- explode -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "cpus", "number", "sizes"),
    [
        ("c5.4xlarge", 16, 1, [8, 8]),
        ("c5.4xlarge", 12, 2, [8, 4, 8, 4]),
        ("c5.4xlarge", 8, 1, [8]),
        ("c5.4xlarge", 4, 1, [4]),
        ("c5.4xlarge", 24, 1, [8, 8, 8]),
        ("c8g.xlarge", 10, 1, [4, 4, 2]),
        ("t2.medium", 4, 1, [2, 2]),
    ],
)
def test_explode_spreads_the_cpus(kind: str, cpus: int, number: int, sizes: list[int]) -> None:
    wanted = Wanted(types=(kind,), cpus=Amount(cpus), explode=True, number=number)
    assert find_split_problem(wanted, KNOWN) == ""
    parts = split_machines(wanted, KNOWN)
    assert [part.cpus.value for part in parts if part.cpus] == sizes
    assert [list_choices(part, KNOWN)[0].cpus for part in parts] == sizes


def test_explode_without_cpus_is_one_machine() -> None:
    wanted = Wanted(types=("c5.4xlarge",), explode=True, number=2)
    assert split_machines(wanted, KNOWN) == [wanted, wanted]


def test_types_after_the_first_are_tried_for_the_parts_that_they_can_be() -> None:
    wanted = Wanted(types=("c5.4xlarge", "c5.2xlarge"), cpus=Amount(12), explode=True)
    big, small = split_machines(wanted, KNOWN)
    assert [(c.type.name, c.cores) for c in list_choices(big, KNOWN)] == [("c5.4xlarge", 8), ("c5.2xlarge", None)]
    assert [(c.type.name, c.cores) for c in list_choices(small, KNOWN)] == [("c5.4xlarge", 4), ("c5.2xlarge", 4)]


# ---- order ---------------------------------------------------------------------------------------------------------


def test_named_types_in_the_users_order_then_zones() -> None:
    wanted = Wanted(types=("m7i.large", "t3.medium"))
    assert notes(wanted, facts("m7i.large", "t3.medium")) == [
        "m7i.large a on-demand", "m7i.large b on-demand", "m7i.large c on-demand",
        "t3.medium a on-demand", "t3.medium b on-demand", "t3.medium c on-demand",
    ]  # fmt: skip


def test_zones_by_price_of_spot() -> None:
    spot = {("m7i.large", zone): price for zone, price in zip(ZONES, (0.05, 0.03, 0.04), strict=True)}
    wanted = Wanted(types=("m7i.large",), markets=("spot",))
    assert notes(wanted, facts("m7i.large", spot=spot)) == ["m7i.large b spot", "m7i.large c spot", "m7i.large a spot"]


def test_prefer_is_spot_first_and_leaves_room_for_the_rest() -> None:
    names = ("m7i.large", "m6i.large", "m5.large", "c5.large")
    wanted = Wanted(types=names, markets=("spot", "on-demand"))
    found = notes(wanted, facts(*names))
    assert len(found) == MOST_OFFERS
    assert [note.rpartition(" ")[2] for note in found] == ["spot"] * 6 + ["on-demand"] * 6
    assert {note.partition(" ")[0] for note in found[6:]} == set(names)


def test_by_need_the_cheapest_of_the_market_is_first() -> None:
    wanted = Wanted(cpus=Amount(2), markets=("spot",))
    spot = {("m7i.large", "eu-west-3a"): 0.01, ("c5.large", "eu-west-3a"): 0.02}
    choices = [c for c in list_choices(wanted, KNOWN) if c.type.name in {"m7i.large", "c5.large"}]
    found, _ = plan_candidates(wanted, choices, facts("m7i.large", "c5.large", spot=spot))
    assert found[0].note == "m7i.large, eu-west-3a, spot"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 12, 20])
def test_never_more_than_twelve_and_every_type_that_there_is_room_for(count: int) -> None:
    names = [kind.name for kind in KNOWN.values() if kind.name.endswith(".large") and kind.spot and not kind.arm][
        :count
    ]
    found = candidates(Wanted(types=tuple(names)), facts(*names))
    assert len(found) == min(MOST_OFFERS, 3 * count)
    assert len({c.choice.type.name for c in found}) == min(count, MOST_OFFERS)


def test_only_zones_that_have_the_type() -> None:
    known = facts("m7i.large", zones={"m7i.large": frozenset({"eu-west-3c", "eu-west-3z"})})
    assert notes(Wanted(types=("m7i.large",)), known) == ["m7i.large c on-demand"]


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_what_costs_more_than_max_price_is_left_out() -> None:
    wanted = Wanted(types=("m7i.2xlarge", "t3.medium"), max_price=0.05)
    known = facts("m7i.2xlarge", "t3.medium")
    assert {note.split()[0] for note in notes(wanted, known)} == {"t3.medium"}
    found, refused = plan_candidates(
        replace(wanted, max_price=0.01), list_choices(wanted, KNOWN), facts("m7i.2xlarge", "t3.medium")
    )
    assert found == []
    assert describe_refusal(replace(wanted, max_price=0.01), refused, REGION) == (
        "max_price: $0.01 is less than the cheapest costs: $0.0416/h (t3.medium, eu-west-3a, on-demand)"
    )


def test_what_the_account_may_never_have_is_not_tried() -> None:
    quotas = {"L-DB2E81BA": Quota("L-DB2E81BA", "G and VT on-demand", 0.0)}
    wanted = Wanted(types=("g5.xlarge", "m7i.large"))
    choices = list_choices(wanted, KNOWN)
    found, refused = plan_candidates(wanted, choices, facts("g5.xlarge", "m7i.large", quotas=quotas))
    assert {c.choice.type.name for c in found} == {"m7i.large"}
    assert [(kind.name, market) for kind, market in refused.hopeless] == [("g5.xlarge", "on-demand")]


def test_a_machine_with_cores_switched_off_is_tried() -> None:
    """AWS does not say whether those count."""
    quotas = {"L-1216C47A": Quota("L-1216C47A", "Standard on-demand", 4.0)}
    wanted = Wanted(types=("c5.2xlarge",), cpus=Amount(4))
    found, refused = plan_candidates(wanted, list_choices(wanted, KNOWN), facts("c5.2xlarge", quotas=quotas))
    assert len(found) == 3 and refused.hopeless == ()


def test_what_has_no_spot_market_is_said() -> None:
    wanted = Wanted(types=("hpc7a.12xlarge",), markets=("spot",))
    found, refused = plan_candidates(wanted, list_choices(wanted, KNOWN), facts("hpc7a.12xlarge"))
    assert found == []
    assert describe_refusal(wanted, refused, REGION) == "spot: hpc7a.12xlarge cannot be had as spot machines"


def test_what_the_region_does_not_have_is_said() -> None:
    wanted = Wanted(types=("m7i.large",), zones=("eu-west-3a",))
    known = facts("m7i.large", zones={"m7i.large": frozenset()})
    found, refused = plan_candidates(wanted, list_choices(wanted, KNOWN), known)
    assert found == []
    assert describe_refusal(wanted, refused, REGION) == "type: m7i.large cannot be had in eu-west-3a"
    assert describe_refusal(Wanted(), Refused(), REGION) == (
        "region: nothing that fits can be had in the subnets of eu-west-3"
    )


def test_many_types_that_are_not_there_are_not_all_named() -> None:
    names = tuple(f"m{n}i.large" for n in range(10))
    assert describe_refusal(Wanted(types=names), Refused(absent=names), REGION) == (
        "type: m0i.large, m1i.large, m2i.large, m3i.large, m4i.large, m5i.large and 4 more cannot be had in the "
        "subnets of eu-west-3"
    )


# ---- budget --------------------------------------------------------------------------------------------------------


def one(name: str = "m7i.large", price: float | None = 0.1, market: str = "on-demand") -> Candidate:
    choice = list_choices(Wanted(types=(name,)), KNOWN)[0]
    return Candidate(choice, Place("eu-west-3a", "vpc-1", "subnet-a"), market, price)


def test_a_budget_is_shared_by_price() -> None:
    shares = plan_lives(1.1, [one(price=0.1), one("g5.xlarge", 1.0)])
    assert shares == pytest.approx([0.1, 1.0])
    assert [decide_life(Wanted(), one(price=p), s) for p, s in zip((0.1, 1.0), shares, strict=True)] == [3600, 3600]


def test_a_dearer_machine_lives_as_much_shorter() -> None:
    [share] = plan_lives(0.2, [one(price=0.1)])
    assert decide_life(Wanted(), one(price=0.1), share) == 7200
    assert decide_life(Wanted(), one(price=0.4), share) == 1800


def test_a_large_budget_does_not_prolong_a_life() -> None:
    [share] = plan_lives(1000, [one()])
    assert decide_life(Wanted(life=5000), one(), share) == 5000


def test_without_prices_the_machines_cannot_keep_to_a_budget() -> None:
    assert plan_lives(10, [one(), one(price=None)]) == [None, None]
    assert plan_lives(None, [one()]) == [None]
    assert decide_life(Wanted(), one(price=None), 1.0) == 86400


def test_a_budget_for_minutes_is_told() -> None:
    assert explain_short_life(0.01, [360, 360], 2) == "budget: $0.01 keeps 2 machines for 6 min"
    assert explain_short_life(0.01, [360], 1) == "budget: $0.01 keeps the machine for 6 min"
    assert explain_short_life(10, [86400], 1) == explain_short_life(None, [5], 1) == ""


# ---- requests ------------------------------------------------------------------------------------------------------


def test_a_request_has_all_that_a_launch_needs() -> None:
    wanted = Wanted(
        types=("c5.4xlarge",), cpus=Amount(8), markets=("spot",), max_price=0.3, max_price_text="0.30",
        eco_life=7200, disk=50, disk_type="gp2", project="p", idle=900, life=5000,
    )  # fmt: skip
    spot = {("c5.4xlarge", "eu-west-3b"): 0.25}
    known = facts("c5.4xlarge", spot=spot)
    offer = render_offers(wanted, candidates(wanted, known), known, None)[0]
    assert json.loads(offer.request) == {
        "v": 1, "region": "eu-west-3", "zone": "eu-west-3b", "zoned": False, "vpc": "vpc-1",
        "subnet": "subnet-b", "public": True,
        "type": "c5.4xlarge", "market": "spot", "max_price": "0.30", "image": "ami-0", "user": "ubuntu",
        "root_device": "/dev/sda1", "disk": {"size": 50, "type": "gp2"}, "cores": 8, "threads": 1, "project": "p",
        "idle": 900, "life": 5000, "unadopted": 1200, "eco_life": 7200, "reuse": True,
    }  # fmt: skip
    assert offer.request == json.dumps(json.loads(offer.request), sort_keys=True, separators=(",", ":"))
    assert (offer.pool, offer.quota) == ("aws eu-west-3 eu-west-3b c5.4xlarge spot", "aws eu-west-3 L-34B43A08")
    assert (offer.price, offer.keep, offer.note) == (0.25, 900.0, "c5.4xlarge, eu-west-3b, spot")
    assert offer.capacity is not None and offer.capacity.cpus == 8.0
    assert parse_request(offer.request).cores == 8


def test_machine_that_is_given_back_at_once_still_watches_over_itself() -> None:
    wanted = Wanted(types=("c5.4xlarge",), project="p", idle=0)
    known = facts("c5.4xlarge")
    offer = render_offers(wanted, candidates(wanted, known), known, None)[0]
    assert (offer.keep, json.loads(offer.request)["idle"]) == (0.0, 600)


def test_on_demand_has_no_limit_of_price_or_time() -> None:
    wanted = Wanted(types=("m7i.large",), max_price=0.3, max_price_text="0.3", eco_life=7200)
    known = facts("m7i.large")
    request = json.loads(render_offers(wanted, candidates(wanted, known), known, None)[0].request)
    assert (request["max_price"], request["eco_life"], request["reuse"]) == (None, None, False)


def test_a_disk_is_never_smaller_than_its_image() -> None:
    wanted = Wanted(types=("m7i.large",), disk=10)
    known = facts("m7i.large")
    known = replace(known, images={"m7i.large": replace(IMAGE, disk=75)})
    request = json.loads(render_offers(wanted, candidates(wanted, known), known, None)[0].request)
    assert request["disk"]["size"] == 75


def test_the_same_question_has_the_same_answer_to_the_byte() -> None:
    wanted, known = Wanted(types=("m7i.large", "t3.medium")), facts("m7i.large", "t3.medium")
    twice = [render_offers(wanted, candidates(wanted, known), known, 0.5) for _ in range(2)]
    assert twice[0] == twice[1]
    assert len({offer.request for offer in twice[0]}) == len(twice[0])

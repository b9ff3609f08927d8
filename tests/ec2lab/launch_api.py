"""RunInstances as EC2 has it: checked, once for each client token, by what can be had."""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as Tree

from . import images
from .fleet import Fleet
from .instance import GONE, NO_CAPACITY, Instance
from .market import MESSAGES, ON_DEMAND, SPOT, Market, quota_code
from .moto_server import MotoServer
from .show import overlay
from .spot_requests import SpotRequests
from .wire import ApiError, Reply, Request, fill, parse_xml, reply_xml, text

MOST_USER_DATA = 16384
SPENT = {"ClientToken", "MinCount", "MaxCount", "DryRun"}


@dataclass
class Launched:
    """What a client token has led to."""

    digest: str
    ids: list[str]
    reservation: Tree.Element


@dataclass
class Wanted:
    """One request, understood."""

    type: str
    market: str
    zone: str
    zone_given: bool
    subnet: str | None
    groups: list[str]
    public: bool
    image: str
    user: str
    key_name: str | None
    user_data: bytes
    least: int
    most: int
    max_price: float | None
    tags: dict[str, dict[str, str]]


@dataclass(eq=False)
class Broken:
    """What the next machines are like. None: all of them, everywhere."""

    how: str
    times: int | None
    region: str | None


class LaunchApi:
    def __init__(self, moto: MotoServer, fleet: Fleet, market: Market, spot: SpotRequests) -> None:
        self._moto, self._fleet, self._market, self._spot = moto, fleet, market, spot
        self._tokens: dict[tuple[str, str, str], Launched] = {}
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._guard = threading.Lock()
        self._offered: dict[tuple[str, str], list[str]] = {}
        self.break_next: list[Broken] = []
        self.public_keys: dict[tuple[str, str], str] = {}  # (region, name)

    def clear(self) -> None:
        self._tokens.clear()
        self.break_next.clear()
        self.public_keys.clear()

    def ids_of_token(self, token: str) -> list[str]:
        return [one for key, launched in list(self._tokens.items()) if key[2] == token for one in launched.ids]

    def run_instances(self, request: Request) -> Reply:
        token = request.params.get("ClientToken") or f"lab-{time.time_ns()}"
        with self._guard:
            lock = self._locks.setdefault((request.region, token), threading.Lock())
        with lock:
            return self._run(request, token)

    def _run(self, request: Request, token: str) -> Reply:
        digest = json.dumps(
            {name: value for name, value in request.params.items() if name not in {"ClientToken", "DryRun"}},
            sort_keys=True,
        )
        zone_given, zone = self._zone_asked(request)
        key = (request.region, zone if zone_given else "", token)
        if (before := self._tokens.get(key)) is not None:
            return self._again(before, digest)
        wanted = self._understand(request, zone_given, zone)
        count = self._count(request.region, wanted)
        try:
            reservation = self._launch(request, wanted, count, token)
        except BaseException:
            self._market.give_back(wanted.zone, wanted.type, wanted.market, count)
            raise
        ids = [text(item, "instanceId") for item in reservation.iterfind("instancesSet/item")]
        self._tokens[key] = Launched(digest, ids, reservation)
        return reply_xml(reservation)

    def _again(self, before: Launched, digest: str) -> Reply:
        if before.digest != digest:
            raise ApiError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        if all(self._fleet[one].state == "terminated" for one in before.ids):
            raise ApiError(
                "IdempotentInstanceTerminated",
                "The instance launched with this client token has been terminated.",
            )
        for item in before.reservation.iterfind("instancesSet/item"):
            overlay(item, self._fleet[text(item, "instanceId")], time.time())
        return reply_xml(before.reservation)

    # Understand

    def _zone_asked(self, request: Request) -> tuple[bool, str]:
        interface = request.groups("NetworkInterface")
        subnet = request.params.get("SubnetId") or (interface[0].get("SubnetId") if interface else None)
        if subnet:
            found = self._moto.query(request.region, "DescribeSubnets", {"SubnetId.1": subnet})
            return True, text(found, "subnetSet/item/availabilityZone")
        if zone := request.params.get("Placement.AvailabilityZone"):
            return True, str(zone)
        return False, ""

    def _understand(self, request: Request, zone_given: bool, zone: str) -> Wanted:
        params = request.params
        least, most = int(params.get("MinCount") or 1), int(params.get("MaxCount") or 1)
        if not 1 <= least <= most:
            raise ApiError("InvalidParameterValue", f"Value ({least}) for parameter minCount is invalid.")
        kind = params.get("InstanceType", "m1.small")
        market = SPOT if params.get("InstanceMarketOptions.MarketType") == "spot" else ON_DEMAND
        max_price = params.get("InstanceMarketOptions.SpotOptions.MaxPrice")
        interfaces = request.groups("NetworkInterface")
        groups = request.list("SecurityGroupId")
        public: str | None = None
        for one in interfaces[:1]:
            public = one.get("AssociatePublicIpAddress")
            numbered = sorted(
                (int(name.rpartition(".")[2]), value)
                for name, value in one.items()
                if name.startswith("SecurityGroupId.")
            )
            groups = groups or [value for _, value in numbered]
        subnet = params.get("SubnetId") or (interfaces[0].get("SubnetId") if interfaces else None)
        image, user, arch = self._image(request)
        self._check_type(kind, arch)
        self._check_key(request.region, params.get("KeyName"))
        groups = self._groups(request, groups, subnet)
        offered = self._zones_of(request.region, kind)
        if not zone_given:
            zone = self._choose_zone(request.region, offered, kind, market, least)
        if zone not in offered and zone in self._zones_in(request.region):
            raise ApiError("Unsupported", MESSAGES["Unsupported"].format(type=kind, zone=zone))
        self._check_cpus(kind, params)
        tags = {}
        for spec in request.groups("TagSpecification"):
            found: dict[str, dict[str, str]] = {}
            for name, value in spec.items():
                if name.startswith("Tag."):
                    _, number, part = name.split(".")
                    found.setdefault(number, {})[part] = value
            tags[spec["ResourceType"]] = {pair["Key"]: pair.get("Value", "") for pair in found.values()}
        return Wanted(
            kind, market, zone, zone_given, subnet, groups, public != "false", image, user, params.get("KeyName"),
            self._user_data(params), least, most, float(max_price) if max_price else None, tags,
        )  # fmt: skip

    @staticmethod
    def _user_data(params: Mapping[str, str]) -> bytes:
        try:
            data = base64.b64decode(params.get("UserData", ""), validate=True)
        except binascii.Error:
            raise ApiError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
        if len(data) > MOST_USER_DATA:
            raise ApiError("InvalidParameterValue", f"User data is limited to {MOST_USER_DATA} bytes")
        return data

    def _image(self, request: Request) -> tuple[str, str, str]:
        """Its id, its user and its architecture."""
        name = request.params.get("ImageId", "")
        if name.startswith("resolve:ssm:"):
            name = images.parameters(request.region).get(name.removeprefix("resolve:ssm:"), "")
        if not name.startswith("ami-"):
            raise ApiError("InvalidAMIID.Malformed", f'Invalid id: "{name}" (expecting "ami-...")')
        if (image := images.find_image(request.region, name)) is not None:
            return name, image.user, image.arch
        if images.region_of(name) is None:  # one made there by CreateImage or RegisterImage
            found = self._moto.query(request.region, "DescribeImages", {"ImageId.1": name})
            return name, "ubuntu", text(found, "imagesSet/item/architecture")
        raise ApiError("InvalidAMIID.NotFound", f"The image id '[{name}]' does not exist")

    def _check_type(self, kind: str, arch: str) -> None:
        self._market.vcpus(kind)  # raises for a type that does not exist
        is_arm = re.match(r"[a-z]+\d+g", kind) is not None
        if is_arm != (arch == "arm64"):
            own = "arm64" if is_arm else "x86_64"
            raise ApiError(
                "InvalidParameterValue",
                f"The architecture '{own}' of the specified instance type does not match the architecture "
                f"'{arch}' of the specified AMI. Specify an instance type and an AMI that have matching "
                "architectures, and try again.",
            )

    def _check_key(self, region: str, name: str | None) -> None:
        if name:
            self._moto.query(region, "DescribeKeyPairs", {"KeyName.1": name})

    def _check_cpus(self, kind: str, params: Mapping[str, str]) -> None:
        cores, threads = params.get("CpuOptions.CoreCount"), params.get("CpuOptions.ThreadsPerCore")
        if cores and threads and int(cores) * int(threads) > self._market.vcpus(kind):
            raise ApiError(
                "InvalidParameterValue", f"Invalid CPU options: {cores} cores of {threads} threads for {kind}"
            )

    def _groups(self, request: Request, groups: list[str], subnet: str | None) -> list[str]:
        if groups:
            pairs = {f"GroupId.{number}": group for number, group in enumerate(groups, 1)}
            self._moto.query(request.region, "DescribeSecurityGroups", pairs)
            return groups
        names = request.list("SecurityGroup") or ["default"]
        pairs = {"Filter.1.Name": "group-name"}
        pairs |= {f"Filter.1.Value.{number}": name for number, name in enumerate(names, 1)}
        found = self._moto.query(request.region, "DescribeSecurityGroups", pairs)
        return [text(item, "groupId") for item in found.iterfind("securityGroupInfo/item")][: len(names)]

    def _zones_of(self, region: str, kind: str) -> list[str]:
        """Where a type is offered, by moto's list of what EC2 offers."""
        if (region, kind) not in self._offered:
            params = {"LocationType": "availability-zone", "Filter.1.Name": "instance-type", "Filter.1.Value.1": kind}
            found = self._moto.query(region, "DescribeInstanceTypeOfferings", params)
            zones = sorted(text(item, "location") for item in found.iterfind("instanceTypeOfferingSet/item"))
            self._offered[region, kind] = zones
        return self._offered[region, kind]

    def _zones_in(self, region: str) -> list[str]:
        found = self._moto.query(region, "DescribeAvailabilityZones", {})
        return sorted(text(item, "zoneName") for item in found.iterfind("availabilityZoneInfo/item"))

    def _choose_zone(self, region: str, offered: list[str], kind: str, market: str, least: int) -> str:
        every = self._zones_in(region)
        zones = [zone for zone in every if zone in offered] or every
        return next((zone for zone in zones if self._market.can_take(zone, kind, market, least)), zones[0])

    # Do

    def _count(self, region: str, wanted: Wanted) -> int:
        price = self._market.price(wanted.zone, wanted.type, wanted.market)
        if wanted.market == SPOT and wanted.max_price is not None and wanted.max_price < price:
            raise ApiError(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {wanted.max_price} is lower than the minimum required Spot request "
                f"fulfillment price of {price}.",
            )
        code = quota_code(wanted.type, wanted.market)
        used = sum(
            one.vcpus
            for one in list(self._fleet.instances.values())
            if one.region == region
            and one.state not in GONE | {"stopped"}
            and quota_code(one.type, one.market) == code
        )
        most = self._market.allowed_by_quota(region, wanted.type, wanted.market, used, wanted.least, wanted.most)
        return self._market.take(wanted.zone, wanted.type, wanted.market, wanted.least, most)

    def _launch(self, request: Request, wanted: Wanted, count: int, token: str) -> Tree.Element:
        params = {name: value for name, value in request.params.items() if name not in SPENT}
        params |= {"MinCount": str(count), "MaxCount": str(count), "ClientToken": token, "ImageId": wanted.image}
        if not wanted.zone_given:
            params["Placement.AvailabilityZone"] = wanted.zone
        reply = self._moto.forward(request.with_params(params))
        root = parse_xml(reply.body)
        if reply.status != 200:
            error = root.find(".//Error")
            assert error is not None
            raise ApiError(text(error, "Code"), text(error, "Message"), reply.status)
        for item in root.iterfind("instancesSet/item"):
            self._start(request, wanted, token, item)
        return root

    def _start(self, request: Request, wanted: Wanted, token: str, item: Tree.Element) -> None:
        params = request.params
        one = Instance(
            id=text(item, "instanceId"), region=request.region, zone=wanted.zone, type=wanted.type,
            market=wanted.market, token=token, image=wanted.image, user=wanted.user, user_data=wanted.user_data,
            public_key=self.public_keys.get((request.region, wanted.key_name or "")), key_name=wanted.key_name,
            price=self._market.price(wanted.zone, wanted.type, wanted.market), launched=time.time(),
            groups=wanted.groups, wants_public=wanted.public,
            shutdown=params.get("InstanceInitiatedShutdownBehavior", "stop"),
            protected=params.get("DisableApiTermination") == "true",
            tokens_required=params.get("MetadataOptions.HttpTokens") == "required",
            vcpus=self._market.vcpus(wanted.type),
        )  # fmt: skip
        if "CpuOptions.CoreCount" in params:
            one.cpus = int(params["CpuOptions.CoreCount"]), int(params.get("CpuOptions.ThreadsPerCore", 2))
        if wanted.market == SPOT:
            one.shutdown = "terminate"
            one.spot_request = self._spot.add(one, wanted.max_price, wanted.tags.get("spot-instances-request", {}))
        if (
            request.groups("NetworkInterface")[:1] == []
            or params.get("NetworkInterface.1.DeleteOnTermination") != "false"
        ):
            one.interfaces = [text(part, "networkInterfaceId") for part in item.iterfind("networkInterfaceSet/item")]
        if tags := wanted.tags.get("network-interface"):
            self._tag_interfaces(request.region, item, tags)
        self._break(one)
        fails = self._market.turns_to_terminated(wanted.zone, wanted.type, wanted.market)
        self._fleet.launch(one, NO_CAPACITY if fails else None)
        overlay(item, one, time.time())
        if item.find("clientToken") is None:
            fill(item, {"clientToken": token})

    def _tag_interfaces(self, region: str, item: Tree.Element, tags: Mapping[str, str]) -> None:
        params = {}
        for number, interface in enumerate(item.iterfind("networkInterfaceSet/item"), 1):
            params[f"ResourceId.{number}"] = text(interface, "networkInterfaceId")
        for number, (key, value) in enumerate(tags.items(), 1):
            params |= {f"Tag.{number}.Key": key, f"Tag.{number}.Value": value}
        self._moto.query(region, "CreateTags", params)

    def _break(self, one: Instance) -> None:
        with self._guard:
            for broken in self.break_next:
                if broken.region in (None, one.region):
                    one.broken = broken.how
                    one.impaired = broken.how == "impaired"
                    if broken.times is not None:
                        broken.times -= 1
                        if broken.times <= 0:
                            self.break_next.remove(broken)
                    return

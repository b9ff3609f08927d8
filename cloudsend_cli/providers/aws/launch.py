"""From an intent to the arguments of RunInstances. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudsend_cli.core.naming import digest
from cloudsend_cli.errors import ProviderError

from .identity import Identity
from .userdata import Limits, render_user_data

VERSION = 1
SPOT = "spot"
SCHEMA = "1"
# The agent says every 5 s that it is used, and the switch looks every 5 s: less would end machines that are.
SHORTEST_IDLE = 15
TAG = "cloudsend:"
_LONGEST_VALUE = 255

# What may differ between a machine that was kept and the one that a later run asks for.
# What makes no other machine of it. Its place does where the user named one; how long it may live: see kept.
_OF_ONE_RUN = ("reuse", "expires", "zoned", "max_price", "life", "bounded", "eco_life", "unadopted")
_PLACE = ("zone", "subnet")


@dataclass(frozen=True, slots=True)
class Intent:
    """One machine that was decided on: the arguments of `create_instance` without its request."""

    run: str
    node: str
    generation: int
    token: str


@dataclass(frozen=True, slots=True)
class Wish:
    """A request of an offer, read."""

    region: str
    zone: str
    vpc: str
    subnet: str
    type: str
    market: str
    max_price: str
    image: str
    user: str
    root_device: str
    disk_size: int | None
    disk_type: str
    cores: int | None
    threads: int | None
    project: str
    idle: int
    life: int
    setting: str  # what decides `life`, in the user's words
    unadopted: int
    reuse: bool
    public: bool
    expires: int | None
    kind: str  # equal for requests that one and the same machine could serve

    @property
    def is_spot(self) -> bool:
        return self.market == SPOT

    @property
    def text(self) -> str:
        """In the user's words, for messages: type, market, place."""
        return f"{self.type}{' (spot)' if self.is_spot else ''} in {self.zone or self.region}"

    @property
    def limits(self) -> Limits:
        return Limits(max(self.idle, SHORTEST_IDLE), self.life, self.unadopted, self.setting)


def parse_request(text: str) -> Wish:
    """ProviderError: it is not one of ours, or of a later version."""
    try:
        words = json.loads(text)
        if words.get("v") != VERSION:
            raise ValueError(f"its version is {words.get('v')!r}")
        return _read(words)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ProviderError(
            f"the request of a machine cannot be read: {problem}",
            hint="was the run submitted by a newer cloudsend? Submit it again",
        ) from problem


def _read(words: Mapping[str, Any]) -> Wish:
    disk = words.get("disk") or {}
    life = int(words["life"])
    eco_life = int(words.get("eco_life") or 0) if words.get("market") == SPOT else 0
    is_shorter = bool(eco_life and eco_life < life)
    apart = _OF_ONE_RUN if words.get("zoned", True) else (*_OF_ONE_RUN, *_PLACE)
    return Wish(
        region=str(words["region"]),
        zone=str(words.get("zone") or ""),
        vpc=str(words.get("vpc") or ""),
        subnet=str(words.get("subnet") or ""),
        type=str(words["type"]),
        market=str(words.get("market") or "on-demand"),
        max_price=str(words.get("max_price") or ""),
        image=str(words["image"]),
        user=str(words["user"]),
        root_device=str(words["root_device"]),
        disk_size=_number(disk.get("size")),
        disk_type=str(disk.get("type") or ""),
        cores=_number(words.get("cores")),
        threads=_number(words.get("threads")),
        project=str(words.get("project") or ""),
        idle=int(words["idle"]),
        life=eco_life if is_shorter else life,
        setting="eco_life" if is_shorter else "budget" if words.get("bounded") else "life",
        unadopted=int(words["unadopted"]),
        reuse=bool(words.get("reuse")),
        public=bool(words.get("public", True)),
        expires=_number(words.get("expires")),
        kind=digest({key: value for key, value in words.items() if key not in apart}),
    )


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def render_launch(wish: Wish, intent: Intent, identity: Identity, group: str) -> dict[str, Any]:
    """The arguments of RunInstances; the same for the same intent. `group`: the firewall group's id."""
    tags = render_tags(wish, intent, identity.owner)
    resources = ["instance", "volume", "network-interface", *(["spot-instances-request"] if wish.is_spot else [])]
    arguments: dict[str, Any] = {
        "ClientToken": intent.token,
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": wish.image,
        "InstanceType": wish.type,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
        "BlockDeviceMappings": [{"DeviceName": wish.root_device, "Ebs": _render_disk(wish)}],
        "NetworkInterfaces": [_render_interface(wish, group)],
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in resources],
        "UserData": render_user_data(
            wish.user,
            wish.limits,
            spot=wish.is_spot,
            host_key=identity.host_key(intent.token),
            login_public=identity.login_public,
        ),
    }
    if wish.zone:
        arguments["Placement"] = {"AvailabilityZone": wish.zone}
    if wish.is_spot:
        arguments["InstanceMarketOptions"] = {"MarketType": SPOT, "SpotOptions": _render_spot(wish)}
    cores = {"CoreCount": wish.cores, "ThreadsPerCore": wish.threads}
    if wish.cores is not None or wish.threads is not None:
        arguments["CpuOptions"] = {name: number for name, number in cores.items() if number is not None}
    return arguments


def render_tags(wish: Wish, intent: Intent, owner: str) -> list[dict[str, str]]:
    tags = {
        "Name": f"cloudsend-{wish.project}-{intent.node}",
        f"{TAG}owner": owner,
        f"{TAG}run": intent.run,
        f"{TAG}node": intent.node,
        f"{TAG}generation": str(intent.generation),
        f"{TAG}token": intent.token,
        f"{TAG}project": wish.project,
        f"{TAG}schema": SCHEMA,
    }
    if wish.expires is not None:
        tags[f"{TAG}expires"] = str(wish.expires)
    return [{"Key": key, "Value": value[:_LONGEST_VALUE]} for key, value in sorted(tags.items())]


def _render_disk(wish: Wish) -> dict[str, Any]:
    disk: dict[str, Any] = {"DeleteOnTermination": True, "Encrypted": True}
    if wish.disk_size is not None:
        disk["VolumeSize"] = wish.disk_size
    if wish.disk_type:
        disk["VolumeType"] = wish.disk_type
    return disk


def _render_interface(wish: Wish, group: str) -> dict[str, Any]:
    interface: dict[str, Any] = {
        "DeviceIndex": 0,
        "DeleteOnTermination": True,
        "AssociatePublicIpAddress": wish.public,
        "Groups": [group],
    }
    if wish.subnet:
        interface["SubnetId"] = wish.subnet
    return interface


def _render_spot(wish: Wish) -> dict[str, str]:
    # Never a persistent request: it would launch another machine after this one, unasked.
    options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    return {**options, "MaxPrice": wish.max_price} if wish.max_price else options

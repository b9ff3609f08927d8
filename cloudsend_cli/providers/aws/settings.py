"""What the user asked of AWS, from text pairs to one frozen value. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cloudsend_cli.core.model import InstanceSpec, ProviderDefinition

T = TypeVar("T")

ON_DEMAND = "on-demand"
SPOT = "spot"
MARKETS = {"false": (ON_DEMAND,), "true": (SPOT,), "prefer": (SPOT, ON_DEMAND)}
DISK_TYPES = ("gp3", "gp2", "standard")  # io1 and io2 need a rate as well, and st1 and sc1 cannot hold a system
DISK = 30_000_000_000
DISK_LEAST, DISK_MOST = 1, 16384  # GiB
IDLE, IDLE_DEV, LIFE, UNADOPTED = 600, 3600, 86400, 1200
LEAST_SECONDS = 60.0  # that EC2 charges for, each time a Linux machine was started

_TYPE = re.compile(r"[a-z][a-z0-9-]{0,30}\.[a-z0-9-]{2,20}")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+){1,2}-[0-9]")
_ZONE = re.compile(r"([a-z]{2,4}(?:-[a-z]+){1,2}-[0-9])[a-z](-[a-z0-9]+)*|[a-z]{2,4}(-[a-z]+){1,2}-[0-9]-[a-z0-9-]+")
_IMAGE = re.compile(r"ami-[0-9a-f]{8,17}|ssm:/?[A-Za-z0-9_./-]{1,500}")
_VPC = re.compile(r"vpc-[0-9a-f]{8,17}")
_SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")
_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
_NOTHING = re.compile(r"0+(\.0*)?")
_GPU = re.compile(r"(?:(?P<kind>[^:+]*?)\s*:)?\s*(?P<count>[0-9]{1,4})(?P<more>\+?)|(?P<alone>[^:+0-9][^:+]*)")


@dataclass(frozen=True, slots=True)
class Amount:
    """So many, or at least so many."""

    value: float
    more: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """One kind of machine. Sizes in base units; "" and () mean that the user did not say."""

    number: int = 1
    types: tuple[str, ...] = ()
    cpus: Amount | None = None
    memory: Amount | None = None
    gpus: Amount | None = None
    gpu_kind: str = ""
    disk: int = 30  # GiB
    disk_named: bool = False
    disk_type: str = "gp3"
    markets: tuple[str, ...] = (ON_DEMAND,)
    eco_life: int | None = None
    max_price: float | None = None
    max_price_text: str = ""
    explode: bool = False
    image: str = ""
    user: str = ""
    region: str = ""
    zones: tuple[str, ...] = ()
    vpc: str = ""
    subnet: str = ""
    project: str = ""
    dev: bool = False
    budget: float | None = None
    idle: int = IDLE  # 0: it waits for no other run
    life: int = LIFE


def parse_account(definition: ProviderDefinition) -> tuple[str, str]:
    """(profile, region) of the definition; "": what the environment says. What a later version may add is ignored."""
    try:
        words = json.loads(definition.settings)
    except ValueError:
        words = {}
    words = words if isinstance(words, dict) else {}
    profile, region = (words.get(key) for key in ("profile", "region"))
    return profile if isinstance(profile, str) else "", region if isinstance(region, str) else ""


def parse_settings(definition: ProviderDefinition, spec: InstanceSpec) -> tuple[Wanted, list[str]]:
    """What is asked for, and each problem in user words, beginning with its key."""
    texts = {name: text.strip() for name, text in spec.settings if text.strip()}
    reader = _Reader(texts)
    dev = reader.flag("dev")
    idle = reader.read("idle", _parse_wait)
    gpus, kind = reader.read("gpu", _parse_gpu) or (None, "")
    wanted = Wanted(
        number=max(1, spec.number),
        types=reader.list("type", _TYPE, "is not a type of machine; write m7i.large"),
        cpus=reader.read("cpus", _parse_amount),
        memory=reader.read("memory", _parse_amount),
        gpus=gpus,
        gpu_kind=kind,
        disk=reader.read("disk", _parse_disk) or _parse_disk(str(DISK)),
        disk_named="disk" in texts,
        disk_type=reader.read("disk_type", _parse_disk_type) or DISK_TYPES[0],
        markets=reader.read("spot", _parse_market) or MARKETS["false"],
        eco_life=reader.read("eco_life", _parse_seconds),
        max_price=reader.read("max_price", _parse_price),
        max_price_text=texts.get("max_price", ""),
        explode=reader.flag("explode"),
        image=reader.word("image", _IMAGE, "is not an image; write ami-…, or ssm:/aws/service/… for a parameter"),
        user=reader.word("user", _USER, "is not the name of a user"),
        region=reader.word("region", _REGION, "is not a region; write eu-west-3") or parse_account(definition)[1],
        zones=reader.list("zone", _ZONE, "is not a zone; write eu-west-3a"),
        vpc=reader.word("vpc", _VPC, "is not a network; write vpc-…"),
        subnet=reader.word("subnet", _SUBNET, "is not a subnet; write subnet-…"),
        project=texts.get("project", ""),
        dev=dev,
        budget=reader.read("budget", _parse_price),
        idle=(IDLE_DEV if dev else IDLE) if idle is None else idle,
        life=reader.read("life", _parse_seconds) or LIFE,
    )
    return wanted, reader.problems + _list_conflicts(wanted)


def _list_conflicts(wanted: Wanted) -> list[str]:
    problems = []
    if wanted.region:
        problems += [
            f"zone: {zone} is not in region {wanted.region}"
            for zone in wanted.zones
            if not zone.startswith(wanted.region)
        ]
    if wanted.explode and wanted.cpus is not None:
        if not wanted.types:
            problems.append("explode: needs a type, which decides how many CPUs each machine has")
        if wanted.cpus.more or wanted.cpus.value != int(wanted.cpus.value):
            problems.append(f"explode: needs a whole number of cpus, not {show_amount(wanted.cpus)}")
    return problems


class _Reader:
    """Reads settings one by one and remembers what was wrong."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self.problems: list[str] = []

    def read(self, key: str, parse: Callable[[str], T]) -> T | None:
        text = self._texts.get(key)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"{key}: {text!r} {error}")
            return None

    def word(self, key: str, pattern: re.Pattern[str], complaint: str) -> str:
        return "".join(self.list(key, pattern, complaint, single=True))

    def list(self, key: str, pattern: re.Pattern[str], complaint: str, *, single: bool = False) -> tuple[str, ...]:
        text = self._texts.get(key, "")
        words = [text] if single else [word.strip() for word in text.split(",")]
        found = []
        for word in dict.fromkeys(words):
            if not word:
                continue
            if pattern.fullmatch(word):
                found.append(word)
            else:
                self.problems.append(f"{key}: {word!r} {complaint}")
        return tuple(found)

    def flag(self, key: str) -> bool:
        return self.read(key, _parse_flag) or False


# ---- texts ---------------------------------------------------------------------------------------------------------


def _parse_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(value) or value <= 0:
        raise ValueError("must be more than 0")
    return value


def _parse_amount(text: str) -> Amount:
    return Amount(_parse_number(text.removesuffix("+")), text.endswith("+"))


def _parse_gpu(text: str) -> tuple[Amount | None, str]:
    found = _GPU.fullmatch(text)
    if not found:
        raise ValueError("is not a number of GPUs; write 1 or A10G:1")
    count = int(found["count"] or 1)
    return (Amount(count, bool(found["more"])) if count else None), (found["kind"] or found["alone"] or "").strip()


def _parse_seconds(text: str) -> int:
    return max(1, int(_parse_number(text)))


def _parse_wait(text: str) -> int:
    """As _parse_seconds; 0 is an answer as well."""
    return 0 if _NOTHING.fullmatch(text) else _parse_seconds(text)


def _parse_price(text: str) -> float:
    return _parse_number(text)


def _parse_disk(text: str) -> int:
    """GiB, the unit of AWS, and never fewer bytes than asked for: 30 GB are 30 GiB."""
    size = math.ceil(_parse_number(text) / 1e9)
    if not DISK_LEAST <= size <= DISK_MOST:
        raise ValueError(f"is not between {DISK_LEAST} and {DISK_MOST} GB")
    return size


def _parse_disk_type(text: str) -> str:
    if text not in DISK_TYPES:
        raise ValueError(f"is not one of {', '.join(DISK_TYPES)}")
    return text


def _parse_market(text: str) -> tuple[str, ...]:
    if text not in MARKETS:
        raise ValueError("is not true, false or prefer")
    return MARKETS[text]


def _parse_flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("is not true or false")
    return text == "true"


def show_amount(amount: Amount) -> str:
    return f"{amount.value:g}{'+' if amount.more else ''}"

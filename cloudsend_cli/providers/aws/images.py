"""Which system a machine starts with: the user's image, else the current Ubuntu LTS.

An image is named by its id or by a parameter of AWS, never searched by its name: anybody may give an image any name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloudsend_cli.errors import CloudsendError, ConfigError, Problem

from .catalog import InstanceType
from .clients import Account
from .errors import read_error
from .settings import Wanted

CANONICAL = "099720109477"
AMAZON = "amazon"  # the alias of AWS's own accounts

_UBUNTU = "/aws/service/canonical/ubuntu/server/{release}/stable/current/{arch}/hvm/ebs-gp3/ami-id"
_UBUNTU_RELEASES = ("26.04", "24.04")
# With NVIDIA's driver, by AWS, on Ubuntu: on a plain image nothing could use the GPU.
_DRIVER = "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-{release}/latest/ami-id"
_DRIVER_RELEASES = ("24.04", "22.04")
_ARCHES = {"x86_64": "amd64", "arm64": "arm64"}
_USERS = (
    (r"ubuntu", "ubuntu"),
    (r"al20[0-9]{2}|amzn|amazon.?linux", "ec2-user"),
    (r"debian", "admin"),
    (r"rocky", "rocky"),
    (r"fedora", "fedora"),
    (r"centos.?7|centos.linux.7", "centos"),
    (r"rhel|red.?hat|suse|almalinux|centos|oracle", "ec2-user"),
    (r"arch-?linux", "arch"),
    (r"bitnami", "bitnami"),
)
_USER_UNKNOWN = "ec2-user"
_CANDIDATES = 6


@dataclass(frozen=True, slots=True)
class Image:
    """An image of one region."""

    id: str
    user: str
    root_device: str
    arch: str  # x86_64 or arm64
    disk: int = 0  # GiB that its own root takes; a smaller disk is refused by AWS
    name: str = ""
    owner: str = ""
    warnings: tuple[str, ...] = ()


# ---- the default ---------------------------------------------------------------------------------------------------


def list_parameters(kind: InstanceType) -> list[str]:
    """The parameters that name the default image of a type, the best one first."""
    names = [_UBUNTU.format(release=release, arch=_ARCHES[kind.arch]) for release in _UBUNTU_RELEASES]
    if needs_driver(kind):
        names = [_DRIVER.format(release=release, arch=kind.arch) for release in _DRIVER_RELEASES] + names
    return names


def needs_driver(kind: InstanceType) -> bool:
    return kind.gpus > 0 and not kind.gpu_kind.startswith("Radeon")


def fetch_default_images(
    account: Account, region: str, wanted: Wanted, kinds: Sequence[InstanceType]
) -> tuple[dict[str, Image], list[str]]:
    """The image for each type. ConfigError: the region has none, which no region of AWS is known for."""
    names = list(dict.fromkeys(name for kind in kinds for name in list_parameters(kind)))
    known: dict[str, str] = {}
    for start in range(0, len(names), 10):
        reply = account.call(
            f"tell the current Ubuntu images of {region}",
            "ssm",
            "get_parameters",
            region,
            Names=names[start : start + 10],
        )
        known.update({entry["Name"]: entry["Value"] for entry in reply.get("Parameters", [])})
    chosen = {kind.name: next((known[n] for n in list_parameters(kind) if n in known), "") for kind in kinds}
    described = _describe(account, region, sorted({image for image in chosen.values() if image}))
    images, warnings = {}, []
    for kind in kinds:
        reply = described.get(chosen[kind.name], {})
        if not reply:
            continue
        images[kind.name] = parse_image(reply, wanted.user)
        driver = next((known.get(n) for n in list_parameters(kind) if "nvidia" in n and n in known), None)
        if needs_driver(kind) and driver != chosen[kind.name]:
            warnings.append(f"{kind.name}: no image with GPU drivers is known in {region}; plain Ubuntu has none")
    if not images:
        raise _wrong(f"image: AWS names no Ubuntu image in {region}; give the id of one")
    return images, warnings


# ---- the user's own ------------------------------------------------------------------------------------------------


def fetch_image(account: Account, region: str, wanted: Wanted) -> Image:
    """The image that the user named. ConfigError: it is not there, or cannot be used; candidates are named."""
    image_id = wanted.image
    if image_id.startswith("ssm:"):
        image_id = _fetch_parameter(account, region, image_id.removeprefix("ssm:"))
    reply = _describe(account, region, [image_id]).get(image_id)
    if reply is None:
        raise _wrong(f"image: {image_id} is not in {region}", _list_candidates(account, region))
    if reply.get("State", "available") != "available":
        raise _wrong(f"image: {image_id} is {reply['State']}", _list_candidates(account, region))
    if reply.get("Platform") == "windows":
        raise _wrong(f"image: {image_id} is a Windows system; Linux is needed")
    image = parse_image(reply, wanted.user)
    if image.arch not in _ARCHES:
        raise _wrong(f"image: {image_id} is made for {image.arch}; x86_64 and arm64 can be used")
    warnings = list(image.warnings)
    if not _is_trusted(account, region, reply):
        owner = f"{reply.get('ImageOwnerAlias', '')} {image.owner}".strip()
        warnings.append(
            f"image: {image_id} ({image.name}) belongs to {owner}, who is neither you, Amazon nor Canonical: "
            "whoever made it can read all that runs on it"
        )
    return replace(image, warnings=tuple(warnings))


def _is_trusted(account: Account, region: str, reply: Mapping[str, Any]) -> bool:
    """AWS's, Canonical's, or the account's own. The alias is AWS's word, unlike the name."""
    owner = reply.get("OwnerId")
    if reply.get("ImageOwnerAlias") == AMAZON or owner == CANONICAL:
        return True
    return bool(
        owner == account.call("tell whose credentials these are", "sts", "get_caller_identity", region)["Account"]
    )


def parse_image(reply: Mapping[str, Any], user: str = "") -> Image:
    """One entry of DescribeImages. The name of the user who logs in is guessed from that of the image."""
    name = str(reply.get("Name", ""))
    root = str(reply.get("RootDeviceName") or "/dev/sda1")
    disks = [m.get("Ebs", {}) for m in reply.get("BlockDeviceMappings", []) if m.get("DeviceName") == root]
    warnings: tuple[str, ...] = ()
    if not user:
        user = guess_user(f"{name} {reply.get('Description', '')} {reply.get('ImageLocation', '')}")
        if not user:
            user = _USER_UNKNOWN
            words = f"image: who logs in to {reply['ImageId']} ({name}) is not known; {user} is tried, 'user' names it"
            warnings = (words,)
    return Image(
        str(reply["ImageId"]),
        user,
        root,
        str(reply.get("Architecture", "x86_64")),
        max((int(disk.get("VolumeSize", 0)) for disk in disks), default=0),
        name,
        str(reply.get("OwnerId", "")),
        warnings,
    )


def guess_user(text: str) -> str:
    """ "" where the words say nothing."""
    return next((user for pattern, user in _USERS if re.search(pattern, text.lower())), "")


def _fetch_parameter(account: Account, region: str, name: str) -> str:
    reply = account.call(f"read the parameter {name}", "ssm", "get_parameters", region, Names=[name])
    values = [str(entry.get("Value", "")) for entry in reply.get("Parameters", [])]
    if not values:
        raise _wrong(f"image: there is no parameter {name} in {region}", _list_candidates(account, region))
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", values[0]):
        raise _wrong(f"image: the parameter {name} is not the id of an image: {values[0][:60]!r}")
    return values[0]


def _list_candidates(account: Account, region: str) -> str:
    """The default, and the newest images of the account's own; what cannot be asked is left out."""
    found = []
    try:
        names = [_UBUNTU.format(release=release, arch="amd64") for release in _UBUNTU_RELEASES]
        reply = account.call("list images", "ssm", "get_parameters", region, Names=names)
        values = {entry["Name"]: entry["Value"] for entry in reply.get("Parameters", [])}
        found += [f"{values[n]} (Ubuntu {r})" for n, r in zip(names, _UBUNTU_RELEASES, strict=True) if n in values]
        own = account.call("list images", "ec2", "describe_images", region, Owners=["self"])["Images"]
        own.sort(key=lambda entry: str(entry.get("CreationDate", "")), reverse=True)
        found += [f"{entry['ImageId']} ({entry.get('Name', '')}, yours)" for entry in own[: _CANDIDATES - len(found)]]
    except CloudsendError:
        pass
    return f"there are {', '.join(found)}" if found else "leave 'image' out for the current Ubuntu LTS"


def _describe(account: Account, region: str, ids: Sequence[str]) -> dict[str, Any]:
    """By id; what is not there is left out."""
    if not ids:
        return {}
    try:
        reply = account.call("look at images", "ec2", "describe_images", region, ImageIds=list(ids))
    except CloudsendError as error:
        code = read_error(error.__cause__)[0] if error.__cause__ else ""
        if code.startswith("InvalidAMIID"):
            return {}
        raise
    return {str(entry["ImageId"]): entry for entry in reply.get("Images", [])}


def _wrong(message: str, hint: str = "") -> ConfigError:
    return ConfigError([Problem(f"{message}; {hint}" if hint else message)])

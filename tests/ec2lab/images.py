"""The images of the lab's regions, and the SSM parameters that name them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

REGIONS = ("us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-west-3", "eu-central-1", "ap-northeast-1")
CANONICAL, AMAZON, DEBIAN, STRANGER = "099720109477", "137112412989", "136693071363", "666666666666"


@dataclass(frozen=True)
class Image:
    name: str
    owner: str
    user: str
    arch: str = "x86_64"
    root: str = "/dev/sda1"
    parameters: tuple[str, ...] = ()
    created: str = "2026-10-01T00:00:00.000Z"

    def id(self, region: str) -> str:
        return f"ami-0{hashlib.sha256(f'{region} {self.name} {self.owner}'.encode()).hexdigest()[:16]}"


def _ubuntu(version: str, code: str, arch: str, day: str, disk: str) -> Image:
    path = f"/aws/service/canonical/ubuntu/server/{version}/stable/current/{arch}/hvm/ebs-{disk}/ami-id"
    name = f"ubuntu/images/hvm-ssd{'-gp3' if disk == 'gp3' else ''}/ubuntu-{code}-{version}-{arch}-server-{day}"
    kind = {"amd64": "x86_64"}.get(arch, arch)
    return Image(name, CANONICAL, "ubuntu", kind, parameters=(path,), created=f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00.000Z")  # fmt: skip  # noqa: E501


_AL = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
IMAGES = (
    _ubuntu("24.04", "noble", "amd64", "20261001", "gp3"),
    _ubuntu("24.04", "noble", "arm64", "20261001", "gp3"),
    _ubuntu("22.04", "jammy", "amd64", "20261001", "gp2"),
    _ubuntu("22.04", "jammy", "arm64", "20261001", "gp2"),
    Image("al2023-ami-2023.9.20261001.0-kernel-6.1-x86_64", AMAZON, "ec2-user", root="/dev/xvda", parameters=(_AL,)),
    Image("debian-12-amd64-20261001-1800", DEBIAN, "admin", root="/dev/xvda"),
    # A newer one of the same name, by nobody we know.
    Image("ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261101", STRANGER, "ubuntu",
          created="2026-11-01T00:00:00.000Z"),
)  # fmt: skip


def find_image(region: str, image_id: str) -> Image | None:
    return next((image for image in IMAGES if image.id(region) == image_id), None)


def region_of(image_id: str) -> str | None:
    """Where an image of the lab is; None for one that was made there."""
    return _REGION_OF.get(image_id)


_REGION_OF = {image.id(region): region for region in REGIONS for image in IMAGES}


def parameters(region: str) -> dict[str, str]:
    return {path: image.id(region) for image in IMAGES for path in image.parameters}


def as_moto_reads() -> list[dict[str, object]]:
    return [
        {
            "ami_id": image.id(region),
            "state": "available",
            "public": True,
            "owner_id": image.owner,
            "image_location": f"{image.owner}/{image.name}",
            "sriov": "simple",
            "root_device_type": "ebs",
            "root_device_name": image.root,
            "description": image.name,
            "image_type": "machine",
            "platform": None,
            "architecture": image.arch,
            "name": image.name,
            "virtualization_type": "hvm",
            "hypervisor": "xen",
            "creation_date": image.created,
        }
        for region in REGIONS
        for image in IMAGES
    ]

"""Somebody with a state directory who rents from the cloud of these tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ec2lab import Cloud, Instance

from cloudsend_cli.core.model import InstanceStatus, ProviderDefinition
from cloudsend_cli.providers.aws.clients import forget_clients
from cloudsend_cli.providers.aws.firewall import VARIABLE
from cloudsend_cli.providers.aws.provider import AwsProvider

RUN = "rtest1"
AWS = ProviderDefinition("aws", "aws", '{"profile":null,"region":"eu-west-3"}')


@contextmanager
def surroundings(ec2: Cloud) -> Iterator[None]:
    """The environment of whoever uses this cloud from this process."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(ec2.environ)
    os.environ[VARIABLE] = ec2.client_address
    forget_clients()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        forget_clients()


class User:
    """`provider` is what a process of cloudsend has; `restart` makes another one, as after a crash."""

    def __init__(self, ec2: Cloud, state_dir: Path, definition: ProviderDefinition = AWS) -> None:
        self.ec2, self.state_dir, self.definition = ec2, state_dir, definition
        self.provider = AwsProvider(definition, state_dir)
        self._subnets: dict[str, list[dict[str, Any]]] = {}

    def restart(self) -> AwsProvider:
        forget_clients()
        self.provider = AwsProvider(self.definition, self.state_dir)
        return self.provider

    def request(self, region: str = "eu-west-3", zone: str = "a", **changes: Any) -> str:
        """Of an offer, as plans make them."""
        if region not in self._subnets:
            self._subnets[region] = self.ec2.client("ec2", region).describe_subnets()["Subnets"]
        (subnet,) = [s for s in self._subnets[region] if s["AvailabilityZone"] == region + zone]
        words = {
            "v": 1,
            "region": region,
            "zone": region + zone,
            "vpc": subnet["VpcId"],
            "subnet": subnet["SubnetId"],
            "type": "m7i.large",
            "market": "on-demand",
            "max_price": None,
            "image": self.ec2.image(region=region),
            "user": "ubuntu",
            "root_device": "/dev/sda1",
            "disk": {"size": 30, "type": "gp3"},
            "cores": None,
            "threads": None,
            "project": "p",
            "idle": 600,
            "life": 86400,
            "unadopted": 1200,
            "eco_life": None,
            "reuse": True,
        }
        return json.dumps({**words, **changes}, sort_keys=True, separators=(",", ":"))

    def create(self, token: str = "token-1", request: str = "", run: str = RUN, **changes: Any) -> str:
        return self.provider.create_instance(run, "aws-0", 1, token, request or self.request(**changes))

    def running(self, instance_id: str) -> Instance:
        return self.ec2.wait(instance_id, "running")

    def status(self, instance_id: str, run: str = RUN) -> InstanceStatus:
        (found,) = [s for s in self.provider.list_instances(run) if s.instance_id == instance_id]
        return found

    def settle(self) -> None:
        """Until no machine is on its way."""
        for one in self.ec2.instances:
            if one.state == "pending":
                self.ec2.wait(one.id, "running")
            if one.state == "shutting-down":
                self.ec2.wait(one.id, "terminated")
            if one.state == "stopping":
                self.ec2.wait(one.id, "stopped")

"""The shipped IAM policy in force: everything that cloudsend does with machines goes through, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from ec2lab import Cloud

from cloudsend_cli.core.model import InstanceSpec, ProviderDefinition
from cloudsend_cli.providers.aws.clients import forget_clients
from cloudsend_cli.providers.aws.firewall import VARIABLE
from cloudsend_cli.providers.aws.policy import load_policy, render_policy
from cloudsend_cli.providers.aws.provider import AwsProvider

REGION = "eu-west-3"
NOT_SEEN_HERE = {"FirstSpotMachineOfAnAccount"}  # AWS's own act in the caller's name; test_aws_policy.py has it


@pytest.fixture
def aws(ec2: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ec2.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(VARIABLE, "192.0.2.7")
    forget_clients()
    yield ec2
    forget_clients()


@pytest.fixture
def provider(aws: Cloud, state_dir: Path) -> AwsProvider:
    settings = json.dumps({"profile": None, "region": REGION})
    return AwsProvider(ProviderDefinition("aws", "aws", settings), state_dir)


def rent(provider: AwsProvider, aws: Cloud, node: str, **settings: str) -> str:
    [machine] = provider.plan_machines([InstanceSpec("aws", 1, None, tuple({"project": "p", **settings}.items()))])
    made = provider.create_instance("run001", node, 1, f"token-{node}", machine.request)
    aws.wait(made, "running")
    return made


def live(provider: AwsProvider, aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole life of machines, and the cleaning up after them."""
    first = rent(provider, aws, "n-0", type="m7i.large")
    spot = rent(provider, aws, "n-1", type="m7i.large", spot="true", max_price="1")
    assert {status.instance_id for status in provider.list_instances("run001")} == {first, spot}
    provider.stop_instance(first)
    aws.wait(first, "stopped")
    provider.start_instance(first)
    aws.wait(first, "running")
    provider.fetch_console(first)
    provider.keep_instance("run001", "n-0", first)
    provider.terminate_instance("run001", "n-1", spot)
    provider.terminate_rented(first)
    for machine in (first, spot):
        aws.wait(machine, "terminated")
    monkeypatch.setenv(VARIABLE, "192.0.2.8")
    assert [finding for finding in provider.check_account(fix=True) if not finding.ok] == []
    make_leftover(provider, aws)
    assert {leftover.kind for leftover in provider.list_leftovers()} == {"volume", "group"}
    for leftover in provider.list_leftovers():
        provider.remove_leftover(leftover)
    assert provider.list_leftovers() == []


def test_all_that_cloudsend_does_goes_through_and_needs_every_statement(
    provider: AwsProvider, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = aws.enforce(load_policy())
    live(provider, aws, monkeypatch)
    assert policy.refused == []
    assert policy.used == {statement["Sid"] for statement in load_policy()["Statement"]} - NOT_SEEN_HERE
    assert aws.alive == [] and aws.leaks() == []


def make_leftover(provider: AwsProvider, aws: Cloud) -> None:
    """As a machine leaves it whose disk AWS forgot; made by somebody who may."""
    tags = [{"Key": "cloudsend:owner", "Value": provider._tenant.identity.owner}]
    may, aws.credential.may = aws.credential.may, None
    spec = [{"ResourceType": "volume", "Tags": tags}]
    aws.client().create_volume(AvailabilityZone=f"{REGION}a", Size=1, TagSpecifications=spec)
    aws.credential.may = may


def test_machines_of_others_are_out_of_reach(aws: Cloud) -> None:
    others = aws.client().run_instances(ImageId=aws.image(), InstanceType="t3.micro", MinCount=1, MaxCount=1)
    machine = others["Instances"][0]["InstanceId"]
    aws.wait(machine, "running")
    policy = aws.enforce(load_policy())
    client = aws.client()
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("terminate_instances", {"InstanceIds": [machine]}),
        ("stop_instances", {"InstanceIds": [machine]}),
        ("create_tags", {"Resources": [machine], "Tags": [{"Key": "cloudsend:owner", "Value": "x"}]}),
        ("run_instances", {"ImageId": aws.image(), "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}),
    ]
    for verb, parameters in attempts:
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            getattr(client, verb)(**parameters)
    assert len(policy.refused) >= len(attempts)
    assert [one.id for one in aws.alive] == [machine]


def test_with_a_policy_of_ones_own_the_machines_of_other_installations_are_out_of_reach(
    provider: AwsProvider, aws: Cloud
) -> None:
    made = rent(provider, aws, "n-0", type="t3.micro")
    aws.enforce(json.loads(render_policy("0" * 16)))
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        aws.client().terminate_instances(InstanceIds=[made])
    aws.enforce(json.loads(render_policy(provider._tenant.identity.owner)))
    provider.terminate_rented(made)
    aws.wait(made, "terminated")

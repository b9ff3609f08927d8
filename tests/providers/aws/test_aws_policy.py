"""The IAM policy: it allows all that the code does, each statement is needed, and what is not ours is out of reach."""

from __future__ import annotations

import ast
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import cloudsend_cli.providers.aws as package
from cloudsend_cli.errors import UsageError
from cloudsend_cli.providers.aws.policy import load_policy, render_policy

OWNER = "cloudsend:owner"
MINE, OTHERS = {f"aws:ResourceTag/{OWNER}": "0123456789abcdef"}, {"aws:ResourceTag/team": "others"}
TAGGED = {f"aws:RequestTag/{OWNER}": "0123456789abcdef"}
PREFIXES = {"ec2": "ec2", "ssm": "ssm", "pricing": "pricing", "service-quotas": "servicequotas", "sts": "sts"}
FREE = {"sts:GetCallerIdentity"}  # needs no permission
OF_AWS = {"iam:CreateServiceLinkedRole"}  # AWS does it for the first spot machine of an account, in the caller's name
Context = dict[str, Any]
Request = tuple[str, str, Context]  # action, resource, context


def arn(kind: str, name: str = "x-1", account: str = "123456789012") -> str:
    return f"arn:aws:ec2:eu-west-3:{'' if kind in {'image', 'snapshot'} else account}:{kind}/{name}"


# ---- an evaluator of the part of IAM's language that the policy uses ----------------------------------------------


def is_allowed(policy: dict[str, Any], action: str, resource: str, context: Context) -> bool:
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatchcase(action, pattern) for pattern in as_list(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in as_list(statement["Resource"]))
        and all(
            holds(operator, as_list(patterns), context.get(key))
            for operator, tests in statement.get("Condition", {}).items()
            for key, patterns in tests.items()
        )
        for statement in policy["Statement"]
    )


def holds(operator: str, patterns: list[str], value: Any) -> bool:
    every, _, plain = operator.rpartition(":")
    match = {"StringLike": fnmatchcase, "StringEquals": str.__eq__}[plain]
    if every == "ForAllValues":
        return all(any(match(one, pattern) for pattern in patterns) for one in value or [])
    assert every == ""
    return value is not None and any(match(value, pattern) for pattern in patterns)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# ---- what cloudsend does -------------------------------------------------------------------------------------------

MADE_BY_LAUNCH = ("instance", "volume", "network-interface", "spot-instances-request")
LAUNCH: list[Request] = [
    *[("ec2:RunInstances", arn(kind), TAGGED) for kind in MADE_BY_LAUNCH],
    *[("ec2:CreateTags", arn(kind), {"ec2:CreateAction": "RunInstances"}) for kind in MADE_BY_LAUNCH],
    ("ec2:RunInstances", arn("image"), {}),
    ("ec2:RunInstances", arn("subnet"), {}),
    ("ec2:RunInstances", arn("security-group"), MINE),
    (
        "iam:CreateServiceLinkedRole",
        "arn:aws:iam::123456789012:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot",
        {"iam:AWSServiceName": "spot.amazonaws.com"},
    ),
]
GROUP: list[Request] = [
    ("ec2:CreateSecurityGroup", arn("security-group"), TAGGED),
    ("ec2:CreateSecurityGroup", arn("vpc"), {}),
    ("ec2:CreateTags", arn("security-group"), {"ec2:CreateAction": "CreateSecurityGroup"}),
    ("ec2:AuthorizeSecurityGroupIngress", arn("security-group"), MINE),
    ("ec2:RevokeSecurityGroupIngress", arn("security-group"), MINE),
]
MACHINES: list[Request] = [
    *[
        (f"ec2:{verb}", arn("instance"), MINE)
        for verb in ("TerminateInstances", "StopInstances", "StartInstances", "GetConsoleOutput")
    ],
    (
        "ec2:CreateTags",
        arn("instance"),
        {**MINE, "aws:TagKeys": ["cloudsend:run", "cloudsend:node", "cloudsend:token", "Name"]},
    ),
]
LEFTOVERS: list[Request] = [
    ("ec2:DeleteVolume", arn("volume"), MINE),
    ("ec2:ReleaseAddress", arn("elastic-ip"), MINE),
    ("ec2:DeleteNetworkInterface", arn("network-interface"), MINE),
    ("ec2:DeleteSnapshot", arn("snapshot"), MINE),
    ("ec2:DeleteKeyPair", arn("key-pair"), MINE),
    ("ec2:CancelSpotInstanceRequests", arn("spot-instances-request"), MINE),
    ("ec2:DeleteSecurityGroup", arn("security-group"), MINE),
]
LOOK: list[Request] = [
    ("ec2:DescribeInstances", "*", {}),
    ("pricing:GetProducts", "*", {}),
    ("servicequotas:GetServiceQuota", "*", {}),
    (
        "ssm:GetParameters",
        "arn:aws:ssm:eu-west-3::parameter/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
        {},
    ),
]
DONE = [*LAUNCH, *GROUP, *MACHINES, *LEFTOVERS, *LOOK]

OUT_OF_REACH: list[Request] = [
    *[
        (f"ec2:{verb}", arn("instance"), context)
        for verb in ("TerminateInstances", "StopInstances", "StartInstances", "GetConsoleOutput")
        for context in ({}, OTHERS)
    ],
    ("ec2:CreateTags", arn("instance"), {"aws:TagKeys": ["cloudsend:owner"]}),
    ("ec2:CreateTags", arn("instance"), {**OTHERS, "aws:TagKeys": ["cloudsend:owner"]}),
    ("ec2:CreateTags", arn("instance"), {**MINE, "aws:TagKeys": ["team"]}),
    ("ec2:CreateTags", arn("volume"), MINE),
    ("ec2:CreateTags", arn("volume"), {"ec2:CreateAction": "CreateVolume"}),
    *[("ec2:RunInstances", arn(kind), {}) for kind in MADE_BY_LAUNCH],
    ("ec2:RunInstances", arn("instance"), {f"aws:RequestTag/{OWNER}": ""}),
    ("ec2:RunInstances", arn("security-group"), OTHERS),
    ("ec2:RunInstances", arn("security-group"), {}),
    ("ec2:CreateSecurityGroup", arn("security-group"), {}),
    ("ec2:AuthorizeSecurityGroupIngress", arn("security-group"), OTHERS),
    ("ec2:DeleteSecurityGroup", arn("security-group"), {}),
    *[(action, resource, {}) for action, resource, _ in LEFTOVERS],
    *[(action, resource, OTHERS) for action, resource, _ in LEFTOVERS],
    ("ec2:ModifyInstanceAttribute", arn("instance"), MINE),
    ("ec2:DeleteTags", arn("instance"), MINE),
    ("ec2:RequestSpotInstances", arn("instance"), TAGGED),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/admin", {}),
    ("iam:CreateServiceLinkedRole", "arn:aws:iam::123456789012:role/aws-service-role/x/y", {}),
    ("ssm:GetParameters", "arn:aws:ssm:eu-west-3:123456789012:parameter/secret", {}),
    ("s3:GetObject", "arn:aws:s3:::bucket/key", {}),
]


@pytest.mark.parametrize("request_", DONE, ids=lambda r: f"{r[0]} {r[1].rpartition(':')[2][:30]}")
def test_what_cloudsend_does_is_allowed(request_: Request) -> None:
    assert is_allowed(load_policy(), *request_)


@pytest.mark.parametrize("request_", OUT_OF_REACH, ids=str)
def test_what_is_not_ours_is_out_of_reach(request_: Request) -> None:
    assert not is_allowed(load_policy(), *request_)


@pytest.mark.parametrize("sid", [statement["Sid"] for statement in load_policy()["Statement"]])
def test_each_statement_is_needed(sid: str) -> None:
    policy = load_policy()
    less = {**policy, "Statement": [one for one in policy["Statement"] if one["Sid"] != sid]}
    assert len(less["Statement"]) == len(policy["Statement"]) - 1
    assert not all(is_allowed(less, *request) for request in DONE)


# ---- the code and the policy ---------------------------------------------------------------------------------------


def list_called() -> set[str]:
    """Every operation of AWS whose name, as boto3 spells it, is in the package: as a text, or as what is called."""
    import boto3

    operations: dict[str, str] = {}
    for service, prefix in PREFIXES.items():
        mapping = boto3.client(service, region_name="us-east-1").meta.method_to_api_mapping
        operations.update({name: f"{prefix}:{operation}" for name, operation in mapping.items()})
    words: set[str] = set()
    for path in Path(package.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            elif isinstance(node, ast.Attribute):
                words.add(node.attr)
    return {operations[word] for word in words if word in operations}


def list_allowed() -> set[str]:
    return {action for statement in load_policy()["Statement"] for action in as_list(statement["Action"])}


def test_the_policy_has_the_actions_that_the_code_calls_and_no_others() -> None:
    called = list_called()
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "pricing:GetProducts", "ssm:GetParameters"} <= called
    assert list_allowed() == called - FREE | OF_AWS


def test_no_action_is_a_pattern() -> None:
    assert not [action for action in list_allowed() if "*" in action]


def test_only_looking_is_allowed_everywhere() -> None:
    everywhere = [one for one in load_policy()["Statement"] if one["Resource"] == "*"]
    actions = [action for statement in everywhere for action in as_list(statement["Action"])]
    assert all(action.partition(":")[2].startswith(("Describe", "Get")) for action in actions)


def test_it_fits_into_a_managed_policy() -> None:
    """AWS counts characters without white space: 6,144 at the most."""
    assert len("".join(render_policy().split())) < 6144


# ---- how it is printed ---------------------------------------------------------------------------------------------


def test_a_policy_for_one_owner_leaves_out_the_machines_of_others() -> None:
    policy = json.loads(render_policy("0123456789abcdef"))
    theirs = {f"aws:ResourceTag/{OWNER}": "fedcba9876543210"}
    assert is_allowed(policy, "ec2:TerminateInstances", arn("instance"), MINE)
    assert not is_allowed(policy, "ec2:TerminateInstances", arn("instance"), theirs)
    assert is_allowed(load_policy(), "ec2:TerminateInstances", arn("instance"), theirs)
    assert not is_allowed(policy, "ec2:RunInstances", arn("instance"), {f"aws:RequestTag/{OWNER}": "fedcba9876543210"})


def test_other_partitions() -> None:
    assert "arn:aws:" not in render_policy(partition="aws-cn")
    assert "arn:aws-cn:ec2:*:*:instance/*" in render_policy(partition="aws-cn")
    with pytest.raises(UsageError, match="no partition 'mars'"):
        render_policy(partition="mars")

"""An IAM policy in force: what each call needs, resource by resource, and whether the policy allows it.

Knows the resources of the calls below, as the service authorization reference has them; any other call needs "*".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .moto_server import ACCOUNT
from .wire import Request

Tags = Mapping[str, str]
KINDS = {
    "i": "instance", "vol": "volume", "eni": "network-interface", "sg": "security-group", "snap": "snapshot",
    "sir": "spot-instances-request", "ami": "image", "eipalloc": "elastic-ip", "key": "key-pair", "subnet": "subnet",
    "vpc": "vpc", "sgr": "security-group-rule",
}  # fmt: skip
# Of a call that is made on resources: where their ids are.
ON = {
    "TerminateInstances": "InstanceId.", "StopInstances": "InstanceId.", "StartInstances": "InstanceId.",
    "RebootInstances": "InstanceId.", "GetConsoleOutput": "InstanceId", "ModifyInstanceAttribute": "InstanceId",
    "AuthorizeSecurityGroupIngress": "GroupId", "RevokeSecurityGroupIngress": "GroupId",
    "DeleteSecurityGroup": "GroupId", "DeleteVolume": "VolumeId", "DeleteNetworkInterface": "NetworkInterfaceId",
    "DeleteSnapshot": "SnapshotId", "ReleaseAddress": "AllocationId", "DeleteKeyPair": "KeyPairId",
    "CancelSpotInstanceRequests": "SpotInstanceRequestId.",
}  # fmt: skip
OF_NOBODY = {"image", "snapshot"}  # their ARNs name no account


@dataclass(frozen=True)
class Need:
    action: str
    resource: str
    context: Mapping[str, list[str]] = field(default_factory=dict)


class Policy:
    """`tags_of` says what tags a resource has in a region."""

    def __init__(self, document: Mapping[str, Any], tags_of: Callable[[str, str], Tags]) -> None:
        self._statements: list[Mapping[str, Any]] = _listed(document["Statement"])
        self._tags_of = tags_of
        self.refused: list[Need] = []
        self.used: set[str] = set()
        """Sids of the statements that have allowed something."""

    def allows(self, request: Request) -> bool:
        if (request.service, request.action) == ("sts", "GetCallerIdentity"):
            return True
        refused = [need for need in self._needs(request) if not self._is_allowed(need)]
        self.refused += refused
        return not refused

    def _is_allowed(self, need: Need) -> bool:
        fitting = [one for one in self._statements if _fits(one, need)]
        if any(one["Effect"] == "Deny" for one in fitting):
            return False
        self.used |= {str(one.get("Sid")) for one in fitting}
        return bool(fitting)

    def _needs(self, request: Request) -> Iterator[Need]:
        action = f"{request.service}:{request.action}"
        if request.service == "ssm" and (names := request.params.get("Names") or [request.params.get("Name")]):
            for name in names:
                yield Need(action, f"arn:aws:ssm:{request.region}::parameter{name}")
        elif request.action == "RunInstances":
            yield from self._launch(request)
        elif request.action == "CreateSecurityGroup":
            asked = _asked_tags(request).get("security-group", {})
            yield Need(action, _arn(request.region, "security-group", "*"), _of_request(asked))
            yield self._on(action, request.region, str(request.params.get("VpcId", "vpc-0")), {})
            yield from _tagging(request, "CreateSecurityGroup")
        elif request.action in {"CreateTags", "DeleteTags"}:
            asked = {group["Key"]: group.get("Value", "") for group in request.groups("Tag")}
            for one in request.list("ResourceId"):
                yield self._on(action, request.region, one, asked)
        elif request.action in ON:
            name = ON[request.action]
            ids = request.list(name[:-1]) if name.endswith(".") else [str(request.params.get(name, "key-0"))]
            for one in ids:
                yield self._on(action, request.region, one, {})
        else:
            yield Need(action, "*")

    def _launch(self, request: Request) -> Iterator[Need]:
        action, region, asked = "ec2:RunInstances", request.region, _asked_tags(request)
        for kind in ("instance", "volume", "network-interface"):
            yield Need(action, _arn(region, kind, "*"), _of_request(asked.get(kind, {})))
        if (tags := asked.get("spot-instances-request")) is not None:
            yield Need(action, _arn(region, "spot-instances-request", "*"), _of_request(tags))
        groups = request.list("SecurityGroupId")
        subnets = [request.params.get("SubnetId")]
        for interface in request.groups("NetworkInterface"):
            groups += [value for name, value in interface.items() if name.startswith("SecurityGroupId.")]
            subnets.append(interface.get("SubnetId"))
        for one in [request.params["ImageId"], *filter(None, subnets), *groups]:
            yield self._on(action, region, str(one), {})
        if name := request.params.get("KeyName"):
            yield Need(action, _arn(region, "key-pair", str(name)))
        yield from _tagging(request, "RunInstances")

    def _on(self, action: str, region: str, resource: str, asked: Tags) -> Need:
        kind = KINDS.get(resource.partition("-")[0], "instance")
        context = {f"aws:ResourceTag/{key}": [value] for key, value in self._tags_of(region, resource).items()}
        return Need(action, _arn(region, kind, resource), {**context, **_of_request(asked)})


def _tagging(request: Request, creating: str) -> Iterator[Need]:
    """Tags in a call that makes something need CreateTags as well."""
    for kind, tags in _asked_tags(request).items():
        context = {**_of_request(tags), "ec2:CreateAction": [creating]}
        yield Need("ec2:CreateTags", _arn(request.region, kind, "*"), context)


def _asked_tags(request: Request) -> dict[str, dict[str, str]]:
    tags: dict[str, dict[str, str]] = {}
    for spec in request.groups("TagSpecification"):
        numbers = sorted({name.split(".")[1] for name in spec if name.startswith("Tag.")})
        tags[spec["ResourceType"]] = {spec[f"Tag.{n}.Key"]: spec.get(f"Tag.{n}.Value", "") for n in numbers}
    return tags


def _of_request(tags: Tags) -> dict[str, list[str]]:
    context = {f"aws:RequestTag/{key}": [value] for key, value in tags.items()}
    return {**context, "aws:TagKeys": list(tags)} if tags else {}


def _arn(region: str, kind: str, name: str) -> str:
    return f"arn:aws:ec2:{region}:{'' if kind in OF_NOBODY else ACCOUNT}:{kind}/{name}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _fits(statement: Mapping[str, Any], need: Need) -> bool:
    actions = any(fnmatchcase(need.action.lower(), one.lower()) for one in _listed(statement.get("Action", [])))
    resources = any(fnmatchcase(need.resource, one) for one in _listed(statement.get("Resource", [])))
    conditions = statement.get("Condition", {}).items()
    return actions and resources and all(_holds(name, wanted, need.context) for name, wanted in conditions)


def _holds(operator: str, wanted: Mapping[str, Any], context: Mapping[str, list[str]]) -> bool:
    for_all = operator.startswith("ForAllValues:")
    name = operator.rpartition(":")[2]
    optional, name = name.endswith("IfExists"), name.removesuffix("IfExists")
    for key, patterns in wanted.items():
        values = context.get(key)
        if name == "Null":
            if (values is None) != (str(_listed(patterns)[0]).lower() == "true"):
                return False
            continue
        if values is None:
            if for_all or optional or name.startswith("StringNot"):
                continue
            return False
        matches = [any(_is(name, value, str(pattern)) for pattern in _listed(patterns)) for value in values]
        fits = all(matches) if for_all else any(matches)
        if fits == name.startswith("StringNot"):
            return False
    return True


def _is(operator: str, value: str, pattern: str) -> bool:
    if operator not in {"StringEquals", "StringLike", "StringNotEquals", "StringNotLike"}:
        raise NotImplementedError(f"the lab knows no condition {operator}")
    return fnmatchcase(value, pattern) if operator.endswith("Like") else value == pattern

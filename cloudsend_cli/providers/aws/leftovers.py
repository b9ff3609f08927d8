"""What else than machines carries our tag in the regions that were used: found, told, removed where nothing uses it.

Everything is found by the owner's tag, and looked for by the tag again before it is removed: what is not ours is
neither seen nor touched. Machines are listed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cloudsend_cli.core.model import Leftover
from cloudsend_cli.errors import CloudsendError, NotFoundError, ProviderError

from .errors import read_error
from .launch import TAG
from .prices import estimate_address, estimate_storage
from .tenant import Tenant

_GONE = "NotFound"  # in the code of an error
_IN_USE = ("DependencyViolation", "VolumeInUse", "InvalidGroup.InUse", "InvalidSnapshot.InUse")
_OPEN_REQUESTS = ("open", "active", "disabled")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of thing is listed, identified, judged and removed."""

    verb: str
    items: str
    id: str
    judge: Callable[[Mapping[str, Any]], tuple[str, bool] | None]  # (why, removable); None: it is no left-over
    remove: str
    argument: str
    many: bool = False
    paged: bool = True
    price: Callable[[Mapping[str, Any]], float | None] = lambda _: None


def list_leftovers(tenant: Tenant) -> list[Leftover]:
    """All kinds in all regions, several at a time. An error of ours rather than an answer in part."""
    if tenant.is_new:
        return []
    questions = [(region, name) for region in tenant.list_regions() for name in _KINDS]
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = pool.map(lambda q: list(_list_kind(tenant, *q)), questions)
        return [leftover for answer in answers for leftover in answer]


def remove_leftover(tenant: Tenant, leftover: Leftover) -> None:
    """Success means that it is gone, or was never ours. ProviderError: something uses it."""
    kind = _KINDS.get(leftover.kind)
    if kind is None:
        raise NotFoundError(f"{leftover.kind} {leftover.id} is of a kind that is not removed")
    mine = next((one for one in _list_kind(tenant, leftover.region, leftover.kind) if one.id == leftover.id), None)
    if mine is None:
        return
    if not mine.removable:
        raise ProviderError(f"{mine.kind} {mine.id} in {mine.region} is left alone: {mine.why}")
    what = f"remove the {mine.kind} {mine.id} in {mine.region}"
    try:
        tenant.account.call(
            what, "ec2", kind.remove, mine.region, **{kind.argument: [mine.id] if kind.many else mine.id}
        )
    except CloudsendError as error:
        code = read_error(error.__cause__)[0] if error.__cause__ else ""
        if _GONE in code:
            return
        if code in _IN_USE:
            hint = "run gc again when what uses it is gone"
            raise ProviderError(f"{mine.kind} {mine.id} in {mine.region} is in use", hint=hint) from error
        raise


def _list_kind(tenant: Tenant, region: str, name: str) -> Iterator[Leftover]:
    for page in _read_pages(tenant, region, name, _KINDS[name]):
        for entry in page.get(_KINDS[name].items, []):
            found = parse_leftover(tenant, region, name, entry)
            if found is not None:
                yield found


def parse_leftover(tenant: Tenant, region: str, name: str, entry: Mapping[str, Any]) -> Leftover | None:
    """None: it is no left-over, or not ours. INVARIANT: a filter is believed only where the tag is there as well."""
    kind = _KINDS[name]
    judged = kind.judge(entry)
    if judged is None or read_tags(entry).get(f"{TAG}owner") != tenant.identity.owner:
        return None
    why, removable = judged
    return Leftover(tenant.provider, name, str(entry[kind.id]), region, why, removable, kind.price(entry))


def _read_pages(tenant: Tenant, region: str, name: str, kind: _Kind) -> Iterator[Mapping[str, Any]]:
    action = f"look for {name}s of ours in {region}"
    ours = {"Filters": [{"Name": f"tag:{TAG}owner", "Values": [tenant.identity.owner]}]}
    if kind.paged:
        yield from tenant.account.pages(action, "ec2", kind.verb, region, **ours)
    else:
        yield tenant.account.call(action, "ec2", kind.verb, region, **ours)


def read_tags(entry: Mapping[str, Any]) -> dict[str, str]:
    """Interfaces have theirs in a field of another name."""
    return {str(tag["Key"]): str(tag["Value"]) for tag in [*entry.get("Tags", []), *entry.get("TagSet", [])]}


# ---- what is left over ---------------------------------------------------------------------------------------------


def _judge_volume(entry: Mapping[str, Any]) -> tuple[str, bool] | None:
    attached = [
        a for a in entry.get("Attachments", []) if a.get("State") in {"attached", "attaching", "detaching", "busy"}
    ]
    size = f"{entry.get('Size', '?')} GB"
    if attached:
        return f"{size}; {attached[0].get('InstanceId', 'a machine')} uses it", False
    if entry.get("State") in {"deleting", "deleted"}:
        return None
    if entry.get("State") == "creating":
        return f"{size}; it is being made", False
    return f"{size}; no machine uses it", True


def _judge_address(entry: Mapping[str, Any]) -> tuple[str, bool] | None:
    user = entry.get("InstanceId") or entry.get("NetworkInterfaceId")
    if user:
        return f"{entry.get('PublicIp', '')}; {user} uses it", False
    return f"{entry.get('PublicIp', '')}; nothing uses it", True


def _judge_interface(entry: Mapping[str, Any]) -> tuple[str, bool] | None:
    attachment = entry.get("Attachment") or {}
    if attachment.get("Status") in {"attached", "attaching", "detaching"} or entry.get("Status") == "in-use":
        return f"{attachment.get('InstanceId', 'a machine')} uses it", False
    return "no machine uses it", True


def _judge_key(entry: Mapping[str, Any]) -> tuple[str, bool] | None:
    return f"{entry.get('KeyPairId', '')}; logins do not need it", True


def _judge_group(entry: Mapping[str, Any]) -> tuple[str, bool] | None:
    """That a machine uses it is AWS's to say, when it is removed: nothing can be launched without one."""
    return f"{entry.get('GroupName', '')}; made again when a machine is rented in {entry.get('VpcId', '')}", True


def _judge_snapshot(entry: Mapping[str, Any]) -> tuple[str, bool] | None:
    return f"{entry.get('VolumeSize', '?')} GB", True


def _judge_request(entry: Mapping[str, Any]) -> tuple[str, bool] | None:
    if entry.get("State") not in _OPEN_REQUESTS:
        return None
    if entry.get("InstanceId"):
        return f"{entry['InstanceId']} runs by it", False
    return "it may still start a machine", True


_KINDS: dict[str, _Kind] = {
    "spot-request": _Kind(
        "describe_spot_instance_requests",
        "SpotInstanceRequests",
        "SpotInstanceRequestId",
        _judge_request,
        "cancel_spot_instance_requests",
        "SpotInstanceRequestIds",
        many=True,
    ),
    "volume": _Kind(
        "describe_volumes",
        "Volumes",
        "VolumeId",
        _judge_volume,
        "delete_volume",
        "VolumeId",
        price=lambda entry: estimate_storage(str(entry.get("VolumeType")), int(entry.get("Size", 0))),
    ),
    "address": _Kind(
        "describe_addresses",
        "Addresses",
        "AllocationId",
        _judge_address,
        "release_address",
        "AllocationId",
        paged=False,
        price=lambda _: estimate_address(),
    ),
    "interface": _Kind(
        "describe_network_interfaces",
        "NetworkInterfaces",
        "NetworkInterfaceId",
        _judge_interface,
        "delete_network_interface",
        "NetworkInterfaceId",
    ),
    "snapshot": _Kind(
        "describe_snapshots",
        "Snapshots",
        "SnapshotId",
        _judge_snapshot,
        "delete_snapshot",
        "SnapshotId",
        price=lambda entry: estimate_storage("snapshot", int(entry.get("VolumeSize", 0))),
    ),
    "key": _Kind("describe_key_pairs", "KeyPairs", "KeyName", _judge_key, "delete_key_pair", "KeyName", paged=False),
    "group": _Kind(
        "describe_security_groups", "SecurityGroups", "GroupId", _judge_group, "delete_security_group", "GroupId"
    ),
}

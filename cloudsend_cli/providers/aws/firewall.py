"""The security group of this installation: one in each VPC, open on port 22 to the caller's address alone."""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudsend_cli.errors import AuthError, ConfigError, Problem, ProviderError, UnreachableError

from .clients import Account
from .errors import read_error
from .launch import SCHEMA, TAG

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PORT = 22
VARIABLE = "CLOUDSEND_CALLER_CIDR"
CHECKIP = "https://checkip.amazonaws.com"
CHECKIP_LIMIT = 3.0
ASKED_FOR = 300.0  # seconds for which the answer is believed
KNOWN_FOR = 60.0  # ... and a group that was seen

_making = threading.Lock()
_groups: dict[tuple[str, ...], tuple[float, Group]] = {}
_asking = threading.Lock()
_addresses: dict[str, tuple[float, str]] = {}


@dataclass(frozen=True, slots=True)
class Group:
    """A group of ours as it is now."""

    id: str
    vpc: str
    open_to: tuple[str, ...]  # networks in CIDR form that reach port 22


def open_group(account: Account, owner: str, region: str, vpc: str) -> Group:
    """The group in the VPC, made if there is none. One that is there is opened to nobody who was not let in before.

    UnreachableError: it does not let us in, or it is not known whether it was made; both are tried again.
    """
    key = (account.profile, owner, region, vpc)
    with _making:  # machines that start at once make one group
        at, group = _groups.get(key, (0.0, None))
        if group is None or time.monotonic() - at > KNOWN_FOR:
            group = find_group(account, owner, region, vpc) or _create_group(account, owner, region, vpc)
            if not group.open_to:
                group = _allow(account, region, group, list_caller_networks())
        _groups[key] = (time.monotonic(), group)
        networks = _known_networks()
        if networks and not lets_in(group, networks):
            del _groups[key]
            raise UnreachableError(
                f"the security group {group.id} in {region} lets in {', '.join(group.open_to)}, and this machine is "
                f"{', '.join(networks)}: nothing is launched that could not be reached",
                hint="`cloudsend check --fix` lets this machine in instead",
            )
    return group


def lets_in(group: Group, networks: Sequence[str]) -> bool:
    """Whether one of the networks lies within what the group is open to."""
    allowed = [ipaddress.ip_network(network) for network in group.open_to]
    return any(_is_within(ipaddress.ip_network(network), allowed) for network in networks)


def _is_within(network: Network, allowed: Sequence[Network]) -> bool:
    first, last = int(network.network_address), int(network.broadcast_address)
    same = [other for other in allowed if other.version == network.version]
    return any(int(other.network_address) <= first and last <= int(other.broadcast_address) for other in same)


def find_group(account: Account, owner: str, region: str, vpc: str) -> Group | None:
    wanted = {f"tag:{TAG}owner": owner, "vpc-id": vpc, "group-name": group_name(owner)}
    found = _describe(account, region, wanted)
    return found[0] if found else None


def list_groups(account: Account, owner: str, region: str) -> list[Group]:
    """Those of all VPCs of the region."""
    return _describe(account, region, {f"tag:{TAG}owner": owner, "group-name": group_name(owner)})


def fix_group(account: Account, region: str, group: Group, networks: Sequence[str]) -> Group:
    """Let these networks in and no others. The new rule comes before the old one goes."""
    added = _allow(account, region, group, [n for n in networks if n not in group.open_to])
    _close(account, region, group, [n for n in added.open_to if n not in networks])
    fixed = Group(group.id, group.vpc, tuple(networks))
    with _making:
        _groups.clear()
    return fixed


def group_name(owner: str) -> str:
    return f"cloudsend-{owner}"


def _describe(account: Account, region: str, wanted: Mapping[str, str]) -> list[Group]:
    filters = [{"Name": name, "Values": [value]} for name, value in wanted.items() if value]
    action = f"list the security groups in {region}"
    pages = account.pages(action, "ec2", "describe_security_groups", region, Filters=filters)
    return [_read_group(group) for page in pages for group in page["SecurityGroups"]]


def _create_group(account: Account, owner: str, region: str, vpc: str) -> Group:
    """Idempotency: a VPC has one group of a name; that it is ours is then seen by its tag."""
    from botocore.exceptions import ClientError

    tags = [
        {"Key": "Name", "Value": group_name(owner)},
        {"Key": f"{TAG}owner", "Value": owner},
        {"Key": f"{TAG}schema", "Value": SCHEMA},
    ]
    try:
        made = account.call(
            f"create the security group {group_name(owner)} in {region}",
            "ec2",
            "create_security_group",
            region,
            GroupName=group_name(owner),
            Description="cloudsend: SSH from the caller only",
            VpcId=vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        )
    except (ConfigError, ProviderError) as error:
        cause = error.__cause__
        if not isinstance(cause, ClientError) or read_error(cause)[0] != "InvalidGroup.Duplicate":
            raise
        group = find_group(account, owner, region, vpc)
        if group is None:
            raise UnreachableError(
                f"the security group {group_name(owner)} in {vpc} is there, and is not seen with our tag yet",
                hint=f"if it stays so, it is not ours: remove it, or tag it {TAG}owner={owner}",
            ) from error
        return group
    return Group(str(made["GroupId"]), vpc, ())


def _allow(account: Account, region: str, group: Group, networks: Sequence[str]) -> Group:
    from botocore.exceptions import ClientError

    for network in networks:
        try:
            account.call(
                f"open {group.id} in {region} to {network}",
                "ec2",
                "authorize_security_group_ingress",
                region,
                GroupId=group.id,
                IpPermissions=[_render_rule([network])],
            )
        except (ConfigError, ProviderError, AuthError) as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError) or read_error(cause)[0] != "InvalidPermission.Duplicate":
                raise
    return Group(group.id, group.vpc, (*group.open_to, *networks))


def _close(account: Account, region: str, group: Group, networks: Sequence[str]) -> None:
    """Idempotency: a rule that is not there, as when an answer to this was lost, is what is wanted."""
    from botocore.exceptions import ClientError

    for network in networks:
        try:
            account.call(
                f"close {group.id} in {region} to {network}",
                "ec2",
                "revoke_security_group_ingress",
                region,
                GroupId=group.id,
                IpPermissions=[_render_rule([network])],
            )
        except (ConfigError, ProviderError, AuthError) as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError) or read_error(cause)[0] != "InvalidPermission.NotFound":
                raise


def _render_rule(networks: Sequence[str]) -> dict[str, Any]:
    rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT}
    old = [{"CidrIp": n, "Description": "cloudsend"} for n in networks if ":" not in n]
    new = [{"CidrIpv6": n, "Description": "cloudsend"} for n in networks if ":" in n]
    return {**rule, **({"IpRanges": old} if old else {}), **({"Ipv6Ranges": new} if new else {})}


def _read_group(group: Mapping[str, Any]) -> Group:
    networks: dict[str, None] = {}
    for rule in group.get("IpPermissions", ()):
        if (rule.get("IpProtocol"), rule.get("FromPort"), rule.get("ToPort")) == ("tcp", PORT, PORT):
            networks |= dict.fromkeys(r["CidrIp"] for r in rule.get("IpRanges", ()))
            networks |= dict.fromkeys(r["CidrIpv6"] for r in rule.get("Ipv6Ranges", ()))
    return Group(str(group["GroupId"]), str(group.get("VpcId") or ""), tuple(networks))


# ---- the caller's address -----------------------------------------------------------------------------------------


def list_caller_networks() -> list[str]:
    """The networks that we call from, in CIDR form: those of CLOUDSEND_CALLER_CIDR, else our public address.

    ConfigError: the variable holds something else. UnreachableError: nobody told us our address.
    """
    given = os.environ.get(VARIABLE, "")
    return parse_networks(given) if given.strip() else [fetch_caller_address(CHECKIP)]


def parse_networks(text: str) -> list[str]:
    """`192.0.2.7`, `192.0.2.0/24`, `2001:db8::1`; several with commas between."""
    try:
        networks = [ipaddress.ip_network(word.strip(), strict=False) for word in text.split(",")]
    except ValueError as problem:
        hint = f"{VARIABLE} takes addresses such as 192.0.2.7 or 192.0.2.0/24, with commas between them"
        raise ConfigError([Problem(f"{VARIABLE}: {problem}", hint=hint)], hint=hint) from problem
    return [str(network) for network in networks]


def fetch_caller_address(url: str) -> str:
    """Our public address as AWS's service sees it, as a network of one."""
    with _asking:
        at, network = _addresses.get(url, (0.0, ""))
    if network and time.monotonic() - at < ASKED_FOR:
        return network
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=CHECKIP_LIMIT) as reply:  # noqa: S310 - the address is a constant
            words = reply.read(100).decode("ascii").strip()
        network = str(ipaddress.ip_network(words))
    except (OSError, ValueError) as problem:
        raise UnreachableError(
            f"this machine's public address, to which the security group is to be opened, is not known: "
            f"{url} did not tell it: {problem}",
            hint=f"set {VARIABLE}, such as {VARIABLE}=192.0.2.7/32",
        ) from problem
    with _asking:
        _addresses[url] = (time.monotonic(), network)
    return network


def _known_networks() -> list[str]:
    """Nothing where nobody tells: a group that is open already may well let us in."""
    try:
        return list_caller_networks()
    except UnreachableError:
        return []

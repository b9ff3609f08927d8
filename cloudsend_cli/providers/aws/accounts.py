"""Whether the account can be used: each question of `check`, answered as soon as it is known. Nothing is rented."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cloudsend_cli.core.model import Finding
from cloudsend_cli.errors import CloudsendError, ConfigError

from .catalog import load_types
from .clients import Account
from .errors import CLOCK_HINT, POLICY_HINT, read_error
from .firewall import fix_group, list_caller_networks, list_groups
from .identity import list_regions
from .images import Image, fetch_default_images
from .launch import SCHEMA, TAG
from .network import Place, choose_places, fetch_subnets
from .prices import fetch_on_demand_price
from .quotas import fetch_quotas, quota_code
from .settings import ON_DEMAND, SPOT, Wanted
from .tenant import Tenant

CLOCK_SKEW = 60.0  # seconds; AWS refuses requests from 300 on
_TRIED = "t3.micro"  # the type of the machine that is not launched
_DRY_RUN = "DryRunOperation"
_DENIED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")


@dataclass(frozen=True, slots=True)
class _Trial:
    """One dry run."""

    name: str
    verb: str
    parameters: dict[str, Any]
    only_good: bool = False  # a refusal says nothing


def check_account(tenant: Tenant, *, fix: bool = False) -> Iterator[Finding]:
    """One finding for each question. Without credentials or a region the others cannot be asked."""
    try:
        import boto3
    except ImportError as problem:
        yield Finding("boto3", False, f"cannot be loaded: {problem}", "pip install boto3", "provider")
        return
    yield Finding("boto3", True, boto3.__version__)
    region = ""
    for name, question in (("credentials", _check_identity), ("region", _check_region)):
        try:
            region = tenant.account.region
            yield from question(tenant.account, region)
        except CloudsendError as error:
            yield _refused(name, error)
            return
    questions: tuple[tuple[str, Callable[[], Sequence[Finding]]], ...] = (
        ("image", lambda: _check_image(tenant.account, region)),
        ("permissions", lambda: _check_permissions(tenant, region)),
        ("quotas", lambda: _check_quotas(tenant.account, region)),
        ("prices", lambda: _check_prices(tenant.account, region)),
        ("firewall", lambda: _check_firewall(tenant, region, fix)),
    )
    with ThreadPoolExecutor(max_workers=len(questions)) as pool:
        for (name, _), answer in zip(questions, [pool.submit(ask) for _, ask in questions], strict=True):
            try:
                yield from answer.result()
            except CloudsendError as error:
                yield _refused(name, error)


# ---- who and where -------------------------------------------------------------------------------------------------


def _check_identity(account: Account, region: str) -> Iterator[Finding]:
    started = time.time()
    reply = account.call("tell whose credentials these are", "sts", "get_caller_identity", region)
    yield Finding("credentials", True, f"{reply.get('Arn', '?')} (profile {account.profile or 'default'})")
    headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    finding = judge_clock(str(headers.get("date", "")), started, time.time())
    if finding is not None:
        yield finding


def judge_clock(date: str, started: float, ended: float) -> Finding | None:
    """What the Date header of an answer says of this machine's clock; None: nothing. It counts whole seconds."""
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    ahead = max(started - theirs - 1, theirs - ended, 0.0)
    if ahead <= CLOCK_SKEW:
        return Finding("clock", True, "agrees with that of AWS" if ahead < 2 else f"{ahead:.0f} s off that of AWS")
    word = "ahead of" if started > theirs else "behind"
    return Finding("clock", False, f"this machine's clock is {ahead:.0f} s {word} that of AWS", CLOCK_HINT, "auth")


def _check_region(account: Account, region: str) -> Iterator[Finding]:
    """A region that is not enabled for the account does not take its credentials."""
    reply = account.call(f"use {region}", "ec2", "describe_regions", region, RegionNames=[region])
    status = next((entry.get("OptInStatus") for entry in reply.get("Regions", [])), "")
    if status == "not-opted-in":
        hint = "enable it in the account's settings, or use another"
        yield Finding("region", False, f"{region} is not enabled for the account", hint, "auth")
    else:
        yield Finding("region", True, region)


# ---- what may be done ----------------------------------------------------------------------------------------------


def _check_image(account: Account, region: str) -> list[Finding]:
    image = _fetch_image(account, region)
    return [Finding("image", True, f"{image.name or 'Ubuntu'} ({image.id}), user {image.user}")]


def _fetch_image(account: Account, region: str) -> Image:
    images, _ = fetch_default_images(account, region, Wanted(), [load_types()[_TRIED]])
    return images[_TRIED]


def _check_permissions(tenant: Tenant, region: str) -> list[Finding]:
    """By dry runs. Acts on machines can only be tried where there is a machine of ours."""
    account = tenant.account
    image = _fetch_image(account, region)
    places, warnings = choose_places(region, Wanted(), fetch_subnets(account, region))
    network = Finding("network", True, f"{places[0].vpc}, zones {', '.join(place.zone for place in places)}")
    may: list[str] = []
    may_not: list[str] = []
    later: list[str] = []
    unknown: list[str] = []
    for trial in _list_dry_runs(tenant, region, image, places[0]):
        allowed, words = try_dry_run(account, region, trial.verb, trial.parameters)
        if allowed is None:
            unknown.append(words)
        else:
            (may if allowed else later if trial.only_good else may_not).append(trial.name)
    found = [network, *(Finding("network", True, text) for text in warnings)]
    if may_not:
        text = f"may not: {', '.join(may_not)}" + (f"; may: {', '.join(may)}" if may else "")
        found.append(Finding("permissions", False, text, POLICY_HINT, "auth"))
    elif may:
        shown = f"; not known before the first machine: {', '.join(later)}" if later else ""
        found.append(Finding("permissions", True, f"may: {', '.join(may)}{shown}"))
    return found + [Finding("permissions", False, text, POLICY_HINT, "provider") for text in unknown]


def try_dry_run(account: Account, region: str, verb: str, parameters: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Whether the call would be allowed; None: AWS refused it for another reason, which is told."""
    try:
        account.call(f"try {verb} in {region} without effect", "ec2", verb, region, DryRun=True, **parameters)
    except CloudsendError as error:
        code = read_error(error.__cause__)[0] if error.__cause__ else ""
        if code == _DRY_RUN:
            return True, ""
        return (False, "") if code in _DENIED else (None, error.message)
    return True, ""


def _list_dry_runs(tenant: Tenant, region: str, image: Image, place: Place) -> Iterator[_Trial]:
    owner = "0" * 16 if tenant.is_new else tenant.identity.owner
    tags = [{"Key": f"{TAG}owner", "Value": owner}, {"Key": f"{TAG}schema", "Value": SCHEMA}]
    kinds = ("instance", "volume", "network-interface")
    launch: dict[str, Any] = {
        "ImageId": image.id,
        "InstanceType": _TRIED,
        "MinCount": 1,
        "MaxCount": 1,
        "SubnetId": place.subnet,
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds],
    }
    groups = [] if tenant.is_new else list_groups(tenant.account, owner, region)
    here = [group for group in groups if group.vpc == place.vpc]
    if here:
        launch["SecurityGroupIds"] = [here[0].id]
        rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.1/32"}]}
        change = {"GroupId": here[0].id, "IpPermissions": [rule]}
        yield _Trial("RunInstances", "run_instances", launch)
        yield _Trial("AuthorizeSecurityGroupIngress", "authorize_security_group_ingress", change)
    else:
        # Behind the network's own group: that this is refused says nothing of what may be done behind a group of ours.
        yield _Trial("RunInstances", "run_instances", launch, only_good=True)
        name = f"cloudsend-check-{owner}"
        spec = {"ResourceType": "security-group", "Tags": tags}
        group = {
            "GroupName": name,
            "Description": "cloudsend: dry run",
            "VpcId": place.vpc,
            "TagSpecifications": [spec],
        }
        yield _Trial("CreateSecurityGroup", "create_security_group", group)
    machine = "" if tenant.is_new else _find_machine(tenant, region)
    if machine:
        ids = {"InstanceIds": [machine]}
        yield _Trial("TerminateInstances", "terminate_instances", ids)
        yield _Trial("StopInstances", "stop_instances", ids)
        yield _Trial("StartInstances", "start_instances", ids)
        yield _Trial("CreateTags", "create_tags", {"Resources": [machine], "Tags": tags})


def _find_machine(tenant: Tenant, region: str) -> str:
    filters = [
        {"Name": f"tag:{TAG}owner", "Values": [tenant.identity.owner]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopped"]},
    ]
    action = f"list our machines in {region}"
    for page in tenant.account.pages(action, "ec2", "describe_instances", region, Filters=filters):
        for reservation in page.get("Reservations", []):
            for machine in reservation.get("Instances", []):
                return str(machine["InstanceId"])
    return ""


# ---- how much ------------------------------------------------------------------------------------------------------


def _check_quotas(account: Account, region: str) -> list[Finding]:
    kinds = [("m7i.large", ON_DEMAND), ("m7i.large", SPOT), ("g5.xlarge", ON_DEMAND)]
    quotas = fetch_quotas(account, region, kinds)
    known = [quotas[code] for kind, market in kinds if (code := quota_code(kind, market)) in quotas]
    if not known:
        return [Finding("quotas", False, "the limits cannot be read", POLICY_HINT, "auth")]
    text = ", ".join(f"{quota.name} {quota.limit:g} vCPUs ({quota.used:g} in use)" for quota in known)
    if all(quota.limit < 1 for quota in known[:2]):
        hint = f"ask for more at https://{region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
        return [Finding("quotas", False, text, hint, "quota")]
    return [Finding("quotas", True, text)]


def _check_prices(account: Account, region: str) -> list[Finding]:
    """A plan is made without them as well."""
    try:
        price = fetch_on_demand_price(account, region, _TRIED)
    except CloudsendError as error:
        return [Finding("prices", True, f"AWS does not tell: the shipped table is used ({error.message})")]
    known = f"{_TRIED} ${price:g}/h on demand" if price else "the shipped table is used"
    return [Finding("prices", True, known)]


# ---- the way in ----------------------------------------------------------------------------------------------------


def _check_firewall(tenant: Tenant, region: str, fix: bool) -> list[Finding]:
    """Whether our groups let this machine in. With `fix` they do afterwards, and let nobody else in."""
    if tenant.is_new:
        return [Finding("firewall", True, "the group is made with the first machine, for this machine's address only")]
    networks = list_caller_networks()
    found = []
    for place in dict.fromkeys([region, *list_regions(tenant.state_dir)]):
        for group in list_groups(tenant.account, tenant.identity.owner, place):
            wrong = sorted(set(group.open_to) ^ set(networks))
            if wrong and fix:
                group = fix_group(tenant.account, place, group, networks)  # noqa: PLW2901
                wrong = []
            text = f"{group.id} in {place} lets in {', '.join(group.open_to) or 'nobody'}"
            hint = f"this machine is {', '.join(networks)}; `cloudsend check --fix` lets it in and no other"
            found.append(Finding("firewall", not wrong, text, hint if wrong else "", "auth" if wrong else ""))
    return found or [Finding("firewall", True, "there is no group yet: it is made with the first machine")]


def _refused(name: str, error: CloudsendError) -> Finding:
    hint = error.problems[0].hint if isinstance(error, ConfigError) and error.problems else error.hint
    return Finding(name, False, error.message, hint or error.hint, error.code)

"""Machines as EC2 describes them, found by our tags, and what is asked of single ones."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from cloudsend_cli.core.model import HostAddress, InstanceStatus, Rented
from cloudsend_cli.errors import (
    AuthError,
    CloudsendError,
    ConfigError,
    NotFoundError,
    ProviderError,
    QuotaError,
    UnreachableError,
)

from .identity import list_run_regions
from .launch import SPOT, TAG, Wish, parse_request
from .settings import LEAST_SECONDS
from .tenant import Tenant

PAGE = 1000
SETTLING = 900.0  # seconds in which a machine that was just made may not be seen yet

_STATES = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "shutting-down": "ending",
    "terminated": "terminated",
}
ENDED = ("ending", "terminated")
STOPS = ("stopping", "stopped")
RESTS = (*ENDED, *STOPS)

# Why AWS says that it ended; `preempted`, `capacity` and `shut down from within` are words of the core.
_REASONS = {
    "Server.SpotInstanceTermination": "preempted",
    "Server.SpotInstanceShutdown": "preempted",
    "Server.InsufficientInstanceCapacity": "capacity",
    "Server.InternalError": "ended by an error inside AWS",
    "Server.ScheduledStop": "stopped, as AWS retires what it was on",
    "Client.VolumeLimitExceeded": "ended at its start: the account's limit on disks is used up",
    "Client.InternalError": "ended at its start: its disk could not be made, as with a key that may not be used",
    "Client.InvalidSnapshot.NotFound": "ended at its start: the snapshot of its image is gone",
    "Client.InstanceInitiatedShutdown": "shut down from within",
    "Client.UserInitiatedShutdown": "terminated",
    "Client.UserInitiatedHibernate": "hibernated",
    "Client.InstanceTerminated": "terminated",
}
# Of a launch that ended while it was pending, which AWS does not charge for.
_NEVER_BEGAN = frozenset(
    {
        "Server.InsufficientInstanceCapacity",
        "Client.VolumeLimitExceeded",
        "Client.InternalError",
        "Client.InvalidSnapshot.NotFound",
    }
)
_WHEN = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


@dataclass(frozen=True, slots=True)
class Machine:
    """What EC2 says of one."""

    id: str
    region: str
    zone: str
    state: str  # pending, running, stopping, stopped, ending, terminated, unknown
    type: str
    market: str
    tags: Mapping[str, str] = field(default_factory=dict)
    token: str = ""  # of its launch, whoever has it now
    public: str = ""
    private: str = ""
    reason: str = ""
    launched_at: float | None = None
    ended_at: float | None = None
    began: bool = True  # whether it is paid for at all

    def tag(self, name: str) -> str:
        return self.tags.get(TAG + name, "")

    @property
    def shown_state(self) -> str:
        """In the words of InstanceStatus. One that is stopping may execute still, so that it is not stopped yet."""
        return "ending" if self.state == "stopping" else self.state

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def least_seconds(self) -> float:
        return LEAST_SECONDS if self.began else 0.0


def parse_machine(entry: Mapping[str, Any], region: str) -> Machine:
    """One instance of a reply of DescribeInstances."""
    state = _STATES.get((entry.get("State") or {}).get("Name", ""), "unknown")
    changed = _WHEN.search(entry.get("StateTransitionReason") or "")
    launch = entry.get("LaunchTime")
    launched = launch.timestamp() if isinstance(launch, datetime) else None
    ended = changed is not None and state in RESTS
    began = not (state in ENDED and str((entry.get("StateReason") or {}).get("Code")) in _NEVER_BEGAN)
    return Machine(
        id=str(entry["InstanceId"]),
        region=region,
        zone=(entry.get("Placement") or {}).get("AvailabilityZone") or "",
        state=state,
        type=entry.get("InstanceType") or "",
        market=entry.get("InstanceLifecycle") or "on-demand",
        tags={tag["Key"]: tag["Value"] for tag in entry.get("Tags") or ()},
        token=entry.get("ClientToken") or "",
        public=entry.get("PublicIpAddress") or "",
        private=entry.get("PrivateIpAddress") or "",
        reason=explain_state(entry) if state in RESTS else "",
        launched_at=launched,
        ended_at=(_parse_time(changed[1]) if changed and ended else None) if began else launched,
        began=began,
    )


def explain_state(entry: Mapping[str, Any]) -> str:
    """Why it is as it is, in a few words; AWS's own where we have none."""
    about = entry.get("StateReason") or {}
    if about.get("Code") == "Client.UserInitiatedShutdown" and (entry.get("State") or {}).get("Name") in STOPS:
        return "stopped"  # the same word of AWS as for one that is terminated
    code, words = str(about.get("Code") or ""), str(about.get("Message") or "")
    return _REASONS.get(code) or words or code


def _parse_time(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()


# ---- looking ------------------------------------------------------------------------------------------------------


def list_machines(tenant: Tenant, regions: Sequence[str], **tags: str) -> list[Machine]:
    """All machines of ours there with these tags. Any region that does not answer fails the whole.

    The error of a region where we may not look is an UnreachableError too: what it has stays unknown.
    """
    if tenant.is_new or not regions:
        return []
    owner = tenant.identity.owner
    filters = [{"Name": f"tag:{TAG}{name}", "Values": [value]} for name, value in {"owner": owner, **tags}.items()]
    if len(regions) == 1:
        return _list_region(tenant, regions[0], filters)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(8, len(regions))) as pool:
        found = pool.map(lambda region: _list_region(tenant, region, filters), regions)
        return [machine for machines in found for machine in machines]


def _list_region(tenant: Tenant, region: str, filters: Sequence[Mapping[str, Any]]) -> list[Machine]:
    return list(_describe(tenant, f"list machines in {region}", region, filters))


def _describe(tenant: Tenant, action: str, region: str, filters: Sequence[Mapping[str, Any]]) -> Iterator[Machine]:
    options = {"Filters": filters, "PaginationConfig": {"PageSize": PAGE}}
    for page in tenant.account.pages(action, "ec2", "describe_instances", region, **options):
        for reservation in page["Reservations"]:
            for entry in reservation["Instances"]:
                yield parse_machine(entry, region)


def list_statuses(tenant: Tenant, run: str) -> list[InstanceStatus]:
    try:
        machines = list_machines(tenant, list_run_regions(tenant.state_dir, tenant.provider, run), run=run)
    except UnreachableError:
        raise
    except CloudsendError as error:
        raise UnreachableError(error.message, hint=error.hint, context=error.context) from error
    return [_status(tenant, machine) for machine in machines]


def _status(tenant: Tenant, machine: Machine) -> InstanceStatus:
    generation, wish = machine.tag("generation"), find_wish(tenant, machine)
    if machine.state == "terminated":
        tenant.note_ended(machine.id)
    return InstanceStatus(
        machine.id,
        machine.tag("node"),
        int(generation) if generation.isdecimal() else 0,
        machine.shown_state,
        _read_address(tenant, machine, wish),
        machine.reason,
        launched_at=machine.launched_at,
        ended_at=machine.ended_at,
        least_seconds=machine.least_seconds,
        expires=_find_expiry(machine, wish),
        taken=machine.token not in {"", machine.tag("token")},
    )


def _find_expiry(machine: Machine, wish: Wish | None) -> float | None:
    """When its switch ends it at the latest."""
    return None if wish is None or machine.launched_at is None else machine.launched_at + wish.life


def find_address(tenant: Tenant, machine: Machine) -> HostAddress | None:
    """None while it has no address, and where we no longer know which user and host key it was launched with."""
    return _read_address(tenant, machine, find_wish(tenant, machine))


def _read_address(tenant: Tenant, machine: Machine, wish: Wish | None) -> HostAddress | None:
    if wish is None or machine.has_ended:
        return None
    # Its public address may be seen later than that it runs: until then its private one leads nowhere, or elsewhere.
    host = machine.public if wish.public else machine.private
    if not host:
        return None
    settings = (
        ("host_key", tenant.identity.host_key(machine.token).public),
        ("alias", machine.id),
        ("config", "none"),
        ("key", tenant.identity.login_path),
        ("rotate", "true"),
        ("shared", "true"),
    )
    return HostAddress("ssh", f"aws:{machine.id}", "", host, 22, wish.user, settings)


def find_wish(tenant: Tenant, machine: Machine) -> Wish | None:
    """The request that it was launched for."""
    choice = tenant.records.choice(machine.token or machine.tag("token"))
    if choice is None:
        return None
    try:
        return parse_request(choice.request)
    except ProviderError:
        return None


def list_rented(tenant: Tenant, find_price: Callable[[Machine], float | None]) -> list[Rented]:
    machines = list_machines(tenant, tenant.list_regions())
    return [_rented(tenant, machine, find_price(machine)) for machine in machines]


def _rented(tenant: Tenant, machine: Machine, price: float | None) -> Rented:
    if machine.state == "terminated":
        tenant.note_ended(machine.id)
    wish, tagged = find_wish(tenant, machine), machine.tag("expires")
    expires = float(tagged) if tagged.isdecimal() else _find_expiry(machine, wish)
    return Rented(
        provider=tenant.provider,
        instance_id=machine.id,
        region=machine.region,
        state=machine.state,
        run=machine.tag("run"),
        node=machine.tag("node"),
        project=machine.tag("project"),
        type=machine.type,
        market=machine.market,
        price=price,
        launched_at=machine.launched_at,
        ended_at=machine.ended_at,
        address=find_address(tenant, machine),
        expires=expires,
        reason=machine.reason,
        idle=wish.limits.idle if wish is not None else None,
        least_seconds=machine.least_seconds,
    )


def find_machine(tenant: Tenant, instance_id: str) -> Machine | None:
    """One machine, ours or not; None: there is none of that id in the regions that we have used.

    UnreachableError: one that we made a moment ago is not seen yet.
    """
    record = tenant.records.machine(instance_id)
    blind: CloudsendError | None = None
    for region in [record.region] if record is not None else tenant.list_regions():
        # A filter and not the id itself: an id that is no longer known is no error then.
        filters = [{"Name": "instance-id", "Values": [instance_id]}]
        try:
            for machine in _describe(tenant, f"look at {instance_id} in {region}", region, filters):
                return machine
        except CloudsendError as error:
            blind = error
    if blind is not None:
        raise blind
    if record is not None and abs(time.time() - record.at) < SETTLING:
        raise UnreachableError(f"{instance_id} in {record.region} was made a moment ago and is not seen yet")
    return None


def find_own(tenant: Tenant, instance_id: str) -> Machine | None:
    """None: it is gone. ProviderError: it is not ours."""
    machine = find_machine(tenant, instance_id)
    if machine is None or machine.tag("owner") == tenant.identity.owner:
        return machine
    if not machine.tag("owner") and tenant.records.machine(instance_id) is not None:
        raise UnreachableError(f"{instance_id} in {machine.region} is not seen with its tags yet")
    raise ProviderError(
        f"{instance_id} in {machine.region} does not carry this installation's tag {TAG}owner={tenant.identity.owner}",
        hint="cloudsend acts on its own machines only; use AWS's console for others",
    )


# ---- acting -------------------------------------------------------------------------------------------------------

FindPrice = Callable[[Machine], float | None]


def terminate_machine(tenant: Tenant, instance_id: str, run: str | None, find_price: FindPrice) -> None:
    """Ends it. One that another run has meanwhile, or that waits for one, is not `run`'s to end: then it is gone."""
    machine = find_own(tenant, instance_id)
    if machine is None or machine.has_ended:
        return
    if run is not None and whose(tenant, machine) != run:
        return
    try:
        tenant.account.call(
            f"terminate {instance_id} in {machine.region}",
            "ec2",
            "terminate_instances",
            machine.region,
            InstanceIds=[instance_id],
        )
    except (AuthError, ProviderError, ConfigError, QuotaError) as error:
        raise _still_paid(error, machine, find_price) from error


def whose(tenant: Tenant, machine: Machine) -> str:
    """The run that has it. What we noted is newer than tags, which may lag."""
    record = tenant.records.machine(machine.id)
    return record.run if record is not None else machine.tag("run")


def _still_paid(error: CloudsendError, machine: Machine, find_price: FindPrice) -> CloudsendError:
    price = None
    with contextlib.suppress(CloudsendError):
        price = find_price(machine)
    cost = f"${price:.4g} per hour" if price is not None else "an unknown price per hour"
    message = (
        f"{machine.id} ({machine.type}{' spot' if machine.market == SPOT else ''} in {machine.region}) "
        f"goes on costing {cost}: {error.message}"
    )
    hint = f"terminate it in AWS's console, or with credentials that may; {error.hint}".rstrip("; ")
    made = AuthError if isinstance(error, AuthError) else ProviderError
    return made(message, hint=hint, context=error.context)


def start_machine(tenant: Tenant, instance_id: str) -> None:
    machine = _need(tenant, instance_id)
    if machine.state in {"pending", "running"}:
        return
    action = f"start {instance_id} in {machine.region}"
    tenant.account.call(action, "ec2", "start_instances", machine.region, InstanceIds=[instance_id])


def stop_machine(tenant: Tenant, instance_id: str) -> None:
    machine = _need(tenant, instance_id)
    if machine.state in {"stopping", "stopped"}:
        return
    if machine.market == SPOT:
        raise ProviderError(
            f"{instance_id} is a spot machine, which AWS cannot stop",
            hint=f"`cloudsend terminate instance {instance_id}` ends it",
        )
    action = f"stop {instance_id} in {machine.region}"
    tenant.account.call(action, "ec2", "stop_instances", machine.region, InstanceIds=[instance_id])


def fetch_console(tenant: Tenant, instance_id: str) -> str:
    machine = _need(tenant, instance_id, ended=True)
    ask = {"InstanceId": instance_id}
    action = f"tell what {instance_id} wrote to its console"
    try:
        reply = tenant.account.call(action, "ec2", "get_console_output", machine.region, Latest=True, **ask)
    except ConfigError:  # only newer types tell the latest
        reply = tenant.account.call(action, "ec2", "get_console_output", machine.region, **ask)
    return str(reply.get("Output") or "")


def _need(tenant: Tenant, instance_id: str, *, ended: bool = False) -> Machine:
    machine = find_own(tenant, instance_id)
    if machine is None or (machine.has_ended and not ended):
        what = "has ended" if machine is not None else "is not known in the regions that were used"
        raise NotFoundError(f"{instance_id} {what}", hint="`cloudsend list instances` shows those that there are")
    return machine

"""Getting the machine of an intent: one that was kept, else a new one.

Idempotency: the choice, with every argument of RunInstances, is on the disk before the first call; a repeated one is
the same to the byte and has the intent's token as its ClientToken, under which EC2 starts one machine.
"""

from __future__ import annotations

import time

from cloudsend_cli.errors import (
    CapacityError,
    CloudsendError,
    ConfigError,
    ProviderError,
    QuotaError,
    UnreachableError,
)

from .errors import read_error
from .firewall import open_group
from .identity import record_region
from .instances import list_machines
from .kept import KEPT, claim_machine, take_machine
from .launch import Intent, Wish, parse_request, render_launch
from .records import Choice
from .records import Machine as Record
from .tenant import Tenant

GROUP_SEEN_WITHIN = 300.0  # seconds after which a group that is not seen was removed


def create_machine(tenant: Tenant, intent: Intent, request: str) -> str:
    wish = parse_request(request)
    record_region(tenant.state_dir, wish.region, tenant.provider, intent.run)
    choice = tenant.records.choice(intent.token)
    if choice is not None and choice.request != request:
        raise ProviderError(
            f"the token of {intent.node} came with another request than before",
            hint="this is a bug of cloudsend; please report it with the log",
        )
    if choice is None:
        choice = _choose(tenant, intent, wish, request)
    if choice.instance_id:
        if take_machine(tenant, intent, wish, choice.instance_id):
            return choice.instance_id
        choice = _choose_launch(tenant, intent, wish, request)
    return _launch(tenant, intent, wish, choice)


def _choose(tenant: Tenant, intent: Intent, wish: Wish, request: str) -> Choice:
    # Whoever rents one for no run wants another one than those that wait already.
    kept = claim_machine(tenant, intent, wish) if wish.reuse and intent.run != KEPT else ""
    if not kept:
        return _choose_launch(tenant, intent, wish, request)
    choice = Choice(intent.token, request, time.time(), instance_id=kept)
    tenant.records.write_choice(choice)
    return choice


def _choose_launch(tenant: Tenant, intent: Intent, wish: Wish, request: str) -> Choice:
    group = open_group(tenant.account, tenant.identity.owner, wish.region, wish.vpc)
    arguments = render_launch(wish, intent, tenant.identity, group.id)
    choice = Choice(intent.token, request, time.time(), launch=arguments)
    tenant.records.forget_old()
    tenant.records.write_choice(choice)
    return choice


def _launch(tenant: Tenant, intent: Intent, wish: Wish, choice: Choice) -> str:
    try:
        reply = tenant.account.launch(f"launch {wish.text}", wish.region, choice.launch or {})
    except (CapacityError, QuotaError, ConfigError, ProviderError) as error:
        # These say that the token has no machine. An earlier call with it may have had its effect all the same.
        found = _find_launched(tenant, intent, wish)
        if not found:
            raise
        instance_id = found
        if instance_id == _ENDED:
            raise CapacityError(
                f"AWS would not launch {wish.text}: the request had one that has ended", context=error.message
            ) from error
    except UnreachableError as error:
        raise _without_group(tenant, intent, wish, choice, error) from error
    else:
        instance_id = str(reply["Instances"][0]["InstanceId"])
    record = tenant.records.machine(instance_id)
    if record is None:
        # Of one that is rented for no run, any run of its project that it fits may make use.
        kind = wish.kind if intent.run == KEPT and wish.reuse else ""
        tenant.records.write_machine(Record(instance_id, wish.region, intent.run, intent.token, time.time(), kind))
    return instance_id


_ENDED = "ended"


def _find_launched(tenant: Tenant, intent: Intent, wish: Wish) -> str:
    """The machine that was launched with the token, "" if there is none, _ENDED if it is no more."""
    try:
        machines = list_machines(tenant, [wish.region], token=intent.token)
    except CloudsendError as error:
        raise UnreachableError(
            f"it is not known whether {wish.text} was launched: {error.message}", hint=error.hint
        ) from error
    living = [machine.id for machine in machines if not machine.has_ended]
    return living[0] if living else _ENDED if machines else ""


def _without_group(
    tenant: Tenant, intent: Intent, wish: Wish, choice: Choice, error: UnreachableError
) -> CloudsendError:
    """A group that somebody removed never comes back under its id: another choice, and no machine of this one."""
    code = read_error(error.__cause__)[0] if error.__cause__ is not None else ""
    gone = code in {"InvalidGroup.NotFound", "InvalidSecurityGroupID.NotFound"}
    if not gone or time.time() - choice.at < GROUP_SEEN_WITHIN or _find_launched(tenant, intent, wish):
        return error
    _choose_launch(tenant, intent, wish, choice.request)
    return error

"""Machines that wait, after their run, for a later one of the same project, and end themselves when none comes.

Idempotency of taking one: what the token is used for is noted before the machine's tags are changed, and the note of
whose a machine is decides between runs; it is changed under a lock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from cloudsend_cli.core.model import MachinePlan
from cloudsend_cli.errors import CapacityError, UnreachableError

from .identity import locked
from .instances import Machine, find_own, find_wish
from .launch import TAG, Intent, Wish, parse_request, render_tags
from .records import Machine as Record
from .tenant import Tenant

KEPT = "kept"  # in the place of a run in tags and notes
LEAST_LIFE = 60.0  # seconds that a machine must have left to be given on: a new one is up in as long


def keep_machine(tenant: Tenant, run: str, instance_id: str) -> None:
    """Take it out of its run. What has ended, or belongs to another run already, is left as it is."""
    machine = find_own(tenant, instance_id)
    record = tenant.records.machine(instance_id)
    if machine is None or machine.has_ended or (record is not None and record.run != run):
        return
    wish = find_wish(tenant, machine)
    _retag(tenant, machine, [{"Key": f"{TAG}run", "Value": KEPT}])
    # ORDER: noted last. A machine whose note still names its run is never taken; it ends itself when it is idle.
    token = record.token if record is not None else machine.tag("token")
    kind = wish.kind if wish is not None and wish.reuse else ""
    tenant.records.write_machine(Record(instance_id, machine.region, KEPT, token, time.time(), kind))


def claim_machine(tenant: Tenant, intent: Intent, wish: Wish) -> str:
    """A machine that waits and fits, now noted as this intent's; "" if there is none."""
    for record in _list_candidates(tenant, intent, wish):
        # ORDER: noted before AWS is asked, so that many who want machines at once do not all ask about each of them.
        if not _note_claim(tenant, intent, record):
            continue
        machine = find_own(tenant, record.instance_id)
        if machine is not None and machine.state == "running" and _lives_long_enough(tenant, machine, wish):
            return record.instance_id
        if record.run == KEPT:
            tenant.records.write_machine(record)
    return ""


def mark_waiting(tenant: Tenant, plans: Sequence[MachinePlan]) -> list[MachinePlan]:
    """Those for which a machine waits, as far as is noted here: nobody is asked, and it may have ended."""
    if tenant.is_new:
        return list(plans)
    taken: set[str] = set()
    marked = []
    for plan in plans:
        wish = parse_request(plan.request)
        found = _list_candidates(tenant, Intent("", "", 0, ""), wish) if wish.reuse else ()
        mine = next((record.instance_id for record in found if record.instance_id not in taken), "")
        taken.add(mine)
        marked.append(replace(plan, waiting=bool(mine)))
    return marked


def _note_claim(tenant: Tenant, intent: Intent, record: Record) -> bool:
    with locked(tenant.records.folder):
        now = tenant.records.machine(record.instance_id)
        if now is None or (now.run != KEPT and now.token != intent.token):
            return False
        tenant.records.write_machine(replace(now, run=intent.run, token=intent.token, at=time.time()))
    return True


def _list_candidates(tenant: Tenant, intent: Intent, wish: Wish) -> Sequence[Record]:
    """One that a crash left noted as this intent's comes first."""
    # One that is about to end itself is not worth the attempt.
    idle_since = time.time() - (wish.idle - min(60.0, wish.idle / 4))
    fitting = [r for r in tenant.records.list_machines() if r.kind == wish.kind and r.region == wish.region]
    ours = [r for r in fitting if r.run == intent.run and r.token == intent.token]
    return ours + sorted((r for r in fitting if r.run == KEPT and r.at > idle_since), key=lambda r: -r.at)


def _lives_long_enough(tenant: Tenant, machine: Machine, wish: Wish) -> bool:
    """One that has less of its life left than half of what is asked for would end under what it is given."""
    launched = find_wish(tenant, machine)
    if launched is None or machine.launched_at is None:
        return False
    return launched.life - (time.time() - machine.launched_at) > max(LEAST_LIFE, wish.life / 2)


def take_machine(tenant: Tenant, intent: Intent, wish: Wish, instance_id: str) -> bool:
    """Put a claimed machine into the run. False: it ended before it was this run's; CapacityError: it ended since."""
    machine = find_own(tenant, instance_id)
    taken = machine is not None and machine.tag("token") == intent.token
    if machine is None or machine.has_ended:
        if taken:
            raise CapacityError(
                f"the machine {instance_id} that was kept for {wish.project!r} has ended",
                hint="the request had one that has ended; another is asked for",
            )
        return False
    if machine.state == "unknown":
        raise UnreachableError(f"the state of {instance_id} in {machine.region} is not known")
    if not taken or machine.tag("run") != intent.run:
        tags = render_tags(wish, intent, tenant.identity.owner)
        _retag(tenant, machine, [tag for tag in tags if tag["Key"] != f"{TAG}owner"])
    return True


def _retag(tenant: Tenant, machine: Machine, tags: Sequence[dict[str, str]]) -> None:
    action = f"tag {machine.id} in {machine.region}"
    tenant.account.call(action, "ec2", "create_tags", machine.region, Resources=[machine.id], Tags=list(tags))

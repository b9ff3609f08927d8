"""Renting one machine that belongs to no run: asked for, waited for, and handed over once it can be logged in to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.model import HostAddress, InstanceStatus, Offer, ProviderDefinition
from cloudsend_cli.core.ports import Host, Renter
from cloudsend_cli.core.renting import ENDED, KEPT
from cloudsend_cli.errors import (
    CapacityError,
    CloudsendError,
    ExpiredError,
    ProviderError,
    QuotaError,
    UnreachableError,
)

from .claiming import Owner
from .direct import Direct
from .hires import Hire, forget_hire, hold_hire, is_unfinished, list_hires, new_hire, write_hire

BOOT_LIMIT = 900.0
LOGIN_LIMIT = 300.0  # after its provider says that it runs
ASK_LIMIT = 120.0  # for a request to which no answer comes
LOOK_AGAIN = 2.0
PAUSE_MOST = 10.0


@dataclass(frozen=True, slots=True)
class Hirer:
    """What renting a machine needs besides its provider."""

    state_dir: Path
    open_host: Callable[[HostAddress], Host]
    owner: Owner
    note: Callable[[str], None]  # what is going on, for whoever waits


@dataclass(frozen=True, slots=True)
class Hired:
    """A machine that answers, and what its agent says of it."""

    node: str
    status: InstanceStatus
    hello: Frame


def hire_one(
    hirer: Hirer, renter: Renter, definition: ProviderDefinition, offers: Sequence[Offer], words: Sequence[str]
) -> Hired:
    """The first of the offers that can be had. What an interrupted command asked for is waited for instead.

    CapacityError or QuotaError: none can be had. UnreachableError: nobody knows; the same command asks again.
    """
    now = time.time()
    for hire in reversed(list_hires(hirer.state_dir, [definition.type])):
        if is_unfinished(hire, definition, words, now):
            with hold_hire(hirer.state_dir, hire) as mine:
                if mine:
                    hirer.note(f"going on with {hire.node}, which an interrupted command has asked for")
                    return _carry_through(hirer, renter, hire, offers)
    hire = new_hire(definition, words)
    with hold_hire(hirer.state_dir, hire):
        return _carry_through(hirer, renter, hire, offers)


def _carry_through(hirer: Hirer, renter: Renter, hire: Hire, offers: Sequence[Offer]) -> Hired:
    """The offer that was asked for last is asked for again to the byte; then those after it."""
    requests = [offer.request for offer in offers]
    start = requests.index(hire.request) if hire.request in requests else -1
    known = {offer.request: offer for offer in offers}
    notes = {offer.request: offer.note for offer in offers}
    queue = ([hire.request] if hire.request else []) + requests[start + 1 :]
    refusals: list[str] = []
    used_up: set[str] = set()
    problem: CloudsendError = CapacityError("no machine was offered", hint="ask for less, or in another region")
    for request in queue:
        if request in known and known[request].quota in used_up:
            continue
        if request != hire.request:
            hire = replace(hire, request=request, generation=hire.generation + 1, at=time.time(), instance_id="")
        write_hire(hirer.state_dir, hire)
        try:
            hirer.note(f"asking for {notes.get(request) or 'a machine'}")
            hire = replace(hire, instance_id=_ask(hirer, renter, hire))
            write_hire(hirer.state_dir, hire)
            hired = _await(hirer, renter, hire)
        except (CapacityError, QuotaError) as error:
            problem = error
            refusals.append(f"{notes.get(request) or hire.node}: {error.message}")
            hirer.note(error.message)
            if isinstance(error, QuotaError) and request in known:
                used_up.add(known[request].quota)
        except UnreachableError:
            raise
        except CloudsendError:
            if not hire.instance_id:
                forget_hire(hirer.state_dir, hire)  # each is its provider's word that there is no machine
            raise
        else:
            write_hire(hirer.state_dir, replace(hire, up=True))
            return hired
    forget_hire(hirer.state_dir, hire)
    problem.context = "\n".join(refusals) if len(refusals) > 1 else problem.context
    raise problem


def _ask(hirer: Hirer, renter: Renter, hire: Hire) -> str:
    begun = time.monotonic()
    while True:
        try:
            return renter.create_instance(KEPT, hire.node, hire.generation, hire.token, hire.request)
        except ExpiredError:  # the note of what was asked for stays: the same command asks again
            raise
        except UnreachableError as problem:
            if time.monotonic() - begun > ASK_LIMIT:
                raise UnreachableError(
                    f"it is not known whether {hire.node} was rented: {problem.message}",
                    hint="the same command asks for the same machine again; `cloudsend list instances` shows it",
                ) from problem
            hirer.note(f"no answer yet: {problem.message}")
            time.sleep(min(PAUSE_MOST, problem.retry_after or LOOK_AGAIN))


def _await(hirer: Hirer, renter: Renter, hire: Hire) -> Hired:
    begun = time.monotonic()
    running: float | None = None
    problem: CloudsendError | None = None
    while True:
        status = _look(renter, hire)
        now = time.monotonic()
        if status is not None and status.state in ENDED:
            _refuse_ended(hire, status)
        if status is not None and status.state == "running" and status.address is not None:
            if running is None:
                running = now
                hirer.note(f"{status.instance_id} runs; waiting until it can be logged in to")
            try:
                with Direct(hirer.open_host(status.address), hirer.owner.id, hirer.owner.epoch) as talk:
                    hello = talk.hello
            except CloudsendError as error:
                problem = error
            else:
                renter.keep_instance(KEPT, hire.node, status.instance_id)
                return Hired(hire.node, status, hello)
        if now - begun > BOOT_LIMIT or (running is not None and now - running > LOGIN_LIMIT):
            said = f": {problem.message}" if problem is not None else ""
            raise UnreachableError(
                f"{hire.node} ({hire.instance_id}) was rented and cannot be logged in to{said}",
                hint=f"`cloudsend info instance {hire.instance_id} --console` shows what it wrote; "
                f"`cloudsend terminate instance {hire.instance_id}` gives it back, else it ends itself",
            )
        time.sleep(LOOK_AGAIN)


def _look(renter: Renter, hire: Hire) -> InstanceStatus | None:
    """None: it is not seen yet, or nobody answers now."""
    try:
        statuses = renter.list_instances(KEPT)
    except UnreachableError:
        return None
    return next((s for s in statuses if s.instance_id == hire.instance_id), None)


def _refuse_ended(hire: Hire, status: InstanceStatus) -> None:
    if status.reason == "capacity":
        raise CapacityError(f"{status.instance_id} ended before it began: its provider has none now")
    why = status.reason or "its provider does not say why"
    raise ProviderError(
        f"{hire.node} ({status.instance_id}) ended before it could be logged in to: {why}",
        hint=f"`cloudsend info instance {status.instance_id} --console` shows what it wrote",
    )


def keep_in_use(host: Host, owner: Owner, stop: Callable[[float], bool]) -> None:
    """Let the machine know that somebody is there, until `stop` says so; it ends itself when nobody is.

    Belongs into a thread of its own. `stop` waits for so many seconds.
    """
    pause = 0.0
    while not stop(pause):
        pause = PAUSE_MOST
        try:
            with Direct(host, owner.id, owner.epoch) as talk:
                while not stop(PAUSE_MOST):
                    talk.ask("ping")
                return
        except CloudsendError:
            continue

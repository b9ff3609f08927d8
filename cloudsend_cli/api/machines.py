"""Machines: those in use, those that are claimed, and how to claim one, reach one and give one back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cloudsend_cli.core.machine_views import InstanceView
from cloudsend_cli.core.model import RUNNING, HostAddress, ProviderDefinition
from cloudsend_cli.core.refs import not_found
from cloudsend_cli.core.state import NodeRecord, RunRecord
from cloudsend_cli.core.submission import SubmitOptions
from cloudsend_cli.engine import lookup
from cloudsend_cli.engine.bills import list_bills, note_use
from cloudsend_cli.engine.instances import Claim, NodeFacts, add_rented, list_machines, names_of
from cloudsend_cli.engine.places import Place
from cloudsend_cli.errors import (
    AmbiguousError,
    CloudsendError,
    MaestroError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from cloudsend_cli.maestro import wiring

from . import renting
from .directory import Directory
from .providers import choose_places, find_info
from .renting import Note

if TYPE_CHECKING:
    from cloudsend_cli.engine.claiming import Released

GONE = frozenset({"released", "failed"})
RUNS_LOOKED_AT = 20  # for a machine that nothing uses now
NOT_OURS = "it is a machine of its owner's: cloudsend does not switch it on or off"


# ---- which there are -----------------------------------------------------------------------------------------------


def list_instances(
    home: Directory, run: str | None, provider: str | None, note: Note | None = None
) -> list[InstanceView]:
    """With `note`, providers of rented machines are asked, too; it is told of those that do not answer."""
    store = home.reader()
    if run is not None:
        return _list_machines(home, [lookup.find_run(store, run)], provider, gone=True, claims=())
    if note is not None:
        with suppress(MaestroError):  # what there is can be told without
            home.carry_on_rented(note)
    claims = [claim for claim in _list_claims(home) if provider in (None, claim.provider)]
    views = _list_machines(home, store.list_active_runs(), provider, gone=False, claims=claims)
    return views if note is None else _add_rented(home, views, provider, note)


def _add_rented(
    home: Directory, views: list[InstanceView], provider: str | None, note: Note, *, ended: bool = False
) -> list[InstanceView]:
    asked = renting.ask_providers(home, provider)
    asked.tell(note)
    if not asked.machines:
        return views
    runs, bills = renting.list_known_runs(home), list_bills(home.path)
    return add_rented(views, asked.machines, runs, time.time(), bills=bills, ended=ended)


def _list_claims(home: Directory) -> list[Claim]:
    return [
        Claim(status.node, provider, status.instance_id, status.address)
        for provider, status in wiring.list_kept(home.path)
    ]


def _list_machines(
    home: Directory, runs: Iterable[str], provider: str | None, *, gone: bool, claims: Iterable[Claim]
) -> list[InstanceView]:
    store = home.reader()
    facts = []
    for one in runs:
        views = home.views(store, one)
        running = list(store.list_jobs(one, [RUNNING]))
        frame = store.load_without_jobs(one)
        for node in frame.nodes.values():
            if (provider is None or node.provider == provider) and (gone or node.state not in GONE):
                mine = [r for r in running if r.node == node.name]
                paid = [r for r in frame.rentals.values() if r.node == node.name]
                facts.append(NodeFacts(frame.run, node, mine, views.get(node.name), paid, time.time()))
    return list_machines(facts, claims)


def find_instance(home: Directory, ref: str, *, ask: bool = False) -> InstanceView:
    """`ask`: it is asked how it is, by its agent or, where it is rented, by its provider."""
    machine = _find(home, ref)
    if ask and machine.rental is not None:
        (machine,) = _add_rented(home, [machine], machine.provider, lambda _: None)[:1]
    return _ask(home, machine) if ask and machine.claimed and machine.connected is None else machine


def _ask(home: Directory, machine: InstanceView) -> InstanceView:
    """The machine as it is now, from its agent: no maestro has a connection to it."""
    from cloudsend_cli.engine.direct import Direct
    from cloudsend_cli.engine.wire import parse_resources, parse_vitals

    try:
        with Direct(wiring.open_host(find_address(home, machine.name), home.path)) as talk:
            vitals = parse_vitals(talk.hello)
            capacity = parse_resources(talk.hello.get("resources"))
    except CloudsendError as problem:
        return replace(machine, connected=False, remark=problem.message)
    return replace(
        machine,
        capacity=capacity,
        free=vitals.free,
        load=vitals.load,
        others=vitals.others,
        connected=True,
        remark=vitals.warning,
    )


def _find(home: Directory, ref: str) -> InstanceView:
    """What is known here comes first: providers of rented machines are asked about other names alone."""
    found = list_instances(home, None, None)
    if not any(ref in names_of(machine) for machine in found):
        found = _add_rented(home, found, None, lambda _: None, ended=True)
    if not any(ref in names_of(machine) for machine in found):
        recent = [r.run.id for r in home.reader().list_runs(RUNS_LOOKED_AT)]
        found = _list_machines(home, recent, None, gone=True, claims=_list_claims(home))
    fitting = [machine for machine in found if ref in names_of(machine)]
    if len(fitting) > 1 and any(machine.rental is not None for machine in fitting):
        names = ", ".join(list(names_of(machine))[-1] for machine in fitting)
        raise AmbiguousError(f"{ref!r} fits several instances: {names}", hint="use one of these names")
    if fitting:
        return fitting[0]
    raise not_found("instance", ref, [name for machine in found for name in names_of(machine)])


# ---- claiming ------------------------------------------------------------------------------------------------------


def create_instance(home: Directory, provider: str, settings: Sequence[str], note: Note) -> InstanceView:
    from cloudsend_cli.engine.claiming import Owner, claim_one
    from cloudsend_cli.engine.wire import parse_resources, parse_vitals

    info = find_info(home, provider)
    if info.type in wiring.RENTED_TYPES:
        return renting.create_rented(home, info, settings, note)
    definition, places = _plan(home, provider, settings)
    store = home.writer()
    taken = [claim.name for claim in _list_claims(home)]
    place, instance, hello = claim_one(
        places,
        taken,
        wiring.open_provider(definition, home.path),
        lambda address: wiring.open_host(address, home.path),
        Owner(store.installation_id(), store.epoch()),
    )
    vitals = parse_vitals(hello)
    return InstanceView(
        place.node,
        place.provider.name,
        instance,
        "claimed",
        claimed=True,
        capacity=parse_resources(hello.get("resources")),
        free=vitals.free,
        load=vitals.load,
        others=vitals.others,
        connected=True,
    )


def _plan(home: Directory, provider: str, settings: Sequence[str]) -> tuple[ProviderDefinition, list[Place]]:
    """The provider and those of its machines that the settings, read as those of a config's instance, leave over."""
    from .acting import load_command

    overrides = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"'{setting}' is not KEY=VALUE", hint="such as --set host=gpu1 or --set cpus=8+")
        overrides.append(f"instances[0].{'labels' if key == 'host' else key}={value}")
    spec = load_command(home, ["true"], SubmitOptions(provider=provider, overrides=tuple(overrides))).spec
    definition = spec.providers[0]
    if definition.type == "local":
        raise UsageError(
            f"{provider} is this machine: it is there already, and is not claimed", hint="`cloudsend run` uses it"
        )
    specs = [replace(instance, number=0) for instance in spec.instances]
    return definition, wiring.list_places(definition, home.path, specs)


def terminate_instance(home: Directory, ref: str, *, forget: bool, force: bool) -> Released:
    """A claim is given up; a rented machine ends. UsageError: a run that is not over has it, and not `force`."""
    from cloudsend_cli.engine.claiming import Owner, release

    claim = next((c for c in _list_claims(home) if ref in {c.name, c.instance_id, *c.nicknames()}), None)
    if claim is None:
        return _terminate_rented(home, ref, force=force) or _not_claimed(home, ref)
    provider = wiring.open_provider(ProviderDefinition(claim.provider, "ssh"), home.path)
    store = home.writer()
    try:
        return release(
            claim.name,
            claim.instance_id,
            None if forget else claim.address,
            provider,
            lambda address: wiring.open_host(address, home.path),
            Owner(store.installation_id(), store.epoch()),
        )
    except UnreachableError as problem:
        raise UnreachableError(
            f"{claim.name} is still claimed: {problem.message}",
            hint="try again when it answers; --forget gives up the claim here alone, and keeps it there",
        ) from problem


def _terminate_rented(home: Directory, ref: str, *, force: bool) -> Released | None:
    """None: it is not a rented machine that is there."""
    try:
        view = _find(home, ref)
    except NotFoundError:
        return None
    machine = renting.find_rented(home, view)
    if machine is None:
        return None
    if not force:
        if runs := renting.await_let_go(home, view):
            renting.refuse_in_use(view, runs, "given back")
        machine = renting.find_rented(home, view) or machine  # it may have ended meanwhile
    return replace(renting.terminate(home, machine), name=view.name)


def switch_power(home: Directory, ref: str, *, on: bool, force: bool) -> InstanceView:
    """Start or stop a rented machine. UsageError: it is not rented, or a run that is not over has it."""
    view = _find_or_place(home, ref)
    machine = renting.find_rented(home, view) if view is not None else None
    if view is None or machine is None:
        what = "cannot be started or stopped"
        if view is not None and view.rental is not None:
            raise UsageError(f"{ref} {what}: it is not there any more", hint="`cloudsend list instances`")
        raise UsageError(f"{ref} {what}: {NOT_OURS}", hint="`cloudsend kill run` ends jobs")
    runs = renting.live_runs(home, view)
    if runs and not on and not force:
        renting.refuse_in_use(view, runs, "stopped")
    (renting.start if on else renting.stop)(home, machine)
    return find_instance(home, machine.instance_id, ask=True)


def _find_or_place(home: Directory, ref: str) -> InstanceView | None:
    """None: a host of providers.yml that nothing uses. NotFoundError: there is no such machine."""
    try:
        return _find(home, ref)
    except NotFoundError as missing:
        try:
            choose_places(home, None, [ref])
        except CloudsendError:
            raise missing from None
        return None


def fetch_console(home: Directory, view: InstanceView) -> str:
    """What a rented machine wrote while it started; "" where there is nothing, or it is not rented."""
    machine = renting.find_rented(home, view)
    return renting.fetch_console(home, machine) if machine is not None else ""


def _not_claimed(home: Directory, ref: str) -> Released:
    """Nothing to do for a machine that is known: asking again is fine."""
    from cloudsend_cli.engine.claiming import Released

    try:
        machine = find_instance(home, ref)
    except NotFoundError as missing:
        try:
            (place,) = choose_places(home, None, [ref])
        except CloudsendError:
            raise missing from None
        return Released(place.node, place.provider.name, was_claimed=False)
    if machine.provider == wiring.LOCAL.name:
        raise UsageError(f"{machine.name} is this machine: there is nothing to give back", hint="`cloudsend kill run`")
    return Released(machine.name, machine.provider, was_claimed=False, running=machine.running, queued=machine.queued)


# ---- reaching ------------------------------------------------------------------------------------------------------


def open_shell(home: Directory, ref: str, command: Sequence[str]) -> int:
    address = find_address(home, ref)
    host = wiring.open_host(address, home.path)
    if not _is_rented(address):
        return host.open_shell(command)
    with _in_use(home, address):
        return host.open_shell(command)


def _is_rented(address: HostAddress) -> bool:
    return any(address.key.startswith(f"{kind}:") for kind in wiring.RENTED_TYPES)


@contextmanager
def _in_use(home: Directory, address: HostAddress) -> Iterator[None]:
    """While a shell is open, the machine does not take itself for idle."""
    from cloudsend_cli.engine.claiming import Owner
    from cloudsend_cli.engine.hiring import keep_in_use

    store = home.reader()
    owner = Owner(store.installation_id(), store.epoch())
    done = threading.Event()
    host = wiring.open_host(address, home.path)  # a connection belongs to one thread
    threading.Thread(target=keep_in_use, args=(host, owner, done.wait), name="in use", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        note_use(home.path, address.key.partition(":")[2])


def find_address(home: Directory, ref: str) -> HostAddress:
    """Of a run's machine, of one that is claimed, or of one that providers.yml names."""
    try:
        machine = find_instance(home, ref)
    except NotFoundError as missing:
        try:
            (place,) = choose_places(home, None, [ref])
        except NotFoundError:
            raise missing from None
        return place.address
    claim = next((c for c in _list_claims(home) if c.name == machine.name), None)
    address = claim.address if claim is not None else None
    if machine.rental is not None:
        rented = renting.find_rented(home, machine)
        if rented is not None and rented.address is not None:
            return rented.address
    for run in machine.runs if address is None else ():
        frame = home.reader().load_without_jobs(run)
        address = address or _address_of(home, frame.run, frame.nodes[machine.name])
    if address is None:
        raise UnreachableError(f"{machine.name} is {machine.state}: it has no address now", hint="try again later")
    return address


def _address_of(home: Directory, run: RunRecord, node: NodeRecord) -> HostAddress | None:
    definition = next((p for p in run.providers if p.name == node.provider), wiring.LOCAL)
    statuses = wiring.open_provider(definition, home.path).list_instances(run.id)
    found = next((s.address for s in statuses if s.node == node.name), None)
    return found or (wiring.read_address(node.request) if definition.type == "ssh" else None)

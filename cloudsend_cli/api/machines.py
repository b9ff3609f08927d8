"""Machines: those in use, those that are claimed, and how to claim one, reach one and give one back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cloudsend_cli.core.machine_views import InstanceView
from cloudsend_cli.core.model import RUNNING, HostAddress, ProviderDefinition
from cloudsend_cli.core.refs import not_found
from cloudsend_cli.core.state import NodeRecord, RunRecord
from cloudsend_cli.core.submission import SubmitOptions
from cloudsend_cli.engine import lookup
from cloudsend_cli.engine.instances import Claim, NodeFacts, list_machines, names_of
from cloudsend_cli.engine.places import Place
from cloudsend_cli.errors import CloudsendError, NotFoundError, UnreachableError, UsageError
from cloudsend_cli.maestro import wiring

from .directory import Directory
from .providers import choose_places

if TYPE_CHECKING:
    from cloudsend_cli.engine.claiming import Released

GONE = frozenset({"released", "failed"})
RUNS_LOOKED_AT = 20  # for a machine that nothing uses now
NOT_OURS = "it is a machine of its owner's: cloudsend does not switch it on or off"


# ---- which there are -----------------------------------------------------------------------------------------------


def list_instances(home: Directory, run: str | None, provider: str | None) -> list[InstanceView]:
    store = home.reader()
    if run is not None:
        return _list_machines(home, [lookup.find_run(store, run)], provider, gone=True, claims=())
    claims = [claim for claim in _list_claims(home) if provider in (None, claim.provider)]
    return _list_machines(home, store.list_active_runs(), provider, gone=False, claims=claims)


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
                facts.append(NodeFacts(frame.run, node, mine, views.get(node.name)))
    return list_machines(facts, claims)


def find_instance(home: Directory, ref: str, *, ask: bool = False) -> InstanceView:
    machine = _find(home, ref)
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
    store = home.reader()
    found = list_instances(home, None, None)
    if not any(ref in names_of(machine) for machine in found):
        recent = [r.run.id for r in store.list_runs(RUNS_LOOKED_AT)]
        found = _list_machines(home, recent, None, gone=True, claims=_list_claims(home))
    for machine in found:
        if ref in names_of(machine):
            return machine
    raise not_found("instance", ref, [name for machine in found for name in names_of(machine)])


# ---- claiming ------------------------------------------------------------------------------------------------------


def create_instance(home: Directory, provider: str, settings: Sequence[str]) -> InstanceView:
    from cloudsend_cli.engine.claiming import Owner, claim_one
    from cloudsend_cli.engine.wire import parse_resources, parse_vitals

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


def terminate_instance(home: Directory, ref: str, *, forget: bool) -> Released:
    from cloudsend_cli.engine.claiming import Owner, release

    claim = next((c for c in _list_claims(home) if ref in {c.name, c.instance_id, *c.nicknames()}), None)
    if claim is None:
        return _not_claimed(home, ref)
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


def refuse_power(home: Directory, ref: str) -> None:
    """Machines of one's own are not switched on and off. NotFoundError: there is no such machine."""
    find_address(home, ref)
    raise UsageError(f"{ref} cannot be started or stopped: {NOT_OURS}", hint="`cloudsend kill run` ends jobs")


# ---- reaching ------------------------------------------------------------------------------------------------------


def open_shell(home: Directory, ref: str, command: Sequence[str]) -> int:
    return wiring.open_host(find_address(home, ref), home.path).open_shell(command)


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

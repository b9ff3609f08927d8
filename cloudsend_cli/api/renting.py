"""Rented machines: which there are, of whatever run, and how to rent, start, stop and give one back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloudsend_cli.core.costs import describe_rate
from cloudsend_cli.core.machine_views import CheckView, InstanceView
from cloudsend_cli.core.model import PENDING, RUNNING, Finding, ProviderDefinition, Rented
from cloudsend_cli.core.paid import total_cost
from cloudsend_cli.core.ports import Renter
from cloudsend_cli.core.renting import ENDED, machine_cost, parse_note
from cloudsend_cli.core.state import Changes
from cloudsend_cli.core.submission import SubmitOptions
from cloudsend_cli.engine.bills import list_bills, note_machines, open_bill
from cloudsend_cli.engine.hires import forget_hire, list_hires
from cloudsend_cli.engine.instances import Runs, name_rented, rented_view
from cloudsend_cli.engine.parallel import each_in_parallel
from cloudsend_cli.errors import CloudsendError, ConfigError, UsageError
from cloudsend_cli.maestro import wiring

from .directory import Directory

if TYPE_CHECKING:
    from cloudsend_cli.config.context import ProviderInfo
    from cloudsend_cli.engine.claiming import Released

Note = Callable[[str], None]
RUNS_LOOKED_AT = 50  # newest runs, for the providers that they had
LET_GO_LIMIT = 10.0
LOOK_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """What all providers answered. `problems`: (provider, error) of those that could not be asked."""

    machines: tuple[Rented, ...] = ()
    problems: tuple[tuple[str, CloudsendError], ...] = ()

    def tell(self, note: Note) -> None:
        for name, problem in self.problems:
            note(f"{name} could not be asked for its machines: {problem.message}")


# ---- providers -----------------------------------------------------------------------------------------------------


def list_definitions(home: Directory, *, everywhere: bool = False) -> list[ProviderDefinition]:
    """Of providers that rent: those of the newest runs and of machines that were created alone.

    `everywhere`: of all runs there ever were, and of providers.yml, of which a database that was lost may have known.
    """
    store = home.reader()
    runs = store.list_runs(None if everywhere else RUNS_LOOKED_AT)
    found = {d.settings: d for row in runs for d in row.run.providers if d.type in wiring.RENTED_TYPES}
    for hire in list_hires(home.path, wiring.RENTED_TYPES):
        found.setdefault(hire.settings, hire.definition)
    infos = _list_infos(home)
    for info in infos if everywhere or not found else ():
        if not info.implicit:
            found.setdefault(info.definition.settings, info.definition)
    if not found:  # the database was lost, or nothing was ever rented
        found = {info.definition.settings: info.definition for info in infos}
    return list(found.values())


def _list_infos(home: Directory) -> list[ProviderInfo]:
    """A mistake in providers.yml does not hide what is rented."""
    from .providers import load_infos

    try:
        infos = load_infos(home).values()
    except ConfigError:
        return []
    return [info for info in infos if info.type in wiring.RENTED_TYPES and not info.unavailable]


def was_used(home: Directory) -> bool:
    return any(wiring.was_rented(home.path, kind) for kind in wiring.RENTED_TYPES)


def ask_providers(home: Directory, provider: str | None = None, *, everywhere: bool = False) -> Asked:
    """All machines of ours, whatever run they belong to. Nobody is asked where nothing was ever rented."""
    if not was_used(home):
        return Asked()
    definitions = [d for d in list_definitions(home, everywhere=everywhere) if provider in (None, d.name)]

    def ask(definition: ProviderDefinition) -> tuple[ProviderDefinition, Sequence[Rented], CloudsendError | None]:
        try:
            return definition, wiring.open_renter(definition, home.path).list_rented(), None
        except CloudsendError as problem:
            return definition, (), problem

    machines: dict[str, Rented] = {}
    problems = []
    for definition, rented, problem in each_in_parallel(definitions, ask):
        for machine in rented:
            machines.setdefault(machine.instance_id, machine)
        if problem is not None:
            problems.append((definition.name, problem))
        else:
            note_machines(home.path, definition.name, rented)
    return Asked(tuple(machines.values()), tuple(problems))


def list_known_runs(home: Directory) -> Runs:
    store = home.reader()
    return Runs(frozenset(store.list_active_runs()), frozenset(store.find_runs("")))


def open_renter_of(home: Directory, machine: Rented) -> Renter:
    for definition in list_definitions(home, everywhere=True):
        if definition.name == machine.provider:
            return wiring.open_renter(definition, home.path)
    raise UsageError(f"{machine.instance_id} is of the provider {machine.provider}, which is not known any more")


def _open_to_change(home: Directory, machine: Rented) -> Renter:
    home.writer()  # a copy of a state directory does not know the runs of today, and is refused
    return open_renter_of(home, machine)


# ---- finding -------------------------------------------------------------------------------------------------------


def find_rented(home: Directory, view: InstanceView) -> Rented | None:
    """The machine of a view as its provider has it now; None: it is not rented, or is no more."""
    if view.rental is None or not view.instance_id:
        return None
    asked = ask_providers(home, view.provider)
    if not asked.machines and asked.problems:
        raise asked.problems[0][1]
    return next((m for m in asked.machines if m.instance_id == view.instance_id), None)


def live_runs(home: Directory, view: InstanceView) -> list[str]:
    """Runs with something left to do that have the machine."""
    return sorted(set(view.runs) & set(list_known_runs(home).active)) if view.state not in ENDED else []


def await_let_go(home: Directory, view: InstanceView) -> list[str]:
    """`live_runs`. A run whose jobs have all ended lets the machine go in a moment, which is waited for."""
    until = time.monotonic() + LET_GO_LIMIT
    while runs := live_runs(home, view):
        counts = [home.reader().run_row(run).counts for run in runs]
        if any(count.get(PENDING) or count.get(RUNNING) for count in counts) or time.monotonic() > until:
            break
        time.sleep(LOOK_AGAIN)
    return runs


# ---- renting -------------------------------------------------------------------------------------------------------


def create_rented(home: Directory, info: ProviderInfo, settings: Sequence[str], note: Note) -> InstanceView:
    from cloudsend_cli.engine.claiming import Owner
    from cloudsend_cli.engine.hiring import Hirer, hire_one
    from cloudsend_cli.engine.wire import parse_resources, parse_vitals

    from .acting import load_command

    options = SubmitOptions(provider=info.name, overrides=tuple(_override(setting) for setting in settings))
    spec = load_command(home, ["true"], options).spec
    definition = spec.providers[0]
    renter = wiring.open_renter(definition, home.path)
    named = {setting.partition("=")[0].strip() for setting in settings}
    if spec.instances[0].number != 1 and named & {"number", "count"}:
        raise _too_many(spec.instances[0].number)
    plans = renter.plan_machines([replace(spec.instances[0], number=1)])
    if len(plans) != 1:
        raise _too_many(len(plans))
    for warning in plans[0].warnings:
        note(warning)
    for aside in plans[0].asides:
        note(f"{parse_note(aside.note).type} would fit for about {describe_rate(aside.price)}; it is {aside.why}")
    store = home.writer()
    hirer = Hirer(
        home.path,
        lambda address: wiring.open_host(address, home.path),
        Owner(store.installation_id(), store.epoch()),
        note,
    )
    hired = hire_one(hirer, renter, definition, plans[0].offers, tuple(settings))
    rented = next((m for m in renter.list_rented() if m.instance_id == hired.status.instance_id), None)
    if rented is None:  # it was seen a moment ago
        status = hired.status
        rented = Rented(
            definition.name, status.instance_id, "", status.state, "", hired.node, spec.project, "", "",
            status.price, status.launched_at, None, status.address,
        )  # fmt: skip
    open_bill(home.path, rented, hired.node)
    view = rented_view(rented, list_known_runs(home), time.time())
    vitals = parse_vitals(hired.hello)
    return replace(
        view,
        name=hired.node,
        capacity=parse_resources(hired.hello.get("resources")),
        free=vitals.free,
        load=vitals.load,
        connected=True,
    )


def _too_many(count: int) -> UsageError:
    return UsageError(
        f"these settings ask for {count} machines, and one is created at a time",
        hint="leave `number` and `explode` out; `cloudsend run` rents several",
    )


def _override(setting: str) -> str:
    key, equals, value = setting.partition("=")
    if not equals:
        raise UsageError(f"'{setting}' is not KEY=VALUE", hint="such as --set type=t3.small or --set cpus=8+")
    top = key in {"project", "profile", "dev", "budget"}
    return f"{key}={value}" if top else f"instances[0].{key}={value}"


# ---- power ---------------------------------------------------------------------------------------------------------


def start(home: Directory, machine: Rented) -> None:
    open_bill(home.path, machine, name_rented(machine))
    _open_to_change(home, machine).start_instance(machine.instance_id)


def stop(home: Directory, machine: Rented) -> None:
    open_bill(home.path, machine, name_rented(machine))
    _open_to_change(home, machine).stop_instance(machine.instance_id)
    end_waiting(home, machine.instance_id)


def end_waiting(home: Directory, instance_id: str) -> None:
    """The run that kept the machine for the next one pays no longer for its waiting."""
    store, now = home.writer(), time.time()
    for run, rentals in store.list_rentals().items():
        waits = [r for r in rentals if r.instance_id == instance_id and r.waiting and (r.until or now) > now]
        if waits:
            ended = {wait.id: replace(wait, until=max(wait.since, now)) for wait in waits}
            store.write_run(run, lambda _, ended=ended: Changes(rentals=ended))  # type: ignore[misc]


def refuse_in_use(view: InstanceView, runs: Sequence[str], verb: str) -> None:
    """UsageError: a run that is not over has the machine."""
    raise UsageError(
        f"{view.name} is in use by run {', '.join(runs)}; it was not {verb}",
        hint=f"`cloudsend kill run {runs[0]}` ends the run, which lets its machines go; with --force the machine "
        "ends at once: its jobs are lost, and done again elsewhere as `retries_lost` allows",
    )


def terminate(home: Directory, machine: Rented) -> Released:
    """Give it back. One that has ended is fine."""
    from cloudsend_cli.engine.claiming import Released

    there = machine.state != "terminated"  # `ending` may be one that is about to be stopped
    bill, now = list_bills(home.path).get(machine.instance_id), time.time()
    cost = machine_cost(machine, now) if bill is None else total_cost(bill, now)
    if there:
        _open_to_change(home, machine).terminate_rented(machine.instance_id)
        end_waiting(home, machine.instance_id)
    for hire in list_hires(home.path, wiring.RENTED_TYPES):
        if hire.instance_id == machine.instance_id:
            forget_hire(home.path, hire)
    return Released(
        name_rented(machine),
        machine.provider,
        was_claimed=there,
        instance_id=machine.instance_id,
        price=machine.price,
        cost=None if cost.unknown else cost.total,
        rented=True,
    )


def list_terminable(home: Directory, note: Note, *, force: bool) -> list[Rented]:
    """What `terminate instance --all` gives back: all of ours but those of runs that are not over."""
    home.carry_on_rented(note)
    asked = ask_providers(home, everywhere=True)
    asked.tell(note)
    if not asked.machines and asked.problems:
        raise asked.problems[0][1]
    runs = list_known_runs(home)
    return [m for m in asked.machines if m.state not in ENDED and (force or m.run not in runs.active)]


# ---- looking -------------------------------------------------------------------------------------------------------


def fetch_console(home: Directory, machine: Rented) -> str:
    return open_renter_of(home, machine).fetch_console(machine.instance_id)


def check_account(home: Directory, definition: ProviderDefinition, *, fix: bool) -> Iterator[CheckView]:
    try:
        for finding in wiring.open_renter(definition, home.path).check_account(fix=fix):
            yield finding_view(definition.name, finding)
    except CloudsendError as problem:
        yield CheckView(
            definition.name, False, problem.message, problem.hint, provider=definition.name,
            code=problem.code, exit_status=problem.exit_status,
        )  # fmt: skip


def finding_view(provider: str, finding: Finding) -> CheckView:
    status = 0 if finding.ok else EXIT_STATUS.get(finding.code, 7)
    return CheckView(
        f"{provider} {finding.name}", finding.ok, finding.text, finding.hint, provider=provider,
        code=finding.code, exit_status=status,
    )  # fmt: skip


def _list_statuses() -> dict[str, int]:
    from cloudsend_cli import errors

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, CloudsendError)]
    return {kind.code: kind.exit_status for kind in kinds}


EXIT_STATUS = _list_statuses()

"""Machines: those in use and those that are claimed."""

from __future__ import annotations

from collections.abc import Iterable

from cloudsend_cli.core.machine_views import InstanceView
from cloudsend_cli.core.model import RUNNING
from cloudsend_cli.core.refs import not_found
from cloudsend_cli.engine import lookup
from cloudsend_cli.engine.instances import NodeFacts, list_machines, names_of

from .directory import Directory

GONE = frozenset({"released", "failed"})
RUNS_LOOKED_AT = 20  # for a machine that nothing uses now


# ---- machines ------------------------------------------------------------------------------------------------------


def list_instances(home: Directory, run: str | None, provider: str | None) -> list[InstanceView]:
    store = home.reader()
    if run is not None:
        return _list_machines(home, [lookup.find_run(store, run)], provider, gone=True)
    return _list_machines(home, store.list_active_runs(), provider, gone=False)


def _list_machines(home: Directory, runs: Iterable[str], provider: str | None, *, gone: bool) -> list[InstanceView]:
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
    return list_machines(facts, ())


def find_instance(home: Directory, ref: str) -> InstanceView:
    store = home.reader()
    found = list_instances(home, None, None)
    if not any(ref in names_of(machine) for machine in found):
        found = _list_machines(home, [r.run.id for r in store.list_runs(RUNS_LOOKED_AT)], None, gone=True)
    for machine in found:
        if ref in names_of(machine):
            return machine
    raise not_found("instance", ref, [name for machine in found for name in names_of(machine)])

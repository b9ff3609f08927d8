"""What could be meant by the beginning of a word. Nothing is started for it."""

from __future__ import annotations

from cloudsend_cli.core.model import PENDING, RUNNING
from cloudsend_cli.core.views import run_state_word
from cloudsend_cli.engine.hires import list_hires
from cloudsend_cli.engine.places import Place
from cloudsend_cli.errors import CloudsendError
from cloudsend_cli.maestro import wiring

from .directory import Directory
from .machines import list_instances
from .providers import choose_places, load_infos


def complete(home: Directory, kind: str, prefix: str) -> list[tuple[str, str]]:
    store = home.reader()
    words: list[tuple[str, str]] = []
    if kind == "jobs":
        for run in store.list_runs(5):
            for row in store.list_jobs(run.run.id, limit=500, newest_first=True, superseded=False):
                queued = row.state == RUNNING and row.started_at is None
                word = PENDING if queued else row.state  # as runs are counted
                words += [(f"{row.run}.{row.number}", f"{row.name} {word}"), (row.name, word)]
    elif kind == "runs":
        words = [(r.run.id, f"{r.run.project} {run_state_word(r.counts)}") for r in store.list_runs(50)]
    elif kind == "instances":
        words = [(i.name, " ".join((*i.runs, i.state))) for i in list_instances(home, None, None)]
        words += [(h.node, "rented alone") for h in list_hires(home.path, wiring.RENTED_TYPES) if h.up]
        words += [(p.node, p.address.host) for p in _places(home)]
    elif kind == "hosts":
        words = [(word, p.address.host) for p in _places(home) for word in (p.node, p.label)]
    elif kind == "providers":
        words = [(info.name, info.type) for info in load_infos(home).values()]
    return list({w: (w, text) for w, text in words if w.startswith(prefix)}.values())


def _places(home: Directory) -> list[Place]:
    """A mistake in providers.yml is no matter of completing a word."""
    try:
        return choose_places(home, None)
    except CloudsendError:
        return []

"""A lost state directory, made again from what the hosts know."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cloudsend_cli.engine.places import Place
from cloudsend_cli.errors import CloudsendError
from cloudsend_cli.maestro import wiring

from .directory import Directory
from .providers import choose_places

if TYPE_CHECKING:
    from cloudsend_cli.engine.direct import Direct
    from cloudsend_cli.engine.inventory import HostFound
    from cloudsend_cli.engine.rebuild import Rebuilt

IDS_AT_ONCE = 5000


def survey_hosts(home: Directory, provider: str | None) -> Iterator[HostFound]:
    from cloudsend_cli.engine.parallel import each_in_parallel

    places = {place.address.key: place for place in choose_places(home, provider)}  # a machine with two names is one
    return each_in_parallel(list(places.values()), partial(_read, home))


def _read(home: Directory, place: Place) -> HostFound:
    from cloudsend_cli.engine.direct import Direct
    from cloudsend_cli.engine.inventory import HostFound, read_host

    try:
        with Direct(wiring.open_host(place.address, home.path)) as talk:
            return read_host(place, talk)
    except CloudsendError as problem:
        return HostFound(place, problem=problem)


def count_foreign(home: Directory, found: HostFound) -> int:
    """Attempts that another state directory has started."""
    ours = home.writer().installation_id()
    return sum(owner != ours for _, owner in found.attempts())


def rebuild(home: Directory, found: Sequence[HostFound], *, adopt: bool) -> list[Rebuilt]:
    from cloudsend_cli.engine.rebuild import rebuild as write

    store = home.writer()
    ours = store.installation_id()
    # ORDER: adopted first. A run without its attempts' news would take silence for news.
    taken = [_adopt(home, host, ours) if adopt else _without_others(host, ours) for host in found]
    done = write(store, taken, home.path, time.time(), partial(_bring_logs, home))
    active = set(store.list_active_runs())
    for one in done:
        if one.run in active:
            home.hint(one.run).close()
    return done


def _without_others(host: HostFound, ours: str) -> HostFound:
    jobs = [job for job in host.jobs if job.owner == ours]
    builds = [build for build in host.builds if build.owner == ours]
    known = {job.run for job in jobs} | {build.run for build in builds}
    runs = {run: about for run, about in host.runs.items() if run in known}
    return replace(host, jobs=jobs, builds=builds, runs=runs)


def _adopt(home: Directory, host: HostFound, ours: str) -> HostFound:
    """Make the attempts there ours, and the claims of those who started them; nothing of a host that refuses."""
    foreign = [uid for uid, owner in host.attempts() if owner != ours]
    lost = [owner for owner in host.claims if owner in host.owners() and owner != ours]
    if host.problem is not None or not (foreign or lost):
        return host
    from cloudsend_cli.engine.direct import Direct

    try:
        with Direct(wiring.open_host(host.place.address, home.path), ours, home.writer().epoch()) as talk:
            for first in range(0, len(foreign), IDS_AT_ONCE):
                talk.ask("adopt", attempts=foreign[first : first + IDS_AT_ONCE])
            if lost:
                _take_claims(home, host.place, talk, lost)
    except CloudsendError as problem:
        return replace(_without_others(host, ours), problem=problem)
    return host


def _take_claims(home: Directory, place: Place, talk: Direct, lost: Sequence[str]) -> None:
    from cloudsend_cli.engine.claiming import make_claim

    make_claim(place, wiring.open_provider(place.provider, home.path))
    talk.ask("claim")
    for owner in lost:
        talk.ask("release", owner=owner)


def _bring_logs(home: Directory, place: Place, attempts: Sequence[str]) -> None:
    """As far as it goes: what does not come now comes with the results, or when it is asked for."""
    from cloudsend_cli.engine.direct import Direct
    from cloudsend_cli.engine.homelogs import bring_logs

    with contextlib.suppress(CloudsendError), Direct(wiring.open_host(place.address, home.path)) as talk:
        talk.converse(bring_logs(dict.fromkeys(attempts), home.path / "logs"))

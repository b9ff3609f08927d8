"""A real agent and a link to it, without a maestro."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from real_stack import DEADLINE, find_agent, find_processes

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.metrics import Metrics
from cloudsend_cli.core.model import AttemptStatus, HostAddress, HostView, JobSpec, Output, Resources, Upload
from cloudsend_cli.engine.hearsay import HERE
from cloudsend_cli.engine.hostpool import HostPool, RunFacts, RunHosts
from cloudsend_cli.hosts.local import LocalHost

RUN = "r00000"


class Machine:
    """One machine as a run sees it: news is awaited, remembered, and never asked for twice."""

    def __init__(self, directory: Path, *, run: str = RUN, epoch: int = 1, pool: HostPool | None = None) -> None:
        self.directory = directory
        self.home = directory / "agent"
        self.results = directory / "results"
        self.log: list[str] = []
        self.pool = pool or HostPool(LocalHost, "owner", epoch, self.log.append)
        self.owns_pool = pool is None
        self.news = threading.Condition()
        self.woken = 0
        self.fenced = threading.Event()
        facts = RunFacts({"PATH": "/usr/bin:/bin"}, str(self.results), lambda: {"TOKEN": "s3cret"})
        self.hosts = RunHosts(
            run,
            self.pool,
            self.wake,
            lambda: facts,
            self.fenced.set,
            directory / "logs",
            resumes=directory / "resume",
            weigh=lambda *_: HERE,
        )
        self.run = run
        self.view: HostView | None = None
        self.views: list[HostView] = []
        self.reported: list[frozenset[str]] = []
        self.attempts: dict[str, AttemptStatus] = {}
        self.told: list[tuple[str, str]] = []
        self.fetched: dict[str, str] = {}
        self.metrics: dict[str, Metrics] = {}  # that came with what was fetched

    def wake(self) -> None:
        with self.news:
            self.woken += 1
            self.news.notify_all()

    def drain(self) -> None:
        for item in self.hosts.drain().values():
            self.view = item.view
            self.views.append(item.view)
            if item.view.reported is not None:
                self.reported.append(item.view.reported)
            self.attempts.update(item.attempts)
            self.told.extend((a, s.state) for a, s in item.attempts.items())
            self.fetched.update(item.fetched)
            self.metrics.update(item.metrics)

    def until(self, happened: Callable[[], object]) -> None:
        while True:
            with self.news:
                seen = self.woken
            self.drain()
            if happened():
                return
            with self.news:
                assert self.news.wait_for(lambda seen=seen: self.woken > seen, DEADLINE), (
                    self.view,
                    self.attempts,
                    self.log,
                )

    def connect(self, capacity: Resources | None = None, *, alias: str = "", far: bool = False) -> HostView:
        """`far`: as a machine that is another one, whose logs have to come home."""
        settings = (("alias", alias),) if alias else (("shared", "true"),) if far else ()
        kind = "ssh" if far else "local"
        address = HostAddress(kind, f"local:{self.home}", home=str(self.home), settings=settings)
        self.hosts.connect("n", address, capacity)
        self.until(lambda: self.view is not None and self.view.connected)
        assert self.view is not None
        return self.view

    def start(self, *starts: AttemptStart, files: Sequence[Upload] = ()) -> None:
        assert self.view is not None
        self.hosts.start("n", self.view.boot, starts, files)

    def job(
        self,
        number: int,
        script: str,
        *,
        uploads: Sequence[Upload] = (),
        outputs: Sequence[str] = (),
        cpus: float = 0.1,
        secrets: Sequence[str] = (),
    ) -> AttemptStart:
        spec = JobSpec(
            name=f"j{number}",
            argv=("/bin/sh", "-c", script),
            display=script,
            resources=Resources(cpus),
            uploads=tuple(uploads),
            outputs=tuple(Output(o) for o in outputs),
            secrets=tuple(secrets),
        )
        return AttemptStart(f"{self.run}.{number}.1", spec)

    def ended(self, number: int, attempt: int = 1) -> AttemptStatus:
        name = f"{self.run}.{number}.{attempt}"
        self.until(lambda: name in self.attempts and self.attempts[name].state not in {"running", "queued"})
        return self.attempts[name]

    def running(self, number: int) -> None:
        name = f"{self.run}.{number}.1"
        self.until(lambda: name in self.attempts and self.attempts[name].state == "running")

    def fetch(self, number: int, *patterns: str, name: str | None = None) -> str:
        attempt = f"{self.run}.{number}.1"
        self.fetched.pop(attempt, None)
        self.hosts.fetch("n", attempt, patterns, name or f"j{number}")
        self.until(lambda: attempt in self.fetched)
        return self.fetched[attempt]

    def agent(self) -> int:
        pid = find_agent(self.home)
        assert pid is not None
        return pid

    def bridge(self) -> int:
        return next(p for p, c in find_processes(self.directory).items() if b"\0attach\0" in c)

    def close(self) -> None:
        self.hosts.close()
        if self.owns_pool:
            self.pool.close()

"""Calls of one function as a run, and the handle by which a program waits for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudsend_cli.config.context import FunctionTasks
from cloudsend_cli.core.submission import Submitted
from cloudsend_cli.engine.submit import Keep
from cloudsend_cli.errors import ConflictError, UsageError, WaitTimeout

from .sections import read_pool
from .tasks import Call, Pool, name_of, plan_tasks, show_value

if TYPE_CHECKING:
    from cloudsend_cli.api.client import Client
    from cloudsend_cli.api.events import RunEvent
    from cloudsend_cli.api.results import JobResult
    from cloudsend_cli.core.views import RunView

WORD = "\0call"


@dataclass(frozen=True, slots=True)
class Work:
    """Calls of one function, the places they share, and the keys of their group and of their config."""

    function: Callable[..., object]
    calls: tuple[Call, ...]
    slots: Mapping[str, Sequence[object]] | None
    name: str  # of the section; "": the function's
    keys: Mapping[str, object]
    config: Mapping[str, object]


def list_calls(points: Iterable[Mapping[str, object]]) -> tuple[Call, ...]:
    """UsageError: a point is no mapping of arguments by name."""
    points = list(points)
    for point in points:
        if not _is_point(point):
            hint = "write [{'x': 1}, {'x': 2}]; `submit_function` takes arguments by place"
            raise UsageError(f"a point is a dict of named arguments, not {point!r:.80}", hint=hint)
    return tuple(Call((), dict(p), tuple((k, show_value(v)) for k, v in p.items())) for p in points)


def _is_point(point: object) -> bool:
    return isinstance(point, Mapping) and all(isinstance(name, str) for name in point)


def plan_work(work: Work, keep: Keep) -> tuple[dict[str, object], dict[str, FunctionTasks], tuple[str, ...]]:
    """(config, functions, names of the jobs in the order of the calls)."""
    for key in ("sections", "jobs"):
        if key in work.config:
            raise UsageError(f"the config of a function has no {key!r}", hint="submit a dict with sections instead")
    keys = dict(work.keys)
    python = keys.pop("python", "")
    pool = Pool() if work.slots is None else read_pool(work.slots)
    tasks = plan_tasks(work.function, work.calls, keep, pool=pool, python=str(python or ""))
    section = work.name or re.sub(r"[^A-Za-z0-9_.-]+", "_", name_of(work.function)).strip("_.-") or "function"
    group = "calls"
    if work.slots is None:
        keys.setdefault("cpus", 1)
    config = {**work.config, "sections": {section: {group: {"Call": WORD, **keys}}}}
    return config, {WORD: tasks}, tuple(f"{section}/{group}/{number}" for number in range(len(work.calls)))


class FunctionRun:
    """Calls of a function that are on their way. May be used from several threads.

    `ids`: of the jobs, in the order of the calls.
    """

    def __init__(self, client: Client, submitted: Submitted, ids: Sequence[str]) -> None:
        self._client = client
        self._ids = tuple(ids)
        self.submitted = submitted
        self.run = submitted.run

    def __repr__(self) -> str:
        return f"<FunctionRun {self.run}: {len(self._ids)} calls>"

    def __len__(self) -> int:
        return len(self._ids)

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        """All results in the order of the calls, once every one has ended and is home. WaitTimeout: they go on."""
        wait_until_home(self._client, self.run, timeout)
        return self.results()

    def results(self) -> list[JobResult]:
        """Of all calls, in their order, as they are now.

        ConflictError: the run was continued, by this program or another, without some of these calls.
        """
        return select_results(self._client, self.run, self._ids, "calls")

    def values(self, timeout: float | None = None) -> list[Any]:
        """What all calls returned, in their order. Raises the first exception, as `JobResult.value` does."""
        return [result.value() for result in self.wait(timeout)]

    def value(self, timeout: float | None = None) -> Any:
        """What the only call returned."""
        if len(self._ids) != 1:
            raise UsageError(f"run {self.run} has {len(self._ids)} calls", hint="use values()")
        return self.values(timeout)[0]

    def events(self, timeout: float | None = None) -> Iterator[RunEvent]:
        """What happens from the submission on, until the run is settled."""
        return self._client.events(self.run, since=self.submitted.since, timeout=timeout)

    def cancel(self) -> RunView:
        """Ask for the end of all calls; `wait` sees it."""
        return self._client.cancel_run(self.run)


def select_results(client: Client, run: str, ids: Collection[str], what: str) -> list[JobResult]:
    """Of these jobs of the run, in their order. ConflictError: it was continued without some of them."""
    found = {result.id: result for result in client.results(run)}
    gone = sum(id not in found for id in ids)
    if gone:
        told = f"run {run} was continued without {gone} of these {len(ids)} {what}, which it has ended"
        raise ConflictError(told, hint="give each sweep a `continue_as` of its own")
    return [found[id] for id in ids]


def wait_until_home(client: Client, run: str, timeout: float | None) -> None:
    """Until no job of the run is open and all results are at home, or given up."""
    began = time.monotonic()
    settled = False
    for progress in client.follow(run, timeout=timeout):
        settled = progress.settled
    if not settled:
        waited = time.monotonic() - began if timeout is None else timeout
        raise WaitTimeout(f"run {run} is not finished after {waited:g} s", hint="it goes on")

"""What came home of a job, for programs: its state, its files, and the value of its function."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudsend_cli.agent.client import plain
from cloudsend_cli.core.model import FINAL_STATES, SUCCEEDED
from cloudsend_cli.core.views import JobView
from cloudsend_cli.engine import lookup
from cloudsend_cli.engine.results import MANIFEST, Home, job_directory
from cloudsend_cli.errors import FunctionError, UsageError

from .directory import Directory
from .functions import FOLDER, VALUE
from .reading import job_views

HEADER_MOST = 4 << 20
TRACEBACK_MOST = 1000  # characters of a line


class RemoteTraceback(Exception):
    """The traceback of an exception where it was raised, as its cause here: Python shows it above."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


@dataclass(frozen=True, slots=True)
class JobResult:
    """One job and what it left. Nothing of a machine's is executed before `value()` is called."""

    id: str
    name: str
    run: str
    state: str
    reason: str
    exit_code: int | None
    attempt: int
    params: Mapping[str, str]
    metrics: Mapping[str, str]  # what it reported, as it was written
    started_at: float | None
    ended_at: float | None
    directory: Path  # where its results come home
    uid: str | None = None  # of its newest attempt
    outputs: str = ""  # "", "wanted" (they are on their way), "home", or "failed: why"

    @property
    def succeeded(self) -> bool:
        return self.state == SUCCEEDED

    @property
    def duration(self) -> float | None:
        """Seconds; None: it has not started, or has not ended."""
        return None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at

    @property
    def files(self) -> tuple[Path, ...]:
        """Its outputs at home, sorted. Empty while they are on their way."""
        return tuple(
            self.directory / path for path in sorted(self._list_home() or ()) if not path.startswith(f"{FOLDER}/")
        )

    @property
    def error(self) -> str:
        """What its function raised, as `ValueError: no such seed`; "" where it raised nothing."""
        head = self._read_header()
        if head is None or head.get("kind") in {"value", "exit"}:
            return ""
        kind, words = head.get("type"), plain(head.get("message"))
        return f"{plain(kind)}: {words}" if kind and head.get("kind") != "unpicklable" else words

    @property
    def traceback(self) -> str:
        """Of what its function raised; "" where it raised nothing."""
        head = self._read_header()
        text = str(head.get("traceback", "")) if head is not None else ""
        return "\n".join(plain(line, TRACEBACK_MOST) for line in text.split("\n"))

    def value(self) -> Any:
        """What its function returned. Unpickling it executes what the machine sent: see docs/security.md.

        Raises what the function raised, its traceback on the machine as the cause; FunctionError where that cannot be
        had, or there is no value. UsageError: the job has not ended, or is no function's.
        """
        if self.state not in FINAL_STATES:
            raise UsageError(f"{self.name} has not ended: it is {self.state}", hint="wait for its run first")
        head = self._read_header()
        if head is None:
            raise self._describe_nothing()
        kind = head.get("kind")
        if kind == "raised":
            raise self._rebuild()
        if kind == "exit" and head.get("code") == 0 and self.succeeded:
            return None
        if kind == "value" and self.succeeded:
            return self._unpickle()
        words = self.reason if kind == "value" else plain(head.get("message"))
        if kind == "exit":
            words = f"its function ended the program with {words}"
        raise FunctionError(f"{self.name}: {words}", hint=plain(head.get("hint", "")), context=self.traceback)

    def _describe_nothing(self) -> FunctionError | UsageError:
        if self.outputs == "wanted":
            return UsageError(f"{self.name}: its value is not home yet", hint="wait for its run first")
        if self.outputs.startswith("failed"):
            why = plain(self.outputs.removeprefix("failed: "))
            hint = f"`cloudsend fetch {self.id}` tries again"
            return FunctionError(f"{self.name}: its value could not be brought home: {why}", hint=hint)
        if self.outputs == "home" and self._list_home() is None:
            hint = "they were moved, or lie by an earlier name of the job among results of others"
            return UsageError(f"{self.name}: its results are not in {self.directory}", hint=hint)
        if self.succeeded:
            hint = "what a command leaves is in `files`"
            return UsageError(f"{self.name} has no value: only jobs of functions leave one", hint=hint)
        hint = f"`cloudsend explain {self.id}` says why, and `cloudsend tail {self.id}` what it wrote"
        return FunctionError(f"{self.name} {self.state} ({self.reason}) and left no value", hint=hint)

    def _rebuild(self) -> BaseException:
        text = self.traceback
        try:
            found = self._unpickle()
        except Exception:  # noqa: BLE001 - what was raised there may be anything, and need what is not here
            found = None
        if not isinstance(found, Exception):
            # A KeyboardInterrupt or SystemExit of the machine is none of this program.
            found = FunctionError(f"{self.name}: {self.error}", context=text)
        found.__cause__ = RemoteTraceback(text)
        return found

    def _unpickle(self) -> object:
        from .functions.pickling import loads

        data = (self.directory / VALUE).read_bytes().partition(b"\n")[2]
        if not data:
            return None
        try:
            return loads(data)
        except Exception as problem:
            hint = "it takes the modules that it is made of, and the version of Python that it was made with"
            raise FunctionError(f"{self.name}: its value cannot be read here: {problem}", hint=hint) from problem

    def _list_home(self) -> list[str] | None:
        """The paths that came home of its newest attempt; None where nothing of it is there."""
        try:
            manifest = json.loads((self.directory / MANIFEST).read_text(encoding="utf-8"))
            if manifest["attempt"] != self.uid:
                return None
            return [str(file["path"]) for file in manifest["files"]] + [str(path) for path in manifest["links"]]
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _read_header(self) -> dict[str, object] | None:
        """The first line of what a function's job left; None where there is none of its newest attempt."""
        if VALUE not in (self._list_home() or ()):
            return None
        try:
            with open(self.directory / VALUE, "rb") as file:
                head = json.loads(file.readline(HEADER_MOST))
        except (OSError, ValueError, RecursionError):
            return None
        return head if isinstance(head, dict) and isinstance(head.get("kind"), str) else None


def job_result(view: JobView, results_dir: str) -> JobResult:
    return JobResult(
        id=view.id,
        name=view.name,
        run=view.run,
        state=view.state,
        reason=view.reason,
        exit_code=view.exit_code,
        attempt=view.attempt,
        params=view.params,
        metrics=view.metrics,
        started_at=view.started_at,
        ended_at=view.ended_at,
        directory=job_directory(Home(results_dir, view.run, view.name)),
        uid=view.uid,
        outputs=view.outputs,
    )


def list_results(home: Directory, ref: str) -> Iterator[JobResult]:
    """Of all jobs of the run as it is now, in their order."""
    store = home.reader()
    run = lookup.find_run(store, ref)
    results_dir = store.run_row(run).run.results_dir
    for view in job_views(home, store, run, store.list_jobs(run, superseded=False)):
        yield job_result(view, results_dir)

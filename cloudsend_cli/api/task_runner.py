"""`TaskRunner`: sections one after another, their groups at the same time, commands and Python functions alike."""

from __future__ import annotations

import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudsend_cli.core.model import SUCCEEDED, RunSpec
from cloudsend_cli.core.plan import Continued, NodePlan
from cloudsend_cli.core.submission import SubmitOptions
from cloudsend_cli.core.views import run_state_word
from cloudsend_cli.errors import ConfigError, JobsFailed, Problem, UsageError

from .client import Client
from .events import JobEnded, JobReopened, JobStarted, MachineChanged
from .functions.runs import select_results

if TYPE_CHECKING:
    from .results import JobResult

LINES = "%(asctime)s %(levelname)s %(message)s"
LEVELS = (logging.CRITICAL + 1, logging.INFO, logging.DEBUG)  # by how much is wished to be told
SHOWN_MOST = 5
LONGEST_DELAY = 86_400.0

logging.getLogger("cloudsend_cli").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class TaskResults:
    """What became of all tasks. `run` is "" where there were none."""

    run: str
    state: str
    jobs: tuple[JobResult, ...] = ()

    def __iter__(self) -> Iterator[JobResult]:
        return iter(self.jobs)

    @property
    def failed(self) -> tuple[JobResult, ...]:
        return tuple(job for job in self.jobs if job.state != SUCCEEDED)

    def group(self, section: str, group: str) -> tuple[JobResult, ...]:
        """The tasks of one group in the order of their parameters."""
        start = f"{section}/{group}/"
        return tuple(job for job in self.jobs if job.name.startswith(start))


class _NothingToRun(Exception):
    """Stops a submission that would be an empty run."""


class TaskRunner:
    """A dict of sections and groups, run on any machine. Its tasks are a run as any other: see `cloudsend list jobs`.

    `{section: {group: {"Call": command or function, "Param": {name: values}, "Async": {name: values}, …}}}`, where a
    group takes the keys of a job as well. Nothing is printed unless `set_verbose` asks for it.
    """

    def __init__(  # noqa: PLR0913 - each is an option of its own
        self,
        config: Mapping[str, Mapping[str, Mapping[str, object]]],
        delay: float = 0.0,
        *,
        provider: str | None = None,
        state_dir: str | Path | None = None,
        results_dir: str | Path | None = None,
        folder: str | Path | None = None,
        overrides: Sequence[str] = (),
        continue_as: str = "",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """ConfigError: the dict has not that form. `settings` are further keys of a config, such as instances.

        `delay`: seconds between the first tasks of two places, and of two groups: not all of them begin at once.

        Relative paths, and `providers.yml`, are looked for in `folder`, else in the working directory.
        """
        check_sections(config)
        _check_delay(delay)
        self.config = config
        self._client = Client(state_dir)
        self._settings = {"delay": delay, **(settings or {})} if delay else dict(settings or {})
        if results_dir is not None:
            self._settings["results_dir"] = str(Path(results_dir).expanduser().absolute())
        self._options = SubmitOptions(
            provider=provider,
            overrides=tuple(overrides),
            continue_as=continue_as,
            folder="" if folder is None else str(Path(folder).expanduser().absolute()),
        )
        self._log = logging.Logger("cloudsend_cli.task_runner", logging.DEBUG)
        self._log.parent = logging.getLogger("cloudsend_cli")
        self._screen: logging.Handler | None = None

    def output_log(
        self,
        file: str | Path,
        level: int = logging.INFO,
        filemode: str = "a",
        format: str = LINES,
        datefmt: str | None = None,
    ) -> None:
        """Also write what goes on to a file. UsageError: it cannot be written."""
        try:
            handler = logging.FileHandler(file, filemode, encoding="utf-8")
        except (OSError, ValueError) as problem:
            raise UsageError(f"the log {file} cannot be written: {problem}", hint="name another file") from problem
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter(format, datefmt))
        self._log.addHandler(handler)

    def set_verbose(self, n: int) -> None:
        """What is told on stderr: 0 nothing, 1 starts and ends of tasks, 2 machines as well."""
        if self._screen is not None:
            self._log.removeHandler(self._screen)
            self._screen = None
        if n > 0:
            self._screen = logging.StreamHandler(sys.stderr)
            self._screen.setLevel(LEVELS[min(n, len(LEVELS) - 1)])
            self._screen.setFormatter(logging.Formatter(LINES))
            self._log.addHandler(self._screen)

    def run(self, *, check: bool = True) -> TaskResults:
        """All tasks, once they have ended and their results are at home.

        JobsFailed: some task failed, after all have been tried; with `check=False` the results say so.
        ConflictError: the run was continued meanwhile, by this program or another, without some of these tasks.
        """
        try:
            submitted = self._client.submit(
                {**self._settings, "sections": self.config}, (), self._options, _refuse_nothing
            )
        except _NothingToRun:
            self._warn("no task is to be run: all lists of parameters are empty")
            return TaskResults("", SUCCEEDED)
        for warning in submitted.warnings:
            self._warn(warning.message)
        self._log.info("run %s", submitted.run)
        for event in self._client.events(submitted.run, since=submitted.since):
            self._tell(event)
        jobs = tuple(select_results(self._client, submitted.run, submitted.ids.values(), "tasks"))
        results = TaskResults(submitted.run, run_state_word(Counter(job.state for job in jobs)), jobs)
        if check and results.failed:
            raise JobsFailed(_describe_failed(results), hint=f"`cloudsend list jobs --run {results.run}` shows all")
        return results

    def close(self) -> None:
        """Close the log files, and what this thread has open. Tasks go on."""
        for handler in list(self._log.handlers):
            self._log.removeHandler(handler)
            handler.close()
        self._client.close()

    def _warn(self, text: str) -> None:
        self._log.warning("%s", text)
        warnings.warn(text, stacklevel=3)

    def _tell(self, event: object) -> None:
        if isinstance(event, JobStarted):
            self._log.info("started: %s on %s", _path(event.name), event.instance)
        elif isinstance(event, JobEnded):
            why = f" ({event.reason})" if event.reason else ""
            level = logging.INFO if event.state == SUCCEEDED else logging.ERROR
            self._log.log(level, "%s: %s%s", event.state, _path(event.name), why)
        elif isinstance(event, JobReopened):
            self._log.warning("again: %s (%s)", _path(event.name), event.reason)
        elif isinstance(event, MachineChanged):
            self._log.debug("machine %s: %s %s", event.machine, event.state, event.reason)


def _path(name: str) -> str:
    return " | ".join(name.rsplit("/", 2))


def _refuse_nothing(spec: RunSpec, nodes: Sequence[NodePlan], continued: Continued | None) -> None:
    if not spec.jobs:
        raise _NothingToRun


def _describe_failed(results: TaskResults) -> str:
    failed = results.failed
    some = [f"{task.name} ({task.error or task.reason or task.state})" for task in failed[:SHOWN_MOST]]
    more = f" and {len(failed) - SHOWN_MOST} more" if len(failed) > SHOWN_MOST else ""
    return f"{len(failed)} of {len(results.jobs)} tasks failed: {'; '.join(some)}{more}"


# ---- the form of the dict ------------------------------------------------------------------------------------------


def check_sections(config: object) -> None:
    """ConfigError with all that is not of the right type, each with its section and group."""
    problems = [Problem(text, file="config", path=path) for path, text in _list_mistakes(config)]
    if problems:
        raise ConfigError(problems)


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[:1] in "aeiou" else f"a {name}"


def _list_mistakes(config: object) -> Iterator[tuple[str, str]]:
    if not isinstance(config, Mapping):
        yield "", f"expected a dict of sections, not {_kind(config)}"
        return
    for section, groups in config.items():
        path = f"sections.{section}"
        if not isinstance(section, str):
            yield path, f"the section {section!r}: its name is {_kind(section)}, not a text"
        if not isinstance(groups, Mapping):
            yield path, f"the section {section!r}: expected a dict of groups, not {_kind(groups)}"
            continue
        for name, group in groups.items():
            for text in _list_group_mistakes(name, group):
                yield f"{path}.{name}", f"the group {name!r} of the section {section!r}: {text}"


def _list_group_mistakes(name: object, group: object) -> Iterator[str]:
    if not isinstance(name, str):
        yield f"its name is {_kind(name)}, not a text"
    if not isinstance(group, Mapping):
        yield f"expected a dict with 'Call', not {_kind(group)}"
        return
    lower = {str(key).lower(): value for key, value in group.items()}
    call = lower.get("call")
    if call is None:
        yield "it needs 'Call', a command or a function"
    elif not isinstance(call, str) and not callable(call):
        yield f"'Call' is a command or a function, not {_kind(call)}"
    for key in ("Param", "Async"):
        lists = lower.get(key.lower())
        if lists is not None and not isinstance(lists, Mapping):
            yield f"{key!r} is a dict of names and lists, not {_kind(lists)}"


def _check_delay(delay: object) -> None:
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise ConfigError([Problem(f"delay is a number of seconds, not {_kind(delay)}")])
    if not 0 <= delay < LONGEST_DELAY:
        raise ConfigError([Problem(f"delay={delay:g} is not a number of seconds from 0 to {LONGEST_DELAY:g}")])

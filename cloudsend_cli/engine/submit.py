"""A config becomes a committed run: load, plan, snapshot what jobs are given, commit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloudsend_cli.config.effects import RENTED_TYPES
from cloudsend_cli.config.load import (
    FunctionTasks,
    LoadContext,
    Loaded,
    LoadOptions,
    ProviderInfo,
    load_command,
    load_config,
    load_mapping,
)
from cloudsend_cli.config.providers import list_search_paths, load_providers
from cloudsend_cli.core.model import (
    EnvironmentBuild,
    EnvironmentSpec,
    InstanceSpec,
    JobSpec,
    ProviderDefinition,
    RunSpec,
    Upload,
)
from cloudsend_cli.core.naming import attempt_id, job_id, node_name, run_id
from cloudsend_cli.core.overtaken import warn_of_overtaken
from cloudsend_cli.core.plan import AT_HAND, Continued, NodePlan, plan_continue, plan_run
from cloudsend_cli.core.ports import Event, Provider
from cloudsend_cli.core.state import Changes, RunState
from cloudsend_cli.core.submission import UNREACHED, PlanView, SubmitOptions, Submitted
from cloudsend_cli.environments.render import render_environment
from cloudsend_cli.errors import ConfigError, ConflictError, Problem, UsageError
from cloudsend_cli.store.sqlite import SqliteStore

from .results import Home, rename_homes

LARGEST_SNAPSHOT = 64 << 20  # larger files are read where they are, and checked by their hash when they are sent
# Stands for Python in the command of a function's job, whose next words are our program and the version that it needs.
ANY_PYTHON = "\0python"
Config = str | Mapping[str, object]
Keep = Callable[[str, bytes], Upload]  # a path in the run directory, and what is to be there
# A config, in which words replace functions, and the tasks by these words.
TakeFunctions = Callable[[Mapping[str, object], Keep], tuple[Mapping[str, object], Mapping[str, FunctionTasks]]]

# Told what is planned before it is committed; what it raises stops that. None: a new run.
Announce = Callable[[RunSpec, Sequence[NodePlan], Continued | None], None]


@dataclass(frozen=True, slots=True)
class Submitter:
    """The one way from a config to the store. `open_provider`: of a definition whose type can be used."""

    state_dir: Path
    open_provider: Callable[[ProviderDefinition], Provider]
    environ: Mapping[str, str]
    cwd: Path

    def load(
        self,
        config: Config | None,
        argv: Sequence[str],
        options: SubmitOptions,
        take_functions: TakeFunctions | None = None,
        *,
        keep: bool,
    ) -> Loaded:
        """ConfigError with all problems. With `keep`, what jobs are given is copied: later edits do no harm."""
        functions: dict[str, FunctionTasks] = {}

        def take(value: object) -> object:
            if take_functions is None or not isinstance(value, Mapping):
                return value
            plain, found = take_functions(value, lambda path, data: self.upload(path, data, keep=keep))
            functions.update(found)
            return plain

        folder = os.path.abspath(options.folder or self.cwd)
        if isinstance(config, str):
            folder = os.path.dirname(os.path.abspath(config))
        context = LoadContext(
            providers=self._list_providers(folder),
            render_environment=_render,
            snapshot=self._snapshot if keep else None,
            open_provider=self.open_provider,
            functions=functions,
            take_functions=take,
        )
        loaded = self._load(config, argv, options, context, folder)
        return replace(loaded, spec=choose_python(loaded.spec)) if functions else loaded

    def _load(
        self, config: Config | None, argv: Sequence[str], options: SubmitOptions, context: LoadContext, folder: str
    ) -> Loaded:
        asked = LoadOptions(
            self.environ, context, options.overrides, options.name, options.provider, options.max_parallel
        )
        take = context.take_functions
        if isinstance(config, Mapping):
            plain = take(config) if take is not None else config
            plain = plain if isinstance(plain, Mapping) else config
            return load_mapping(plain, asked, folder=folder, config_path=_path_of_mapping(options))
        if options.continue_as or options.folder:
            raise UsageError("continue_as and folder are for dicts", hint="a config file has its path")
        if config is not None:
            return load_config(config, asked)
        return load_command(argv, asked, cwd=str(self.cwd))

    def plan(
        self,
        store: SqliteStore,
        config: Config | None,
        argv: Sequence[str],
        options: SubmitOptions,
        take_functions: TakeFunctions | None = None,
    ) -> PlanView:
        """Nothing is written and nothing is started."""
        loaded = self.load(config, argv, options, take_functions, keep=False)
        nodes = tuple(self._plan_nodes(loaded.spec))
        old = self._earlier_run(store, loaded.spec, options)
        continued = None
        kept: frozenset[str] = frozenset()
        warnings = loaded.warnings
        if old is not None:
            state = store.load(old)
            changes, continued = plan_continue(state, loaded.spec, nodes, time.time())
            kept = frozenset(changes.jobs.get(n, state.jobs[n]).spec.name for n in continued.kept)
            warnings += _warn_of_overtaken(continued)
            nodes = tuple(_mark_at_hand(state, nodes))
        history = store.read_history(loaded.spec.project)
        return PlanView(loaded.spec, nodes, continued, old, warnings, history, kept)

    def submit(
        self,
        store: SqliteStore,
        loaded: Loaded,
        options: SubmitOptions,
        keep_secrets: Callable[[str, Mapping[str, str]], None],
        announce: Announce = lambda spec, nodes, continued: None,
    ) -> Submitted:
        """What was loaded with `keep`. The run is durable when this returns. Before it is committed, `announce` is
        called with the plan, and `keep_secrets` with the run's id."""
        spec = loaded.spec
        nodes = self._plan_nodes(spec)
        secrets = {name: self.environ[name] for job in spec.jobs for name in job.secrets}
        since = store.newest_event()
        for _ in range(20):
            old = self._earlier_run(store, spec, options)
            if old is not None:
                keep_secrets(old, secrets)
                continued = self._continue(store, old, spec, nodes, announce)
                warnings = loaded.warnings + _warn_of_overtaken(continued)
                return Submitted(old, continued, warnings, since, _list_ids(old, continued.numbers))
            announce(spec, nodes, None)
            state = plan_run(spec, nodes, run_id(os.urandom(8)), time.time(), store.read_history(spec.project))
            events = [Event("submitted", state.run.id, spec.config_path)]
            # The id is taken, or another process made the run of this config meanwhile, which is continued then.
            with contextlib.suppress(ConflictError):
                keep_secrets(state.run.id, secrets)
                store.create_run(state, events, first=_continues(spec, options))
                numbers = {job.spec.name: number for number, job in state.jobs.items()}
                return Submitted(state.run.id, None, loaded.warnings, since, _list_ids(state.run.id, numbers))
        raise ConflictError("no free run id was found in 20 tries", hint="try again")

    def _continue(
        self, store: SqliteStore, run: str, spec: RunSpec, nodes: Sequence[NodePlan], announce: Announce
    ) -> Continued:
        outcome: list[Continued] = []
        renamed: list[tuple[Home, Home, str]] = []
        history = store.read_history(spec.project)

        def update(state: RunState) -> Changes:
            changes, continued = plan_continue(state, spec, nodes, time.time(), history)
            renamed[:] = list(_list_renamed(state, changes))
            if not outcome:
                announce(spec, list(_mark_at_hand(state, nodes)), continued)
            outcome.append(continued)
            return changes

        event = Event("submitted", run, spec.config_path)
        store.write_run(run, update, [event], environments=spec.environments)
        with contextlib.suppress(OSError):
            rename_homes(renamed)
        return outcome[-1]

    def _earlier_run(self, store: SqliteStore, spec: RunSpec, options: SubmitOptions) -> str | None:
        if not _continues(spec, options):
            return None
        run = store.find_run_of_config(spec.project, spec.config_path)
        unreached = dict(store.run_row(run).run.settings).get(UNREACHED) if run is not None else None
        if unreached:
            # An attempt that such a machine holds could be given the same id again elsewhere.
            raise UsageError(
                f"run {run} was rebuilt while {unreached} did not answer, and may have jobs there",
                hint="`cloudsend rebuild` when it answers, or --fresh for a new run",
            )
        return run

    def _plan_nodes(self, spec: RunSpec) -> list[NodePlan]:
        """What the loader has checked already, with places; here nothing is started that would not work."""
        nodes: dict[str, NodePlan] = {}
        for definition in spec.providers:
            provider = self.open_provider(definition)
            mine = [instance for instance in spec.instances if instance.provider == definition.name]
            problems = [text for instance in mine for text in provider.check(instance)]
            if problems:
                raise ConfigError([Problem(text, file=spec.config_path) for text in problems])
            for number, machine in enumerate(provider.plan_machines(mine)):
                name = node_name(definition.name, machine.label, number)
                if name in nodes:
                    text = f"providers {nodes[name].provider!r} and {definition.name!r} both have a machine {name!r}"
                    raise ConfigError([Problem(text, file=spec.config_path, hint="rename one of them")])
                nodes[name] = NodePlan(
                    name, definition.name, machine.offers, machine.warnings, machine.asides, machine.waiting
                )
        return list(nodes.values())

    def _list_providers(self, folder: str) -> dict[str, ProviderInfo]:
        """Those of `providers.yml`; of machines that exist, with the largest that is known to be there."""
        known = load_providers(list_search_paths(folder, self.environ), self.environ)
        return {
            name: info
            if info.unavailable or info.type in RENTED_TYPES
            else replace(info, largest=self.open_provider(info.definition).largest(InstanceSpec(name)))
            for name, info in known.items()
        }

    def upload(self, path: str, data: bytes, *, keep: bool) -> Upload:
        """Bytes that are to be a file in the run directory."""
        sha256 = hashlib.sha256(data).hexdigest()
        if keep:
            self._keep(sha256, lambda temporary: temporary.write_bytes(data))
        return Upload(path, sha256, len(data), 0o600, str(self._place(sha256)))

    def _snapshot(self, path: Path, sha256: str) -> str:
        if path.stat().st_size > LARGEST_SNAPSHOT:
            return str(path)
        self._keep(sha256, lambda temporary: shutil.copyfile(path, temporary))
        return str(self._place(sha256))

    def _place(self, sha256: str) -> Path:
        return self.state_dir / "files" / sha256

    def _keep(self, sha256: str, write: Callable[[Path], object]) -> None:
        """Content is kept once, and is there whole or not at all."""
        kept = self._place(sha256)
        if not kept.exists():
            kept.parent.mkdir(mode=0o700, exist_ok=True)
            temporary = kept.with_name(f".{sha256[:16]}-{os.getpid()}-{threading.get_ident()}")
            write(temporary)
            os.replace(temporary, kept)


def _list_renamed(state: RunState, changes: Changes) -> Iterator[tuple[Home, Home, str]]:
    """Jobs whose results are at home under another name."""
    for number, job in changes.jobs.items():
        old = state.jobs.get(number)
        if old is not None and old.spec.name != job.spec.name and job.fetch == "home":
            results_dir, attempt = state.run.results_dir, attempt_id(state.run.id, number, job.attempt)
            places = [Home(results_dir, state.run.id, name) for name in (old.spec.name, job.spec.name)]
            yield places[0], places[1], attempt


def _list_ids(run: str, numbers: Mapping[str, int]) -> dict[str, str]:
    """WHY NOT look the names up afterwards: another submission may have given them to jobs of its own by then."""
    return {name: job_id(run, number) for name, number in numbers.items()}


def _warn_of_overtaken(continued: Continued) -> tuple[Problem, ...]:
    overtaken = set(continued.overtaken)
    return warn_of_overtaken([name for name, number in continued.numbers.items() if number in overtaken])


def _continues(spec: RunSpec, options: SubmitOptions) -> bool:
    """Whether its config has one run, which goes on with each submission."""
    return spec.recover and bool(spec.config_path) and not options.fresh


def _path_of_mapping(options: SubmitOptions) -> str:
    """What stands for the path of a file: no path is written so."""
    return f"<{options.continue_as}>" if options.continue_as else ""


def choose_python(spec: RunSpec) -> RunSpec:
    """Where functions run: in the Python of their environment; else in this one, or one of its version elsewhere."""
    here = all(provider.type == "local" for provider in spec.providers)
    return replace(spec, jobs=tuple(_with_python(job, here) for job in spec.jobs))


def _with_python(job: JobSpec, here: bool) -> JobSpec:
    if job.argv[:1] != (ANY_PYTHON,):
        return job
    _, program, version, *rest = job.argv
    if job.environment:
        return replace(job, argv=("python3", program, version, *rest))
    if here and sys.executable:
        return replace(job, argv=(sys.executable, program, version, *rest))
    return replace(job, argv=("python3", program, f"{version}+", *rest))


def _mark_at_hand(state: RunState, nodes: Sequence[NodePlan]) -> Iterator[NodePlan]:
    """Which of them have a machine already."""
    for node in nodes:
        known = state.nodes.get(node.name)
        yield replace(node, at_hand=known is not None and known.state in AT_HAND)


def _render(spec: EnvironmentSpec, folder: Path, elsewhere: bool) -> EnvironmentBuild:
    return render_environment(spec, base=str(folder), elsewhere=elsewhere)

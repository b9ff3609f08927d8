"""The way from a file, or a command line, to a RunSpec: read, override, check, expand."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloudsend_cli.core.model import EnvironmentBuild, EnvironmentSpec, RunSpec
from cloudsend_cli.errors import ConfigError, Problem

from .check import Report, check_mapping, word_value
from .choice import Providers
from .commands import plain_name
from .context import FunctionTask, FunctionTasks, LoadContext, ProviderInfo
from .document import Items, Node, Place, Scalar, fail, render_inline, show_text
from .document import Mapping as MappingNode
from .effects import RENTED_TYPES, warn_no_effect, warn_nothing_rented
from .entries import Entry, EntryReader
from .environment_specs import Environment, EnvironmentReader
from .expand import Expander
from .files import Folder, Uploads
from .given import Given, Values, node_of, value_of, whole_of
from .jobs import JobReader
from .machines import InstanceReader
from .origins import list_origins
from .overrides import apply_overrides
from .rented import RunKeys, show_number
from .schema import ENVIRONMENT, FREE, INSTANCE, JOB, SYNONYMS, TOP
from .sections import SectionReader, leave_out_loose
from .sources import is_text, read_document

__all__ = [
    "FunctionTask",
    "FunctionTasks",
    "LoadContext",
    "LoadOptions",
    "Loaded",
    "ProviderInfo",
    "load_command",
    "load_config",
    "load_mapping",
    "read_document",
]

BASE_ENV = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
]
SETTINGS = ("profile", "dev", "debug", "maestro", "assign", "print_deploy", "budget", "notify", "seed", "delay")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that has no problems. `root` is the document after overrides, for `config show`."""

    spec: RunSpec
    warnings: tuple[Problem, ...]
    environments: tuple[EnvironmentSpec, ...]
    root: Node
    layers: tuple[tuple[str, str, str], ...] = ()  # (key, value, origin) of what the file does not say

    @property
    def origins(self) -> dict[str, tuple[str, str]]:
        """Each key's dotted path, with its value and where that comes from: `file:line`, `--set` or `default`."""
        return {**dict(list_origins(self.root)), **{key: (value, origin) for key, value, origin in self.layers}}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What is said besides the config: by its surroundings, and by the command line."""

    environ: Mapping[str, str]
    context: LoadContext
    overrides: Sequence[str] = ()
    name: str | None = None  # the project's; of a command, its job's
    provider: str | None = None
    max_parallel: int | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    """A config that has been read. `argv` replaces the command of its only job."""

    root: Node
    folder: str  # where its relative paths begin
    config_path: str = ""
    problems: list[Problem] = field(default_factory=list)
    argv: Sequence[str] | None = None


def load_config(path: str, options: LoadOptions) -> Loaded:
    """Read a YAML, JSON or Python config. Raises one ConfigError with all problems; then nothing was started.

    A `.py` config is executed here, and only here.
    """
    absolute = os.path.abspath(path)
    with _no_collections():
        root, problems = read_document(path, absolute, options.context.take_functions)
        return _load(_Source(root, os.path.dirname(absolute), absolute, problems), options)


def load_mapping(
    config: Mapping[str, object],
    options: LoadOptions,
    *,
    folder: str | os.PathLike[str],
    file: str = "config",
    config_path: str = "",
) -> Loaded:
    """Like `load_config`, of Python data: relative paths are below `folder`, and problems name `file` alone.

    `config_path` is the run's; "": running it again does not continue it.
    """
    from .python_document import build_nodes

    with _no_collections():
        root = build_nodes(config, file)
        if not isinstance(root, MappingNode):
            raise fail("expected a mapping with keys such as 'jobs'", root.place)
        return _load(_Source(root, os.path.abspath(folder), config_path), options)


def load_command(argv: Sequence[str], options: LoadOptions, *, cwd: str | os.PathLike[str]) -> Loaded:
    """One job of exactly these arguments, without a shell. Files that it names are sent."""
    place = Place("command line")
    for word in argv:
        if "\0" in word or not is_text(word):
            raise fail(f"the argument {show_text(word)!r} is not valid text", place)
    if not argv or not argv[0]:
        raise fail("no command is given", place, "write: cloudsend run -- python train.py")
    entries: list[tuple[Scalar, Node]] = [(Scalar("run", False, place), Scalar("command", False, place))]
    if options.name is not None:
        entries.append((Scalar("name", False, place), Scalar(options.name, False, place)))
    job = MappingNode(entries, place, len(entries))
    root = MappingNode([(Scalar("jobs", False, place), Items([job], place))], place, 1)
    return _load(_Source(root, os.path.abspath(cwd), argv=argv), replace(options, name=None))


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Nodes and specs hold no cycles: looking for some takes more than half of the time of a large config."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# ---- the document --------------------------------------------------------------------------------


def _load(source: _Source, options: LoadOptions) -> Loaded:
    root, folder = apply_overrides(source.root, options.overrides), source.folder
    context, environ = options.context, options.environ
    report = Report(problems=source.problems)
    top = check_mapping(report, leave_out_loose(report, root), TOP, "", (JOB, INSTANCE, ENVIRONMENT), free=FREE)
    _check_options(report, options)
    warn_no_effect(report, top, "")
    results = _results_dir(top, folder)
    uploads = Uploads(
        Folder(folder, environ.get("HOME", ""), results),
        report,
        snapshot=context.snapshot,
        cache=context.hash_cache,
    )
    project = _project(top, options, folder)
    providers = Providers(report, context)
    chosen = providers.choose(top.get("provider"), options.provider)
    run = read_run_keys(top, project)
    machines = InstanceReader(report, context, providers, chosen, run).read(node_of(top, "instances"))
    if machines.types and not machines.types & RENTED_TYPES:
        warn_nothing_rented(report, top)
    system = value_of(top, "allow_system_packages") is True
    environments = EnvironmentReader(report, folder, environ, system).read(node_of(top, "environments"))
    elsewhere = bool(machines.types - {"local"})
    builds = _render_environments(report, environments, folder, context, elsewhere)
    seed = whole_of(top, "seed")
    reader = EntryReader(
        report,
        uploads,
        environments,
        {name: build.key for name, build in builds.items()},
        machines,
        environ,
        value_of(top, "mutualize_uploads") is False,
        seed if seed is not None else 0,
    )
    entries = _read_entries(reader, root, top, source.argv, context.functions)
    jobs, groups = Expander(report, uploads, reader.refused).expand(entries, root)
    for environment in environments:
        if environment.spec.name not in reader.used and not report.problems:
            report.warn(f"no job uses the environment {environment.spec.name!r}", environment.place)
    base_env = _base_env(report if "local" in machines.types else Report(), environ)
    if report.problems:
        raise ConfigError(sorted_problems(report.problems))
    spec = RunSpec(
        project=project,
        config_path=source.config_path,
        jobs=tuple(jobs),
        groups=tuple(groups),
        environments=_used_builds(builds, reader.used),
        instances=machines.instances,
        results_dir=results,
        max_parallel=options.max_parallel if options.max_parallel is not None else whole_of(top, "max_parallel"),
        budget=run.budget,
        base_env=base_env,
        providers=machines.providers,
        recover=value_of(top, "recover") is not False,
        auto_stop=value_of(top, "auto_stop") is not False,
        settings=tuple((name, _setting(top[name])) for name in SETTINGS if name in top),
        warnings=tuple(f"{w.place}: {w.message}" if w.place else w.message for w in report.warnings),
    )
    specs = tuple(environment.spec for environment in environments)
    chose = _origin_of_provider(top, options, chosen)
    return Loaded(spec, tuple(report.warnings), specs, root, (*chose, *machines.origins))


def read_run_keys(top: Values, project: str) -> RunKeys:
    profile, budget = value_of(top, "profile"), value_of(top, "budget")
    return RunKeys(
        project,
        profile if isinstance(profile, str) else None,
        value_of(top, "dev") is True,
        value_of(top, "auto_stop") is not False,
        budget if isinstance(budget, float) else None,
    )


def _setting(given: Given) -> str:
    if isinstance(given.value, bool) or not isinstance(given.value, (int, float)):
        return render_inline(given.node)
    return show_number(given.value) if isinstance(given.value, float) else str(given.value)


def _check_options(report: Report, options: LoadOptions) -> None:
    if options.name is not None:
        word_value(report, Scalar(options.name, False, Place("--name")), "name")
    if options.max_parallel is not None and options.max_parallel < 1:
        report.error(f"'{options.max_parallel}' must be at least 1", Place("--max-parallel"))


def sorted_problems(problems: Sequence[Problem]) -> list[Problem]:
    """In the order of the file, each once."""
    return sorted(dict.fromkeys(problems), key=lambda p: (p.file, p.line, p.column))


def _read_entries(
    reader: EntryReader,
    root: Node,
    top: Values,
    argv: Sequence[str] | None,
    functions: Mapping[str, FunctionTasks],
) -> list[Entry]:
    """Of `jobs` and then of `sections`; one of them is needed."""
    jobs, sections = node_of(top, "jobs"), node_of(top, "sections")
    nodes = [node for node in (jobs, sections) if node is not None]
    if not any(_has_entries(node) for node in nodes):
        message = "there are no jobs" if nodes else "a config needs 'jobs' or 'sections'"
        place = nodes[0].place if nodes else root.place
        reader.report.error(message, place, "write at least: jobs: python train.py", "jobs")
        return []
    entries = []
    if jobs is not None and _has_entries(jobs):
        entries += JobReader(reader).read(jobs, argv)
    if sections is not None:
        entries += SectionReader(reader, functions).read(sections)
    return entries


def _has_entries(node: Node) -> bool:
    return isinstance(node, Scalar) or bool(node.items if isinstance(node, Items) else node.entries)


def _render_environments(
    report: Report, environments: Sequence[Environment], folder: str, context: LoadContext, elsewhere: bool
) -> dict[str, EnvironmentBuild]:
    """Each environment's build by name; a problem without a place gets that of the key it names."""
    from pathlib import Path

    builds: dict[str, EnvironmentBuild] = {}
    for environment in environments:
        try:
            builds[environment.spec.name] = context.render_environment(environment.spec, Path(folder), elsewhere)
        except ConfigError as raised:
            for problem in raised.problems:
                if problem.file:
                    report.problems.append(problem)
                    continue
                key = SYNONYMS.get(problem.path.rpartition(".")[2].partition("[")[0], "")
                place = environment.keys.get(key, environment.place)
                named = problem.message.startswith("environment ")
                message = problem.message if named else f"{environment.path}: {problem.message}"
                report.error(message, place, problem.hint, problem.path or environment.path)
    return builds


def _origin_of_provider(
    top: Values, options: LoadOptions, chosen: Sequence[ProviderInfo]
) -> Iterator[tuple[str, str, str]]:
    if options.provider is not None:
        yield "provider", options.provider, "--provider"
    elif "provider" not in top and chosen and chosen[0].type != "local":
        yield "provider", chosen[0].name, "the only one configured"


def _used_builds(builds: Mapping[str, EnvironmentBuild], used: set[str]) -> tuple[EnvironmentBuild, ...]:
    return tuple({build.key: build for name, build in builds.items() if name in used}.values())


def _results_dir(top: Values, folder: str) -> str:
    given = value_of(top, "results_dir")
    text = given if isinstance(given, str) else "results"
    return os.path.normpath(os.path.join(folder, os.path.expanduser(text)))


def _project(top: Values, options: LoadOptions, folder: str) -> str:
    if options.name is not None:
        return options.name
    given = value_of(top, "project")
    return given if isinstance(given, str) else plain_name(os.path.basename(folder), "project")


def _base_env(report: Report, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for name, value in environ.items():
        if name in BASE_ENV or name.startswith("LC_"):
            if is_text(name) and is_text(value):
                pairs.append((name, value))
            else:
                report.warn(f"{show_text(name)} of your shell is not valid UTF-8; jobs do not get it", Place(""))
    return tuple(sorted(pairs))

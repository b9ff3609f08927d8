"""The way from a file, or a command line, to a RunSpec: read, override, check, expand."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cloudsend_cli.core.model import EnvironmentBuild, EnvironmentSpec, RunSpec
from cloudsend_cli.errors import ConfigError, Problem

from .check import Given, Report, Values, check_mapping, suggest, word_value
from .choice import Providers
from .commands import plain_name
from .context import LoadContext, ProviderInfo
from .document import (
    MAX_BYTES,
    Items,
    Node,
    Place,
    Scalar,
    decode_file,
    fail,
    is_null,
    parse_yaml,
    problem_at,
    render_inline,
    show_text,
)
from .document import Mapping as MappingNode
from .effects import RENTED_TYPES, warn_no_effect, warn_nothing_rented
from .environment_specs import Environment, EnvironmentReader
from .files import Folder, Uploads
from .jobs import JobReader
from .machines import InstanceReader
from .overrides import apply_overrides
from .rented import RunKeys, show_number
from .schema import ENVIRONMENT, INSTANCE, JOB, SYNONYMS, TABLES, TOP

__all__ = ["LoadContext", "Loaded", "ProviderInfo", "load_command", "load_config", "read_document"]

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
SETTINGS = ("profile", "dev", "debug", "maestro", "assign", "print_deploy", "budget", "notify")


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
        return {**dict(_list_origins(self.root)), **{key: (value, origin) for key, value, origin in self.layers}}


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the command line says besides the file."""

    overrides: Sequence[str] = ()
    name: str | None = None
    provider: str | None = None
    max_parallel: int | None = None


def load_config(  # noqa: PLR0913 the command line's options
    path: str,
    *,
    overrides: Sequence[str] = (),
    name: str | None = None,
    provider: str | None = None,
    max_parallel: int | None = None,
    environ: Mapping[str, str],
    context: LoadContext,
) -> Loaded:
    """Read a YAML, JSON or Python config. Raises one ConfigError with all problems; then nothing was started.

    `name` is the project's name. A `.py` config is executed here, and only here.
    """
    absolute = os.path.abspath(path)
    wishes = _Wishes(overrides, name, provider, max_parallel)
    with _no_collections():
        root, problems = read_document(path, absolute)
        report = Report(problems=problems)
        return _load(root, absolute, os.path.dirname(absolute), wishes, environ, context, report, None)


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


def load_command(  # noqa: PLR0913 the command line's options
    argv: Sequence[str],
    *,
    cwd: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    name: str | None = None,
    provider: str | None = None,
    max_parallel: int | None = None,
    environ: Mapping[str, str],
    context: LoadContext,
) -> Loaded:
    """One job of exactly these arguments, without a shell; `name` is the job's. Files that it names are sent."""
    place = Place("command line")
    for word in argv:
        if "\0" in word or not _is_text(word):
            raise fail(f"the argument {show_text(word)!r} is not valid text", place)
    if not argv or not argv[0]:
        raise fail("no command is given", place, "write: cloudsend run -- python train.py")
    entries: list[tuple[Scalar, Node]] = [(Scalar("run", False, place), Scalar("command", False, place))]
    if name is not None:
        entries.append((Scalar("name", False, place), Scalar(name, False, place)))
    job = MappingNode(entries, place, len(entries))
    root = MappingNode([(Scalar("jobs", False, place), Items([job], place))], place, 1)
    wishes = _Wishes(overrides, None, provider, max_parallel)
    return _load(root, "", os.path.abspath(cwd), wishes, environ, context, Report(), argv)


# ---- the file ------------------------------------------------------------------------------------


def read_document(path: str, absolute: str) -> tuple[Node, list[Problem]]:
    """The file as nodes, with its doubled keys. Raises ConfigError when it cannot be read as one mapping."""
    file = path if _is_text(path) else show_text(path)
    if not _is_text(absolute):
        raise fail("the path of the config is not valid UTF-8", Place(file), "rename the file or its directory")
    if "\0" in path:
        raise fail("the path contains a NUL character", Place(show_text(path)))
    text = decode_file(_read_bytes(path, absolute, file), file)
    root: Node | None
    problems: list[Problem] = []
    if absolute.endswith(".py"):
        from .python_document import execute_config

        root = execute_config(absolute, text, file)
    elif absolute.endswith(".json"):
        from .json_document import parse_json

        root, problems = parse_json(text, file)
    else:
        root, problems = parse_yaml(text, file)
    if root is None or is_null(root):
        raise fail("the file is empty", Place(file), "write at least: jobs: python train.py")
    if not isinstance(root, MappingNode):
        what = "a list" if isinstance(root, Items) else "one text"
        message = f"expected keys such as 'jobs:', found {what}"
        raise ConfigError([*problems, problem_at(message, root.place, "write at least: jobs: python train.py")])
    return root, problems


def _read_bytes(path: str, absolute: str, file: str) -> bytes:
    try:
        descriptor = os.open(absolute, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            info = os.fstat(stream.fileno())
            if not stat.S_ISREG(info.st_mode):
                what = "a directory" if stat.S_ISDIR(info.st_mode) else "not a regular file"
                raise fail(f"is {what}, not a config", Place(file), _near_files(absolute, os.curdir))
            if info.st_size > MAX_BYTES:
                message = f"the file has {info.st_size / 1e6:.1f} MB; the limit is {MAX_BYTES // 1_000_000} MB"
                raise fail(message, Place(file), "use matrix or repeat instead of writing out many jobs")
            return stream.read(MAX_BYTES)
    except FileNotFoundError:
        raise fail("no such file", Place(file), _near_files(absolute, path)) from None
    except IsADirectoryError:
        raise fail("is a directory, not a config", Place(file)) from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise fail(f"cannot be read: {show_text(reason)}", Place(file)) from None


def _near_files(absolute: str, path: str) -> str:
    folder, wanted = os.path.split(absolute)
    try:
        names = [n for n in os.listdir(folder)[:10_000] if n.endswith((".yml", ".yaml", ".json", ".py"))]
    except (OSError, ValueError):
        names = []
    near = suggest(wanted, names)
    if near:
        return f"did you mean {show_text(os.path.join(os.path.dirname(path), near))!r}?"
    return "'cloudsend init' writes a first config"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ---- the document --------------------------------------------------------------------------------


def _load(  # noqa: PLR0913, PLR0917 one call from each way in
    root: Node,
    config_path: str,
    folder: str,
    wishes: _Wishes,
    environ: Mapping[str, str],
    context: LoadContext,
    report: Report,
    argv: Sequence[str] | None,
) -> Loaded:
    root = apply_overrides(root, wishes.overrides)
    top = check_mapping(report, root, TOP, "", (JOB, INSTANCE, ENVIRONMENT), free="x-")
    _check_wishes(report, wishes)
    warn_no_effect(report, top, "")
    results = _results_dir(top, folder)
    uploads = Uploads(
        Folder(folder, environ.get("HOME", ""), results),
        report,
        snapshot=context.snapshot,
        cache=context.hash_cache,
    )
    project = _project(top, wishes, folder)
    providers = Providers(report, context)
    chosen = providers.choose(top.get("provider"), wishes.provider)
    run = read_run_keys(top, project)
    machines = InstanceReader(report, context, providers, chosen, run).read(_node(top, "instances"))
    if machines.types and not machines.types & RENTED_TYPES:
        warn_nothing_rented(report, top)
    system = _value(top, "allow_system_packages") is True
    environments = EnvironmentReader(report, folder, environ, system).read(_node(top, "environments"))
    elsewhere = bool(machines.types - {"local"})
    builds = _render_environments(report, environments, folder, context, elsewhere)
    jobs_node = _jobs_node(report, root, top)
    reader = JobReader(
        report,
        uploads,
        environments,
        {name: build.key for name, build in builds.items()},
        machines,
        environ,
        _value(top, "mutualize_uploads") is False,
    )
    jobs = reader.read(jobs_node, argv) if jobs_node is not None else []
    for environment in environments:
        if environment.spec.name not in reader.used and not report.problems:
            report.warn(f"no job uses the environment {environment.spec.name!r}", environment.place)
    base_env = _base_env(report if "local" in machines.types else Report(), environ)
    if report.problems:
        raise ConfigError(sorted_problems(report.problems))
    spec = RunSpec(
        project=project,
        config_path=config_path,
        jobs=tuple(jobs),
        environments=_used_builds(builds, reader.used),
        instances=machines.instances,
        results_dir=results,
        max_parallel=wishes.max_parallel if wishes.max_parallel is not None else _whole(top, "max_parallel"),
        budget=run.budget,
        base_env=base_env,
        providers=machines.providers,
        recover=_value(top, "recover") is not False,
        auto_stop=_value(top, "auto_stop") is not False,
        settings=tuple((name, _setting(top[name])) for name in SETTINGS if name in top),
        warnings=tuple(f"{w.place}: {w.message}" if w.place else w.message for w in report.warnings),
    )
    specs = tuple(environment.spec for environment in environments)
    chose = _origin_of_provider(top, wishes, chosen)
    return Loaded(spec, tuple(report.warnings), specs, root, (*chose, *machines.origins))


def read_run_keys(top: Values, project: str) -> RunKeys:
    profile, budget = _value(top, "profile"), _value(top, "budget")
    return RunKeys(
        project,
        profile if isinstance(profile, str) else None,
        _value(top, "dev") is True,
        _value(top, "auto_stop") is not False,
        budget if isinstance(budget, float) else None,
    )


def _setting(given: Given) -> str:
    return show_number(given.value) if isinstance(given.value, float) else render_inline(given.node)


def _check_wishes(report: Report, wishes: _Wishes) -> None:
    if wishes.name is not None:
        word_value(report, Scalar(wishes.name, False, Place("--name")), "name")
    if wishes.max_parallel is not None and wishes.max_parallel < 1:
        report.error(f"'{wishes.max_parallel}' must be at least 1", Place("--max-parallel"))


def sorted_problems(problems: Sequence[Problem]) -> list[Problem]:
    """In the order of the file, each once."""
    return sorted(dict.fromkeys(problems), key=lambda p: (p.file, p.line, p.column))


def _jobs_node(report: Report, root: Node, top: Values) -> Node | None:
    if "sections" in top:
        given = top["sections"]
        _check_sections(report, given.node)
        message = "sections: is not supported by this version yet; use matrix"
        report.error(message, given.key.place, path="sections")
    node = _node(top, "jobs")
    if node is None or (isinstance(node, Items) and not node.items):
        if "sections" not in top:
            message = "there are no jobs" if node is not None else "a config needs 'jobs'"
            place = node.place if node is not None else root.place
            report.error(message, place, "write at least: jobs: python train.py", "jobs")
        return None
    return node


def _check_sections(report: Report, node: Node) -> None:
    """The shape {section: {group: {Call, …}}}."""
    for section, groups in _entries(report, node, "sections", "sections"):
        for group, keys in _entries(report, groups, f"sections.{section}", "groups"):
            path = f"sections.{section}.{group}"
            found = [key for key, _ in _entries(report, keys, path, "keys such as 'Call'")]
            if isinstance(keys, MappingNode) and "Call" not in found:
                report.error(f"{path}: a group needs 'Call'", keys.place, path=path)


def _entries(report: Report, node: Node, path: str, what: str) -> Iterator[tuple[str, Node]]:
    if not isinstance(node, MappingNode):
        report.error(f"{path}: expected a mapping of {what}", node.place, path=path)
        return
    for key, value in node.entries:
        yield show_text(key.text), value


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
    top: Values, wishes: _Wishes, chosen: Sequence[ProviderInfo]
) -> Iterator[tuple[str, str, str]]:
    if wishes.provider is not None:
        yield "provider", wishes.provider, "--provider"
    elif "provider" not in top and chosen and chosen[0].type != "local":
        yield "provider", chosen[0].name, "the only one configured"


def _used_builds(builds: Mapping[str, EnvironmentBuild], used: set[str]) -> tuple[EnvironmentBuild, ...]:
    return tuple({build.key: build for name, build in builds.items() if name in used}.values())


def _results_dir(top: Values, folder: str) -> str:
    given = _value(top, "results_dir")
    text = given if isinstance(given, str) else "results"
    return os.path.normpath(os.path.join(folder, os.path.expanduser(text)))


def _project(top: Values, wishes: _Wishes, folder: str) -> str:
    if wishes.name is not None:
        return wishes.name
    given = _value(top, "project")
    return given if isinstance(given, str) else plain_name(os.path.basename(folder), "project")


def _base_env(report: Report, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for name, value in environ.items():
        if name in BASE_ENV or name.startswith("LC_"):
            if _is_text(name) and _is_text(value):
                pairs.append((name, value))
            else:
                report.warn(f"{show_text(name)} of your shell is not valid UTF-8; jobs do not get it", Place(""))
    return tuple(sorted(pairs))


def _list_origins(root: Node) -> Iterator[tuple[str, tuple[str, str]]]:
    tables = {table.where: table for table in TABLES if table.where}
    given = {SYNONYMS.get(key.text, key.text): (key, value) for key, value in _own(root)}
    for entry in TOP.fields:
        if entry.name not in given:
            if entry.default:
                yield entry.name, (entry.default, "default")
            continue
        key, value = given[entry.name]
        table = tables.get(entry.name)
        if table is None:
            yield entry.name, (render_inline(value), _origin(key, value))
            continue
        items = value.items if isinstance(value, Items) else [value]
        for index, item in enumerate(items):
            path = f"{entry.name}[{index}]"
            if not isinstance(item, MappingNode):
                yield path, (render_inline(item), _origin(item, item))
                continue
            named = {table.by_name[k.text].name: (k, v) for k, v in item.entries if k.text in table.by_name}
            for column in table.fields:
                if column.name in named:
                    inner, content = named[column.name]
                    content = column.spell_out(inner.text, content)
                    yield f"{path}.{column.name}", (render_inline(content), _origin(inner, content))
                elif column.default:
                    yield f"{path}.{column.name}", (column.default, "default")


def _own(root: Node) -> Iterator[tuple[Scalar, Node]]:
    if isinstance(root, MappingNode):
        yield from ((key, value) for key, value in root.entries if not is_null(value))


def _origin(key: Node, value: Node) -> str:
    return value.place.origin if value.place.file == "--set" else key.place.origin


def _node(values: Values, name: str) -> Node | None:
    return values[name].node if name in values else None


def _value(values: Values, name: str) -> object:
    return values[name].value if name in values else None


def _whole(values: Values, name: str) -> int | None:
    value = _value(values, name)
    return value if isinstance(value, int) else None

"""One item of `jobs:`, or one group of `sections:`, before its jobs are written out: what they share."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudsend_cli.core.model import JobGroup, JobSpec, Resources

from .check import Report, clip, did_you_mean
from .commands import Command
from .context import FunctionTasks
from .document import Node, Scalar
from .environment_specs import NO_ENVIRONMENT, Environment, read_vars
from .files import Uploads
from .given import Given, Values, list_pairs, text_of, value_of
from .machines import Machines, check_fits
from .sweep import Sweep, parse_matrix
from .templates import Template, list_placeholders, parse_template


@dataclass(slots=True)
class Entry:
    """One item of `jobs:`, or one group, after its keys were read."""

    path: str
    node: Node
    values: Values
    sweep: Sweep
    command: Command
    base: str  # the default name, or the explicit one as written
    explicit: bool
    spec: JobSpec  # what all its jobs share
    script: str = ""  # the script's path as written, to be sent
    variables: list[tuple[str, Template]] = field(default_factory=list)
    uploads: list[tuple[Template, Node, str]] = field(default_factory=list)
    outputs: list[tuple[Template, bool, Node]] = field(default_factory=list)
    persist: list[tuple[Template, Node]] = field(default_factory=list)
    on_preempt: Template = field(default_factory=lambda: Template(("",)))
    workdir: Template = field(default_factory=lambda: Template(("",)))
    repeat: int = 1
    names: list[str] = field(default_factory=list)
    limit: int | None = None  # max_parallel of its jobs
    # Of a group alone:
    group: JobGroup | None = None
    section: str = ""
    numbered: bool = False  # its jobs are called base/0, base/1 and so on
    keys: tuple[str, ...] = ()  # what stands before each value of a row where the row is arguments
    shown: tuple[str, ...] = ()  # the command as the user wrote it, around its arguments
    unset: frozenset[str] = frozenset()  # parameters that are no variables
    functions: FunctionTasks | None = None

    @property
    def single(self) -> bool:
        return self.repeat == 1 and not self.sweep.names

    @property
    def count(self) -> int:
        return len(self.functions.tasks) if self.functions else len(self.sweep.rows) * self.repeat

    def list_arguments(self, row: Sequence[str]) -> tuple[str, ...]:
        """Key and value of each; of the key '' the value alone, and of that an empty one not even that."""
        found: list[str] = []
        for key, value in zip(self.keys, row, strict=True):
            if key:
                found += (key, value)
            elif value:
                found.append(value)
        return tuple(found)


class EntryReader:
    """Reads the keys that mean the same of jobs and of groups; every problem goes to the report."""

    def __init__(  # noqa: PLR0913, PLR0917 what jobs refer to
        self,
        report: Report,
        uploads: Uploads,
        environments: Sequence[Environment],
        keys: AbstractMapping[str, str],
        machines: Machines,
        environ: AbstractMapping[str, str],
        private: bool = False,
        seed: int = 0,
    ) -> None:
        self.report = report
        self.uploads = uploads
        self.environments = {environment.spec.name: environment for environment in environments}
        self.keys = keys  # environment's name -> key of its build
        self.machines = machines
        self.environ = environ
        self.private = private
        self.seed = seed
        self.used: set[str] = set()
        self.refused: list[str] = []  # names, as written, of entries whose jobs are not known for a reported mistake

    def read_matrix(self, given: Given) -> Sweep | None:
        return parse_matrix(self.report, given.node, given.path, list_files=self.uploads.list_files, seed=self.seed)

    def finish(self, entry: Entry) -> Entry:
        """Fill in all but the command."""
        self._read_files(entry)
        entry.spec = self._share(entry)
        self._warn_placeholders(entry)
        return entry

    def _read_files(self, entry: Entry) -> None:
        names = entry.sweep.names
        for key in ("upload", "input"):
            if key in entry.values:
                path = entry.values[key].path
                entry.uploads += [
                    (parse_template(text, names), node, path) for text, node in list_pairs(entry.values, key)
                ]
        if "output" in entry.values and isinstance(entry.values["output"].value, list):
            for (text, optional, node), _ in entry.values["output"].value:
                entry.outputs.append((parse_template(text, names), optional, node))
        entry.persist = [(parse_template(text, names), node) for text, node in list_pairs(entry.values, "persist")]
        entry.on_preempt = parse_template(text_of(entry.values, "on_preempt"), names, quoted=True)
        entry.workdir = parse_template(text_of(entry.values, "workdir"), names)

    def _share(self, entry: Entry) -> JobSpec:
        """What does not depend on parameters, and the checks of it."""
        values, path = entry.values, entry.path
        pairs, secrets = read_vars(self.report, values.get("vars"), self.environ)
        for name, text in pairs:
            if name in entry.sweep.names and name not in entry.unset:
                what = "Param" if entry.keys else "the matrix"
                message = f"{values['vars'].path}: {name!r} is also a parameter of {what}"
                self.report.error(message, values["vars"].key.place, "rename one of them", values["vars"].path)
            entry.variables.append((name, parse_template(text, entry.sweep.names)))
        environment = self._environment(entry)
        if environment is not None:
            own = {name for name, _ in pairs} | set(secrets)
            secrets += tuple(name for name in environment.secrets if name not in own)
        cpus, memory, gpu = value_of(values, "cpus"), value_of(values, "memory"), value_of(values, "gpu")
        resources = Resources(
            cpus if isinstance(cpus, float) else 1.0 if entry.group is None else 0.0,
            memory if isinstance(memory, int) else 0,
            gpu[1] if isinstance(gpu, tuple) else 0,
        )
        check_fits(self.report, resources, self.machines, values, entry.node, path)
        if isinstance(gpu, tuple) and gpu[0]:
            given = values["gpu"]
            message = f"{given.path}: the kind {gpu[0]!r} has no effect yet: any GPU is taken"
            self.report.warn(message, given.node.place, path=given.path)
        timeout, grace = value_of(values, "timeout"), value_of(values, "grace")
        retries, lost = value_of(values, "retries"), value_of(values, "retries_lost")
        group = entry.group
        return JobSpec(
            name="",
            argv=(),
            display="",
            secrets=tuple(sorted(set(secrets))),
            environment=self.keys.get(environment.spec.name, "") if environment else "",
            resources=resources,
            private_uploads=self.private,
            timeout=timeout if isinstance(timeout, float) else None,
            grace=grace if isinstance(grace, float) else 10.0,
            retries=retries if isinstance(retries, int) else 0,
            retries_lost=lost if isinstance(lost, int) else 1,
            after=_distinct(values, "after"),
            after_any=_distinct(values, "after_any"),
            slots=_distinct(values, "slots"),
            group=group.name if group is not None else "",
            slot_args=group is not None and entry.functions is None and any(group.slots),
            memory_factor=self._memory_factor(values),
        )

    def _memory_factor(self, values: Values) -> float:
        given = values.get("retry_memory_factor")
        if given is None or not isinstance(given.value, float):
            return 1.0
        missing = [key for key in ("memory", "retries") if not value_of(values, key)]
        if missing and given.value > 1:
            message = f"{given.path} has no effect without {' and '.join(map(repr, missing))}"
            self.report.warn(message, given.key.place, path=given.path)
        return given.value

    def _environment(self, entry: Entry) -> Environment | None:
        """Its environment; the only one where none is named, as in the seeds."""
        given = entry.values.get("env")
        known = self.environments
        if given is None:
            if len(known) > 1:
                message = f"{entry.path}: which environment? Set 'env' to one of {', '.join(map(repr, known))}"
                hint = f"'env: {NO_ENVIRONMENT}' for none"
                self.report.error(message, entry.node.place, hint, entry.path)
                return None
            found = next(iter(known.values()), None)
        elif given.value == NO_ENVIRONMENT or not isinstance(given.value, str):
            return None
        else:
            found = known.get(given.value)
            if found is None:
                hint = did_you_mean(given.value, known) or ("known: " + ", ".join(known) if known else "none is given")
                message = f"{given.path}: unknown environment {clip(given.value)}"
                self.report.error(message, given.node.place, hint, given.path)
        if found is not None:
            self.used.add(found.spec.name)
        return found

    def _warn_placeholders(self, entry: Entry) -> None:
        """A word in braces that is almost a parameter is probably a slip, as is one where nothing is filled in."""
        names = entry.sweep.names
        for key in ("name", "run", "script", "workdir", "on_preempt", "Call") if names else ():
            given = entry.values.get(key)
            if given is None or not isinstance(given.node, Scalar):
                continue
            for word in list_placeholders(given.node.text):
                hint, why = did_you_mean(word, names) if word not in names else "", "is not a parameter and"
                if key == "Call" and entry.keys and word in names:
                    hint, why = "give 'matrix' in place of 'Param'", "is an argument of 'Param', and"
                if hint:
                    message = f"{given.path}: {{{word}}} {why} stays as it is"
                    self.report.warn(message, given.node.place, hint, given.path)


def _distinct(values: Values, name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text, _ in list_pairs(values, name)))

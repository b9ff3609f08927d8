"""`jobs:` to JobSpecs: commands, sweeps, repeats, names, files. Equal parts of many jobs are one object."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field

from cloudsend_cli.core.model import JobSpec, Output, Resources, Upload

from .check import Report, Values, check_mapping, clip, did_you_mean
from .commands import Command, ScriptProblem, render_script, render_shell_line, split_script
from .document import Items, Mapping, Node, Scalar, is_null, show_text
from .environment_specs import NO_ENVIRONMENT, Environment, read_vars
from .files import Uploads
from .machines import Machines, check_fits
from .names import NameBook, Waiting, check_after, describe_bad_name, suffix_of
from .schema import ENVIRONMENT, INSTANCE, JOB, MAX_JOBS, TOP
from .sweep import Sweep, parse_matrix
from .templates import Template, UnsafeValue, list_placeholders, parse_template

NEEDS_COMMAND = "a job needs 'run' (a shell command) or 'script' (a .py, .jl, .sh or .R file)"


@dataclass(slots=True)
class Entry:
    """One item of `jobs:` after its keys were read."""

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

    @property
    def single(self) -> bool:
        return self.repeat == 1 and not self.sweep.names


class JobReader:
    """Reads `jobs:`; every problem goes to the report."""

    def __init__(  # noqa: PLR0913, PLR0917 what jobs refer to
        self,
        report: Report,
        uploads: Uploads,
        environments: Sequence[Environment],
        keys: AbstractMapping[str, str],
        machines: Machines,
        environ: AbstractMapping[str, str],
        private: bool = False,
    ) -> None:
        self.report = report
        self.uploads = uploads
        self.environments = {environment.spec.name: environment for environment in environments}
        self.keys = keys  # environment's name -> key of its build
        self.machines = machines
        self.environ = environ
        self.private = private
        self.used: set[str] = set()
        self._outputs: dict[tuple[str, bool], Output] = {}
        self._output_sets: dict[tuple[Output, ...], tuple[Output, ...]] = {}
        self._persisted: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._patterns: list[tuple[str, str]] = []  # every output as written, and whose it is

    def read(self, node: Node, argv: Sequence[str] | None = None) -> list[JobSpec]:
        """All jobs in order, with names that differ. `argv` replaces the command of the only job."""
        nodes = node.items if isinstance(node, Items) else [node]
        paths = [f"jobs[{index}]" for index in range(len(nodes))] if isinstance(node, Items) else ["jobs"]
        entries = []
        for item, path in zip(nodes, paths, strict=True):
            entry = self._entry(item, path, argv)
            if entry is not None:
                entries.append(entry)
        total = sum(len(entry.sweep.rows) * entry.repeat for entry in entries)
        if total > MAX_JOBS:
            message = f"jobs: {total:,} jobs are more than one run can hold; the limit is {MAX_JOBS:,}"
            self.report.error(message, node.place, path="jobs")
            return []
        self._patterns = [(template.literals[0], e.path) for e in entries for template, _, _ in e.outputs]
        self.uploads.explain_missing = self._explain_missing
        self._name(entries)
        waiting = [Waiting(entry.names, _pairs(entry.values, "after"), entry.path) for entry in entries if entry.names]
        check_after(self.report, waiting)
        return [spec for entry in entries for spec in self._expand(entry)]

    # ---- one entry -----------------------------------------------------------------------------------

    def _entry(self, node: Node, path: str, argv: Sequence[str] | None) -> Entry | None:
        if isinstance(node, Scalar) and not is_null(node):
            node = Mapping([(Scalar("run", False, node.place), node)], node.place, 1)
        if not isinstance(node, Mapping):
            hint = "a text is a command; a mapping has 'run' or 'script'"
            self.report.error(
                f"{path}: expected a job, not a list" if isinstance(node, Items) else f"{path}: {NEEDS_COMMAND}",
                node.place,
                hint,
                path,
            )
            return None
        values = check_mapping(self.report, node, JOB, path, (INSTANCE, ENVIRONMENT, TOP))
        sweep: Sweep | None = Sweep()
        if "matrix" in values:
            sweep = parse_matrix(self.report, values["matrix"].node, f"{path}.matrix")
        if sweep is None:
            return None
        workdir = _text(values, "workdir")
        command, script = self._command(values, sweep, node, path, workdir)
        if argv is not None:
            command, script = render_argv(argv), ""
        if command is None:  # reported; go on, so that everything else is reported with it
            command = render_shell_line("true", ())
        name = _text(values, "name")
        entry = Entry(
            path, node, values, sweep, command, name or command.name, bool(name), JobSpec("", (), ""), script
        )
        repeat = _value(values, "repeat")
        entry.repeat = repeat if isinstance(repeat, int) else 1
        self._read_files(entry, workdir)
        entry.spec = self._shared(entry)
        self._warn_placeholders(entry)
        return entry

    def _command(
        self, values: Values, sweep: Sweep, node: Node, path: str, workdir: str
    ) -> tuple[Command | None, str]:
        if "script" in values:
            if "run" in values:
                given = values["run"]
                message = f"{given.path} is ignored: the job has a script"
                self.report.warn(message, given.key.place, "give only one of 'run' and 'script'", given.path)
            return self._script(values, sweep, workdir)
        if "run" in values:
            text = values["run"].value
            return (render_shell_line(text, sweep.names) if isinstance(text, str) else None), ""
        self.report.error(f"{path}: {NEEDS_COMMAND}", node.place, path=path)
        return None, ""

    def _script(self, values: Values, sweep: Sweep, workdir: str) -> tuple[Command | None, str]:
        given = values["script"]
        if not isinstance(given.value, str):
            return None, ""
        try:
            words = split_script(given.value)
            if workdir[:1] in ("/", "~"):
                raise ScriptProblem("a script cannot be used with an absolute workdir", "use run")
            absolute = self.uploads.absolute(words[0])
            if not os.path.lexists(absolute):
                self.uploads.resolve(words[0], given.node, given.path)
                return None, ""
            if os.path.isdir(absolute):
                raise ScriptProblem(f"{clip(words[0])} is a directory", "name the script in it")
            place = os.path.relpath(self.uploads.place_of(words[0]), workdir or ".")
            return render_script(words, absolute, place, sweep.names), words[0]
        except ScriptProblem as problem:
            self.report.error(f"{given.path}: {problem}", given.node.place, problem.hint, given.path)
        except (OSError, ValueError) as problem:
            self.report.error(f"{given.path}: {show_text(str(problem))}", given.node.place, path=given.path)
        return None, ""

    def _read_files(self, entry: Entry, workdir: str) -> None:
        names = entry.sweep.names
        for key in ("upload", "input"):
            if key in entry.values:
                path = entry.values[key].path
                entry.uploads += [
                    (parse_template(text, names), node, path) for text, node in _pairs(entry.values, key)
                ]
        if "output" in entry.values and isinstance(entry.values["output"].value, list):
            for (text, optional, node), _ in entry.values["output"].value:
                entry.outputs.append((parse_template(text, names), optional, node))
        entry.persist = [(parse_template(text, names), node) for text, node in _pairs(entry.values, "persist")]
        entry.on_preempt = parse_template(_text(entry.values, "on_preempt"), names, quoted=True)
        entry.workdir = parse_template(workdir, names)

    def _shared(self, entry: Entry) -> JobSpec:
        """What does not depend on parameters, and the checks of it."""
        values, path = entry.values, entry.path
        pairs, secrets = read_vars(self.report, values.get("vars"), self.environ)
        for name, text in pairs:
            if name in entry.sweep.names:
                message = f"{values['vars'].path}: {name!r} is also a parameter of the matrix"
                self.report.error(message, values["vars"].key.place, "rename one of them", values["vars"].path)
            entry.variables.append((name, parse_template(text, entry.sweep.names)))
        environment = self._environment(entry)
        if environment is not None:
            own = {name for name, _ in pairs} | set(secrets)
            secrets += tuple(name for name in environment.secrets if name not in own)
        cpus, memory, gpu = _value(values, "cpus"), _value(values, "memory"), _value(values, "gpu")
        resources = Resources(
            cpus if isinstance(cpus, float) else 1.0,
            memory if isinstance(memory, int) else 0,
            gpu[1] if isinstance(gpu, tuple) else 0,
        )
        asked = next((values[k].node for k in ("cpus", "gpu", "memory") if k in values), entry.node)
        check_fits(self.report, resources, self.machines, asked, path)
        if isinstance(gpu, tuple) and gpu[0]:
            given = values["gpu"]
            message = f"{given.path}: the kind {gpu[0]!r} has no effect yet: any GPU is taken"
            self.report.warn(message, given.node.place, path=given.path)
        timeout, grace = _value(values, "timeout"), _value(values, "grace")
        retries, lost = _value(values, "retries"), _value(values, "retries_lost")
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
            after=tuple(dict.fromkeys(text for text, _ in _pairs(values, "after"))),
        )

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
        """A word in braces that is almost a parameter is probably a slip."""
        names = entry.sweep.names
        for key in ("name", "run", "script", "workdir", "on_preempt") if names else ():
            given = entry.values.get(key)
            if given is None or not isinstance(given.value, str):
                continue
            for word in list_placeholders(given.value):
                hint = did_you_mean(word, names) if word not in names else ""
                if hint:
                    message = f"{given.path}: {{{word}}} is not a parameter and stays as it is"
                    self.report.warn(message, given.node.place, hint, given.path)

    def _explain_missing(self, text: str) -> str:
        text = text.removeprefix("./")
        for pattern, path in self._patterns:
            head = pattern.split("*", 1)[0].rstrip("/")
            if head and (text == head or text.startswith(head + "/")):
                return f"it is an output of {path}; handing results from job to job comes in a later version"
        return ""

    # ---- names ---------------------------------------------------------------------------------------

    def _name(self, entries: Sequence[Entry]) -> None:
        book = NameBook()
        places: dict[str, int] = {}
        for entry in entries:
            if not (entry.explicit and entry.single):
                continue
            node = entry.values["name"].node
            path = entry.values["name"].path
            entry.names = [entry.base]  # also of a bad one, so that its other mistakes are found as well
            bad = describe_bad_name(entry.base)
            if bad:
                self.report.error(f"{path}: the name {clip(entry.base)} {bad}", node.place, path=path)
            elif not book.take(entry.base):
                line = places[entry.base]
                hint = f"first given on line {line}" if line else "names must differ"
                self.report.error(f"{path}: a second job is called {clip(entry.base)}", node.place, hint, path)
            else:
                places[entry.base] = node.place.line
        for entry in entries:
            if not (entry.explicit and entry.single):
                entry.names = list(self._made_names(entry, book))

    def _made_names(self, entry: Entry, book: NameBook) -> Iterator[str]:
        names = entry.sweep.names
        template = parse_template(entry.base, names if entry.explicit else ())
        missing = [at for at in range(len(names)) if at not in template.parameters]
        for row in entry.sweep.rows:
            name = template.fill(row)
            if missing:
                name = f"{name}-{suffix_of([row[at] for at in missing])}"
            longest = f"{name}-{entry.repeat - 1}" if entry.repeat > 1 else name
            bad = describe_bad_name(longest)
            if bad:
                given = entry.values.get("name") or entry.values.get("matrix")
                node = given.node if given else entry.node
                self.report.error(f"{entry.path}: the name {clip(longest)} {bad}", node.place, path=entry.path)
                return
            if entry.repeat == 1:
                yield book.make(name)
            else:
                for index in range(entry.repeat):
                    yield book.make(f"{name}-{index}")

    # ---- expansion -----------------------------------------------------------------------------------

    def _expand(self, entry: Entry) -> Iterator[JobSpec]:
        if len(entry.names) != len(entry.sweep.rows) * entry.repeat:
            return  # its names were refused
        names = iter(entry.names)
        for row in entry.sweep.rows:
            try:
                argv = tuple(template.fill(row) for template in entry.command.argv)
                display = entry.command.display.fill(row)
            except UnsafeValue as problem:
                self._report_unsafe(entry, "run", str(problem))
                return
            try:
                on_preempt = entry.on_preempt.fill(row)
            except UnsafeValue as problem:
                self._report_unsafe(entry, "on_preempt", str(problem))
                return
            workdir = self._fill_workdir(entry, row)
            env = tuple((name, template.fill(row)) for name, template in entry.variables)
            params = tuple(zip(entry.sweep.names, row, strict=True))
            filled = tuple(self._fill_outputs(entry, row))
            outputs = self._output_sets.setdefault(filled, filled)
            uploads = self._fill_uploads(entry, row, workdir, outputs)
            persist = self._fill_persist(entry, row)
            shared = entry.spec
            for index, name in enumerate(itertools.islice(names, entry.repeat)):
                repeated = (("CLOUDSEND_REPEAT", str(index)),) if entry.repeat > 1 else ()
                yield JobSpec(
                    name,
                    argv,
                    display,
                    env + params + repeated,
                    shared.secrets,
                    shared.environment,
                    shared.resources,
                    shared.slots,
                    uploads,
                    shared.private_uploads,
                    outputs,
                    workdir,
                    shared.timeout,
                    shared.grace,
                    shared.retries,
                    shared.retries_lost,
                    shared.after,
                    persist,
                    on_preempt,
                    shared.after_any,
                    shared.stage,
                    shared.group,
                    shared.slot_args,
                    shared.memory_factor,
                    params,
                    index,
                )

    def _report_unsafe(self, entry: Entry, key: str, value: str) -> None:
        given = entry.values[key]
        message = f"{given.path}: the value {clip(value)} cannot be inserted safely where its parameter stands"
        hint = 'in backticks, here-documents, comments and ${…} write "$name": each parameter is a variable too'
        self.report.error(message, given.node.place, hint, given.path)

    def _fill_workdir(self, entry: Entry, row: Sequence[str]) -> str:
        text = entry.workdir.fill(row)
        if not text or text[0] in "/~":
            return text
        workdir = os.path.normpath(text)
        if workdir.startswith(".."):
            given = entry.values["workdir"]
            message = f"{given.path}: {clip(text)} leaves the run directory"
            self.report.error(message, given.node.place, "use a path below it, or an absolute one", given.path)
        return "" if workdir == "." else workdir

    def _fill_outputs(self, entry: Entry, row: Sequence[str]) -> Iterator[Output]:
        seen = set()
        for template, optional, node in entry.outputs:
            text = template.fill(row)
            key = (text, optional)
            if key not in self._outputs:
                path = entry.values["output"].path
                bad = describe_bad_output(text)
                if bad:
                    hint = "outputs are paths in the run directory"
                    self.report.error(f"{path}: {clip(text)} {bad}", node.place, hint, path)
                self._outputs[key] = Output(os.path.normpath(text), optional)
            output = self._outputs[key]
            if output.pattern not in seen:
                seen.add(output.pattern)
                yield output

    def _fill_persist(self, entry: Entry, row: Sequence[str]) -> tuple[str, ...]:
        found = []
        for template, node in entry.persist:
            text = template.fill(row)
            bad = describe_bad_output(text)
            if not bad and os.path.normpath(text) == ".":
                bad = "is the whole run directory"
            if bad:
                path = entry.values["persist"].path
                hint = "name directories below the run directory, such as checkpoints/"
                self.report.error(f"{path}: {clip(text)} {bad}", node.place, hint, path)
            found.append(os.path.normpath(text))
        kept = tuple(dict.fromkeys(found))
        return self._persisted.setdefault(kept, kept)

    def _fill_uploads(
        self, entry: Entry, row: Sequence[str], workdir: str, outputs: Sequence[Output]
    ) -> tuple[Upload, ...]:
        parts: list[tuple[Upload, ...]] = []
        for template, node, path in entry.uploads:
            parts.append(self.uploads.resolve(template.fill(row), node, path))
        if entry.script:
            given = entry.values["script"]
            parts.append(self.uploads.resolve(entry.script, given.node, given.path))
        if workdir[:1] not in ("/", "~"):
            written = {output.pattern for output in outputs}
            for template in entry.command.words:
                name = self.uploads.file_word(template.fill(row), workdir)
                if name and name not in written:
                    parts.append(self.uploads.resolve(name, entry.node, entry.path))
        return self.uploads.join(_distinct(parts), entry.node, entry.path)


def _distinct(parts: Sequence[tuple[Upload, ...]]) -> list[tuple[Upload, ...]]:
    return list({id(part): part for part in parts if part}.values())


def render_argv(argv: Sequence[str]) -> Command:
    """A command exactly as given, without a shell."""
    import shlex

    from .commands import default_name

    words = tuple(Template((word,)) for word in argv)
    return Command(words, Template((shlex.join(argv),)), words, default_name(list(argv)))


def describe_bad_output(text: str) -> str:
    """Why `text` cannot be an output; "" when it can."""
    if text.startswith(("/", "~")):
        return "is an absolute path"
    if ".." in text.split("/"):
        return "leaves the run directory"
    if "\0" in text or any(ord(c) < 32 for c in text):
        return "contains a control character"
    return "" if text.strip() else "is empty"


def _pairs(values: Values, name: str) -> list[tuple[str, Node]]:
    value = values[name].value if name in values else None
    return value if isinstance(value, list) else []


def _value(values: Values, name: str) -> object:
    return values[name].value if name in values else None


def _text(values: Values, name: str) -> str:
    value = _value(values, name)
    return value if isinstance(value, str) else ""

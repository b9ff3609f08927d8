"""`jobs:` to entries: commands, scripts, sweeps."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cloudsend_cli.core.model import JobSpec

from .check import check_mapping, clip
from .commands import Command, ScriptProblem, render_script, render_shell_line, split_script
from .document import Items, Mapping, Node, Scalar, is_null, items_of, show_text
from .entries import Entry, EntryReader
from .given import Values, text_of, value_of
from .schema import ENVIRONMENT, INSTANCE, JOB, TOP
from .sweep import Sweep
from .templates import Template

NEEDS_COMMAND = "a job needs 'run' (a shell command) or 'script' (a .py, .jl, .sh or .R file)"


class JobReader:
    """Reads `jobs:`; every problem goes to the report."""

    def __init__(self, reader: EntryReader) -> None:
        self.reader = reader
        self.report = reader.report
        self.uploads = reader.uploads

    def read(self, node: Node, argv: Sequence[str] | None = None) -> list[Entry]:
        """`argv` replaces the command of the only job."""
        nodes = items_of(node)
        paths = [f"jobs[{index}]" for index in range(len(nodes))] if isinstance(node, Items) else ["jobs"]
        entries = [self._entry(item, path, argv) for item, path in zip(nodes, paths, strict=True)]
        return [entry for entry in entries if entry is not None]

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
            sweep = self.reader.read_matrix(values["matrix"])
        if sweep is None:
            self.reader.refused.append(text_of(values, "name"))
            return None
        command, script = self._command(values, sweep, node, path)
        if argv is not None:
            command, script = render_argv(argv), ""
        if command is None:  # reported; go on, so that everything else is reported with it
            command = render_shell_line("true", ())
        name = text_of(values, "name")
        entry = Entry(
            path, node, values, sweep, command, name or command.name, bool(name), JobSpec("", (), ""), script
        )
        repeat = value_of(values, "repeat")
        entry.repeat = repeat if isinstance(repeat, int) else 1
        limit = values.get("max_parallel")
        if limit is not None and isinstance(limit.value, int):
            entry.limit = limit.value
            if entry.single:
                message = f"{limit.path} has no effect: this is one job"
                self.report.warn(message, limit.key.place, "the key at the top level limits all jobs", limit.path)
        return self.reader.finish(entry)

    def _command(self, values: Values, sweep: Sweep, node: Node, path: str) -> tuple[Command | None, str]:
        if "script" in values:
            if "run" in values:
                given = values["run"]
                message = f"{given.path} is ignored: the job has a script"
                self.report.warn(message, given.key.place, "give only one of 'run' and 'script'", given.path)
            return self._script(values, sweep, text_of(values, "workdir"))
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


def render_argv(argv: Sequence[str]) -> Command:
    """A command exactly as given, without a shell."""
    import shlex

    from .commands import default_name

    words = tuple(Template((word,)) for word in argv)
    return Command(words, Template((shlex.join(argv),)), words, default_name(list(argv)))

"""`sections:`, the TaskRunner's form, to entries: groups of tasks, each with its pool of places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import replace

from cloudsend_cli.core.model import JobGroup, JobSpec, Slot

from .bounds import GPU_NAMES
from .calls import Call, parse_call
from .check import Report, check_mapping, clip, describe_node
from .commands import Command, ScriptProblem, read_words, render_shell_line, split_words
from .context import FunctionTasks
from .document import SHORTER, Items, Mapping, Node, Scalar, describe_bad_text, describe_long, is_null, show_text
from .entries import Entry, EntryReader
from .given import Given, Values, node_of, value_of
from .names import describe_bad_name
from .points import ListFiles, ValueReader
from .schema import ENVIRONMENT, FREE, GROUP, INSTANCE, JOB, MAX_JOBS, TOP, is_variable, run_value
from .sweep import RESERVED, Sweep
from .templates import Template, parse_template

MAX_SLOTS = 10_000
NO_SLOT: tuple[Slot, ...] = ((),)  # one place that has no name: one task after another
_SHELL_READS = frozenset({"ENV", "BASH_ENV", "CDPATH", "CUDA_VISIBLE_DEVICES"})
_TO_HOST = "hosts are machines of a provider: at the top level write provider: ssh:{host}"
NO_PLACES, NO_TASKS, REPEATED = "makes no places", "makes no tasks", "so are its tasks"  # of lists of values
CALLS = ("Call", *GROUP.by_name["Call"].aliases)
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_REFUSED = {
    "Remote": ("tasks are not sent to a Python server", _TO_HOST),
    "Port": ("tasks are not sent to a Python server", "the port of a host stands in providers.yml"),
    "run": ("the command of a group is 'Call'", "write Call"),
    "script": ("the command of a group is 'Call'", "write Call: python script.py"),
    "repeat": ("tasks are repeated by Param", "write a value for each time, such as Param: {--seed: [1, 2, 3]}"),
    "name": ("a task is named by its section, its group and its number", "rename the group"),
}


class SectionReader:
    """Reads `sections:`; every problem goes to the report."""

    def __init__(self, reader: EntryReader, functions: AbstractMapping[str, FunctionTasks]) -> None:
        self.reader = reader
        self.report = reader.report
        self.functions = functions
        self.names: dict[str, Scalar] = {}

    def read(self, node: Node) -> list[Entry]:
        """The groups that are well, each with its stage. A section without tasks is no stage."""
        if not isinstance(node, Mapping):
            hint = "write sections: {Search: {GPU: {Call: python train.py}}}"
            message = f"sections: expected a mapping of sections, not {describe_node(node)}"
            self.report.error(message, node.place, hint, "sections")
            return []
        found = []
        stage = 0
        for key, groups in node.entries:
            entries = self._section(key, groups)
            stage += any(entry.count for entry in entries)
            for entry in entries:
                entry.spec = replace(entry.spec, stage=stage)
            found += entries
        return found

    def _section(self, key: Scalar, groups: Node) -> list[Entry]:
        path = f"sections.{show_text(key.text)}"
        self._check_name("section", key, path)
        if is_null(groups) or (isinstance(groups, Mapping) and not groups.entries):
            self.report.warn(f"{path}: has no groups and is left out", key.place, path=path)
            return []
        if not isinstance(groups, Mapping):
            message = f"{path}: expected a mapping of groups, not {describe_node(groups)}"
            self.report.error(message, groups.place, "write {GPU: {Call: python train.py}}", path)
            return []
        own = next((name for name, value in groups.entries if name.text in CALLS and isinstance(value, Scalar)), None)
        if own is not None:
            message = f"{path}: {own.text!r} is a key of a group, and this is a section"
            self.report.error(message, own.place, "write a group around it: {GPU: {Call: python train.py}}", path)
            return []
        entries = (self._group(key.text, name, keys) for name, keys in groups.entries)
        return [entry for entry in entries if entry is not None]

    def _check_name(self, kind: str, key: Scalar, path: str) -> None:
        bad = describe_bad_name(key.text) or describe_bad_text(key.text)
        if bad:
            self.report.error(f"{path}: the name of a {kind} {bad}", key.place, "rename it", path)

    # ---- one group ---------------------------------------------------------------------------------------

    def _group(self, section: str, key: Scalar, node: Node) -> Entry | None:
        path = f"sections.{show_text(section)}.{show_text(key.text)}"
        self._check_name("group", key, path)
        if not isinstance(node, Mapping):
            message = f"{path}: expected keys such as 'Call', not {describe_node(node)}"
            self.report.error(message, node.place, "write {Call: python train.py}", path)
            return None
        name = f"{section}/{key.text}"
        first = self.names.setdefault(name, key)
        if first is not key:
            hint = first.place.first_given or "rename one of them"
            self.report.error(f"{path}: a second group is called {clip(name)}", key.place, hint, path)
        values = check_mapping(
            self.report, self._without_refused(node, path), GROUP, path, (JOB, INSTANCE, ENVIRONMENT, TOP)
        )
        limit = value_of(values, "max_parallel")
        entry = Entry(path, key, values, Sweep(), render_shell_line("true", ()), name, True, JobSpec("", (), ""))
        entry.section, entry.numbered = section, True
        entry.group = JobGroup(name, NO_SLOT, limit if isinstance(limit, int) else None, section)
        call = values.get("Call")
        if call is None:
            self.report.error(f"{path}: a group needs 'Call', a shell command", node.place, path=path)
        function = self.functions.get(call.node.text) if call and isinstance(call.node, Scalar) else None
        if function is not None:
            entry.functions = function
            for warning in function.warnings:
                self.report.warn(f"{path}.{warning}", key.place, path=path)
            entry.group = replace(entry.group, slots=function.slots)  # (): as many at once as there is room for
        else:
            self._read_points(entry)
            self._read_command(entry)
        self._check_gpu(entry)
        return self.reader.finish(entry)

    def _without_refused(self, node: Mapping, path: str) -> Mapping:
        kept = []
        remote = node.get("Remote", "remote")
        here = isinstance(remote, Scalar) and remote.text in _THIS_MACHINE
        for key, value in node.entries:
            word = key.text.capitalize() if key.text in {"remote", "port"} else key.text
            if word not in _REFUSED:
                kept.append((key, value))
            elif here and word in {"Remote", "Port"}:
                if word == "Remote":
                    message = f"{path}.{key.text} has no effect: tasks go to the machines of the run"
                    self.report.warn(message, key.place, "leave it out", path)
            elif not is_null(value):
                what, hint = _REFUSED[word]
                host = show_text(value.text) if isinstance(value, Scalar) else "HOST"
                self.report.error(f"{path}.{key.text}: {what}", key.place, hint.replace("{host}", host), path)
        return Mapping(kept, node.place, min(node.own, len(kept)))

    def _check_gpu(self, entry: Entry) -> None:
        given = entry.values.get("gpu")
        slots = entry.group.slots if entry.group is not None else ()
        named = next((name for slot in slots for name, _ in slot if name in GPU_NAMES), None)
        if given is not None and given.value is not None and named is not None:
            message = f"{given.path}: the places of 'Async' say {named!r} already"
            hint = "give 'gpu', and machines hand out GPUs; or give them in 'Async', and you do"
            self.report.error(message, given.key.place, hint, given.path)

    # ---- tasks and places --------------------------------------------------------------------------------

    def _read_points(self, entry: Entry) -> None:
        values = entry.values
        if "Async" in values and entry.group is not None:
            entry.group = replace(entry.group, slots=self._slots(values["Async"]))
            self._warn_of_both(values)
        matrix, param = values.get("matrix"), values.get("Param")
        if matrix is not None and param is not None:
            message = f"{matrix.path}: a group has 'Param' or 'matrix', not both"
            self.report.error(message, matrix.key.place, "Param makes arguments, matrix fills in {name}", matrix.path)
        if matrix is not None:
            entry.sweep = self.reader.read_matrix(matrix) or Sweep()
        elif param is not None:
            axes = self._axes(param, self.reader.uploads.list_files)
            lists = [texts for _, texts in axes]
            total = math.prod(map(len, lists))
            if total > MAX_JOBS:
                message = f"{param.path}: makes {total:,} tasks; the limit is {MAX_JOBS:,}"
                self.report.error(message, param.key.place, path=param.path)
                return
            entry.keys = tuple(key for key, _ in axes)
            names = name_parameters(entry.keys)
            entry.unset = frozenset(name for name in names if not _can_be_variable(name))
            entry.sweep = Sweep(names, tuple(itertools.product(*lists)))

    def _warn_of_both(self, values: Values) -> None:
        """An argument of a task and of its place is given twice, as in the seeds: some commands want that."""
        own, places = node_of(values, "Param"), node_of(values, "Async")
        if not isinstance(own, Mapping) or not isinstance(places, Mapping):
            return
        lines = {key.text: key.place for key, _ in own.entries if key.text}
        for key, _ in places.entries:
            if key.text in lines:
                path = f"{values['Async'].path}.{show_text(key.text)}"
                where = f" on line {lines[key.text].line}" if lines[key.text].line else ""
                message = f"{path}: 'Param' has it too{where}: tasks get both, that of their place last"
                self.report.warn(message, key.place, "many commands heed only the last; leave one out", path)

    def _slots(self, given: Given) -> tuple[Slot, ...]:
        axes = self._axes(given, None)
        lists = [[(key, text) for text in texts] for key, texts in axes]
        total = math.prod(map(len, lists)) if lists else 0
        if total > MAX_SLOTS:
            message = f"{given.path}: makes {total:,} places; the limit is {MAX_SLOTS:,}"
            self.report.error(message, given.key.place, path=given.path)
            return NO_SLOT
        # A place of an empty value under '' has no argument.
        slots = tuple(tuple(pair for pair in row if pair != ("", "")) for row in itertools.product(*lists))
        return slots if total else NO_SLOT

    def _axes(self, given: Given, list_files: ListFiles | None) -> list[tuple[str, list[str]]]:
        """Each key with its values; [] when the shape was reported."""
        node = given.node
        if not isinstance(node, Mapping):
            message = f"{given.path}: expected a mapping of arguments and their values, not {describe_node(node)}"
            self.report.error(message, node.place, f"write {given.name}: {{--gpu: [0, 1]}}", given.path)
            return []
        places = given.name == "Async"
        reader = ValueReader(
            self.report,
            list_files,
            spelled=True,
            empty=NO_PLACES if places else NO_TASKS,
            repeated="" if places else REPEATED,
        )
        axes: list[tuple[str, list[str]]] = []
        for key, value in node.entries:
            path = self._check_argument(key, given)
            if not path:
                continue
            if places and not key.text and isinstance(value, Items) and not value.items:
                axes.append(("", []))  # the seeds' way to say: no places
                continue
            texts = reader.read(value, path) or []
            long = next((bad for text in texts if (bad := describe_long(text, f"CLOUDSEND_SLOT_{key.text}"))), "")
            if places and long:
                self.report.error(f"{path}: a value {long}", value.place, SHORTER, path)
            axes.append((key.text, texts))
        return axes

    def _check_argument(self, key: Scalar, given: Given) -> str:
        """The path under which its values are spoken of; "": it is none that could be passed."""
        long = describe_long(key.text)
        if long:
            message = f"{given.path}: the argument {clip(key.text)} {long}"
            self.report.error(message, key.place, SHORTER, given.path)
            return ""
        path = f"{given.path}.{show_text(key.text)}"
        bad = describe_bad_text(key.text)
        if bad:
            self.report.error(f"{path}: the argument {bad}", key.place, path=path)
        elif key.text != "".join(key.text.split()):
            message = f"{path}: this is one argument, with its spaces"
            self.report.warn(message, key.place, "write what is the same for all tasks into 'Call'", path)
        return path

    # ---- the command -------------------------------------------------------------------------------------

    def _read_command(self, entry: Entry) -> None:
        given = entry.values.get("Call")
        text = run_value(self.report, given.node, given.path) if given is not None else None
        if given is None or text is None:
            return
        has_places = entry.group is not None and any(entry.group.slots)
        if not entry.keys and not has_places:
            entry.command = render_shell_line(text, entry.sweep.names)
            return
        try:
            call = parse_call(text)
        except ScriptProblem as problem:
            self.report.error(f"{given.path}: {clip(text)} {problem}", given.node.place, problem.hint, given.path)
            return
        entry.shown = call.shown
        entry.command = render_call(call, entry.sweep.names if not entry.keys else (), len(entry.keys))


def leave_out_loose(report: Report, root: Node) -> Node:
    """The document without sections at the top level, where a dict for the TaskRunner has them; they are reported."""
    if not isinstance(root, Mapping):
        return root
    foreign = [(key, value) for key, value in root.entries if key.text not in TOP.by_name]
    loose = [key for key, value in foreign if not key.text.startswith(FREE) and _is_section(value)]
    for key in loose:
        message = f"{clip(key.text)} is a section, and stands outside of 'sections'"
        report.error(message, key.place, "write 'sections:' above it, and indent it", show_text(key.text))
    kept = [entry for entry in root.entries if entry[0] not in loose]
    return Mapping(kept, root.place, min(root.own, len(kept))) if loose else root


def _is_section(node: Node) -> bool:
    groups = [value for _, value in node.entries] if isinstance(node, Mapping) else []
    return any(isinstance(group, Mapping) and group.get(*CALLS) is not None for group in groups)


def render_call(call: Call, names: Sequence[str], arguments: int) -> Command:
    """The shell's line and name; arguments follow. Words that may name files are the line's and the arguments'."""
    around = "".join(call.shown)
    words = [parse_template(word, names) for word in read_words(split_words(around))]
    values = [Template(("", ""), (at,)) for at in range(arguments)]
    argv = (*(Template((word,)) for word in ("/bin/sh", "-c")), parse_template(call.line, names, quoted=True))
    display = parse_template(around.rstrip(" "), names, quoted=True)
    return Command((*argv, Template(("sh",))), display, (*words, *values), "")


def name_parameters(keys: Sequence[str]) -> tuple[str, ...]:
    """What each key's values are recorded under: without leading dashes, `args` for '', and no two alike."""
    names: list[str] = []
    for key in keys:
        plain = key.lstrip("-") or "args"
        choices = itertools.chain((plain, key or plain), (f"{plain}-{n}" for n in itertools.count(2)))
        names.append(next(name for name in choices if name not in names))
    return tuple(names)


def _can_be_variable(name: str) -> bool:
    return (
        is_variable(name)
        and name not in RESERVED
        and name not in _SHELL_READS
        and not name.startswith(("CLOUDSEND_", "LD_"))
    )

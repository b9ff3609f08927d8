"""Entries to JobSpecs: names, who waits for whom, and each job's own. Equal parts of many jobs are one object."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from cloudsend_cli.core.model import JobGroup, JobSpec, Output, Upload

from .bounds import Bounds
from .check import Report, clip
from .context import FunctionTasks
from .document import Node, Place
from .entries import Entry
from .files import Uploads
from .given import list_pairs
from .names import MOST, NameBook, Waiting, check_after, describe_bad_name, suffix_of
from .schema import MAX_JOBS
from .templates import UnsafeValue, parse_template


class Expander:
    """Makes the jobs of all entries."""

    def __init__(self, report: Report, uploads: Uploads, refused: Sequence[str] = ()) -> None:
        self.report = report
        self.refused = refused  # names, as written, of entries that are missing for a reported mistake
        self.uploads = uploads
        self.bounds = Bounds(report)
        self._outputs: dict[tuple[str, bool], Output] = {}
        self._output_sets: dict[tuple[Output, ...], tuple[Output, ...]] = {}
        self._persisted: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._patterns: list[tuple[str, str]] = []  # every output as written, and whose it is

    def expand(self, entries: Sequence[Entry], node: Node) -> tuple[list[JobSpec], list[JobGroup]]:
        """All jobs in order, with names that differ, and what groups of them share."""
        total = sum(entry.count for entry in entries)
        if total > MAX_JOBS:
            message = f"{total:,} jobs are more than one run can hold; the limit is {MAX_JOBS:,}"
            self.report.error(message, node.place, path="jobs")
            return [], []
        self._patterns = [(template.literals[0], e.path) for e in entries for template, _, _ in e.outputs]
        self.uploads.explain_missing = self._explain_missing
        self._name(entries)
        groups = self._group(entries)
        waiting = [
            Waiting(
                entry.names,
                list_pairs(entry.values, "after"),
                entry.path,
                list_pairs(entry.values, "after_any"),
                entry.spec.stage,
                entry.section,
            )
            for entry in entries
            if entry.names
        ]
        empty = [e.group.name for e in entries if e.numbered and e.group and not e.names]
        refused = [*self.refused, *(e.base for e in entries if len(e.names) != e.count)]
        check_after(self.report, waiting, empty, refused)
        jobs = [job for e in entries for job in itertools.takewhile(partial(self.bounds.hold, e), self._expand(e))]
        return jobs, groups

    def _group(self, entries: Sequence[Entry]) -> list[JobGroup]:
        """The groups of sections, and one for each entry of `jobs:` that limits its jobs."""
        book = NameBook()
        for entry in entries:
            if entry.group is not None:
                book.take(entry.group.name)
        for entry in entries:
            if entry.limit is not None and entry.group is None and not entry.single:
                around = parse_template(entry.base, entry.sweep.names).literals
                name = "".join(around).strip("-_./ ") or entry.path
                entry.group = JobGroup(book.make(name), (), entry.limit)
                entry.spec = replace(entry.spec, group=entry.group.name)
        return [entry.group for entry in entries if entry.group is not None and entry.names]

    def _explain_missing(self, text: str) -> str:
        text = text.removeprefix("./")
        for pattern, path in self._patterns:
            head = pattern.split("*", 1)[0].rstrip("/")
            if head and (text == head or text.startswith(head + "/")):
                return f"it is an output of {path}; handing results from job to job comes in a later version"
        return ""

    def _name(self, entries: Sequence[Entry]) -> None:
        book = NameBook()
        places: dict[str, Place] = {}
        for entry in entries:
            if entry.numbered:
                self._take_names(entry, book)
        for entry in entries:
            if entry.numbered or not (entry.explicit and entry.single):
                continue
            node = entry.values["name"].node
            path = entry.values["name"].path
            entry.names = [entry.base]  # also of a bad one, so that its other mistakes are found as well
            bad = describe_bad_name(entry.base)
            if bad:
                self.report.error(f"{path}: the name {clip(entry.base)} {bad}", node.place, path=path)
            elif not book.take(entry.base):
                first = places.get(entry.base)
                hint = (first.first_given if first else "") or "names must differ"
                self.report.error(f"{path}: a second job is called {clip(entry.base)}", node.place, hint, path)
            else:
                places[entry.base] = node.place
        for entry in entries:
            if not entry.numbered and not (entry.explicit and entry.single):
                entry.names = list(self._made_names(entry, book))

    def _take_names(self, entry: Entry, book: NameBook) -> None:
        """Of a group: exactly `section/group/n`."""
        entry.names = [f"{entry.base}/{n}" for n in range(entry.count)]
        for name in entry.names:  # only those of a group of the same name are taken, which was reported
            book.take(name)
        if entry.names and len(entry.names[-1]) > MOST:  # all else was seen of the section and of the group
            message = f"{entry.path}: the name {clip(entry.names[-1])} {describe_bad_name(entry.names[-1])}"
            self.report.error(message, entry.node.place, path=entry.path)
            entry.names = []

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

    def _expand(self, entry: Entry) -> Iterator[JobSpec]:
        if len(entry.names) != entry.count:
            return  # its names were refused
        if entry.functions is not None:
            yield from self._expand_functions(entry, entry.functions)
            return
        names = iter(entry.names)
        for row in entry.sweep.rows:
            try:
                argv = tuple(template.fill(row) for template in entry.command.argv)
                display = entry.command.display.fill(row)
            except UnsafeValue as problem:
                self._report_unsafe(entry, "Call" if entry.numbered else "run", str(problem))
                return
            if entry.keys:
                arguments = entry.list_arguments(row)
                argv += arguments
                display = shlex.join(arguments).join(entry.shown).rstrip(" ")
            try:
                on_preempt = entry.on_preempt.fill(row)
            except UnsafeValue as problem:
                self._report_unsafe(entry, "on_preempt", str(problem))
                return
            workdir = self._fill_workdir(entry, row)
            env = tuple((name, template.fill(row)) for name, template in entry.variables)
            params = tuple(zip(entry.sweep.names, row, strict=True))
            visible = tuple(pair for pair in params if pair[0] not in entry.unset) if entry.unset else params
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
                    env + visible + repeated,
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

    def _expand_functions(self, entry: Entry, functions: FunctionTasks) -> Iterator[JobSpec]:
        """Calls of a function, whose command and files the caller of the loader made."""
        env = tuple((name, template.fill(())) for name, template in entry.variables)
        workdir = self._fill_workdir(entry, ())
        outputs = (*functions.outputs, *self._fill_outputs(entry, ()))
        persist = self._fill_persist(entry, ())
        on_preempt = entry.on_preempt.fill(())
        parts = [self.uploads.resolve(template.fill(()), node, path) for template, node, path in entry.uploads]
        for name, task in zip(entry.names, functions.tasks, strict=True):
            yield replace(
                entry.spec,
                name=name,
                argv=task.argv,
                display=task.display,
                env=env + task.env,
                uploads=self.uploads.join(_distinct([task.uploads, *parts]), entry.node, entry.path),
                outputs=outputs,
                workdir=workdir,
                persist=persist,
                on_preempt=on_preempt,
                params=task.params,
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
            parts.append(self.uploads.resolve(template.fill(row), node, path, entry.script))
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


def describe_bad_output(text: str) -> str:
    """Why `text` cannot be an output; "" when it can."""
    if text.startswith(("/", "~")):
        return "is an absolute path"
    if ".." in text.split("/"):
        return "leaves the run directory"
    if "\0" in text or any(ord(c) < 32 for c in text):
        return "contains a control character"
    return "" if text.strip() else "is empty"

"""What no host could execute is refused before anything starts: a word that is too long, or too much in all."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cloudsend_cli.core.limits import REQUEST_MOST, WORD_MOST
from cloudsend_cli.core.model import JobSpec, Slot, Upload

from .check import Report
from .document import SHORTER, Node, describe_long
from .entries import Entry
from .given import Given, value_of

GPU_NAMES = frozenset({"gpu", "--gpu"})  # of values of a place that are those of CUDA_VISIBLE_DEVICES, too
COMMANDS = ("Call", "script", "run")
MOST = REQUEST_MOST - 30_000  # the rest is for what the run and the machine add
FILE_BYTES = 103  # of a file in a request, beside its path
_SURELY = WORD_MOST // 4  # characters of all words that need no closer look: 4 bytes each, 12 in JSON
_LINE_HINT = "put it into a script, send that with 'upload', and run it"
_FILES_HINT = "pack the files into an archive, and unpack it in the job"


class Bounds:
    """Looks at jobs as they are made; every problem goes to the report."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._lists: dict[int, tuple[tuple[Upload, ...], int]] = {}  # by id: equal lists of files are one object
        self._places: dict[str, int] = {}  # by the path of a group: bytes of the longest of its places

    def hold(self, entry: Entry, job: JobSpec) -> bool:
        """Whether a host can be asked to execute it; False was reported."""
        rough = sum(map(len, job.argv)) + sum(len(name) + len(value) for name, value in job.env) + len(job.on_preempt)
        place = self._size_of_place(entry, job)
        words = rough + 8 * (len(job.argv) + len(job.env)) + place
        files = self._size_of(job.uploads)
        if words < _SURELY and files < MOST // 2:
            return True
        before = len(self.report.problems)
        for given, node, what, hint in _list_long(entry, job):
            self.report.error(f"{given.path}: {what}", node.place, hint, given.path)
        if len(self.report.problems) == before:
            self._check_total(entry, job, files, place)
        return len(self.report.problems) == before

    def _size_of(self, uploads: tuple[Upload, ...]) -> int:
        known = self._lists.get(id(uploads))
        if known is None:
            known = uploads, sum(len(json.dumps(upload.path)) + FILE_BYTES for upload in uploads)
            self._lists[id(uploads)] = known
        return known[1]

    def _size_of_place(self, entry: Entry, job: JobSpec) -> int:
        """What the group's longest place adds to a task: arguments and variables."""
        if entry.group is None:
            return 0
        if entry.path not in self._places:
            sizes = (_measure_place(slot, arguments=job.slot_args) for slot in entry.group.slots)
            self._places[entry.path] = max(sizes, default=0)
        return self._places[entry.path]

    def _check_total(self, entry: Entry, job: JobSpec, files: int, place: int) -> None:
        """Reported at what takes most of it."""
        command, variables = len(json.dumps([job.argv, job.on_preempt])), len(json.dumps(dict(job.env)))
        total = command + variables + files + place
        if total <= MOST:
            return
        most = max(command, variables, files, place)
        keys: tuple[str, ...] = ("upload", "input") if most == files else ("vars",) if most == variables else ()
        keys = ("Async",) if most == place else keys
        given = next((entry.values[key] for key in (*keys, *COMMANDS) if key in entry.values), None)
        path, node = (given.path, given.node) if given is not None else (entry.path, entry.node)
        what = f", the variables and the list of {len(job.uploads):,} files" if job.uploads else " and the variables"
        whose = "one task in its place" if place else "one job"
        message = f"{path}: the command{what} of {whose} take {total:,} bytes; the limit is {MOST:,}"
        self.report.error(message, node.place, _FILES_HINT if most == files else SHORTER, path)


def _measure_place(slot: Slot, *, arguments: bool) -> int:
    """Bytes in a request. A value is an argument, a variable, and for GPUs another one."""
    size = 0
    for name, value in slot:
        bare, written = len(json.dumps(name)) + 4, len(json.dumps(value)) + 4
        size += bare + written if arguments else 0
        size += bare + written + len("CLOUDSEND_SLOT_") if name else 0
        size += written + len("CUDA_VISIBLE_DEVICES") if name in GPU_NAMES else 0
    return size


def _list_long(entry: Entry, job: JobSpec) -> Iterator[tuple[Given, Node, str, str]]:
    """(key, where it stands, what is wrong, what to do) of each word that is too long to be passed."""
    values = entry.values
    command = next((values[key] for key in COMMANDS if key in values), None)
    # Of a shell line only the line itself; arguments behind it are values, which were looked at one by one.
    line = command is not None and command.name != "script" and job.argv[:2] == ("/bin/sh", "-c")
    long = next(filter(None, map(describe_long, job.argv[2:3] if line else job.argv)), "")
    if command is not None and long:
        what, hint = ("the command", _LINE_HINT) if line else ("an argument", SHORTER)
        yield command, command.node, f"{what} {long}", hint
    hook = describe_long(job.on_preempt)
    if hook:
        yield values["on_preempt"], values["on_preempt"].node, f"the command {hook}", _LINE_HINT
    own = value_of(values, "vars")
    nodes = {name: node for name, _, node in own} if isinstance(own, list) else {}
    for name, value in job.env:
        long = describe_long(value, name)
        if not long:
            continue
        given = values["vars"] if name in nodes else values.get("matrix") or values.get("Param")
        if given is not None:
            yield given, nodes.get(name, given.node), f"the variable {name} {long}", SHORTER

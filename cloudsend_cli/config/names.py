"""Names of jobs, and who waits for whom. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudsend_cli.core.naming import match_names

from .check import Report, clip, did_you_mean
from .commands import plain_name
from .document import Node

MOST = 200
_GLOB = frozenset("*?[")
_OPEN = re.compile(r"[*?\[{]")  # where a pattern, or a name as written, stands for several


def describe_bad_name(name: str) -> str:
    """Why `name` cannot be a job's name; "" when it can."""
    if not name or name != name.strip():
        return "is empty or begins or ends with a space"
    if not name.isprintable():
        return "contains a control character"
    if len(name) > MOST:
        return f"is longer than {MOST} characters"
    if name[0] in "-/" or name[0] == "@":
        return f"begins with {name[0]!r}"
    if not _GLOB.isdisjoint(name):
        return "contains one of * ? [, which mark a pattern of names"
    if "." in name and any(part in ("..", ".") for part in name.split("/")):
        return "contains '.' or '..' as a part of a path"
    return ""


def suffix_of(row: Sequence[str]) -> str:
    """The part of a name that tells this row of a sweep from others: of a value without a sign that names may have
    `other`."""
    return "-".join(plain_name(value, "other" if value.strip() else "empty") for value in row)[:120]


class NameBook:
    """Gives each job its name. Explicit single names come first, so that a made-up name never takes one."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, name: str) -> bool:
        """True when the name was free; now it is not."""
        if name in self._taken:
            return False
        self._taken.add(name)
        return True

    def make(self, name: str) -> str:
        """`name`, or `name-2`, `name-3`… when it is taken."""
        if self.take(name):
            return name
        number = self._next.get(name, 2)
        while not self.take(f"{name}-{number}"):
            number += 1
        self._next[name] = number + 1
        return f"{name}-{number}"


@dataclass(slots=True)
class Waiting:
    """One entry of `jobs:`, or one group, and what it waits for."""

    names: list[str]
    after: list[tuple[str, Node]]
    path: str
    after_any: list[tuple[str, Node]] = field(default_factory=list)
    stage: int = 0  # begins when all of lower stages above 0 have ended
    section: str = ""
    edges: list[int] = field(default_factory=list)

    @property
    def asked(self) -> list[tuple[str, str, Node]]:
        """(key, name or pattern, where it stands)."""
        return [("after", *pair) for pair in self.after] + [("after_any", *pair) for pair in self.after_any]


def check_after(
    report: Report, entries: Sequence[Waiting], empty: Sequence[str] = (), refused: Sequence[str] = ()
) -> None:
    """Report names that nothing has, patterns that fit nothing, and jobs that wait for each other.

    `empty`: groups without tasks. What waits for all tasks of such a group waits for none, and a warning says so.
    `refused`: what names look like that would be there but for a mistake that was reported; who waits for one of them
    made none.

    All jobs of one entry wait for the same jobs, so that a cycle among entries is a cycle among jobs.
    """
    if not any(entry.after or entry.after_any for entry in entries):
        return
    owner = {name: index for index, entry in enumerate(entries) for name in entry.names}
    found: dict[str, list[str]] = {}
    for index, entry in enumerate(entries):
        for key, pattern, node in entry.asked:
            if pattern not in found:
                found[pattern] = [pattern] if pattern in owner else match_names(pattern, owner)
            names = found[pattern]
            own = [name for name in names if owner[name] == index]
            place = f"{entry.path}.{key}"
            if not names and match_names(pattern, [f"{group}/0" for group in empty]):
                report.warn(f"{place}: {clip(pattern)} has no tasks, and is not waited for", node.place, path=place)
            elif not names:
                if not any(_may_fit(pattern, name) for name in refused):
                    hint = _hint_braces(pattern, key) or did_you_mean(pattern, owner)
                    report.error(f"{place}: {_describe_unknown(pattern)}", node.place, hint, place)
            elif bad := _describe_own(pattern, own, len(names), single=len(entry.names) == 1, named=pattern in owner):
                report.error(f"{place}: {bad}", node.place, path=place)
            entry.edges += sorted({owner[name] for name in names} - {index})
    _check_cycles(report, [*entries, *_list_stage_ends(entries)])


def _describe_own(pattern: str, own: Sequence[str], found: int, *, single: bool, named: bool) -> str:
    """What is wrong with waiting for jobs of the same entry, which are `own`; "": nothing."""
    if named and own:
        return f"the job {clip(pattern)} waits for itself"
    if len(own) > 1:
        return f"{clip(pattern)} fits jobs of the same entry, which would wait for each other"
    return f"{clip(pattern)} fits only the job itself" if own and found == 1 and single else ""


def _may_fit(pattern: str, name: str) -> bool:
    """Whether they begin alike, up to the first sign in either that stands for others."""
    heads = _OPEN.split(pattern, maxsplit=1)[0], _OPEN.split(name, maxsplit=1)[0]
    return heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])


def _describe_unknown(pattern: str) -> str:
    return f"{'no job is called' if _GLOB.isdisjoint(pattern) else 'no job fits'} {clip(pattern)}"


def _hint_braces(pattern: str, key: str) -> str:
    return f"parameters are not replaced in {key!r}; use a glob such as train-*" if "{" in pattern else ""


def _list_stage_ends(entries: Sequence[Waiting]) -> list[Waiting]:
    """One node for the end of each stage, in place of an edge between all its jobs and all of the next one."""
    stages: dict[int, list[int]] = {}
    for index, entry in enumerate(entries):
        if entry.stage:
            stages.setdefault(entry.stage, []).append(index)
    ends: list[Waiting] = []
    for stage in sorted(stages):
        members = stages[stage]
        before = [len(entries) + len(ends) - 1] if ends else []
        for index in members:
            entries[index].edges += before
        section = clip(entries[members[0]].section)
        ends.append(Waiting([f"(the end of section {section})"], [], "", edges=[*members, *before]))
    return ends


def _check_cycles(report: Report, entries: Sequence[Waiting]) -> None:
    """Depth first without recursion; each cycle's closing edge is reported once."""
    state = [0] * len(entries)  # 0 not seen, 1 on the way, 2 done
    for start in range(len(entries)):
        if state[start]:
            continue
        way = [start]
        nexts = [iter(entries[start].edges)]
        state[start] = 1
        while way:
            target = next(nexts[-1], None)
            if target is None:
                state[way.pop()] = 2
                nexts.pop()
            elif state[target] == 0:
                state[target] = 1
                way.append(target)
                nexts.append(iter(entries[target].edges))
            elif state[target] == 1:
                cycle = [*way[way.index(target) :], target]
                shown = " -> ".join(entries[i].names[0] for i in cycle)
                # Stages alone make no cycle: one of these jobs says that it waits.
                entry = next(entries[i] for i in reversed(cycle[:-1]) if entries[i].asked)
                key, _, node = entry.asked[0]
                message = f"jobs wait for each other: {shown}"
                report.error(message, node.place, "an arrow means 'runs after'", f"{entry.path}.{key}")

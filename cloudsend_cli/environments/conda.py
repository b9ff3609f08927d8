"""conda's files and lists as one environment.yml that stands alone on any host."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

from cloudsend_cli.core.model import EnvironmentSpec

from .frozen import freeze_conda
from .requirements import resolve_requirements
from .sources import Sources

DEFAULT_CHANNELS = ("conda-forge",)
_SECTION = re.compile(r"^(\s*)(?:- )?([A-Za-z_]+)\s*:\s*$")
_ITEM = re.compile(r"^(\s*)- +(\S.*)$")
_DROPPED = re.compile(r"^(name|prefix)\s*:")
_SORTED_SECTIONS = frozenset({"dependencies", "pip"})


@dataclass(frozen=True, slots=True)
class CondaPlan:
    """`yml` is what the tool reads; `content` is the same without what makes no difference."""

    yml: str
    content: str
    pip: tuple[str, ...] = ()


def plan_conda(sources: Sources, spec: EnvironmentSpec, *, with_pip: bool) -> CondaPlan | None:
    """From a list, a file (yml, or a list as `conda list --export` writes it), a directory, or none of them.

    `with_pip`: pip will be used inside, so that lists get what it needs.
    """
    file, directory, channels = spec.conda_file, spec.conda_directory, spec.conda_channels
    specs = _checked(sources, spec)
    pip: tuple[str, ...] = ()
    if directory:
        frozen, found_channels, frozen_pip = freeze_conda(sources, directory)
        specs += frozen
        channels, pip = channels or tuple(found_channels), tuple(frozen_pip)
    if file:
        text = sources.text("conda_file", file)
        if re.search(r"^dependencies\s*:", text, re.MULTILINE):
            if specs:
                hint = "add the packages to the file"
                sources.problem("conda", f"a list of packages beside {file}, which is a whole environment", hint=hint)
            yml = _stand_alone(sources, text, file)
            if channels and not re.search(r"^channels\s*:", yml, re.MULTILINE):
                yml = _section("channels", list(channels)) + yml
            return CondaPlan(yml, _normal(yml), pip)
        specs += _exported(sources, text, file)
    if not (specs or file or directory):
        return None
    if with_pip or pip:
        specs += ["python", "pip"]
    yml = _section("channels", list(channels or DEFAULT_CHANNELS)) + _section("dependencies", sorted(set(specs)))
    return CondaPlan(yml, yml, pip)


def _checked(sources: Sources, spec: EnvironmentSpec) -> list[str]:
    for name in (*spec.conda, *spec.conda_channels):
        if sources.one_line("conda", name) and name.startswith("-"):
            sources.problem("conda", f"{name!r} looks like an option, not like a package or channel")
    return list(spec.conda)


def _section(name: str, values: list[str]) -> str:
    """JSON strings are YAML strings, whatever is in them."""
    return f"{name}:\n" + "".join(f"  - {json.dumps(value)}\n" for value in values)


def _exported(sources: Sources, text: str, file: str) -> list[str]:
    specs = []
    for number, line in enumerate(text.split("\n"), 1):
        spec = line.strip()
        if not spec or spec.startswith("#"):
            continue
        if spec.startswith(("@", "-")) or not spec.isprintable():
            hint = "write an environment.yml: `conda env export`"
            sources.problem("conda_file", f"{spec!r} is no package", file=file, line=number, hint=hint)
        else:
            specs.append(spec)
    return specs


def _stand_alone(sources: Sources, text: str, file: str) -> str:
    """The file without its name and prefix, and with the requirements files of its pip list in their place."""
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        item = _ITEM.match(line)
        value = item[2].strip().strip("'\"") if item else ""
        named = re.match(r"(?:-r|--requirement)[ =]*(\S.*)$", value)
        if _DROPPED.match(line):
            continue
        if item and named:
            path = os.path.normpath(os.path.join(os.path.dirname(file), named[1].split(" #")[0].strip()))
            found = resolve_requirements(sources, (), path)
            if found.constraints:
                sources.problem("conda_file", f"{path} names constraints, which conda's pip list cannot carry")
            lines += [f"{item[1]}- {json.dumps(entry)}" for entry in found.lines]
        elif item and re.match(r"(-c|--constraint|-e|--editable)\b", value):
            text = f"{value!r} needs a file of this machine, which the environment cannot carry"
            sources.problem("conda_file", text, file=file, line=number)
        else:
            lines.append(line)
    return "\n".join(lines).rstrip("\n") + "\n"


def _normal(yml: str) -> str:
    """Without comments and blank lines, with packages sorted; the order of channels has a meaning and stays."""
    lines: list[str] = []
    run: list[str] = []
    section = ""
    for raw in yml.split("\n"):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if not line:
            continue
        heading = _SECTION.match(line)
        if heading is None and section in _SORTED_SECTIONS and _ITEM.match(line):
            if run and _indent(run[-1]) != _indent(line):
                lines, run = lines + sorted(run), []
            run.append(line)
            continue
        lines, run = [*lines, *sorted(run), line], []
        section = heading[2] if heading else section
    return "\n".join(lines + sorted(run))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())

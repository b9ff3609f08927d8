"""EnvironmentSpec to EnvironmentBuild: one script that needs nothing but the host's own tools, keyed by content."""

from __future__ import annotations

import os
import re

from cloudsend_cli.core.model import EnvironmentBuild, EnvironmentSpec
from cloudsend_cli.core.naming import digest
from cloudsend_cli.errors import ConfigError

from .conda import plan_conda
from .frozen import freeze_venv
from .requirements import resolve_requirements
from .sources import ListNames, Read, Sources, read_file
from .steps import HEAD, TAIL, activate_step, apt_step, conda_step, julia_step, pip_step, setup_step

RENDERER = 1  # part of every key: raise it when what a script leaves behind changes
SCRIPT_LIMIT = 120_000  # bytes: the kernel takes at most 128 KiB in one argument
CONDA_SLOT = "tool-conda"  # conda and its kin share caches that two at once can damage
APT_SLOT = "tool-apt"

_APT_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+|/[a-z0-9.-]+)?")
_JULIA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.jl)?(@[0-9A-Za-z][0-9A-Za-z.+-]*)?")
_JULIA_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9._~/:@%+-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def render_environment(
    spec: EnvironmentSpec,
    read: Read = read_file,
    list_names: ListNames = os.listdir,
    *,
    base: str = "",
    elsewhere: bool = False,
) -> EnvironmentBuild:
    """Read what the spec names, check it, and write the script. Raises ConfigError with every problem.

    `base`: the directory that relative paths in its list of pip are relative to, such as the config file's.
    `elsewhere`: other machines than this one build it, so that it may not need files of this one.
    """
    sources = Sources(spec.name, read, list_names, elsewhere)
    setup = _setup(sources, spec)
    apt = sorted(set(_checked(sources, "apt", spec.apt, _APT_NAME, "package of apt")))
    pip = resolve_requirements(sources, spec.pip, spec.pip_file, base=base)
    if spec.pip_directory:
        pip.packages.update(freeze_venv(sources, spec.pip_directory))
    uses_pip = bool(spec.pip or spec.pip_file or spec.pip_directory)
    conda = plan_conda(sources, spec, with_pip=uses_pip)
    if conda is not None and conda.pip:
        pip.packages.update(conda.pip)
        uses_pip = True
    julia = sorted({_julia(sources, package) for package in spec.julia} - {""})
    variables = _variables(sources, spec)
    parts = [HEAD]
    parts += [setup_step(setup)] if setup else []
    parts += [apt_step(apt, spec.allow_system_packages)] if apt else []
    parts += [conda_step(conda.yml)] if conda else []
    parts += [pip_step(pip, inside_conda=conda is not None)] if uses_pip else []
    parts += [julia_step(julia)] if julia else []
    venv = uses_pip and conda is None
    parts += [activate_step(conda=conda is not None, venv=venv, julia=bool(julia), variables=variables), TAIL]
    script = "".join(parts)
    if not sources.problems and len(script.encode("utf-8", "replace")) > SCRIPT_LIMIT:
        hint = "split it in two, or leave the hashes of packages out"
        sources.problem("pip_file", f"its lists are longer than {SCRIPT_LIMIT} bytes", hint=hint)
    if sources.problems:
        raise ConfigError(sources.problems)
    installs = bool(apt) and spec.allow_system_packages
    slots: tuple[str, ...] = (CONDA_SLOT,) if conda else ()
    slots += (APT_SLOT,) if installs else ()
    content = [setup, apt, installs, conda.content if conda else "", pip.content if uses_pip else [], julia]
    key = digest(RENDERER, content, [list(v) for v in variables])
    return EnvironmentBuild(key, spec.name, script, slots, tuple(variables))


def _setup(sources: Sources, spec: EnvironmentSpec) -> str:
    if spec.setup_is_file:
        return sources.text("setup", spec.setup)
    if "\0" in spec.setup:
        sources.problem("setup", "its command holds a NUL byte")
    return spec.setup if spec.setup.strip() else ""


def _checked(sources: Sources, key: str, values: tuple[str, ...], shape: re.Pattern[str], what: str) -> list[str]:
    for value in values:
        if not shape.fullmatch(value):
            sources.problem(key, f"{value!r} is not the name of a {what}")
    return [value for value in values if shape.fullmatch(value)]


def _julia(sources: Sources, package: str) -> str:
    if _JULIA_URL.fullmatch(package):
        return package
    if _JULIA_NAME.fullmatch(package):
        name, at, version = package.partition("@")
        return name.removesuffix(".jl") + at + version
    sources.problem("julia", f"{package!r} is not the name of a package of Julia")
    return ""


def _variables(sources: Sources, spec: EnvironmentSpec) -> list[tuple[str, str]]:
    for name, value in spec.vars:
        if not _VARIABLE.fullmatch(name):
            sources.problem("vars", f"{name!r} is not the name of a variable")
        if "\0" in value:
            sources.problem("vars", f"the value of {name} holds a NUL byte")
    return sorted(spec.vars)

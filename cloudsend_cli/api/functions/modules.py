"""Which of the user's own modules a function needs, as files: those that are not installed, with what they import."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec
from pathlib import Path

from cloudsend_cli.errors import UsageError

FILES_MOST = 2000
INSTALLED = {"site-packages", "dist-packages"}
SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)


def find_sources(names: Iterable[str]) -> dict[str, Path]:
    """{path below the folder of modules: file} of the modules of these names, and of all local ones they import.

    A module is local if its file is neither Python's nor in a folder of installed packages. Of a package all is taken.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()
    todo = sorted({name.partition(".")[0] for name in names})
    while todo:
        name = todo.pop()
        if name in seen or name == "__main__":
            continue
        seen.add(name)
        files = dict(_list_files(name))
        found |= files
        if len(found) > FILES_MOST:
            hint = "move the function into a smaller package, or install the package on the machines"
            raise UsageError(f"the module {name} has more than {FILES_MOST:,} files to send", hint=hint)
        for path in files.values():
            todo += sorted(_list_imports(path) - seen)
    return found


def _list_files(name: str) -> Iterator[tuple[str, Path]]:
    spec = _find_spec(name)
    if spec is None:
        return
    folders = list(spec.submodule_search_locations or ())
    if not folders and spec.origin and _is_local(spec.origin) and spec.origin.endswith(SUFFIXES):
        yield Path(spec.origin).name, Path(spec.origin)
    for folder in folders:
        if _is_local(folder):
            yield from _walk(Path(folder), name)


def _find_spec(name: str) -> ModuleSpec | None:
    try:
        loaded = getattr(sys.modules.get(name), "__spec__", None)
        return loaded if isinstance(loaded, ModuleSpec) else importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def _is_local(path: str) -> bool:
    if INSTALLED & set(Path(path).parts) or not os.path.exists(path):
        return False  # what is in an archive, or built in, is no file
    real = os.path.realpath(path)
    standard = {os.path.realpath(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")}
    return not any(real.startswith(folder + os.sep) for folder in standard)


def _walk(folder: Path, place: str) -> Iterator[tuple[str, Path]]:
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f.isidentifier() and f != "__pycache__")
        inner = Path(place, os.path.relpath(base, folder))
        for file in sorted(files):
            if file.endswith(SUFFIXES):
                yield (inner / file).as_posix(), Path(base, file)


def _list_imports(path: Path) -> set[str]:
    """The first words of all that a source imports from outside of its package."""
    if not path.name.endswith(tuple(SOURCE_SUFFIXES)):
        return set()
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()  # Python says so better, where it is imported
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}

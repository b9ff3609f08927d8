"""Habits of the project that no tool checks: sizes, names, docstrings, the agent's imports, the docs."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cloudsend_cli"
SOURCES = sorted(PACKAGE.rglob("*.py"))
AGENT = sorted((PACKAGE / "agent" / "host").glob("*.py"))  # what runs on hosts

MAX_LINES = 600
MAX_LINES_OF_AN_ADR = 60  # a page
JUNK_NAMES = {"base", "common", "utils", "util", "helpers", "helper", "manager", "misc"}
MODULES_NEWER_THAN_3_6 = {"contextvars", "dataclasses", "graphlib", "tomllib", "zoneinfo"}
ARGUMENTS_NEWER_THAN_3_6 = {"capture_output", "text"}  # of subprocess
DOCSTRING = re.compile(r'(?:#.*\n)*"""\s*[^\s"]')
# Paths of the machine on which someone worked. Written so that the pattern does not match itself.
MACHINE_PATHS = re.compile(rb"(?<![\w.~$}*-])/(?:work|root)/")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def files_of_the_project() -> tuple[Path, ...]:
    """What git tracks or would track."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in done.stdout.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def makefile_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", text, re.MULTILINE))


def test_files_are_short() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    long = {name: count for name, count in lines.items() if count > MAX_LINES}
    assert not long, f"more than {MAX_LINES} lines: split by noun"


def test_files_are_named_for_what_they_hold() -> None:
    for path in SOURCES:
        junk = JUNK_NAMES & {part.lstrip("_") for part in path.relative_to(ROOT).with_suffix("").parts}
        assert not junk, f"{name_of(path)}: {junk} says nothing about what lives there"


def test_files_say_what_lives_in_them() -> None:
    mute = [name_of(path) for path in SOURCES if not DOCSTRING.match(path.read_text())]
    assert not mute, "no module docstring"


def test_folders_are_packages() -> None:
    bare = {name_of(path.parent) for path in SOURCES if not (path.parent / "__init__.py").exists()}
    assert not bare, "would be left out of the wheel"


class TestAgent:
    def test_is_all_that_is_put_on_hosts(self) -> None:
        from cloudsend_cli.agent.client import agent_source

        with zipfile.ZipFile(io.BytesIO(agent_source())) as archive:
            assert sorted(archive.namelist()) == ["__main__.py", *(f"host/{path.name}" for path in AGENT)]

    @pytest.mark.parametrize("path", AGENT, ids=name_of)
    def test_imports_the_standard_library_and_itself_alone(self, path: Path) -> None:
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(), name_of(path))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1, f"line {node.lineno}: leaves what is put on hosts"
                assert path.with_name(f"{node.module}.py") in AGENT, f"line {node.lineno}"
        assert imported <= sys.stdlib_module_names
        assert not imported & MODULES_NEWER_THAN_3_6

    @pytest.mark.parametrize("path", AGENT, ids=name_of)
    def test_has_no_syntax_newer_than_3_6(self, path: Path) -> None:
        # 3.7 is the oldest grammar that every Python here still knows; the rest is looked for by hand.
        tree = ast.parse(path.read_text(), name_of(path), feature_version=(3, 7))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                pytest.fail(f"line {node.lineno}: 3.6 knows none of the __future__ imports of today")
            if isinstance(node, ast.Call):
                newer = ARGUMENTS_NEWER_THAN_3_6 & {keyword.arg for keyword in node.keywords}
                assert not newer, f"line {node.lineno}: {newer} came with Python 3.7"


def test_make_commands_in_the_docs_exist() -> None:
    targets = makefile_targets()
    assert {"setup", "demo", "check", "test", "bench", "docs", "simulate"} <= targets
    for path in files_of_the_project():
        if path.suffix == ".md":
            for target in re.findall(r"(?:`|^\s*(?:\$ )?)make ([a-z][a-z0-9-]*)", path.read_text(), re.MULTILINE):
                assert target in targets, f"{name_of(path)}: there is no `make {target}`"


def test_no_path_of_a_machine_is_in_a_file() -> None:
    for path in files_of_the_project():
        content = path.read_bytes()
        if b"\0" not in content:
            found = MACHINE_PATHS.search(content)
            line = content.count(b"\n", 0, found.start()) + 1 if found else 0
            assert not found, f"{name_of(path)}:{line}: a path of someone's machine"


ADRS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))


def test_decision_records_fit_a_page_and_are_complete() -> None:
    for path in ADRS:
        text = path.read_text()
        assert len(text.splitlines()) <= MAX_LINES_OF_AN_ADR, name_of(path)
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "What would change our mind"], name_of(path)


def test_decision_records_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in ADRS]
    assert numbers == list(range(1, len(numbers) + 1))

"""The documentation is executed: generated pages are current, and the README's commands do what it says."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from fnmatch import filter as matching
from pathlib import Path
from types import ModuleType

import pytest
import warm_commands
import warm_maestros

ROOT = Path(__file__).parent.parent


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current() -> None:
    for name, text in _generator().render_pages().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"docs/{name} is stale: run `make docs`"


def test_every_error_has_a_code_of_its_own_and_words() -> None:
    kinds = _generator().list_error_classes()
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert all(kind.__doc__ and re.fullmatch(r"[a-z][a-z-]+", kind.code) for kind in kinds)


def test_no_error_is_defined_outside_of_errors_py() -> None:
    defined = re.compile(r"^class \w+\((\w*Error|CloudsendError)\)", re.MULTILINE)
    known = {kind.__name__ for kind in _generator().list_error_classes()} | {"CloudsendError"}
    for path in (ROOT / "cloudsend_cli").rglob("*.py"):
        if path.name != "errors.py":
            bases = set(defined.findall(path.read_text(encoding="utf-8")))
            assert not bases & known, f"{path} defines an error that a user can meet: it belongs into errors.py"


def _tour() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tour = text[text.index("## A short tour") : text.index("## What it promises")]
    return [line[2:] for block in re.findall(r"```console\n(.*?)```", tour, re.DOTALL) for line in block.splitlines()
            if line.startswith("$ ")]  # fmt: skip


@pytest.fixture
def maestros() -> Iterator[None]:
    with warm_maestros.used({}):
        yield


@pytest.mark.usefixtures("maestros")
@pytest.mark.skipif(not _tour(), reason="the README has no tour")
def test_the_readmes_tour(state_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("results"))
    environ = {**os.environ, "CLOUDSEND_HOME": str(state_dir), "CLOUDSEND_MAESTRO_LINGER": "1"}
    try:
        for command in _tour():
            wanted = 1 if "failures.yml" in command else 0
            name, *words = shlex.split(command)
            assert name == "cloudsend"
            done = warm_commands.run(words, environ=environ, folder=tmp_path, timeout=120)
            assert done.returncode == wanted, f"$ {command}\n{done.stdout}{done.stderr}"
    finally:
        warm_commands.run(["maestro", "stop"], environ=environ, folder=tmp_path)


def test_examples_are_valid(state_dir: Path) -> None:
    for path in sorted((ROOT / "examples").glob("*.yml")):
        words = ["--state-dir", str(state_dir), "validate", str(path)]
        done = warm_commands.run(words, environ=os.environ, folder=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr


def _faults() -> dict[str, str]:
    """Of the table in design.md: what stands beside each fault."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = text[text.index("## Faults and their tests") :]
    return dict(re.findall(r"^\| ([PCU]\d+) \| .+? \| (.+) \|$", section, re.MULTILINE))


def test_each_fault_has_tests() -> None:
    asked = {f"{kind}{number}" for kind, last in (("P", 11), ("C", 20), ("U", 4)) for number in range(1, last + 1)}
    faults = _faults()
    assert faults.keys() == asked
    assert {fault for fault, cell in faults.items() if "::" not in cell} == {"C16"}


@pytest.mark.parametrize("fault", _faults())
def test_tests_of_a_fault_exist(fault: str) -> None:
    for path, wanted in re.findall(r"`([^`]+?)::([^`]+)`", _faults()[fault]):
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert matching(names, wanted), f"docs/design.md names {path}::{wanted} for {fault}: there is no such test"

"""Hosts to build on: a directory of tools that is the whole PATH, and shells to run the scripts with."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloudsend_cli.core.model import EnvironmentBuild
from cloudsend_cli.environments.activate import wrap_command

BASIC_TOOLS = ("sh", "mkdir", "rm", "rmdir", "mv", "cat", "chmod", "id", "env", "touch", "ls")
SHELLS = [["/bin/sh"]]
# bash is another shell when it is called sh; dash is not.
if (dash := shutil.which("dash")) and not os.path.samefile(dash, "/bin/sh"):
    SHELLS.append([dash])
if bash := shutil.which("bash"):
    SHELLS.append([bash])
if busybox := shutil.which("busybox"):
    SHELLS.append([busybox, "sh"])


@dataclass
class FakeHost:
    """A machine with just the tools that a test gives it. A fake tool notes its arguments and runs a body."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    @property
    def env_dir(self) -> Path:
        return self.root / "envs" / "key"

    def add(self, name: str, body: str = "") -> None:
        """`body` is shell text; what it exits with is what the tool exits with."""
        tool = self.tools / name
        note = f'printf \'%s\\0\' {name} "$@" >>"$CALLS"; printf \'\\n\\0\' >>"$CALLS"\n'
        tool.write_text(f"#!/bin/sh\n{note}{body}\n")
        tool.chmod(0o755)

    def calls(self) -> list[list[str]]:
        path = self.root / "calls"
        text = path.read_text() if path.exists() else ""
        return [call.split("\0")[:-1] for call in text.split("\n\0")[:-1]]

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": str(self.tools),
            "HOME": str(self.root),
            "CALLS": str(self.root / "calls"),
            "CLOUDSEND_ENV": str(self.env_dir),
            **self.environment,
        }

    def build(self, build: EnvironmentBuild, shell: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        environ = {**self._environ(), **dict(build.variables)}
        return subprocess.run(
            [*(shell or ["/bin/sh"]), "-c", build.script, "environment"],
            env=environ, cwd="/", capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A job in the environment."""
        return subprocess.run(
            wrap_command(argv, True), env=self._environ(), cwd=self.root, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    @property
    def ready(self) -> bool:
        return (self.env_dir / "ready").exists()


@pytest.fixture
def host(weird_path: Path) -> FakeHost:
    made = FakeHost(weird_path)
    made.tools.mkdir()
    for name in BASIC_TOOLS:
        (made.tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    return made


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Callable[..., Path]:
    """A directory with a pure wheel in it, made by hand."""

    def make(name: str = "leaf", version: str = "1.0", requires: tuple[str, ...] = ()) -> Path:
        directory = tmp_path / "wheelhouse"
        directory.mkdir(exist_ok=True)
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {r}\n" for r in requires)
        files = {
            f"{name}.py": f"VERSION = {version!r}\n\ndef main():\n    print('{name}', VERSION)\n",
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        }
        record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
        with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, text in {**files, f"{info}/RECORD": record}.items():
                wheel.writestr(path, text)
        return directory

    return make


@pytest.fixture
def nobody() -> None:
    """For tests that need a user without root's rights."""
    if os.geteuid() == 0:
        pytest.skip("runs as root")

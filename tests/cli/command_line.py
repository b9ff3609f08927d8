"""Runs `cloudsend` as a user would, in a process and a state directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import warm_commands


@dataclass(frozen=True)
class Command:
    """Runs `cloudsend` as a user would."""

    state_dir: Path
    folder: Path

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", "cloudsend_cli"]

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, "CLOUDSEND_HOME": str(self.state_dir), "TERM": "xterm"}

    def __call__(self, *words: str, stdin: str = "", status: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = warm_commands.run(words, environ=self.environ, folder=self.folder, stdin=stdin)
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done

    def json(self, *words: str, status: int | None = 0) -> Any:
        return json.loads(self(*words, "-o", "json", status=status).stdout)

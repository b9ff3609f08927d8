"""Programs of users that call functions elsewhere, each a real `__main__` of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from real_stack import Stack

TIMEOUT = 250


def run_program(stack: Stack, source: str, *words: str, name: str = "program.py", **environ: str) -> str:
    """What the program prints. It finds its Client's directory in CLOUDSEND_HOME; nothing may come on stderr."""
    done = start_program(stack, source, *words, name=name, **environ)
    assert done.returncode == 0 and not done.stderr, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def start_program(
    stack: Stack, source: str, *words: str, name: str = "program.py", **environ: str
) -> subprocess.CompletedProcess[str]:
    script = write(stack.files / name, source)
    return subprocess.run(
        [sys.executable, str(script), *words],
        cwd=stack.files,
        env={**os.environ, "CLOUDSEND_HOME": str(stack.state), **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source).lstrip(), encoding="utf-8")
    return path

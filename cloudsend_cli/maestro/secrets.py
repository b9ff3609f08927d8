"""Values of `vars: {NAME: null}`: taken from the submitting shell, kept in a 0600 file until the run has ended."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path


def write_secrets(state_dir: Path, run: str, values: Mapping[str, str]) -> None:
    """Add `values` to those of the run; the file is never readable by others."""
    known = read_secrets(state_dir, run)
    known.update(values)
    if not known:
        return
    directory = state_dir / "secrets"
    directory.mkdir(mode=0o700, exist_ok=True)
    temporary = directory / f".{run}-{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(known, file)
    os.replace(temporary, directory / run)


def read_secrets(state_dir: Path, run: str) -> dict[str, str]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        values = json.loads((state_dir / "secrets" / run).read_text(encoding="utf-8"))
        return {str(k): str(v) for k, v in values.items()}
    return {}


def delete_secrets(state_dir: Path, run: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        (state_dir / "secrets" / run).unlink()

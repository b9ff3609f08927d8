"""Results of several jobs side by side in one directory, named as the seeds name them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from cloudsend_cli.engine.results import MANIFEST
from cloudsend_cli.errors import ResultError

from ..client import Client
from .objects import CloudSendProcess


def collect_results(client: Client, process: CloudSendProcess, directory: Path) -> None:
    """Copy what one job has left into `directory`. ResultError: there is nothing of it any more, or no room for it."""
    job = process.get_job()
    taken: set[Path] = set()
    for home in client.fetch(str(job.get_id())):
        for path in _files(home):
            name = path.relative_to(home).as_posix().replace("/", "_")
            target = directory / f"job_{job.get_rank():03d}_{name}"
            while target in taken:  # `a/b` and `a_b` of one job
                target = target.with_name(f"{target.name}~1")
            taken.add(target)
            _copy(path, target)


def _copy(path: Path, target: Path) -> None:
    temporary = target.with_name(f".{os.getpid()}-{threading.get_ident()}")
    try:
        shutil.copyfile(path, temporary)
        os.replace(temporary, target)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        hint = f"it is at home, as {path}"
        raise ResultError(f"{target} cannot be written: {problem.strerror or problem}", hint=hint) from None


def _files(home: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(home):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if name != MANIFEST and path.is_file():
                yield path


def collect_all(client: Client, processes: list[CloudSendProcess], directory: Path) -> None:
    """All that there is; then ResultError with what is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    missing: list[ResultError] = []
    for process in processes:
        try:
            collect_results(client, process, directory)
        except ResultError as problem:
            missing.append(problem)
    if missing:
        text = "; ".join(problem.message for problem in missing[:3])
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ResultError(text + more, hint=missing[0].hint)

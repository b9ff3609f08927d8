"""Results of several jobs side by side in one directory, named as the seeds name them, and taken away again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cloudsend_cli.engine.results import MANIFEST, read_attempt
from cloudsend_cli.errors import ResultError

from ..client import Client
from .objects import CloudSendJob, CloudSendProcess

Copies = dict[str, list[int]]  # path below the directory -> size, time of the last change


def collect_all(client: Client, processes: list[CloudSendProcess], directory: Path, *, plain: bool = False) -> None:
    """All that there is; then ResultError with what is missing. `plain`: by its own name, without the job's."""
    directory.mkdir(parents=True, exist_ok=True)
    missing: list[ResultError] = []
    taken: set[Path] = set()
    try:
        for process in processes:
            try:
                _collect(client, process, directory, taken, plain=plain)
            except ResultError as problem:
                missing.append(problem)
    finally:
        _note_copies(client.state_dir, directory, taken)
    if missing:
        text = "; ".join(problem.message for problem in missing[:3])
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ResultError(text + more, hint=missing[0].hint)


def _collect(client: Client, process: CloudSendProcess, directory: Path, taken: set[Path], *, plain: bool) -> None:
    """Copy what one job has left into `directory`. ResultError: there is nothing of it any more, or no room for it."""
    job = process.get_job()
    homes = client.fetch(str(job.get_id()))
    if not homes:
        refuse_replaced([job])
    for home in homes:
        if (there := read_attempt(home)) and there != process.get_uid():
            raise ResultError(f"{job.get_name()}: the results of {process.get_uid()} gave way to those of {there}")
        for path in _files(home):
            name = path.relative_to(home).as_posix()
            target = directory / (name if plain else f"job_{job.get_rank():03d}_{name.replace('/', '_')}")
            while target in taken:  # `a/b` and `a_b` of one job, or of two jobs without their ranks
                target = target.with_name(f"{target.name}~1")
            _copy(path, target)
            taken.add(target)


def refuse_replaced(jobs: Iterable[CloudSendJob]) -> None:
    """ResultError: their run was continued without some of them, and has the results of other jobs by their names."""
    gone = [f"{job.get_name()} ({job.get_id()})" for job in jobs if job.is_replaced()]
    if gone:
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        told = f"the run was continued by another client without {', '.join(gone[:3])}{more}"
        raise ResultError(told, hint="two programs that change the same run need a name, or a directory, of their own")


def _copy(path: Path, target: Path) -> None:
    temporary = target.with_name(f".{os.getpid()}-{threading.get_ident()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, temporary)
        os.replace(temporary, target)
    except OSError as problem:
        with contextlib.suppress(OSError):
            temporary.unlink()
        hint = f"it is at home, as {path}"
        raise ResultError(f"{target} cannot be written: {problem.strerror or problem}", hint=hint) from None


def _files(home: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(home):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if name != MANIFEST and path.is_file():
                yield path


# ---- taking them away ----------------------------------------------------------------------------------------------


def remove_copies(state_dir: Path, directory: Path) -> None:
    """What was copied into `directory` and is as it was. What was edited since, and all else, stays."""
    left: Copies = {}
    for name, known in _read_copies(state_dir, directory).items():
        path = directory / name
        try:
            if _identify(path) == known:
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError:
            left[name] = known
    _write_copies(state_dir, directory, left)


def _note_copies(state_dir: Path, directory: Path, taken: set[Path]) -> None:
    """They are at home as well: if this cannot be noted, nothing is lost, and no more than that is left behind."""
    with contextlib.suppress(OSError):
        new = {path.relative_to(directory).as_posix(): _identify(path) for path in taken}
        _write_copies(state_dir, directory, {**_read_copies(state_dir, directory), **new})


def _identify(path: Path) -> list[int]:
    info = os.lstat(path)
    return [info.st_size, info.st_mtime_ns]


def _place(state_dir: Path, directory: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.abspath(directory))).hexdigest()[:24]
    return state_dir / "seeds" / f"copies-{name}.json"


def _read_copies(state_dir: Path, directory: Path) -> Copies:
    try:
        found = json.loads(_place(state_dir, directory).read_bytes())
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def _write_copies(state_dir: Path, directory: Path, copies: Copies) -> None:
    place = _place(state_dir, directory)
    if not copies:
        place.unlink(missing_ok=True)
        return
    place.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = place.with_name(f".{place.name}-{os.getpid()}-{threading.get_ident()}")
    temporary.write_text(json.dumps(copies), encoding="utf-8")
    os.replace(temporary, place)

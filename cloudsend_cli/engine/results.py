"""Where results come home: a job's files under their own names, whole or not at all, the manifest written last.

Names that a host sends never choose a path outside the destination.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloudsend_cli.core.naming import safe_component
from cloudsend_cli.errors import ResultError

MANIFEST = ".cloudsend.json"
PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One line of a host's manifest, checked: `path` is relative, normalised, and stays inside."""

    path: str
    size: int
    mode: int
    sha256: str
    mtime_ns: int


def parse_manifest(wire: object) -> list[ResultFile]:
    """The regular files of a manifest. ResultError for a name that would leave the destination, or no manifest."""
    if not isinstance(wire, list):
        raise ResultError("the host's list of results is not a list")
    files = []
    for item in wire:
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            raise ResultError("the host's list of results is malformed")
        if "link" in item:
            continue  # symbolic links are not brought home; what they point to is, where a pattern names it
        path = item["path"]
        parts = path.split("/")
        if path.startswith("/") or "\0" in path or any(p in {"", ".", ".."} for p in parts):
            raise ResultError(f"the host names a result {path!r}, which is not a plain relative path")
        size, sha = item.get("size"), item.get("sha256")
        if not isinstance(size, int) or not isinstance(sha, str):
            raise ResultError(f"the host's entry for {path!r} is malformed")
        mode, mtime = item.get("mode"), item.get("mtime_ns")
        files.append(
            ResultFile(
                path, size, mode if isinstance(mode, int) else 0o644, sha, mtime if isinstance(mtime, int) else 0
            )
        )
    return files


def job_directory(results_dir: str, run: str, name: str) -> Path:
    """`<results>/<run>/<job name>`, each part of the name made safe."""
    parts = [safe_component(part) for part in name.split("/") if part]
    return Path(results_dir, run, *parts)


class Arrival:
    """Results of one attempt while they arrive, in a directory beside the final one."""

    def __init__(self, directory: Path, attempt: str) -> None:
        self._directory = directory
        self._attempt = attempt
        self._partial = directory.with_name(f"{PARTIAL}-{directory.name}-{safe_component(attempt)}")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._hash = hashlib.sha256()
        self._file: int | None = None
        self._current: ResultFile | None = None
        self._files: list[ResultFile] = []

    def begin(self, file: ResultFile) -> None:
        path = self._partial / os.fsdecode(file.path.encode("utf-8", "surrogateescape"))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self._hash = hashlib.sha256()
        self._current = file

    def write(self, data: bytes) -> None:
        if self._file is None:
            raise ResultError("data without a file")
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def end(self) -> None:
        file = self._current
        if self._file is None or file is None:
            raise ResultError("an end without a file")
        if self._hash.hexdigest() != file.sha256:
            raise ResultError(f"{file.path} changed while it was sent, or arrived damaged")
        os.fchmod(self._file, (file.mode & 0o777) | 0o600)
        os.utime(self._file, ns=(file.mtime_ns, file.mtime_ns))
        os.fsync(self._file)
        os.close(self._file)
        self._file = None
        self._files.append(file)

    def finish(self) -> None:
        """Put everything in place. Results of an earlier job of the name are kept beside, under its attempt."""
        manifest = {"attempt": self._attempt, "files": _as_json(self._files)}
        (self._partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if self._directory.exists():
            _set_aside(self._directory, self._attempt)
        os.rename(self._partial, self._directory)
        _sync_directory(self._directory.parent)

    def abandon(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        shutil.rmtree(self._partial, ignore_errors=True)


def _set_aside(directory: Path, attempt: str) -> None:
    earlier = ""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        earlier = json.loads((directory / MANIFEST).read_text(encoding="utf-8")).get("attempt", "")
    if earlier == attempt:
        shutil.rmtree(directory)
        return
    for count in range(1, 10_000):
        aside = directory.with_name(f"{directory.name}~{count}")
        if not aside.exists():
            os.rename(directory, aside)
            return
    raise ResultError(f"{directory} has too many earlier versions beside it", hint="remove some of them")


def _as_json(files: Iterable[ResultFile]) -> list[dict[str, object]]:
    return [
        {
            "path": f.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            "size": f.size,
            "sha256": f.sha256,
        }
        for f in files
    ]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

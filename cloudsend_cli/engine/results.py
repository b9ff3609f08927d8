"""Where results come home: a job's files under their own names, whole or not at all, the manifest written last.

Names that a host sends never choose a path outside the destination. What lay there before is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cloudsend_cli.core.explain import describe_bytes
from cloudsend_cli.core.model import Upload
from cloudsend_cli.core.naming import parse_attempt_id, safe_component
from cloudsend_cli.errors import ResultError

MANIFEST = ".cloudsend.json"
PARTIAL = ".partial"
RESERVE = 256 << 20  # bytes that no machine's results or logs may take of a disk, or a twentieth of a small one
WRITE_OUT_EVERY = 8 << 20  # bytes of a large file whose writing to the disk is begun while the rest arrives
UPLOADS_MOST = 2000
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One line of a host's manifest, checked: `path` is relative, normalised, and stays inside."""

    path: str
    size: int
    mode: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Home:
    """Whose results: they belong into `<results>/<run>/<job name>`."""

    results_dir: str
    run: str
    name: str


def parse_manifest(wire: object) -> list[ResultFile]:
    """The regular files of a manifest. ResultError for a name that would leave the destination, or no manifest."""
    if not isinstance(wire, list):
        raise ResultError("the host's list of results is not a list")
    files: dict[str, ResultFile] = {}
    for item in wire:
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            raise ResultError("the host's list of results is malformed")
        if "link" in item:
            continue  # see parse_links
        file = _parse_file(item["path"], item)
        if is_ours(file.path):
            continue  # see parse_links
        if file.path in files:
            raise ResultError(f"the host names the result {file.path!r} twice")
        files[file.path] = file
    return list(files.values())


def parse_links(wire: object, files: Iterable[ResultFile]) -> tuple[dict[str, str], list[str]]:
    """The symbolic links that may be made at home, and the paths of all that is left out.

    A link is made if it is relative and leads to something that comes home as well: nothing can then be read or
    written through it that is not a result. Files under names of our own are left out as well.
    """
    paths = {f.path for f in files}
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    items: Sequence[object] = wire if isinstance(wire, list) else ()
    targets = paths | (folders - {"."})
    named = {str(item.get("path")): item["link"] for item in items if isinstance(item, dict) and "link" in item}
    paths_told = [str(item.get("path")) for item in items if isinstance(item, dict)]
    links: dict[str, str] = {}
    for path, target in named.items():
        below_a_link = any(str(parent) in named for parent in PurePosixPath(path).parents)
        taken = path in paths or path in folders or path == MANIFEST or is_ours(path)
        if not below_a_link and not taken and _is_plain(path) and _leads_to(path, target) in targets:
            links[path] = str(target)
    ours = [path for path in paths_told if path not in named and is_ours(path)]
    return links, [path for path in named if path not in links] + ours


def is_ours(path: str) -> bool:
    """Whether it would be taken for what we keep of another job, whose results may lie below this one's."""
    parts = path.split("/")
    return MANIFEST in parts[1:] or any(part.startswith(f"{PARTIAL}-") for part in parts)


def _leads_to(path: str, target: object) -> str:
    """Where a relative link leads, "" for any other."""
    if not isinstance(target, str) or target.startswith("/"):
        return ""
    names = [part for part in target.split("/") if part not in {"", "."}]
    if ".." in names[next((i for i, part in enumerate(names) if part != ".."), len(names)) :]:
        return ""  # what is above the goal of another link is not what the words say
    try:
        os.fsencode(path + target)
    except UnicodeEncodeError:
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _is_plain(path: str) -> bool:
    return not path.startswith("/") and "\0" not in path and not any(p in {"", ".", ".."} for p in path.split("/"))


def _parse_file(path: str, item: dict[str, object]) -> ResultFile:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ResultError(f"the host names a result {path!r}, which is no name of a file") from None
    if not _is_plain(path):
        raise ResultError(f"the host names a result {path!r}, which is not a plain relative path")
    if path == MANIFEST:
        raise ResultError(f"an output is called {MANIFEST}, which is cloudsend's own name", hint="rename it")
    size, mode, mtime = _whole(item.get("size")), _whole(item.get("mode")), _whole(item.get("mtime_ns"))
    sha = item.get("sha256")
    if size is None or not 0 <= size < 1 << 60 or not isinstance(sha, str) or not _SHA.fullmatch(sha):
        raise ResultError(f"the host's entry for {path!r} is malformed")
    in_time = mtime is not None and 0 <= mtime < 1 << 62
    # Who may write what came home is not for the machine to say.
    return ResultFile(path, size, 0o644 if mode is None else mode & 0o755, sha, mtime if mtime and in_time else 0)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def job_directory(home: Home) -> Path:
    """Each part of the job's name is made safe; `a/b` lies in `a`."""
    return Path(home.results_dir, home.run, *map(safe_component, home.name.split("/")))


def is_home(home: Home, attempt: str) -> bool:
    """Whether the results of this attempt lie where they belong."""
    return read_attempt(job_directory(home)) == attempt


def read_attempt(directory: Path) -> str:
    """Whose results lie there; "" where none of ours do."""
    return _read_manifest(directory)[0]


def rename_homes(moves: Iterable[tuple[Home, Home, str]]) -> None:
    """Move results of attempts whose jobs are called otherwise now, which may be as others were called before.

    They stay where they are if results of other jobs lie among them. What lies where they belong is kept beside.
    """
    leaving: list[tuple[Path, Path]] = []
    for old, new, attempt in moves:
        source = job_directory(old)
        if is_home(old, attempt) and not _holds_others(source):
            aside = source.with_name(f"{PARTIAL}-renamed-{safe_component(attempt)}")
            os.rename(source, aside)
            leaving.append((aside, job_directory(new)))
    for aside, target in leaving:
        if os.path.lexists(target) and not _holds_others(target):
            os.rename(target, _free_name(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(aside, _free_name(target) if os.path.lexists(target) else target)


class Arrival:
    """Results of one attempt while they arrive, in a directory beside the final one."""

    _in_use: set[Path] = set()  # noqa: RUF012 - of this process; whatever else lies there is left over from a crash

    def __init__(self, home: Home, attempt: str, size: int) -> None:
        self._directory = job_directory(home)
        self._attempt = attempt
        self._partial = next(p for p in self._partials() if p not in self._in_use)
        self._in_use.add(self._partial)
        self._hash = hashlib.sha256()
        self._unwritten = 0
        self._file: int | None = None
        self._current: ResultFile | None = None
        self._files: list[ResultFile] = []
        self._links: dict[str, str] = {}
        self._left_out: list[str] = []
        try:
            self._clear_way(home)
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
            room = free_space(self._partial)
            if size > room:
                told = f"the results are {describe_bytes(size)}, and {describe_bytes(room)} are free"
                raise ResultError(f"{told} in {home.results_dir}")
        except BaseException:
            self.abandon()
            raise

    def _partials(self) -> Iterator[Path]:
        name = f"{PARTIAL}-{self._directory.name}-{safe_component(self._attempt)}"
        yield self._directory.with_name(name)
        yield from (self._directory.with_name(f"{name}-{count}") for count in range(1, 10_000))

    def _clear_way(self, home: Home) -> None:
        """What lies where this job's results belong, as another job left a file or a link there, is kept beside."""
        way = [self._directory, *self._directory.parents]
        for place in reversed(way[: way.index(Path(home.results_dir, home.run))]):
            if os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
                os.rename(place, _free_name(place))

    def begin(self, file: ResultFile) -> None:
        path = self._partial / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self._current = file

    def write(self, data: bytes) -> None:
        if self._file is None:
            raise ResultError("data without a file")
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._unwritten += len(data)
        if self._unwritten >= WRITE_OUT_EVERY:
            self._unwritten = 0
            _begin_writing_out(self._file)

    def end(self) -> None:
        file = self._current
        if self._file is None or file is None:
            raise ResultError("an end without a file")
        if self._hash.hexdigest() != file.sha256:
            raise ResultError(f"{file.path} changed while it was sent, or arrived damaged")
        os.fchmod(self._file, file.mode | 0o600)
        if file.mtime_ns:
            os.utime(self._file, ns=(file.mtime_ns, file.mtime_ns))
        _begin_writing_out(self._file)
        os.close(self._file)
        self._file = None
        self._files.append(file)

    def link(self, links: dict[str, str], left_out: list[str]) -> None:
        """Make the links, after all files, so that no file is ever written through one."""
        for path, target in links.items():
            place = self._partial / path
            place.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(target, place)
        self._links, self._left_out = links, left_out

    def finish(self) -> None:
        """Put everything in place. What lay there of another attempt is kept beside, and what is not ours stays."""
        with open(self._partial / MANIFEST, "w", encoding="utf-8") as file:
            links = {"links": self._links, "links_left_out": self._left_out}
            manifest = {"attempt": self._attempt, "files": _as_json(self._files), **links}
            json.dump(manifest, file, indent=1)
            file.write("\n")
        for path in (*(f.path for f in self._files), MANIFEST):
            _sync(self._partial / path)
        self._refuse_others()
        if self._is_late():
            os.rename(self._partial, _free_name(self._directory))
            self._in_use.discard(self._partial)
            return
        if os.path.lexists(self._directory):
            self._make_room()
        if os.path.lexists(self._directory):
            self._merge()
        else:
            os.rename(self._partial, self._directory)
        _sync(self._directory.parent)
        self._in_use.discard(self._partial)

    def _is_late(self) -> bool:
        """Whether a later attempt of the same job is home already: then these are history, and are kept beside."""
        ours = parse_attempt_id(self._attempt)
        there = parse_attempt_id(_read_manifest(self._directory)[0]) if self._directory.is_dir() else None
        return ours is not None and there is not None and ours[:2] == there[:2] and ours[2] < there[2]

    def _refuse_others(self) -> None:
        """Nothing is put among the results of another job, which may have come from another machine."""
        if not self._directory.exists():
            return
        ours = parse_attempt_id(self._attempt)
        folders = {
            str(parent) for path in (*(f.path for f in self._files), *self._links) for parent in Path(path).parents
        }
        for folder in sorted(folders - {"."}):
            theirs = parse_attempt_id(_read_manifest(self._directory / folder)[0])
            if theirs is not None and ours is not None and theirs[:2] != ours[:2]:
                raise ResultError(
                    f"{folder} holds the results of another job, {'.'.join(map(str, theirs[:2]))}",
                    hint="name the output, or one of the jobs, otherwise",
                )

    def _make_room(self) -> None:
        """Move the results of another attempt aside, whole, unless results of other jobs lie among them."""
        attempt, listed = _read_manifest(self._directory)
        if attempt == self._attempt:
            return
        aside = _free_name(self._directory)
        if attempt and not _holds_others(self._directory):
            os.rename(self._directory, aside)
            return
        for path in {*listed, *(f.path for f in self._files), *self._links}:
            here = self._directory / path
            if os.path.lexists(here) and (here.is_symlink() or not here.is_dir()):
                self._refuse_links(path)
                (aside / path).parent.mkdir(parents=True, exist_ok=True)
                os.rename(self._directory / path, aside / path)

    def _merge(self) -> None:
        """File by file into a directory that holds more than ours; the manifest comes last."""
        for path in (*(f.path for f in self._files), *self._links, MANIFEST):
            self._refuse_links(path)
            target = self._directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._partial / path, target)
        _sync(self._directory)
        shutil.rmtree(self._partial, ignore_errors=True)

    def _refuse_links(self, path: str) -> None:
        for parent in list((Path(path)).parents)[:-1]:
            if (self._directory / parent).is_symlink():
                raise ResultError(f"{self._directory / parent} is a symbolic link: nothing is written through it")

    def abandon(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        shutil.rmtree(self._partial, ignore_errors=True)
        self._in_use.discard(self._partial)


def list_uploads(home: Home) -> tuple[Upload, ...]:
    """What came home, as it is given to another attempt. ResultError: more than a job can be given."""
    directory = job_directory(home)
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        files = [(directory / f["path"], str(f["path"]), str(f["sha256"]), int(f["size"])) for f in manifest["files"]]
        uploads = [
            Upload(path, sha, size, place.stat().st_mode & 0o777, str(place)) for place, path, sha, size in files
        ]
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise ResultError(f"{directory / MANIFEST} cannot be read: {problem}") from problem
    if len(files) > UPLOADS_MOST:
        raise ResultError(f"{len(files):,} files are persisted, and {UPLOADS_MOST:,} can be", hint="pack them in one")
    return tuple(uploads)


def _read_manifest(directory: Path) -> tuple[str, list[str]]:
    """(attempt, paths) of what lies there, ("", []) where nothing of ours does."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        paths = [str(file["path"]) for file in manifest["files"]] + [str(p) for p in manifest.get("links", ())]
        plain = [p for p in paths if not p.startswith("/") and ".." not in p.split("/")]
        return str(manifest["attempt"]), plain
    return "", []


def free_space(path: Path) -> int:
    """Bytes that results and logs may take where `path` is; what cloudsend and others need there is left out."""
    disk = os.statvfs(path)
    kept = min(RESERVE, disk.f_blocks * disk.f_frsize // 20)
    return max(0, disk.f_bavail * disk.f_frsize - kept)


def _holds_others(directory: Path) -> bool:
    """Whether results of another job, whose name goes on where this one's ends, lie further down."""
    return any(MANIFEST in files for folder, _, files in os.walk(directory) if folder != str(directory))


def _free_name(directory: Path) -> Path:
    for count in range(1, 10_000):
        aside = directory.with_name(f"{directory.name}~{count}")
        if not os.path.lexists(aside):
            return aside
    raise ResultError(f"{directory} has too many earlier versions beside it", hint="remove some of them")


def _as_json(files: Iterable[ResultFile]) -> list[dict[str, object]]:
    return [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in files]


def _begin_writing_out(fd: int) -> None:
    """Have the kernel write what is in memory, without waiting: many files synced after it share the disk's turns."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""What a config sends: paths, directories and globs to content-addressed uploads. The only file here that reads many.

A path below the config's directory keeps its tree in the run directory; any other path is put under its base name.
Symbolic links are followed when they stay below that directory (or below the directory that was named).
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path

from cloudsend_cli.core.model import Upload

from .check import Report, clip, suggest
from .document import Node, show_text
from .ignore import FILE_NAME, SECRET, compile_glob, is_secret, parse_ignore

MAX_FILES = 200_000
MAX_DEPTH = 100
SECRETS_SHOWN = 5
NO_RULES = parse_ignore(())
RACY_NS = 2_000_000_000  # a file changed so recently may change again within its clock tick
_CHUNK = 1 << 20
# In the seeds they say what a script calls its input, which may be made on the machine.
NAMES_ONLY = frozenset({"input_file", "input_files"})

HashCache = MutableMapping[tuple[str, int, int, int], str]


class FileProblem(Exception):
    """One path that cannot be sent: what is wrong, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Folder:
    """Where relative paths start, and what lies in it but is never sent."""

    path: str  # absolute, normal
    home: str = ""
    results: str = ""  # absolute


class Uploads:
    """Resolves what jobs send, each path once, and hashes each file once. Equal requests give the identical tuple."""

    def __init__(
        self,
        folder: Folder,
        report: Report,
        *,
        snapshot: Callable[[Path, str], str] | None = None,
        cache: HashCache | None = None,
    ) -> None:
        self.folder = folder
        self.report = report
        self.snapshot = snapshot
        self.cache = cache
        self.explain_missing: Callable[[str], str] = lambda text: ""
        self._real = os.path.realpath(folder.path)
        self._left_out: Callable[[str, bool], str] | None = None
        self._secrets: dict[str, None] = {}  # of the path that is looked at: what looks like one and is left out
        self._found: dict[str, tuple[Upload, ...] | None] = {}
        self._files: dict[tuple[str, str], Upload] = {}
        self._words: dict[str, str] = {}
        self._sets: dict[tuple[str, ...], tuple[Upload, ...]] = {}
        self._paths: dict[str, str] = {}

    # ---- for jobs ------------------------------------------------------------------------------------

    def resolve(self, text: str, node: Node, path: str, script: str = "") -> tuple[Upload, ...]:
        """The files that `text` names, sorted; a problem is reported once and gives none.

        As in the seeds, what is not at its place is looked for beside the job's script, and put where its text says;
        and a file that one of NAMES_ONLY names need not be there.
        """
        folder = os.path.dirname(script)
        key = f"{folder}\0{text}"
        if key not in self._found:
            self._secrets.clear()
            beside = self._is_beside(text, folder)
            try:
                self._found[key] = tuple(self._move(folder, text) if beside else self._collect(text))
                self._warn_of_secrets(node, path)
            except FileProblem as problem:
                hint = self.explain_missing(text) or problem.hint
                if path.rpartition(".")[2] in NAMES_ONLY and not os.path.lexists(self.absolute(text)):
                    self.report.warn(f"{path}: {problem.message}; jobs run without it", node.place, hint, path)
                else:
                    self.report.error(f"{path}: {problem.message}", node.place, hint, path)
                self._found[key] = ()
        return self._found[key] or ()

    def _is_beside(self, text: str, folder: str) -> bool:
        """Whether it is in `folder`, where a script is, and not below the config's directory."""
        if not folder or text[:1] in {"", "/", "~"} or os.path.lexists(self.absolute(text)):
            return False
        return os.path.lexists(self.absolute(os.path.join(folder, text)))

    def _move(self, folder: str, text: str) -> Iterator[Upload]:
        start = self.place_of(folder)
        for upload in self._collect(os.path.join(folder, text)):
            place = os.path.relpath(upload.path, start)
            yield upload if place.startswith("..") else replace(upload, path=place)

    def _warn_of_secrets(self, node: Node, path: str) -> None:
        names = [show_text(name) for name in self._secrets]
        if names:
            more = f" and {len(names) - SECRETS_SHOWN:,} more" if len(names) > SECRETS_SHOWN else ""
            message = f"{path}: left out, as it looks like a secret: {', '.join(names[:SECRETS_SHOWN])}{more}"
            base = os.path.basename(names[0])
            hint = f"to send such a file, name it by itself, or write !{base} into {FILE_NAME}"
            self.report.warn(message, node.place, hint, path)

    def list_files(self, text: str) -> list[str]:
        """Paths below the config's directory of the regular files that `text` fits, sorted. Raises FileProblem."""
        if os.path.isabs(text) or text.startswith("~") or ".." in text.split("/"):
            raise FileProblem(f"{clip(text)} leads out of the config's directory", "name files below it")
        absolute = self.absolute(text)
        several = glob.has_magic(text) and not os.path.lexists(absolute)
        found = []
        for name in sorted(self._expand(absolute)) if several else [absolute]:
            if stat.S_ISREG(self._stat(name, text).st_mode):
                real = os.path.realpath(name)
                if not _is_below(real, self._real):
                    self._refuse_link(name, real)
                below = os.path.relpath(name, self.folder.path)
                found.append(f"./{below}" if below.startswith("-") else below)
        if not found:
            raise FileProblem(f"no file fits {clip(text)}", f"looked in {show_text(self.folder.path)}")
        return found

    def place_of(self, text: str) -> str:
        """Where the file `text` lies in the run directory."""
        absolute = self.absolute(text)
        relative = self._below(absolute)
        return os.path.basename(absolute) if relative is None else relative

    def file_word(self, word: str, workdir: str) -> str:
        """The path, as `resolve` takes it, of the file that a command's word names; "" when it names none."""
        key = f"{workdir}\0{word}"
        if key not in self._words:
            self._words[key] = self._file_word(word, workdir)
        return self._words[key]

    def _file_word(self, word: str, workdir: str) -> str:
        if not word or len(word) > 4000 or os.path.isabs(word) or ".." in word.split("/") or "\0" in word:
            return ""
        relative = os.path.normpath(os.path.join(workdir, word))
        if relative.startswith(".."):
            return ""
        try:
            absolute = os.path.join(self.folder.path, relative)
            if not stat.S_ISREG(os.stat(absolute).st_mode):
                return ""
            real = os.path.realpath(absolute)
        except (OSError, ValueError):
            return ""
        return relative if _is_below(real, self._real) else ""

    def join(self, parts: list[tuple[Upload, ...]], node: Node, path: str) -> tuple[Upload, ...]:
        """One tuple, sorted by path; two different files at one path, or a file where a directory is, are reported."""
        if len(parts) == 1:
            return parts[0]
        key = tuple(f"{id(part)}" for part in parts)
        if key not in self._sets:
            by_path: dict[str, Upload] = {}
            for upload in (upload for part in parts for upload in part):
                other = by_path.setdefault(upload.path, upload)
                if other is not upload and other.source != upload.source:
                    self._report_collision(upload.path, self._paths[upload.source], other, node, path)
            for name in by_path:
                parent = name.rpartition("/")[0]
                while parent:
                    if parent in by_path:
                        self._report_collision(parent, self._paths[by_path[name].source], by_path[parent], node, path)
                    parent = parent.rpartition("/")[0]
            self._sets[key] = tuple(by_path[name] for name in sorted(by_path))
        return self._sets[key]

    def _report_collision(self, place: str, source: str, other: Upload, node: Node, path: str) -> None:
        message = f"{path}: two files want the place {clip(place)} in the run directory"
        hint = f"{show_text(self._paths[other.source])} and {show_text(source)}"
        self.report.error(message, node.place, hint, path)

    # ---- paths ---------------------------------------------------------------------------------------

    def absolute(self, text: str) -> str:
        if self.folder.home and (text == "~" or text.startswith("~/")):
            text = self.folder.home + text[1:]
        return os.path.normpath(os.path.join(self.folder.path, text))

    def _below(self, absolute: str) -> str | None:
        """The path relative to the config's directory, "" for itself, None outside."""
        if absolute == self.folder.path:
            return ""
        prefix = self.folder.path.rstrip("/") + "/"
        return absolute[len(prefix) :] if absolute.startswith(prefix) else None

    def _collect(self, text: str) -> Iterator[Upload]:
        absolute = self.absolute(text)
        if glob.has_magic(text) and not os.path.lexists(absolute):
            names = sorted(self._expand(absolute))
            if not names:
                raise FileProblem(f"no file fits {clip(text)}", f"looked in {show_text(self.folder.path)}")
        else:
            names = [absolute]
        found: dict[str, Upload] = {}
        for name in names:
            for upload in self._upload_tree(name, text):
                found[upload.path] = upload
                if len(found) > MAX_FILES:
                    raise FileProblem(f"{clip(text)} holds more than {MAX_FILES:,} files", "name less of it")
        if not found:
            raise FileProblem(f"{clip(text)} holds no files to send", f"see {FILE_NAME}")
        for name in sorted(found):
            yield found[name]

    def _upload_tree(self, absolute: str, text: str) -> Iterator[Upload]:
        below = self._below(absolute)
        mode = self._stat(absolute, text).st_mode
        root = self._real if below is not None else os.path.realpath(absolute)
        real = os.path.realpath(absolute)
        if not _is_below(real, root):
            self._refuse_link(absolute, real)
        place = os.path.basename(absolute) if below is None else below
        if stat.S_ISREG(mode):
            yield self._upload(absolute, place)
        elif stat.S_ISDIR(mode):
            yield from self._walk(absolute, place, root, (real,))
        else:
            raise FileProblem(f"{clip(text)} is {_kind(mode)}, not a file or a directory")

    def _stat(self, absolute: str, text: str) -> os.stat_result:
        try:
            return os.stat(absolute)
        except FileNotFoundError:
            if os.path.islink(absolute):
                target = show_text(os.readlink(absolute))
                raise FileProblem(f"{clip(text)} is a symbolic link to {target}, which does not exist") from None
            raise FileProblem(f"no such file: {clip(text)}", self._missing_hint(absolute)) from None
        except NotADirectoryError:
            raise FileProblem(f"no such file: {clip(text)}", self._missing_hint(absolute)) from None
        except (OSError, ValueError) as problem:
            raise FileProblem(f"{clip(text)} cannot be read: {_reason(problem)}") from None

    def _missing_hint(self, absolute: str) -> str:
        folder, name = os.path.split(absolute)
        try:
            near = suggest(name, os.listdir(folder)[:10_000])
        except (OSError, ValueError):
            near = ""
        if near:
            return f"did you mean {show_text(near)!r}?"
        return f"looked in {show_text(folder)}; relative paths start at the config's directory"

    def _refuse_link(self, absolute: str, real: str) -> None:
        raise FileProblem(
            f"{clip(os.path.relpath(absolute, self.folder.path))} is a symbolic link that leads outside, "
            f"to {show_text(real)}",
            "name the target itself, or copy it",
        )

    # ---- trees ---------------------------------------------------------------------------------------

    def _is_ignored(self, absolute: str, directory: bool, *, named: bool = False) -> bool:
        """`named`: somebody asked for what looks like this, be it a secret."""
        if directory and absolute == self.folder.results:
            return True
        if self._left_out is None:
            try:
                with open(os.path.join(self.folder.path, FILE_NAME), encoding="utf-8", errors="replace") as file:
                    self._left_out = parse_ignore(file)
            except OSError:
                self._left_out = parse_ignore(())
        below = self._below(absolute)
        judge = self._left_out if below is not None else NO_RULES
        why = judge(os.path.basename(absolute) if below is None else below, directory)
        if why == SECRET and not named:
            self._secrets[os.path.relpath(absolute, self.folder.path) if below is None else below] = None
        return why != "" and not (why == SECRET and named)

    def _walk(self, absolute: str, place: str, root: str, above: tuple[str, ...]) -> Iterator[Upload]:
        """Every file below a directory; `above` are the real paths that lead here, so that a loop of links is seen."""
        if len(above) > MAX_DEPTH:
            raise FileProblem(f"{clip(place)} is nested deeper than {MAX_DEPTH} directories")
        for name in self._list(absolute):
            child = os.path.join(absolute, name)
            inner = f"{place}/{name}" if place else name
            if self._is_ignored(child, os.path.isdir(child)):
                continue
            mode = self._stat(child, os.path.relpath(child, self.folder.path)).st_mode
            if os.path.islink(child):
                real = os.path.realpath(child)
                if not _is_below(real, root):
                    self._refuse_link(child, real)
            if stat.S_ISDIR(mode):
                real = os.path.realpath(child)
                if real in above:
                    raise FileProblem(f"{clip(inner)} is a symbolic link to a directory that contains it")
                yield from self._walk(child, inner, root, (*above, real))
            elif stat.S_ISREG(mode):
                yield self._upload(child, inner)
            else:
                raise FileProblem(f"{clip(inner)} is {_kind(mode)}, not a file", f"add it to {FILE_NAME}")

    def _list(self, absolute: str) -> list[str]:
        try:
            return sorted(os.listdir(absolute))
        except OSError as problem:
            raise FileProblem(f"{clip(absolute)} cannot be read: {_reason(problem)}") from None

    def _expand(self, absolute: str) -> Iterator[str]:
        """Paths that fit a glob; `**` does not follow symbolic links, and a leading dot must be written."""
        parts = absolute.split("/")
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        seen: set[str] = set()
        for path in self._expand_below("/".join(parts[:fixed]) or "/", parts[fixed:]):
            if path not in seen:
                seen.add(path)
                yield path

    def _expand_below(self, folder: str, parts: list[str]) -> Iterator[str]:
        part, rest = parts[0], parts[1:]
        entries = self._visible(folder, part)
        if part == "**":
            if rest:
                yield from self._expand_below(folder, rest)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._expand_below(entry.path, parts)
                elif not rest and entry.is_file():
                    yield entry.path
            return
        fits = compile_glob(part)
        for entry in entries:
            if fits.fullmatch(entry.name) and not rest:
                yield entry.path
            elif rest and fits.fullmatch(entry.name) and entry.is_dir():
                yield from self._expand_below(entry.path, rest)

    def _visible(self, folder: str, part: str) -> list[os.DirEntry[str]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return []
        return [
            entry
            for entry in entries
            if (part.startswith(".") or not entry.name.startswith("."))
            and not self._is_ignored(entry.path, entry.is_dir(), named=is_secret(part.rstrip("*")))
        ]

    # ---- contents ------------------------------------------------------------------------------------

    def _upload(self, absolute: str, place: str) -> Upload:
        key = (absolute, place)
        if key not in self._files:
            try:
                place.encode()
            except UnicodeEncodeError:
                raise FileProblem(f"the file name {clip(place)} is not valid UTF-8", "rename it") from None
            try:
                sha256, info = hash_file(absolute, self.cache)
                source = self.snapshot(Path(absolute), sha256) if self.snapshot else absolute
            except (OSError, ValueError) as problem:
                raise FileProblem(f"{clip(place)} cannot be read: {_reason(problem)}") from None
            self._paths[source] = absolute
            self._files[key] = Upload(place, sha256, info.st_size, info.st_mode & 0o777, source)
        return self._files[key]


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def hash_file(path: str, cache: HashCache | None = None) -> tuple[str, os.stat_result]:
    """The sha256 of a regular file and its state while it was read. OSError when it changes under the reader."""
    # ORDER: O_NONBLOCK before the check, as opening a FIFO would wait for a writer.
    for _ in range(2):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(0, f"it is {_kind(before.st_mode)}")
            key = (path, before.st_size, before.st_mtime_ns, before.st_ino)
            known = cache.get(key) if cache is not None else None
            if known is not None:
                return known, before
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            if cache is not None and time.time_ns() - after.st_mtime_ns > RACY_NS:
                cache[key] = digest.hexdigest()
            return digest.hexdigest(), after
    raise OSError(0, "it changes while it is read")


def _reason(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror[0].lower() + problem.strerror[1:]
    return show_text(str(problem))


_KINDS: Mapping[int, str] = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")

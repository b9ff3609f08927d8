"""pip's requirements: lists and files, with the files that they name, as lines that stand alone on any host."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from hashlib import sha256

from .sources import Sources

# Options that pip allows in a requirements file, and whether each takes a value.
_OPTIONS = {
    "--index-url": True, "-i": True, "--extra-index-url": True, "--no-index": False, "--find-links": True, "-f": True,
    "--no-binary": True, "--only-binary": True, "--prefer-binary": False, "--require-hashes": False, "--pre": False,
    "--trusted-host": True, "--use-feature": True,
}  # fmt: skip
_FILES = {"-r": "requirement", "--requirement": "requirement", "-c": "constraint", "--constraint": "constraint"}
_EDITABLE = ("-e", "--editable")
_LONG = {"-i": "--index-url", "-f": "--find-links"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_COMMENT = re.compile(r"(^|\s+)#.*$")
_LOCAL_FILE = re.compile(r"[^\[\];]+\.(whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz)$")
# uv leaves these out of requirements files, and has its own words for them.
_UV_FLAGS = {
    "--pre": ("--prerelease", "allow"),
    "--require-hashes": ("--require-hashes",),
    "--prefer-binary": (),
    "--use-feature": (),
}


@dataclass(slots=True)
class Requirements:
    """Resolved: no line names a file of requirements any more. Options stay in order, the rest is sorted."""

    options: list[str] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)
    constraints: set[str] = field(default_factory=set)
    contents: set[str] = field(default_factory=set)  # digests of local archives

    @property
    def lines(self) -> list[str]:
        return [*self.options, *sorted(self.packages)]

    @property
    def content(self) -> list[object]:
        """What makes this set of packages different from another."""
        return [self.options, sorted(self.packages), sorted(self.constraints), sorted(self.contents)]

    def uv_lines(self) -> list[str]:
        return [line for line in self.lines if _word(line) not in _UV_FLAGS and _word(line) != "--trusted-host"]

    def uv_flags(self) -> list[str]:
        flags: list[str] = []
        for option in self.options:
            if _word(option) in _UV_FLAGS:
                flags += _UV_FLAGS[_word(option)]
            elif _word(option) == "--trusted-host":
                flags += ["--allow-insecure-host", *shlex.split(_value(option))]
        return flags


def resolve_requirements(sources: Sources, packages: tuple[str, ...], file: str, *, base: str = "") -> Requirements:
    """`base`: what relative paths in the list are relative to; those in a file are relative to the file."""
    found = Requirements()
    reader = _Reader(sources, found, base)
    for entry in packages:
        if sources.one_line("pip", entry):
            reader.take(entry, "pip", "", 0)
    if file:
        reader.take_file(file, "pip_file", constraint=False)
    return found


def _word(line: str) -> str:
    return re.split(r"[\s=]", line, maxsplit=1)[0]


def _value(line: str) -> str:
    parts = re.split(r"\s*=\s*|\s+", line, maxsplit=1)
    return parts[1].strip() if len(parts) > 1 else ""


@dataclass(slots=True)
class _Reader:
    sources: Sources
    found: Requirements
    base: str
    seen: set[tuple[str, bool]] = field(default_factory=set)

    def take_file(self, path: str, key: str, *, constraint: bool) -> None:
        if (path, constraint) in self.seen:  # also ends a circle
            return
        self.seen.add((path, constraint))
        number, pending, first = 0, "", 1
        for line in self.sources.text(key, path).split("\n"):
            number += 1
            first = first if pending else number
            # A line that ends in a backslash goes on, and a comment ends the whole, as in pip.
            if line.endswith("\\") and not _COMMENT.search(line):
                pending += line[:-1].rstrip() + " "
                continue
            self.take(pending + line, key, path, first, constraint=constraint)
            pending = ""
        self.take(pending, key, path, first, constraint=constraint)

    def take(self, line: str, key: str, file: str, number: int, *, constraint: bool = False) -> None:
        line = " ".join(_COMMENT.sub("", line).split())
        if not line:
            return
        if line.endswith("\\") or not line.isprintable():
            self.sources.problem(key, f"{line!r} is not a requirement", file=file, line=number)
        elif line.startswith("-"):
            self._take_option(line, key, file, number)
        else:
            lines = self.found.constraints if constraint else self.found.packages
            lines.add(self._at_home(line, key, file, number))

    def _take_option(self, line: str, key: str, file: str, number: int) -> None:
        word, value = _word(line), _value(line)
        if word[:2] in {"-r", "-c", "-i", "-f", "-e"} and not word.startswith("--") and len(word) > 2:
            word, value = word[:2], line[2:].strip()  # -rother.txt
        try:
            value = " ".join(shlex.split(value))  # as pip reads options
        except ValueError:
            word = ""
        if word in _FILES:
            self._take_named_file(word, value, key, file, number)
        elif word in _EDITABLE and _URL.match(value.removeprefix("git+").removeprefix("hg+")):
            self.found.packages.add(value)  # a checkout that nobody edits is an install like another
        elif word in _EDITABLE:
            hint = "give its name, or the URL of its repository, or upload the directory with the job"
            text = f"{line!r} needs a directory of this machine, which the environment cannot carry"
            self.sources.problem(key, text, file=file, line=number, hint=hint)
        elif word in _OPTIONS and bool(value) == _OPTIONS[word]:
            if word in {"-f", "--find-links"}:
                value = value if "://" in value else self._local_path(value, key, file, number)
            option = f"{_LONG.get(word, word)} {shlex.quote(value) if value else ''}".strip()
            if option not in self.found.options:
                self.found.options.append(option)
        else:
            text = f"{line!r} is no option that a list of requirements may have"
            self.sources.problem(key, text, file=file, line=number, hint=f"known: {', '.join(_OPTIONS)}")

    def _take_named_file(self, word: str, value: str, key: str, file: str, number: int) -> None:
        if _URL.match(value):
            self.found.options.append(
                f"{'--requirement' if word in {'-r', '--requirement'} else '--constraint'} {value}"
            )
        elif (path := self._path(value, key, file, number)) is not None:
            self.take_file(path, key, constraint=_FILES[word] == "constraint")

    def _path(self, value: str, key: str, file: str, number: int) -> str | None:
        base = os.path.dirname(file) if file else self.base
        if value and (base or os.path.isabs(value)):
            return os.path.normpath(os.path.join(base, value))
        text = f"{value!r} is a relative path, and it is not known to what"
        self.sources.problem(key, text, file=file, line=number, hint="write the whole path")
        return None

    def _local_path(self, value: str, key: str, file: str, number: int) -> str:
        """A path that a build reads. A relative one is of this machine; others may have what an absolute one names."""
        if not os.path.isabs(value):
            self.sources.keep_here(key, value, file=file, line=number)
        return self._path(value, key, file, number) or value

    def _at_home(self, value: str, key: str, file: str, number: int) -> str:
        """A path that is relative to the file that names it, made absolute; archives are known by their content."""
        if "://" in value or "@" in value:
            return value
        if value.startswith(("./", "../")) or _LOCAL_FILE.match(value):
            value = self._local_path(value, key, file, number)
        if value.startswith("/") and _LOCAL_FILE.match(value):
            content = self.sources.bytes_or_none(value)
            if content is None:
                self.sources.problem(key, f"cannot read {value}", file=file, line=number)
            else:
                self.found.contents.add(sha256(content).hexdigest())
        return value

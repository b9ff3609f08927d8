"""Files from a host by SFTP. A transfer that was interrupted is run again over a new connection, and goes on.

What a host calls its files never chooses a path outside of the destination: names are checked, and directories are
opened one below the other without following links. Each file takes its place when all of it is here.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from cloudsend_cli.errors import NotFoundError, ResultError, TransferFailed

from .sftp import WINDOW, Sftp
from .sftp_wire import Attributes
from .ssh_sending import PRIVATE, TEMPORARY, Progress, remote_path
from .ssh_sources import shown

DEPTH_MOST = 100
ENTRIES_MOST = 2_000_000


@dataclass(frozen=True, slots=True)
class FetchOptions:
    recursive: bool = False
    preserve: bool = False
    window: int = WINDOW


@dataclass(frozen=True, slots=True)
class Found:
    """A file or directory of the host. `parts` lead to it below the destination."""

    path: bytes
    parts: tuple[bytes, ...]
    about: Attributes


@dataclass(slots=True)
class _Download:
    """One file on its way: so much of it is in a temporary one."""

    found: Found
    about: Attributes
    folder: int
    temporary: bytes
    fd: int
    have: int = 0


@dataclass(slots=True)
class Fetching:
    """What one call fetches. `run` goes on where it was interrupted."""

    paths: Sequence[bytes]
    goal: str
    options: FetchOptions
    progress: Progress
    left_out: list[str] = field(default_factory=list)  # links to directories, devices, pipes, sockets
    _steps: deque[Callable[[Sftp], None]] | None = None
    _download: _Download | None = None

    @property
    def is_on_host(self) -> bool:
        return False

    def run(self, sftp: Sftp) -> None:
        if self._steps is None:
            self.left_out.clear()
            self._steps = deque(self._plan(sftp))
        while self._steps:
            self._steps[0](sftp)
            self._steps.popleft()

    def close(self, sftp: Sftp | None) -> None:
        """Leave nothing behind."""
        download, self._download = self._download, None
        if download is not None:
            os.close(download.fd)
            with contextlib.suppress(OSError):
                os.unlink(download.temporary, dir_fd=download.folder)
            os.close(download.folder)

    # ---- what there is ---------------------------------------------------------------------------------------------

    def _plan(self, sftp: Sftp) -> list[Callable[[Sftp], None]]:
        into = os.path.isdir(self.goal or ".")
        if not into and (len(self.paths) > 1 or (self.goal.endswith("/") and not self.options.recursive)):
            raise TransferFailed(f"{self.goal} is no directory", hint="make it first")
        steps: list[Callable[[Sftp], None]] = []
        for given in self.paths:
            path = remote_path(given)
            about = sftp.find(path)
            if about is None:
                raise NotFoundError(f"no {shown(given)} on the host")
            name = posixpath.basename(path.rstrip(b"/"))
            if name in (b".", b".."):
                name = b""
            if about.is_directory:
                steps += self._plan_tree(sftp, path, about, name if into else b"")
            elif about.is_file:
                top, last = (self.goal or ".", name) if into else os.path.split(self.goal)
                found = Found(path, (check_name(os.fsencode(last)),), about)
                steps.append(partial(self._fetch, top or ".", found))
            else:
                raise TransferFailed(f"{shown(given)} is neither a file nor a directory on the host")
        return steps

    def _plan_tree(self, sftp: Sftp, path: bytes, about: Attributes, name: bytes) -> Iterator[Callable[[Sftp], None]]:
        if not self.options.recursive:
            raise TransferFailed(
                f"{shown(path)} is a directory on the host", hint="pass recursive=True to fetch all of it"
            )
        top = os.path.join(self.goal or ".", os.fsdecode(check_name(name))) if name else self.goal or "."
        folders: list[Found] = []
        for found in self._walk(sftp, Found(path, (), about)):
            if found.about.is_directory:
                folders.append(found)
                yield partial(self._make_directory, top, found)
            else:
                yield partial(self._fetch, top, found)
        if self.options.preserve:  # a directory's time changes with what is put into it: the innermost first
            for found in reversed(folders):
                yield partial(self._finish, top, found)

    def _walk(self, sftp: Sftp, first: Found) -> Iterator[Found]:
        """Each directory before what is in it. A link comes as the file that it leads to."""
        waiting = [first]
        count = 0
        while waiting:
            found = waiting.pop()
            yield found
            if not found.about.is_directory:
                continue
            if len(found.parts) >= DEPTH_MOST:
                raise ResultError(f"{shown(found.path)}: more than {DEPTH_MOST} directories, one in the other")
            for name, about in sorted(sftp.list_directory(found.path), key=lambda e: e[0], reverse=True):
                if name in (b".", b".."):
                    continue
                count += 1
                if count > ENTRIES_MOST:
                    raise ResultError(f"{shown(first.path)} has more than {ENTRIES_MOST} files")
                path = posixpath.join(found.path, check_name(name))
                seen = (sftp.find(path) if about.is_link else about) or about
                if seen.is_file or about.is_directory:
                    waiting.append(Found(path, (*found.parts, name), seen))
                else:
                    self.left_out.append(shown(path))

    # ---- bringing it here ------------------------------------------------------------------------------------------

    def _make_directory(self, top: str, found: Found, sftp: Sftp) -> None:
        mode = found.about.mode & 0o777 | 0o700
        if not found.parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(top, mode)
            return
        folder = open_folder(top, found.parts[:-1])
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(found.parts[-1], mode, dir_fd=folder)
        finally:
            os.close(folder)

    def _finish(self, top: str, found: Found, sftp: Sftp) -> None:
        folder = open_folder(top, found.parts)
        try:
            os.fchmod(folder, found.about.mode & 0o777)
            os.utime(folder, (found.about.accessed, found.about.modified))
        finally:
            os.close(folder)

    def _fetch(self, top: str, found: Found, sftp: Sftp) -> None:
        handle = sftp.open_to_read(found.path)
        about = sftp.look_at(handle)
        download = self._download
        if download is not None and not is_same(download.about, about):
            self.close(None)
            download = None
        if download is None:
            download = self._download = self._begin(top, found, about)
        name = shown(found.path)
        self.progress(name, download.have, about.size)

        def take(offset: int, data: bytes) -> None:
            write_all(download.fd, data, offset)
            download.have = offset + len(data)
            self.progress(name, download.have, about.size)

        try:
            sftp.read(handle, download.have, about.size, take, self.options.window)
        except TransferFailed as problem:
            raise TransferFailed(f"{name}: {problem.message}", hint=problem.hint) from problem
        sftp.close_handle(handle)
        here = os.fstat(download.fd).st_size
        if here != about.size:
            raise TransferFailed(f"{name}: {here} of {about.size} bytes are here")
        self._land(download)

    def _begin(self, top: str, found: Found, about: Attributes) -> _Download:
        folder = open_folder(top, found.parts[:-1])
        try:
            refuse_other_kind(folder, found.parts[-1])
            temporary = TEMPORARY + secrets.token_hex(8).encode()
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temporary, flags, about.mode & 0o777 or PRIVATE, dir_fd=folder)
        except BaseException:
            os.close(folder)
            raise
        return _Download(found, about, folder, temporary, fd)

    def _land(self, download: _Download) -> None:
        if self.options.preserve:
            os.fchmod(download.fd, download.about.mode & 0o777)
            os.utime(download.fd, (download.about.accessed, download.about.modified))
        name = download.found.parts[-1]
        os.rename(download.temporary, name, src_dir_fd=download.folder, dst_dir_fd=download.folder)
        os.close(download.fd)
        os.close(download.folder)
        self._download = None


def is_same(before: Attributes, now: Attributes) -> bool:
    """Whether a file can be what was begun: else it is fetched from its beginning."""
    return (before.size, before.modified) == (now.size, now.modified)


def check_name(name: bytes) -> bytes:
    """One name in one directory; ResultError for what could lead elsewhere."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise ResultError(f"the host has a file of the name {name[:100]!r}: nothing was written for it")
    return name


def open_folder(top: str, parts: Sequence[bytes]) -> int:
    """A directory below one that the user named. Links of the user's own are followed up to there, and none below."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except NotADirectoryError:
            where = os.path.join(top, *(os.fsdecode(p) for p in parts))
            raise ResultError(
                f"{shown(where)} leads through a link or a file: nothing was written there",
                hint="move that away, or name another destination",
            ) from None
        finally:
            os.close(fd)
        fd = below
    return fd


def refuse_other_kind(folder: int, name: bytes) -> None:
    """A directory, a pipe or a device in the place of a file stays there. A link is replaced, not followed."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise TransferFailed(f"{shown(name)} is no file here: it is left as it is", hint="move it away")


def write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count

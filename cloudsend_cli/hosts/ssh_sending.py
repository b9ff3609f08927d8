"""Files to a host by SFTP. A transfer that was interrupted is run again over a new connection, and goes on.

Each file goes into one beside its destination and takes its place when the host has all of it.
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from cloudsend_cli.errors import TransferFailed

from .sftp import WINDOW, Refused, Sftp
from .ssh_sources import Entry, FileSource, Listing, Source, shown

Progress = Callable[[str, int, int], None]
TEMPORARY = b".cloudsend-"
PRIVATE = 0o600


def remote_path(text: bytes) -> bytes:
    """`~` is where a login begins, and so is SFTP's own directory."""
    if text in (b"", b"~", b"~/"):
        return b"."
    return text[2:].lstrip(b"/") or b"." if text.startswith(b"~/") else text


class Umask:
    """The host's, as the first new file shows it."""

    def __init__(self) -> None:
        self.known: int | None = None

    def learn(self, sftp: Sftp, handle: bytes) -> int:
        """Of a file that was just made. It says nothing of the right to execute: that goes with the right to read."""
        made = sftp.look_at(handle).mode & 0o777
        masked = 0o666 & ~made if made else 0
        self.known = masked | (masked & 0o444) >> 2
        return self.known


@dataclass(slots=True)
class Upload:
    """One file on its way."""

    open_source: Callable[[], Source]
    name: str
    target: bytes
    mode: int
    exact: bool = False  # else the host's umask counts
    times: tuple[int, int] | None = None
    umask: Umask = field(default_factory=Umask)
    is_free: bool = False  # the target's directory is new: nothing can be there
    _source: Source | None = None
    _place: bytes = b""  # the target, or where a link there leads
    _temporary: bytes = b""
    _final: int | None = None  # the mode that it will have
    _is_whole: bool = False

    def send(self, sftp: Sftp, progress: Progress, window: int) -> None:
        """All of it, or what is missing; and then it is the target."""
        if self._source is None:
            self._source = self.open_source()
        size = self._source.size
        if not self._place:
            self._place = self.target if self.is_free else self._find_place(sftp)
        begin = self._find_begin(sftp, size)
        if begin is None:  # the answer to the last request was lost
            return
        if begin < size or not size:
            self._send_rest(sftp, self._source, begin, progress, window)
        else:  # it may be closed to writing by now
            sftp.change(self._temporary, self._final, self.times)
        self._is_whole = True
        sftp.replace(self._temporary, self._place)
        self._temporary = b""

    def _send_rest(self, sftp: Sftp, source: Source, begin: int, progress: Progress, window: int) -> None:
        size = source.size
        handle = self._open(sftp) if begin == 0 else sftp.open_to_write(self._temporary)
        progress(self.name, begin, size)

        def read(offset: int, count: int) -> bytes:
            data = source.read(offset, count)
            if not data:
                raise TransferFailed(f"{self.name} became shorter while it was sent", hint="send it again")
            return data

        def tell(upto: int) -> None:
            progress(self.name, upto, size)

        sftp.write(handle, begin, size, read, tell, window)
        there = sftp.finish(handle, self._final, self.times, tell)
        if there != size:
            raise TransferFailed(f"{self.name}: the host has {there} of {size} bytes", hint="is its disk full?")

    @property
    def is_on_host(self) -> bool:
        return bool(self._temporary)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def remove_temporary(self, sftp: Sftp) -> None:
        if self._temporary:
            with contextlib.suppress(Refused):
                sftp.remove(self._temporary)

    def _find_place(self, sftp: Sftp) -> bytes:
        """A link to a file stays a link, and what is no file stays what it is."""
        place = self.target
        there = sftp.find(place, follow=False)
        if there is not None and there.is_link:
            place = sftp.resolve(place)
            there = sftp.find(place)
        if there is not None and not there.is_file:
            kind = "a directory" if there.is_directory else "neither a file nor a directory"
            raise TransferFailed(f"{shown(self.target)} is {kind} on the host", hint="name another destination")
        return place

    def _find_begin(self, sftp: Sftp, size: int) -> int | None:
        """How much of it the host has; None if it is in its place."""
        if self._temporary:
            there = sftp.find(self._temporary, follow=False)
            if there is None and self._is_whole:
                found = sftp.find(self._place)
                if found is not None and found.size == size:
                    return None
            if there is not None and self._final is not None and 0 < there.size <= size:
                return there.size
            self.remove_temporary(sftp)
        folder = posixpath.dirname(self._place)
        self._temporary = posixpath.join(folder, TEMPORARY + secrets.token_hex(8).encode())
        self._final = None
        return 0

    def _open(self, sftp: Sftp) -> bytes:
        """A new file that nobody else can read before it is whole, and the mode that it will have then."""
        masked = 0 if self.exact else self.umask.known
        if masked is not None:
            self._final = self.mode & ~masked
            return sftp.open_new(self._temporary, PRIVATE)
        handle = sftp.open_new(self._temporary, None)
        self._final = self.mode & ~self.umask.learn(sftp, handle)
        sftp.change_opened(handle, PRIVATE)
        return handle


@dataclass(frozen=True, slots=True)
class SendOptions:
    preserve: bool = False  # modes and times, exactly
    window: int = WINDOW


class Sending:
    """What one call sends. `run` goes on where it was interrupted."""

    def __init__(self, listings: Sequence[Listing], goal: bytes, options: SendOptions, progress: Progress) -> None:
        self._listings = listings
        self._goal = remote_path(goal)
        self._options = options
        self._progress = progress
        self._steps: deque[Callable[[Sftp], None]] | None = None
        self._upload: Upload | None = None
        self._umask = Umask()
        self._made: set[bytes] = set()  # directories that were not there

    @property
    def is_on_host(self) -> bool:
        return self._upload is not None and self._upload.is_on_host

    def run(self, sftp: Sftp) -> None:
        if self._steps is None:
            self._steps = self._plan(sftp)
        while self._steps:
            self._steps[0](sftp)
            self._steps.popleft()

    def close(self, sftp: Sftp | None) -> None:
        """Leave nothing behind, as far as the host can be reached."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.close()
            if sftp is not None:
                upload.remove_temporary(sftp)

    def _plan(self, sftp: Sftp) -> deque[Callable[[Sftp], None]]:
        there = sftp.find(self._goal)
        into = there is not None and there.is_directory
        if not into and (len(self._listings) > 1 or self._goal.endswith(b"/")):
            listing = self._listings[0]
            if len(self._listings) > 1 or not listing.entries[0].is_directory:
                raise TransferFailed(f"{shown(self._goal)} is no directory on the host", hint="make it first")
        steps: deque[Callable[[Sftp], None]] = deque()
        for listing in self._listings:
            top = posixpath.join(self._goal, listing.name) if into else self._goal.rstrip(b"/")
            steps.extend(partial(self._make, entry, posixpath.join(top, *entry.parts)) for entry in listing.entries)
            if self._options.preserve:  # a directory's time changes with what is put into it: the innermost first
                folders = [entry for entry in reversed(listing.entries) if entry.is_directory]
                steps.extend(partial(self._finish, e, posixpath.join(top, *e.parts)) for e in folders)
        return steps

    def _make(self, entry: Entry, target: bytes, sftp: Sftp) -> None:
        if entry.is_directory:
            self._make_directory(entry, target, sftp)
            return
        if self._upload is None or self._upload.target != target:
            self._upload = Upload(
                partial(FileSource, entry.path),
                shown(entry.path),
                target,
                entry.mode & 0o777,
                self._options.preserve,
                entry.times if self._options.preserve else None,
                self._umask,
                posixpath.dirname(target) in self._made,
            )
        self._upload.send(sftp, self._progress, self._options.window)
        self._upload.close()
        self._upload = None

    def _make_directory(self, entry: Entry, target: bytes, sftp: Sftp) -> None:
        try:
            sftp.make_directory(target, entry.mode & 0o777 | 0o700)
            self._made.add(target)
        except Refused:
            there = sftp.find(target)
            if there is None or not there.is_directory:
                raise

    def _finish(self, entry: Entry, target: bytes, sftp: Sftp) -> None:
        sftp.change(target, entry.mode & 0o777, entry.times)


class SendingObject:
    """What `putfo` sends: one file, to the very path."""

    def __init__(self, source: Source, target: bytes, mode: int, progress: Progress) -> None:
        self._upload = Upload(lambda: source, shown(target), remote_path(target), mode, exact=True)
        self._progress = progress

    @property
    def is_on_host(self) -> bool:
        return self._upload.is_on_host

    def run(self, sftp: Sftp) -> None:
        self._upload.send(sftp, self._progress, WINDOW)

    def close(self, sftp: Sftp | None) -> None:
        self._upload.close()
        if sftp is not None:
            self._upload.remove_temporary(sftp)

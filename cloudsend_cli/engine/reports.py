"""What jobs report of themselves, read where their logs lie: here, or at home once they have come."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cloudsend_cli.core.metrics import Metrics, MetricsReader
from cloudsend_cli.core.model import AttemptStatus
from cloudsend_cli.core.naming import run_of_attempt

STDERR, STDOUT, METRICS = "stderr", "stdout", "metrics"
FILE_MOST = 64 << 20  # bytes of a file of metrics that are read, and brought home; logs are read whole
LARGE = 4 << 20  # more is read by a thread of its own, so that other ends are not told late
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The files of one attempt, each `<stem><what>`, and how long they are, where that is known."""

    stem: str
    sizes: Mapping[str, int] | None = None

    def path(self, what: str) -> str:
        return self.stem + what

    def size(self) -> int:
        if self.sizes is not None:
            return sum(self.sizes.values())
        return sum(map(_size, (self.path(STDERR), self.path(STDOUT), self.path(METRICS))))

    def read(self, what: str, most: int | None = None) -> Iterator[bytes]:
        if self.sizes is not None and not self.sizes.get(what):
            return iter(())
        return _read(self.path(what), most)


def files_here(agent_home: str, attempt: str, sizes: Mapping[str, int] | None = None) -> LogFiles:
    """Of an attempt on this machine: they lie where its agent has them."""
    return LogFiles(f"{agent_home}/attempts/{attempt}/", sizes)


def files_at_home(logs: Path, attempt: str) -> LogFiles:
    """Of an attempt on another machine."""
    return LogFiles(f"{logs}/{run_of_attempt(attempt)}/{attempt}.")


def read_metrics(files: LogFiles) -> Metrics:
    """Of a name in several of the files, the one in the file of metrics counts, then that on stdout."""
    reader = MetricsReader()
    reader.read_log(files.read(STDERR))
    reader.read_log(files.read(STDOUT))
    reader.read_file(files.read(METRICS, FILE_MOST))
    return reader.metrics


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _read(path: str, most: int | None = None) -> Iterator[bytes]:
    """As much as is there now. The job may have put anything in the place of a file, and may still write to it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        about = os.fstat(fd)
        left = about.st_size if most is None else min(most, about.st_size)
        if not stat.S_ISREG(about.st_mode):
            return
        while left > 0 and (data := os.read(fd, min(BLOCK, left))):
            left -= len(data)
            yield data
    except OSError:
        return
    finally:
        os.close(fd)


Tell = Callable[[Mapping[str, AttemptStatus]], None]


def tell_with_metrics(ended: Mapping[str, AttemptStatus], find: Callable[[str], LogFiles], tell: Tell) -> None:
    """Tell these ends with what their jobs reported. Those with large logs are told later, by another thread."""
    files = {attempt: find(attempt) for attempt in ended}
    large = {attempt: ended[attempt] for attempt in ended if files[attempt].size() > LARGE}

    def read(statuses: Mapping[str, AttemptStatus]) -> dict[str, AttemptStatus]:
        return {a: replace(s, metrics=read_metrics(files[a])) for a, s in statuses.items()}

    if len(large) < len(ended):
        tell(read({attempt: status for attempt, status in ended.items() if attempt not in large}))
    if large:
        begin_apart(lambda: tell(read(large)))


def begin_apart(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="metrics of large logs", daemon=True).start()

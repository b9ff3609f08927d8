"""How a run goes on, told on stderr while one waits: a block that is redrawn, or lines where there is no terminal."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .listing import counts_text
from .render import Screen, display_width, duration, iso_seconds, paint
from .sanitise import log_text, one_line

if TYPE_CHECKING:
    from cloudsend_cli.core.views import Progress

LINES_APART: Final = 1.0  # seconds between two lines of counts, at the least
TAIL_LINES: Final = 3
Tail = Callable[[str, int], bytes]  # Client.log_tail


def counts_line(progress: Progress) -> str:
    """Such as `5 of 29 ended: 3 running, 20 pending, 5 succeeded, 1 failed`.

    What is handed over and waits in its host's queue counts as pending: a reader wants to know what executes.
    """
    from cloudsend_cli.core.views import tell_counts

    counts = progress.counts
    total = sum(counts.values())
    running = counts.get("running", 0)
    ended = total - counts.get("pending", 0) - running
    queued = 0 if progress.executing is None else running - progress.executing
    return f"{ended:,} of {total:,} ended: {counts_text(tell_counts(counts, queued))}"


def money_text(progress: Progress, now: float) -> str:
    """Such as `$0.12, $0.42/h now`; empty where nothing was rented."""
    if not progress.rentals:
        return ""
    from cloudsend_cli.core.costs import describe_cost, run_cost
    from cloudsend_cli.core.state import RentalRecord

    rentals = [
        RentalRecord("", "", "", "", price, since or 0.0, until, least or 0.0)
        for price, since, until, least in progress.rentals
    ]
    return describe_cost(run_cost(rentals, now))


def failure_line(failure: dict[str, str]) -> str:
    return f"{one_line(failure['name'])} ({failure['id']}) failed: {one_line(failure['reason'])}"


class Lines:
    """One line with its time for each change. No control codes."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._counts = ""
        self._told: set[str] = set()
        self._next = 0.0

    def update(self, progress: Progress) -> None:
        for note in progress.notes:
            self._once(one_line(note))
        for failure in progress.failed:
            self._once(failure_line(dict(failure)))
        now = time.monotonic()
        counts = counts_line(progress)
        if counts != self._counts and (now >= self._next or progress.settled):
            self._counts = counts
            self._next = now + LINES_APART
            money = money_text(progress, time.time())
            self._tell(f"run {progress.run}: {counts}" + (f"; {money}" if money else ""))

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)

    def _tell(self, text: str) -> None:
        print(f"{iso_seconds(time.time())} {text}", file=self._screen.err, flush=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        pass


class Block:
    """A few lines at the end of the terminal, redrawn at each change and each second."""

    def __init__(self, screen: Screen, tail: Tail) -> None:
        self._screen = screen
        self._tail = tail
        self._begun = time.monotonic()
        self._drawn = 0
        self._progress: Progress | None = None
        self._failure = ""
        self._failure_lines: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._clock = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._clock.start()

    def update(self, progress: Progress) -> None:
        if progress.failed and progress.failed[-1]["id"] != self._failure:
            newest = progress.failed[-1]
            self._failure = newest["id"]
            tail = log_text(self._tail(newest["id"], TAIL_LINES)).splitlines()[-TAIL_LINES:]
            self._failure_lines = [failure_line(dict(newest)), *(f"  | {line}" for line in tail)]
        elif not progress.failed:
            self._failure, self._failure_lines = "", []
        with self._lock:
            self._progress = progress
            self._draw()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Something else writes to the terminal."""
        with self._lock:
            self._erase()
            yield
            self._screen.out.flush()
            self._draw()

    def close(self) -> None:
        self._stop.set()
        self._clock.join()
        with self._lock:
            self._erase()

    def _tick(self) -> None:
        while not self._stop.wait(1.0):
            with self._lock:
                self._draw()

    def _erase(self) -> None:
        if self._drawn:
            self._screen.err.write(f"\r\x1b[{self._drawn}A\x1b[J")
            self._screen.err.flush()
        self._drawn = 0

    def _draw(self) -> None:
        if self._progress is None or self._stop.is_set():
            return
        size = shutil.get_terminal_size()
        lines = [fit(line, size.columns - 1) for line in self._lines(self._progress)[: max(1, size.lines - 1)]]
        if self._screen.err_color:
            lines[0] = paint(lines[0], "bold")
        back = f"\r\x1b[{self._drawn}A" if self._drawn else ""
        self._screen.err.write(back + "".join(f"\x1b[K{line}\n" for line in lines) + "\x1b[J")
        self._screen.err.flush()
        self._drawn = len(lines)

    def _lines(self, progress: Progress) -> list[str]:
        elapsed = duration(time.monotonic() - self._begun)
        money = money_text(progress, time.time())
        lines = [f"run {progress.run}  {elapsed}  {counts_line(progress)}" + (f"  {money}" if money else "")]
        if progress.running:
            running = progress.counts.get("running", 0) if progress.executing is None else progress.executing
            more = running - len(progress.running)
            names = ", ".join(one_line(name) for name in progress.running)
            lines.append(f"  running: {names}" + (f" and {more:,} more" if more > 0 else ""))
        lines.extend(f"  {one_line(note)}" for note in list(progress.notes)[:3])
        lines.extend(f"  {line}" for line in self._failure_lines)
        return lines


def fit(text: str, columns: int) -> str:
    """At most so many columns, with a dot that says that something was cut."""
    if display_width(text) <= columns:
        return text
    text = text[:columns]
    while text and display_width(text) >= columns:
        text = text[:-1]
    return text + "…"

"""Logs of attempts on other machines: the copy at home once it is whole, else read through the maestro's links."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudsend_cli.engine.homelogs import is_home, log_path
from cloudsend_cli.engine.logs import BLOCK, FileSource, LogCut, LogPlace, LogSource
from cloudsend_cli.errors import CloudsendError, MaestroError, UnreachableError

from .client import MaestroClient
from .sockets import Message

PLACES_AT_ONCE = 256
LEAST_BLOCK = 4096
MOST_BYTES = 1 << 20  # of one answer
ANSWER_LIMIT = 30.0  # without an answer: does the maestro live?

Wish = tuple[LogPlace, int, int]  # offset, length


@dataclass(frozen=True, slots=True)
class Answer:
    """What is at an offset of a log. `block` None: the machine does not answer."""

    offset: int
    length: int
    block: Message | None


class Relay:
    """One reader's way to the maestro, kept open. `reach` gives a connection to a maestro that knows of the run.

    `within`: the seconds that a machine has for its answer before the reader goes on with the others; a later answer
    is kept until it is asked for again. None: the reader waits until the machine answers, or is given up.
    """

    def __init__(self, logs: Path, reach: Callable[[str], MaestroClient], within: float | None = None) -> None:
        self._logs = logs
        self._reach = reach
        self._within = within
        self._maestro: MaestroClient | None = None
        self._asked: dict[int, list[Wish]] = {}  # requests without an answer
        self._answers: dict[tuple[str, str], Answer] = {}

    def close(self) -> None:
        self._asked.clear()
        self._answers.clear()
        if self._maestro is not None:
            self._maestro.close()
            self._maestro = None

    def open(self, place: LogPlace) -> LogSource:
        return RelaySource(self, self._logs, place)

    def prepare(self, wanted: Iterable[tuple[LogSource, int]]) -> None:
        """Ask for what these sources have from there on: a round trip for all, and no machine waits for another."""
        by_node: dict[str, list[tuple[LogPlace, int]]] = {}
        for source, offset in wanted:
            if isinstance(source, RelaySource) and source.is_away and not self._has(source.place, offset):
                by_node.setdefault(source.place.node, []).append((source.place, offset))
        wishes: list[list[Wish]] = []
        for node, places in by_node.items():
            for first in range(0, 0 if self._waits_for(node) else len(places), PLACES_AT_ONCE):
                some = places[first : first + PLACES_AT_ONCE]
                length = max(LEAST_BLOCK, min(BLOCK, MOST_BYTES // len(some)))
                wishes.append([(place, offset, length) for place, offset in some])
        with contextlib.suppress(UnreachableError):  # told by the source that is read
            self._ask(wishes)

    def read(self, place: LogPlace, offset: int, length: int) -> Message:
        """What the machine says. UnreachableError: it does not answer now, or no maestro does."""
        if not self._has(place, offset) and not self._waits_for(place.node):
            self._ask([[(place, offset, length)]])
        answer = self._answers.pop((place.attempt, place.stream), None)
        if answer is None or answer.offset != offset or answer.block is None:
            raise UnreachableError("the job's machine does not answer now", hint="its log is read when it is back")
        data = _data(answer.block)
        if data and len(data) < answer.length:  # that was all for now
            rest = Answer(offset + len(data), answer.length, {"data": ""})
            self._answers[place.attempt, place.stream] = rest
        return answer.block

    # ---- requests --------------------------------------------------------------------------------------------------

    def _has(self, place: LogPlace, offset: int) -> bool:
        answer = self._answers.get((place.attempt, place.stream))
        return answer is not None and answer.offset == offset

    def _waits_for(self, node: str) -> bool:
        """Whether the machine owes an answer: it is not asked again, as a slow line would never be done."""
        return any(place.node == node for wishes in self._asked.values() for place, _, _ in wishes[:1])

    def _ask(self, requests: Sequence[list[Wish]]) -> None:
        """Send these requests, each for one machine, and take what answers come in time."""
        try:
            new = [self._send(wishes) for wishes in requests]
            if self._maestro is not None:
                self._collect(self._maestro, new)
        except (CloudsendError, ValueError) as problem:
            self.close()
            hint = problem.hint if isinstance(problem, CloudsendError) else ""
            raise UnreachableError(f"no maestro answers: {problem}", hint=hint) from problem

    def _send(self, wishes: list[Wish]) -> int:
        wire = [
            {"node": p.node, "attempt": p.attempt, "stream": p.stream, "offset": offset, "length": length}
            for p, offset, length in wishes
        ]
        run = wishes[0][0].run
        if self._maestro is None:
            self._maestro = self._reach(run)
        number = self._maestro.send("read_logs", run=run, places=wire)
        self._asked[number] = wishes
        return number

    def _collect(self, maestro: MaestroClient, new: Sequence[int]) -> None:
        begun = time.monotonic()
        limit = ANSWER_LIMIT if self._within is None else self._within
        while True:
            waiting = any(number in self._asked for number in new)
            left = begun + limit - time.monotonic() if waiting else 0.0
            messages = maestro.messages(max(0.0, left))
            for message in messages:
                self._take(message)
            if not messages and left <= 0.0:
                if not waiting or self._within is not None:
                    return
                maestro.ask("status")  # MaestroError: it hangs; else the machine is slow
                begun = time.monotonic()

    def _take(self, message: Message) -> None:
        number, blocks = message.get("re"), message.get("blocks")
        wishes = self._asked.pop(number, []) if isinstance(number, int) else []
        if not isinstance(blocks, list) or len(blocks) != len(wishes):
            blocks = [{"error": "the maestro does not know these logs"}] * len(wishes)
        for (place, offset, length), block in zip(wishes, blocks, strict=True):
            found = block if isinstance(block, dict) else None
            self._answers[place.attempt, place.stream] = Answer(offset, length, found)


@dataclass(frozen=True, slots=True)
class RelaySource:
    """One stream of one attempt on another machine."""

    relay: Relay
    logs: Path
    place: LogPlace

    @property
    def is_away(self) -> bool:
        return not is_home(self.logs, self.place.attempt)

    def read(self, offset: int, length: int) -> bytes:
        """UnreachableError: its machine does not answer now, or there is no way to it."""
        if not self.is_away:
            return self._home().read(offset, length)
        block = self.relay.read(self.place, offset, length)
        data, total = _data(block), block.get("total")
        if not data and isinstance(total, int) and total < offset:
            raise LogCut
        return data

    def size(self) -> int:
        if not self.is_away:
            return self._home().size()
        block = self.relay.read(self.place, 0, 0)
        _data(block)
        total = block.get("total")
        return total if isinstance(total, int) else 0

    def _home(self) -> FileSource:
        return FileSource(log_path(self.logs, self.place.attempt, self.place.stream))


def _data(block: Message) -> bytes:
    if isinstance(block.get("error"), str):
        raise UnreachableError(str(block["error"]), hint="`cloudsend explain` says more")
    with contextlib.suppress(ValueError):
        return base64.b64decode(str(block.get("data", "")), validate=True)
    raise MaestroError("the maestro sent what is no log", hint="`cloudsend maestro stop`, and try again")

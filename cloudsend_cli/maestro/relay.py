"""Logs of attempts on other machines: the copy at home once it is whole, else read through the maestro's links."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloudsend_cli.engine.homelogs import is_home, log_path
from cloudsend_cli.engine.logs import BLOCK, FileSource, LogPlace, LogSource
from cloudsend_cli.errors import CloudsendError, MaestroError, UnreachableError

from .client import MaestroClient
from .sockets import Message

PLACES_AT_ONCE = 256
LEAST_BLOCK = 4096
MOST_BYTES = 1 << 20  # of one answer


class Relay:
    """One reader's way to the maestro, kept open. `reach` gives a connection to a maestro that knows of the run."""

    def __init__(self, logs: Path, reach: Callable[[str], MaestroClient]) -> None:
        self._logs = logs
        self._reach = reach
        self._maestro: MaestroClient | None = None

    def close(self) -> None:
        if self._maestro is not None:
            self._maestro.close()
            self._maestro = None

    def open(self, place: LogPlace) -> LogSource:
        return RelaySource(self, self._logs, place)

    def prepare(self, wanted: Iterable[tuple[LogSource, int]]) -> None:
        """Ask for what these sources have from there on, all together: a round trip for many, not for each."""
        far = [(s, offset) for s, offset in wanted if isinstance(s, RelaySource) and s.is_away]
        for first in range(0, len(far), PLACES_AT_ONCE):
            some = far[first : first + PLACES_AT_ONCE]
            length = max(LEAST_BLOCK, min(BLOCK, MOST_BYTES // len(some)))
            try:
                blocks = self.ask([(s.place, offset, length) for s, offset in some])
            except UnreachableError:
                blocks = [None] * len(some)
            for (source, offset), block in zip(some, blocks, strict=True):
                source.prepared = Prepared(offset, length, block)

    def ask(self, places: Sequence[tuple[LogPlace, int, int]]) -> list[Message | None]:
        """For each place what its machine says, None where it does not answer now. UnreachableError: no maestro."""
        wire = [
            {"node": p.node, "attempt": p.attempt, "stream": p.stream, "offset": offset, "length": length}
            for p, offset, length in places
        ]
        run = places[0][0].run
        try:
            if self._maestro is None:
                self._maestro = self._reach(run)
            blocks = self._maestro.ask("read_logs", run=run, places=wire, limit=ANSWER_LIMIT).get("blocks")
        except CloudsendError as problem:
            self.close()
            raise UnreachableError(f"no maestro answers: {problem.message}", hint=problem.hint) from problem
        if not isinstance(blocks, list) or len(blocks) != len(places):
            raise UnreachableError("the maestro does not know these logs", hint="is it of another version?")
        return [b if isinstance(b, dict) else None for b in blocks]


ANSWER_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """An answer that came before its question. `block` None: the machine did not answer."""

    offset: int
    length: int
    block: Message | None


@dataclass(slots=True)
class RelaySource:
    """One stream of one attempt on another machine."""

    relay: Relay
    logs: Path
    place: LogPlace
    prepared: Prepared | None = field(default=None)

    @property
    def is_away(self) -> bool:
        return not is_home(self.logs, self.place.attempt)

    def read(self, offset: int, length: int) -> bytes:
        """UnreachableError: its machine does not answer now, or there is no way to it."""
        prepared, self.prepared = self.prepared, None
        if prepared is not None and prepared.offset == offset:
            data = _data(prepared.block)
            if data and len(data) < prepared.length:
                self.prepared = Prepared(offset + len(data), prepared.length, {})  # that was all for now
            return data
        if not self.is_away:
            return self._home().read(offset, length)
        return _data(self.relay.ask([(self.place, offset, length)])[0])

    def size(self) -> int:
        if not self.is_away:
            return self._home().size()
        block = self.relay.ask([(self.place, 0, 0)])[0]
        _data(block)
        total = block.get("total") if block is not None else None
        return total if isinstance(total, int) else 0

    def _home(self) -> FileSource:
        return FileSource(log_path(self.logs, self.place.attempt, self.place.stream))


def _data(block: Message | None) -> bytes:
    if block is None:
        raise UnreachableError("the job's machine does not answer now", hint="its log is read when it is back")
    if isinstance(block.get("error"), str):
        raise UnreachableError(str(block["error"]), hint="`cloudsend explain` says more")
    with contextlib.suppress(ValueError):
        return base64.b64decode(str(block.get("data", "")), validate=True)
    raise MaestroError("the maestro sent what is no log", hint="`cloudsend maestro stop`, and try again")

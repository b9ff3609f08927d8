"""A short conversation with the agent of one machine, without a maestro."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import TypeVar, cast

from cloudsend_cli.agent.client import (
    AgentChannel,
    AgentRefused,
    ChannelClosed,
    Frame,
    ProtocolError,
    agent_sha256,
    agent_source,
)
from cloudsend_cli.agent.compiled import agent_compiled
from cloudsend_cli.core.ports import ByteStream, Host
from cloudsend_cli.errors import UnfitError, UnreachableError

from .asking import Ahead, Ask, ask_now

LOOK = ("check", 0)  # who only looks: such a client claims nothing, and is told who has the machine
TRIES = 3  # a host's first waits for a connection are short
# Seconds after which no other try begins: a machine that accepts and says nothing has been given its time by one.
TRIES_LIMIT = 13.0
PAUSES_MOST = 5.0
SILENCE_LIMIT = 30.0
BLOCKED_PAUSE = 2  # ms; not every stream can be waited on for writing
T = TypeVar("T")


class Direct:
    """Belongs to one thread. Leaving it ends nothing on the machine."""

    def __init__(self, host: Host, owner: str = LOOK[0], epoch: int = LOOK[1]) -> None:
        """UnreachableError, AuthError, HostKeyError, UnfitError, and CapacityError where somebody else has it."""
        self._where = host.address.host or host.address.kind
        stream = _open(host)
        self._channel = AgentChannel(stream)
        try:
            self.hello = self.ask("hello", owner=owner, epoch=epoch)
        except BaseException:
            stream.close()
            raise

    def ask(self, op: str, **fields: object) -> Frame:
        """The reply. What the agent refuses is UnreachableError too: nothing is known then."""
        try:
            return ask_now(self._channel, Ask(op, fields), lambda: False)[0]
        except AgentRefused as problem:
            raise UnfitError(f"{self._where}: {problem.message}", hint="mend it there, and try again") from problem
        except (ChannelClosed, ProtocolError, OSError) as problem:
            raise UnreachableError(f"{self._where}: {problem}", hint="try again") from problem

    def converse(self, conversation: Generator[list[Ask] | Ahead, list[Frame], T]) -> T:
        """Carry a conversation to its end, and give what it returns."""
        waiting: deque[list[Ask]] = deque()
        try:
            wish = next(conversation)
            while True:
                asks = wish.asks if isinstance(wish, Ahead) else wish
                if asks:
                    waiting.append(asks)
                # What is asked ahead is asked when its turn comes: nobody here is in a hurry.
                later = isinstance(wish, Ahead) or not waiting
                wish = conversation.send([] if later else self._ask_all(waiting.popleft()))
        except StopIteration as end:
            return cast(T, end.value)
        except (ChannelClosed, ProtocolError, OSError) as problem:
            raise UnreachableError(f"{self._where}: {problem}", hint="try again") from problem
        finally:
            conversation.close()

    def _ask_all(self, asks: Sequence[Ask]) -> list[Frame]:
        """The replies to questions that are under way together."""
        places = {self._channel.request(a.op, a.payload, **a.fields): i for i, a in enumerate(asks)}
        replies: list[Frame | None] = [None] * len(asks)
        poller = select.poll()
        heard = time.monotonic()
        while places:
            flushed = self._channel.flush()
            frames = self._channel.receive()
            for frame in frames:
                place = places.pop(frame.reply_to or 0, None)
                if place is not None:
                    replies[place] = frame
            if frames:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_LIMIT:
                raise ProtocolError(f"the agent says nothing for {SILENCE_LIMIT:g} s")
            elif places:
                poller.register(self._channel.fileno(), select.POLLIN)
                poller.poll(1000 if flushed else BLOCKED_PAUSE)
        return [r for r in replies if r is not None]

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Direct:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(host: Host) -> ByteStream:
    begun = time.monotonic()
    for left in reversed(range(TRIES)):
        try:
            return host.open_agent(agent_source(), agent_sha256(), agent_compiled)
        except UnreachableError as problem:
            if not left or time.monotonic() - begun > TRIES_LIMIT:
                raise
            time.sleep(min(problem.retry_after, PAUSES_MOST))
    raise AssertionError("unreachable")

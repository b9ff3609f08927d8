"""Questions to an agent: the words of conversations, and one question on a channel that is of no other use yet."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from cloudsend_cli.agent.client import AgentChannel, Frame, ProtocolError, plain
from cloudsend_cli.errors import CapacityError

HELLO_LIMIT = 15.0
EARLY_MOST = 16 << 20  # bytes that an agent may tell of its own accord before it answers the first questions
RETRY_TAKEN = 15.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a conversation."""

    op: str
    fields: dict[str, object] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Ahead:
    """Requests that are sent now, whose replies are taken later: something is under way while others are used."""

    asks: list[Ask]


# Yields requests to be sent together. What it gets for a list are the replies to the oldest requests that it has not
# got yet, those of one yield at a time; for `Ahead` it gets nothing.
Conversation = Generator[list[Ask] | Ahead, list[Frame], None]


def ask_now(channel: AgentChannel, ask: Ask, give_up: Callable[[], bool]) -> tuple[Frame, list[Frame]]:
    """The reply to one of the first questions on a new channel, and the other frames that came with it."""
    request = channel.request(ask.op, ask.payload, **ask.fields)
    deadline, received = time.monotonic() + HELLO_LIMIT, channel.received
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    others: list[Frame] = []
    while True:
        channel.flush()
        frames = channel.receive()
        answer = next((f for f in frames if f.get("re") == request), None)
        others.extend(f for f in frames if f is not answer)
        if sum(f.weight + len(f.payload) for f in others) > EARLY_MOST:
            raise ProtocolError(f"the agent talks without end and does not answer {ask.op}")
        if answer is not None:
            if answer.error_code == "taken":
                taken = CapacityError(error_text(answer), hint="wait, or set `shared: true` for it in providers.yml")
                taken.retry_after = RETRY_TAKEN
                raise taken
            if answer.get("ok") is not True:
                raise ProtocolError(f"the agent refused {ask.op}: {error_text(answer)}")
            return answer, others
        if channel.received > received:  # a long answer on a slow line
            deadline, received = time.monotonic() + HELLO_LIMIT, channel.received
        left = deadline - time.monotonic()
        if left <= 0 or give_up():
            raise ProtocolError(f"the agent did not answer {ask.op} in {HELLO_LIMIT:g} s")
        poller.poll(min(left, 0.2) * 1000)


def error_text(frame: Frame) -> str:
    """The words of a reply that refuses."""
    error = frame.get("error")
    return plain(error.get("message", error) if isinstance(error, dict) else error)

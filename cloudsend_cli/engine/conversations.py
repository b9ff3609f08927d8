"""The conversations over one machine's channel: who asked what, and who waits for which reply."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cloudsend_cli.agent.client import AgentChannel, Frame, ProtocolError

from .asking import Ahead, Ask, Conversation


@dataclass(slots=True)
class _Talk:
    """A conversation and the requests of its that wait for replies, the oldest first."""

    conversation: Conversation
    batches: deque[_Batch] = field(default_factory=deque)


@dataclass(slots=True)
class _Batch:
    """Requests of one yield."""

    talk: _Talk
    waiting: dict[int, int]  # request id -> place in `replies`
    replies: list[Frame | None]
    lengths: list[object]  # that were asked for
    sizes: dict[int, int] = field(default_factory=dict)  # request id -> bytes that go with it


class Conversations:
    """Owned by the link's thread. Without a channel whatever begins is dropped at once.

    `later` calls something when the link has time; `name` is the machine's, for the log.
    """

    def __init__(self, name: str, log: Callable[[str], None], later: Callable[[Callable[[], None]], None]) -> None:
        self.unanswered = 0  # bytes that go with requests that have no reply yet
        self._name = name
        self._log = log
        self._later = later
        self._channel: AgentChannel | None = None
        self._open: dict[int, _Batch] = {}
        self._alone = False  # a conversation that wants to be the only one of its kind is open
        self._queued: deque[Callable[[], None]] = deque()

    def open(self, channel: AgentChannel) -> None:
        self._channel = channel
        self.unanswered = 0

    def close(self) -> None:
        """The channel is lost: all conversations end, and those that waited for their turn are dropped."""
        self._channel = None
        opened, self._open = self._open, {}
        for talk in {id(b.talk): b.talk for b in opened.values()}.values():
            talk.conversation.close()
        queued, self._queued = self._queued, deque()
        for begin in queued:
            begin()

    def is_awaited(self, request: int | None) -> bool:
        return request in self._open

    def take(self, request: int, frame: Frame) -> None:
        batch = self._open.pop(request)
        self.unanswered -= batch.sizes.pop(request)
        place = batch.waiting.pop(request)
        length = batch.lengths[place]
        # What nobody asked for is not kept until the other replies are in; one byte of it tells that there was more.
        frame.payload = frame.payload[: length + 1 if isinstance(length, int) else 0]
        batch.replies[place] = frame
        if not batch.waiting and batch.talk.batches[0] is batch:
            self._advance(batch.talk)

    def begin(self, make: Callable[[], Conversation], dropped: Callable[[], None], *, alone: bool = False) -> None:
        if self._channel is None:
            dropped()
        elif not alone:
            self._advance(_Talk(_guarded(make(), dropped)))
        elif self._alone:
            self._queued.append(lambda: self.begin(make, dropped, alone=True))
        else:
            self._alone = True
            self._advance(_Talk(_guarded(make(), dropped, self._next_alone)))

    def _next_alone(self) -> None:
        self._alone = False
        if self._queued:
            self._later(self._queued.popleft())

    def _advance(self, talk: _Talk) -> None:
        """Give a conversation the replies that are in, and ask what it asks next. Its failure ends nothing else."""
        try:
            begun = bool(talk.batches)
            wish = talk.conversation.send(_replies(talk)) if begun else next(talk.conversation)
            while True:
                if isinstance(wish, Ahead):
                    self._ask_all(talk, wish.asks)
                    wish = talk.conversation.send([])
                    continue
                self._ask_all(talk, wish)
                if talk.batches and talk.batches[0].waiting:
                    return
                wish = talk.conversation.send(_replies(talk))
        except StopIteration:
            pass
        except ProtocolError as problem:  # a request that fits into no frame
            self._log(f"a request to {self._name} was not sent: {problem}")
            talk.conversation.close()
        except Exception:  # noqa: BLE001 - `dropped` was called; the others go on
            self._log(traceback.format_exc())

    def _ask_all(self, talk: _Talk, asks: Sequence[Ask]) -> None:
        """Send these requests; without a channel the conversation is closed."""
        channel = self._channel
        if channel is None:
            talk.conversation.close()
            return
        if not asks:
            return
        batch = _Batch(talk, {}, [None] * len(asks), [ask.fields.get("length") for ask in asks])
        try:
            for place, ask in enumerate(asks):
                request = channel.request(ask.op, ask.payload, **ask.fields)
                batch.waiting[request] = place
                batch.sizes[request] = len(ask.payload)
                self.unanswered += len(ask.payload)
                self._open[request] = batch
        except ProtocolError:
            for request in batch.waiting:
                del self._open[request]
            self.unanswered -= sum(batch.sizes.values())
            raise
        talk.batches.append(batch)


def _replies(talk: _Talk) -> list[Frame]:
    """Those of the oldest requests; none where nothing was asked."""
    return [r for r in talk.batches.popleft().replies if r is not None] if talk.batches else []


def _guarded(
    conversation: Conversation, dropped: Callable[[], None], ended: Callable[[], None] | None = None
) -> Conversation:
    """The same conversation; `dropped` is called if it fails, or is closed, before its end; `ended` in any case."""
    finished = False
    try:
        yield from conversation
        finished = True
    finally:
        if not finished:
            dropped()
        if ended is not None:
            ended()

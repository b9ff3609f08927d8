"""One thread owns one machine: its connection, its agent channel, and the conversations over it."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloudsend_cli.agent.client import AgentChannel, ChannelClosed, Frame, ProtocolError, agent_sha256, agent_source
from cloudsend_cli.core.model import HostView, Resources
from cloudsend_cli.core.ports import ByteStream, Host
from cloudsend_cli.errors import CloudsendError, UnreachableError

from .wire import parse_resources

SILENCE_LIMIT = 20.0  # the agent's heartbeat comes every 5 s
HELLO_LIMIT = 15.0
RETRY_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a conversation."""

    op: str
    fields: dict[str, object] = field(default_factory=dict)
    payload: bytes = b""


Conversation = Generator[list[Ask], list[Frame], None]  # yields requests to be sent together, gets their replies


class Listener(Protocol):
    """Who hears of a machine: called from the link's thread, must return at once."""

    def on_view(self, view: HostView, statuses: dict[str, object] | None) -> None: ...

    def on_changes(self, items: dict[str, object]) -> None: ...

    def on_heartbeat(self, frame: Frame) -> None: ...


@dataclass(slots=True)
class _Open:
    """A conversation that waits for replies."""

    conversation: Conversation
    waiting: dict[int, int]  # request id -> place in `replies`
    replies: list[Frame | None]


class HostLink:
    """Keeps a channel to the agent of one machine for as long as anybody listens.

    Losing the channel ends nothing on the machine: the link says `connected=False`, tries again, and has the agent
    report in full when it is back.
    """

    def __init__(self, host: Host, owner: str, epoch: int, capacity: Resources | None) -> None:
        self._host = host
        self._owner = owner
        self._epoch = epoch
        self._capacity = capacity
        self._listeners: list[Listener] = []
        self._inbox: deque[Callable[[], None]] = deque()
        self._open: dict[int, _Open] = {}
        self._channel: AgentChannel | None = None
        self._view = HostView(connected=False, error="not connected yet")
        self._heard = 0.0
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._live, name=f"host {host.address.key}", daemon=True)
        self._thread.start()

    # ---- called from other threads ---------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        self._post(lambda: self._add_listener(listener))

    def unlisten(self, listener: Listener) -> None:
        self._post(lambda: self._remove_listener(listener))

    def tell(self, op: str, fields: dict[str, object]) -> None:
        """Send a request whose reply nobody needs; dropped without a channel, and said again after the next report."""
        self._post(lambda: self._send(op, fields))

    def converse(self, make: Callable[[], Conversation], dropped: Callable[[], None]) -> None:
        """Begin a conversation. `dropped` is called if the channel is lost before it ends."""
        self._post(lambda: self._begin(make, dropped))

    def report_again(self) -> None:
        self._post(self._ask_report)

    def stop(self) -> None:
        self._stopping = True
        self._wake()
        self._thread.join(timeout=10)

    def _post(self, call: Callable[[], None]) -> None:
        self._inbox.append(call)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: the thread is about to wake anyway
            os.write(self._wake_write, b"x")

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                self._connect()
                failures = 0
                self._serve()
            except (CloudsendError, ChannelClosed, ProtocolError, OSError) as problem:
                self._lost(str(problem) or type(problem).__name__)
                delay = RETRY_DELAYS[min(failures, len(RETRY_DELAYS) - 1)]
                failures += 1
                self._rest(delay)
        self._lost("closed")
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _rest(self, delay: float) -> None:
        deadline = time.monotonic() + delay
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            select.select([self._wake_read], [], [], left)
            self._drain_wake()
            self._run_inbox()

    def _connect(self) -> None:
        stream = self._host.open_agent(agent_source(), agent_sha256())
        channel = AgentChannel(stream)
        try:
            capacity = self._capacity
            wanted = capacity and {"cpus": capacity.cpus, "memory": capacity.memory, "gpus": capacity.gpus}
            fields = {"owner": self._owner, "epoch": self._epoch, "resources": wanted}
            hello = ask_now(channel, Ask("hello", fields), lambda: self._stopping)
            report = ask_now(channel, Ask("report"), lambda: self._stopping)
        except BaseException:
            stream.close()
            raise
        self._channel = channel
        self._heard = time.monotonic()
        self._view = HostView(
            connected=True,
            boot=str(hello.get("boot", "")),
            since=time.time(),
            resources=parse_resources(hello.get("resources")),
        )
        self._take_report(report)

    def _serve(self) -> None:
        channel = self._channel
        if channel is None:
            return
        while not self._stopping:
            self._run_inbox()
            flushed = channel.flush()
            # A channel that cannot take more now is asked again soon: not every stream can be waited on for writing.
            timeout = 5.0 if flushed else 0.005
            readable, _, _ = select.select([channel.fileno(), self._wake_read], [], [], timeout)
            if self._wake_read in readable:
                self._drain_wake()
            if channel.fileno() in readable:
                for frame in channel.receive():
                    self._take(frame)
                self._heard = time.monotonic()
            elif time.monotonic() - self._heard > SILENCE_LIMIT:
                raise ProtocolError(f"no word from the agent for {SILENCE_LIMIT:g} s")

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 65536)

    def _run_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _lost(self, why: str) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        opened, self._open = self._open, {}
        for item in {id(o): o for o in opened.values()}.values():
            item.conversation.close()
        since = time.time() if self._view.connected else self._view.since or time.time()
        changed = self._view.connected or self._view.error != why
        self._view = HostView(
            connected=False,
            boot=self._view.boot,
            since=since,
            resources=self._view.resources,
            environments=self._view.environments,
            error=why,
        )
        if changed:
            for listener in self._listeners:
                listener.on_view(self._view, None)

    # ---- frames ----------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        event = frame.get("ev")
        reply = frame.get("re")
        if event == "changes":
            items = frame.get("items")
            if isinstance(items, dict):
                for listener in self._listeners:
                    listener.on_changes(items)
        elif event == "heartbeat":
            for listener in self._listeners:
                listener.on_heartbeat(frame)
        elif isinstance(reply, int) and reply in self._open:
            self._continue(reply, frame)

    def _continue(self, request: int, frame: Frame) -> None:
        item = self._open.pop(request)
        item.replies[item.waiting.pop(request)] = frame
        if item.waiting:
            return
        replies = [r for r in item.replies if r is not None]
        try:
            asks = item.conversation.send(replies)
        except StopIteration:
            return
        self._ask_all(item.conversation, asks)

    def _begin(self, make: Callable[[], Conversation], dropped: Callable[[], None]) -> None:
        if self._channel is None:
            dropped()
            return
        conversation = _guarded(make(), dropped)
        try:
            asks = next(conversation)
        except StopIteration:
            return
        self._ask_all(conversation, asks)

    def _ask_all(self, conversation: Conversation, asks: Sequence[Ask]) -> None:
        channel = self._channel
        if channel is None:
            conversation.close()
            return
        item = _Open(conversation, {}, [None] * len(asks))
        for place, ask in enumerate(asks):
            request = channel.request(ask.op, ask.payload, **ask.fields)
            item.waiting[request] = place
            self._open[request] = item

    def _send(self, op: str, fields: dict[str, object]) -> None:
        if self._channel is not None:
            self._channel.tell(op, **fields)

    def _ask_report(self) -> None:
        def conversation() -> Conversation:
            replies = yield [Ask("report")]
            self._take_report(replies[0])

        self._begin(conversation, lambda: None)

    def _take_report(self, frame: Frame) -> None:
        attempts = frame.get("attempts")
        environments = frame.get("environments")
        statuses = attempts if isinstance(attempts, dict) else {}
        ready = frozenset(e for e in environments if isinstance(e, str)) if isinstance(environments, list) else None
        if ready is not None:
            old = self._view
            self._view = HostView(old.connected, old.boot, old.since, old.resources, ready, None, old.error)
        for listener in self._listeners:
            listener.on_view(self._view, statuses)

    # ---- listeners -------------------------------------------------------------------------------------------------

    def _add_listener(self, listener: Listener) -> None:
        if listener not in self._listeners:
            self._listeners.append(listener)
        if self._channel is None:
            listener.on_view(self._view, None)
        else:
            self._ask_report()

    def _remove_listener(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)


def ask_now(channel: AgentChannel, ask: Ask, give_up: Callable[[], bool]) -> Frame:
    """The reply to the first questions on a new channel, before conversations begin."""
    request = channel.request(ask.op, ask.payload, **ask.fields)
    deadline = time.monotonic() + HELLO_LIMIT
    while True:
        channel.flush()
        for frame in channel.receive():
            if frame.get("re") == request:
                if frame.get("ok") is not True:
                    raise ProtocolError(f"the agent refused {ask.op}: {frame.get('error')}")
                return frame
        left = deadline - time.monotonic()
        if left <= 0 or give_up():
            raise ProtocolError(f"the agent did not answer {ask.op} in {HELLO_LIMIT:g} s")
        select.select([channel.fileno()], [], [], min(left, 0.2))


def ask_hello(stream: ByteStream) -> Frame:
    """The agent's facts, asked over a fresh stream that is of no other use. UnreachableError: no agent answered."""
    try:
        return ask_now(AgentChannel(stream), Ask("hello", {"owner": "check", "epoch": 0}), lambda: False)
    except (ChannelClosed, ProtocolError, OSError) as problem:
        raise UnreachableError(f"the agent does not answer: {problem}", hint="`cloudsend maestro logs`") from problem


def _guarded(conversation: Conversation, dropped: Callable[[], None]) -> Conversation:
    """The same conversation; `dropped` is called if it is closed, or fails, before its end."""
    finished = False
    try:
        yield from conversation
        finished = True
    finally:
        if not finished:
            dropped()

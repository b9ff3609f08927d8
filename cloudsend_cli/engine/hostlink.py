"""One thread owns one machine: its connection, its agent channel, and the conversations over it."""

from __future__ import annotations

import contextlib
import os
import random
import select
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from cloudsend_cli.agent.client import (
    AgentChannel,
    AgentRefused,
    ChannelClosed,
    Frame,
    ProtocolError,
    agent_sha256,
    agent_source,
    plain,
)
from cloudsend_cli.agent.compiled import agent_compiled
from cloudsend_cli.core.model import UNBOUNDED, HostAddress, HostView, Resources, Vitals, list_known
from cloudsend_cli.core.ports import Host
from cloudsend_cli.errors import CloudsendError, UnfitError

from .asking import Ask, Conversation, ask_now
from .conversations import Conversations
from .wire import parse_boot, parse_resources, parse_vitals, take_rented

UNASKED_RATE, UNASKED_BURST = 4 << 20, 32 << 20  # weight of frames: a second (ends of 4,000 jobs), at one go
PAUSE_MOST = 0.25  # s
PING_EVERY = 5.0
ANSWER_LIMIT = 20.0  # with requests open and no reply to any: what we send no longer arrives
SLOWEST = 4096.0  # bytes a second of a line on which a large request is still waited for
HEALTHY_AFTER = 1.0  # a channel that lived so long was good: the next try comes at once
RETRY_DELAYS = (0.02, 0.2, 1.0, 2.0)
RETRY_FULL = (5.0, 10.0, 20.0, 40.0, 60.0)  # a disk that had no room for an attempt
RETRY_REFUSED = (5.0, 15.0, 60.0)  # after an answer that will not change by itself: servers count failed logins
# What a host's entry in providers.yml asks of its agent.
TERMS: dict[str, Callable[[str], object]] = {"shared": lambda text: text == "true", "max_load": float}
BLOCKED_PAUSE = 0.002  # a channel that takes no more is asked again: not every stream can be waited on for writing


class Patience:
    """How long a machine may be listened to without a pause: what it says unasked costs the other machines' time."""

    def __init__(self) -> None:
        self._credit = float(UNASKED_BURST)
        self._since = time.monotonic()

    def pause(self, weight: int) -> float:
        """Seconds to rest after something unasked of this weight."""
        now = time.monotonic()
        self._credit = min(UNASKED_BURST, self._credit + (now - self._since) * UNASKED_RATE) - weight
        self._since = now
        return min(PAUSE_MOST, max(0.0, -self._credit / UNASKED_RATE))


class Listener(Protocol):
    """Who hears of a machine: called from the link's thread, must return at once."""

    def on_view(self, view: HostView, statuses: dict[str, object] | None) -> None: ...

    def on_changes(self, items: dict[str, object]) -> None: ...

    def on_fenced(self) -> None:
        """The agent refuses us: a newer maestro has taken over."""


class HostLink:
    """Keeps a channel to the agent of one machine for as long as anybody listens.

    Losing the channel ends nothing on the machine: the link says `connected=False`, tries again, and has the agent
    report in full when it is back.
    """

    def __init__(self, host: Host, owner: str, epoch: int, log: Callable[[str], None]) -> None:
        self._host = host
        self._owner = owner
        self._epoch = epoch
        self._log = log
        self._listeners: dict[Listener, Resources | None] = {}
        self._capacity: Resources | None = None
        self._inbox: deque[Callable[[], None]] = deque()
        self._talks = Conversations(host.address.key, log, self._inbox.append)
        self._channel: AgentChannel | None = None
        self._view = HostView(connected=False, error="not connected yet")
        self.vitals = Vitals()
        self._terms = render_terms(host.address)
        self._heard = 0.0
        self._answered = 0.0
        self._pinged = 0.0
        self._connected_at = 0.0
        self._report_at: float | None = None
        self._fulls, self._full_until = 0, 0.0
        self._stopping = False
        self._asked_anew = False  # somebody new listens: no waiting for the next try
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._live, name=f"host {host.address.key}", daemon=True)
        self._thread.start()

    # ---- called from other threads ---------------------------------------------------------------------------------

    def listen(self, listener: Listener, capacity: Resources | None) -> None:
        """Tell `listener` of this machine. `capacity`: how much of it may be used; the largest wish of all counts."""
        self._post(lambda: self._add_listener(listener, capacity))

    def reach_by(self, host: Host) -> None:
        """The same machine by another address, key or terms, from the next connection on."""
        self._post(lambda: self._take_host(host))

    def unlisten(self, listener: Listener) -> None:
        self._post(lambda: self._remove_listener(listener))

    def tell(self, op: str, fields: dict[str, object]) -> None:
        """Send a request whose reply nobody needs; dropped without a channel, and said again after the next report."""
        self._post(lambda: self._send(op, fields))

    def converse(self, make: Callable[[], Conversation], dropped: Callable[[], None], *, alone: bool = False) -> None:
        """Begin a conversation. `dropped` is called if it fails, or the channel is lost, before it ends.

        Of those that want to be `alone` one is open at a time.
        """
        self._post(lambda: self._talks.begin(make, dropped, alone=alone))

    def report_again(self, after: float = 0.0) -> None:
        """Have the agent report in full, in `after` seconds."""
        self._post(lambda: self._plan_report(after))

    def note_full(self, *, full: bool) -> None:
        """Whether the agent had room on its disk for what it was given. Called by the link's own thread."""
        if not full:
            self._fulls = 0
        elif not self._view.full:
            self._full_until = time.monotonic() + RETRY_FULL[min(self._fulls, len(RETRY_FULL) - 1)]
            self._fulls += 1
            self._log(f"the disk of {self._host.address.key} is full")
            self._show(replace(self._view, full=True))

    def stop(self) -> None:
        self._stopping = True
        self._wake()
        self._thread.join(timeout=10)

    def leave(self) -> None:
        """Stop when what was said is on its way; does not wait for it."""
        self._post(self._leave)

    def _leave(self) -> None:
        self._stopping = True
        self._wake()

    def _post(self, call: Callable[[], None]) -> None:
        self._inbox.append(call)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # full: it is about to wake anyway; closed: it has ended
            os.write(self._wake_write, b"x")

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        failures = refusals = 0  # in a row, each counted by itself: a machine that boots is silent, then refuses once
        while not self._stopping:
            begun = time.monotonic()
            at_least, refused = 0.0, False
            try:
                self._connect()
                self._serve()
            except CloudsendError as problem:
                self._lost(str(problem) or type(problem).__name__, problem.code)
                at_least, refused = problem.retry_after, not problem.transient
            except (ChannelClosed, ProtocolError, OSError) as problem:
                self._lost(str(problem) or type(problem).__name__)
            except Exception as problem:  # noqa: BLE001 - a bug in one conversation must not silence a machine for ever
                self._log(traceback.format_exc())
                self._lost(f"{type(problem).__name__}: {problem}")
            now = time.monotonic()
            if self._connected_at > begun:
                failures = 0 if now - self._connected_at >= HEALTHY_AFTER else min(failures, 1)
                begun = now
            tries, delays = (refusals, RETRY_REFUSED) if refused else (failures, RETRY_DELAYS)
            delay = delays[min(tries, len(delays) - 1)]
            # What a try has waited for counts, so that a network that is back is noticed within seconds.
            delay = max(at_least, delay - (now - begun), min(delay, RETRY_DELAYS[1]))
            # Many machines behind one door do not knock together.
            self._rest(delay * random.uniform(0.75, 1.25))  # noqa: S311
            failures, refusals = failures + 1, refusals + 1 if refused else 0
        self._lost("closed")
        wake_read, wake_write = self._wake_read, self._wake_write
        self._wake_read = self._wake_write = -1
        os.close(wake_read)
        os.close(wake_write)

    def _rest(self, delay: float) -> None:
        deadline = time.monotonic() + delay
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        self._asked_anew = False
        while not (self._stopping or self._asked_anew) and (left := deadline - time.monotonic()) > 0:
            poller.poll(left * 1000)
            self._drain_wake()
            self._run_inbox()

    def _connect(self) -> None:
        self._run_inbox()
        stream = self._host.open_agent(agent_source(), agent_sha256(), agent_compiled)
        channel = AgentChannel(stream)
        try:
            hello, early = ask_now(channel, self._hello(), lambda: self._stopping)
            report, late = ask_now(channel, Ask("report"), lambda: self._stopping)
        except BaseException as problem:
            stream.close()
            if isinstance(problem, AgentRefused) and problem.code.startswith("home-"):  # it will not mend itself
                raise UnfitError(problem.message, hint="mend it, or name another place with `home:`") from problem
            raise
        self._channel = channel
        self._talks.open(channel)
        self._heard = self._answered = self._pinged = self._connected_at = time.monotonic()
        self._view = HostView(
            connected=True,
            boot=parse_boot(hello.get("boot")),
            since=time.time(),
            resources=parse_resources(hello.get("resources")),
        )
        self._view = take_rented(self._view, hello)
        self.vitals = parse_vitals(hello)
        if self._host.warning:
            self.vitals = replace(self.vitals, warning=self._host.warning)
            self._log(f"{self._host.address.key}: {self._host.warning}")
        self._log(f"connected to {self._host.address.key}, agent {plain(hello.get('pid'), 20)}")
        self._take_report(report)
        for frame in (*early, *late):  # what the agent told of its own accord meanwhile
            self._take(frame)

    def _hello(self) -> Ask:
        wish = self._capacity
        wanted = None if wish is None else list_known(wish)  # what is not named is discovered
        fields: dict[str, object] = {"owner": self._owner, "epoch": self._epoch, "resources": wanted}
        return Ask("hello", {**fields, **self._terms})

    def _serve(self) -> None:
        channel = self._channel
        if channel is None:
            return
        poller = select.poll()
        poller.register(channel.fileno(), select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        patience = Patience()
        while not self._stopping:
            self._run_inbox()
            self._report_when_due()
            if self._view.full and time.monotonic() >= self._full_until:
                self._show(replace(self._view, full=False))
            flushed = channel.flush()
            ready = dict(poller.poll(self._patience(flushed=flushed) * 1000))
            if self._wake_read in ready:
                self._drain_wake()
            if channel.fileno() in ready:
                frames = channel.receive()
                self._heard = time.monotonic()
                if not frames:
                    self._answered = self._heard  # a part of a long reply
                # What the channel holds back meanwhile, the machine cannot send.
                unasked = sum(f.weight + len(f.payload) for f in frames if not self._talks.is_awaited(f.reply_to))
                for frame in frames:
                    self._take(frame)
                time.sleep(patience.pause(unasked))
            else:
                self._judge_silence(time.monotonic())
            self._ping_when_due(channel, time.monotonic())

    def _judge_silence(self, now: float) -> None:
        if now - self._heard > self._host.patience:
            raise ProtocolError(f"no word from the agent for {self._host.patience:g} s")

    def _ping_when_due(self, channel: AgentChannel, now: float) -> None:
        """A link that is cut in our direction alone still brings heartbeats: only replies prove that it works.

        The answer to a ping comes after all that was asked before it: a slow line is given time by the size of that.
        """
        limit = ANSWER_LIMIT + self._talks.unanswered / SLOWEST
        if self._pinged > self._answered and now - self._answered > limit:
            raise ProtocolError(f"the agent has answered nothing for {limit:.0f} s")
        if now - self._pinged >= PING_EVERY:
            self._pinged = now
            channel.request("ping")

    def _patience(self, *, flushed: bool) -> float:
        if not flushed:
            return BLOCKED_PAUSE
        patience = min(PING_EVERY, self._host.patience / 4)
        if self._report_at is not None:
            patience = min(patience, max(0.0, self._report_at - time.monotonic()))
        return 0.0 if self._inbox else patience

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 65536)

    def _run_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _lost(self, why: str, code: str = "") -> None:
        channel, self._channel = self._channel, None
        was, self._report_at = self._view, None
        since = time.time() if was.connected else was.since or time.time()
        self._view = replace(was, connected=False, since=since, error=why, error_code=code)
        if was.connected or was.error != why:
            self._log(f"no connection to {self._host.address.key}: {why}")
            for listener in self._listeners:
                listener.on_view(self._view, None)
        self._talks.close()
        if channel is not None:
            channel.close()

    def _show(self, view: HostView) -> None:
        self._view = view
        for listener in self._listeners:
            listener.on_view(view, None)

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
            # Whether jobs outlive a logout is told once, when the channel opens.
            self.vitals = replace(parse_vitals(frame), warning=self.vitals.warning)
            view = take_rented(self._view, frame)
            if view is not self._view:
                self._show(view)
        elif isinstance(reply, int):
            self._answered = time.monotonic()
            if not self._talks.is_awaited(reply):
                return  # of a ping
            if frame.error_code == "fenced":
                for listener in self._listeners:
                    listener.on_fenced()
            self._talks.take(reply, frame)

    def _send(self, op: str, fields: dict[str, object]) -> None:
        if self._channel is not None:
            self._channel.tell(op, **fields)

    # ---- reports ---------------------------------------------------------------------------------------------------

    def _plan_report(self, after: float) -> None:
        due = time.monotonic() + after
        self._report_at = due if self._report_at is None else min(self._report_at, due)

    def _report_when_due(self) -> None:
        if self._report_at is not None and self._report_at <= time.monotonic():
            self._report_at = None
            self._talks.begin(self._ask_report, lambda: None)

    def _ask_report(self) -> Conversation:
        replies = yield [Ask("report")]
        self._take_report(replies[0])

    def _ask_hello(self) -> Conversation:
        replies = yield [self._hello(), Ask("report")]
        resources = parse_resources(replies[0].get("resources"))
        if resources is not None:
            self._view = replace(self._view, resources=resources)
        self._take_report(replies[1])

    def _take_report(self, frame: Frame) -> None:
        if not frame.ok:
            self._plan_report(1.0)
            return
        attempts = frame.get("attempts")
        environments = frame.get("environments")
        statuses = attempts if isinstance(attempts, dict) else {}
        if isinstance(environments, list):
            ready = frozenset(e for e in environments if isinstance(e, str))
            self._view = replace(self._view, environments=ready)
        for listener in self._listeners:
            listener.on_view(self._view, statuses)

    # ---- listeners -------------------------------------------------------------------------------------------------

    def _add_listener(self, listener: Listener, capacity: Resources | None) -> None:
        self._listeners[listener] = capacity
        wish = self._wish()
        grown, self._capacity = wish is not None and wish != self._capacity, wish or self._capacity
        if self._channel is None:
            # What the machine refused to others is no answer to this one: the key, or the entry, may be mended.
            self._view = replace(self._view, error="connecting", error_code="")
            self._asked_anew = True
            listener.on_view(self._view, None)
        else:
            self._talks.begin(self._ask_hello if grown else self._ask_report, lambda: None)

    def _take_host(self, host: Host) -> None:
        self._host = host
        self._terms = render_terms(host.address)

    def _remove_listener(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)

    def _wish(self) -> Resources | None:
        wishes = [c or UNBOUNDED for c in self._listeners.values()]
        if not wishes:
            return None
        return Resources(max(w.cpus for w in wishes), max(w.memory for w in wishes), max(w.gpus for w in wishes))


def render_terms(address: HostAddress) -> dict[str, object]:
    """What a hello says of how the machine may be used."""
    # A machine that others use as well is taken for ourselves alone, unless its entry says that it is shared.
    terms: dict[str, object] = {"shared": False, "max_load": None} if address.kind == "ssh" else {}
    return terms | {name: parse(text) for name, text in address.settings if (parse := TERMS.get(name))}

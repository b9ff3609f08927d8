"""The `Hosts` port over simulated machines: requests and news may be late, lost, doubled or out of order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.losses import LIFETIMES
from cloudsend_cli.core.model import AttemptStatus, HostAddress, HostView, Resources, Upload
from cloudsend_cli.core.ports import HostNews
from cloudsend_cli.core.records import replace

from .fake_machine import FakeMachine
from .timeline import Timeline, no_edge

LATENCY = 0.05
RECONNECT_SECONDS = 1.0
DUPLICATE_SECONDS = 7.0
LATE_SECONDS = 40.0
NO_STATUS: Mapping[str, AttemptStatus] = {}


class FakeNetwork:
    """What goes wrong between maestros and machines.

    `faults` maps (verb, n-th request of it) to `lost`, `lost-reply`, `duplicate` or `late`; for `fetch` also to the
    text of a problem. `chance`, asked after it, may say the same at random.
    """

    def __init__(self, timeline: Timeline, machines: Mapping[str, FakeMachine]) -> None:
        self.timeline = timeline
        self.machines = machines
        self.faults: dict[tuple[str, int], str] = {}
        self.chance: Callable[[str], str] = lambda verb: ""
        self.calls: dict[str, int] = {}
        self.homes: set[str] = set()  # attempts whose results are at home on the client's disk

    def fault(self, verb: str) -> str:
        count = self.calls[verb] = self.calls.get(verb, 0) + 1
        return self.faults.get((verb, count)) or self.chance(verb)


class FakeLink:
    """One maestro's connection to one node's machine. A lost message breaks it, as a stream would: the next
    connection begins with a full report."""

    def __init__(self, hosts: FakeHosts, node: str, key: str) -> None:
        self.hosts = hosts
        self.node = node
        self.key = key
        self.timeline = hosts.network.timeline
        self.view = HostView(False, since=self.timeline.now, error="connecting")
        self.reported: frozenset[str] | None = None
        self.inbox: dict[str, AttemptStatus] = {}
        self.fetched: dict[str, str] = {}
        self.persisted: dict[str, tuple[Upload, ...]] = {}
        self.dirty: dict[str, AttemptStatus | None] = {}
        self.closed = False
        self.connecting = False
        self.flushing = False

    @property
    def machine(self) -> FakeMachine | None:
        return self.hosts.network.machines.get(self.key)

    # ---- connecting ------------------------------------------------------------------------------------------------

    def try_again(self) -> None:
        self._connect_in(LATENCY)

    def _connect_in(self, seconds: float) -> None:
        if not (self.closed or self.connecting or self.view.connected):
            self.connecting = True
            self.timeline.after(seconds, self._establish)

    def _establish(self) -> None:
        self.connecting = False
        machine = self.machine
        if self.closed or machine is None:
            return
        if not machine.reachable:
            self.view = replace(self.view, error_code="unreachable")
            return
        self.view = HostView(True, machine.boot, self.timeline.now, machine.resources, armed=True)
        self.see()
        self.report()

    def see(self) -> None:
        machine = self.machine
        if machine is not None and self.view.connected:
            leaving, outlives = machine.noticed, LIFETIMES.get(machine.leaves_as, "")
            leased = machine.lease is not None
            self.view = replace(self.view, leaving=leaving, outlives=outlives, leased=leased)
            self.hosts.news = True

    def report(self) -> None:
        """A full report, as of now."""
        machine = self.machine
        if self.closed or machine is None or not self.view.connected:
            return
        statuses = machine.report()
        self.reported = frozenset(statuses)
        self.inbox.update(statuses)
        self._see_environments(machine)
        self.hosts.news = True

    def break_off(self, reason: str) -> None:
        if self.view.connected:
            self.view = replace(self.view, connected=False, since=self.timeline.now, error=reason)
            self.hosts.news = True
        self.dirty.clear()
        self.hosts.drop_fetches(self.node)

    def break_and_reconnect(self) -> None:
        self.break_off("connection lost")
        self._connect_in(RECONNECT_SECONDS)

    # ---- news ------------------------------------------------------------------------------------------------------

    def tell(self, attempt: str) -> None:
        self._queue_news(attempt, None)

    def refuse(self, attempt: str, status: AttemptStatus) -> None:
        self._queue_news(attempt, status)

    def _queue_news(self, attempt: str, status: AttemptStatus | None) -> None:
        if self.closed or not self.view.connected:
            return
        self.dirty[attempt] = status
        if not self.flushing:
            self.flushing = True
            self.timeline.after(LATENCY, self._flush)

    def _flush(self) -> None:
        self.flushing = False
        machine = self.machine
        if self.closed or machine is None or not self.dirty:
            return
        if self.hosts.network.fault("news") == "lost":
            self.break_and_reconnect()
            return
        for attempt, refusal in self.dirty.items():
            held = machine.attempts.get(attempt)
            status = held.status if held is not None else refusal
            if status is not None:
                self.inbox[attempt] = status
        self.dirty.clear()
        self._see_environments(machine)
        self.hosts.news = True

    def _see_environments(self, machine: FakeMachine) -> None:
        if self.view.environments != machine.environments:
            self.view = replace(self.view, environments=frozenset(machine.environments))

    def drain(self) -> HostNews:
        view = self.view if self.reported is None else replace(self.view, reported=self.reported)
        attempts, self.inbox = (self.inbox, {}) if self.inbox else (NO_STATUS, self.inbox)
        fetched, self.fetched = self.fetched, {}
        persisted, self.persisted = self.persisted, {}
        self.reported = None
        return HostNews(view, attempts, fetched, persisted)


class FakeHosts:
    """Implements core.ports.Hosts for one maestro. `close` is its death: what was sent is on its way, news is not."""

    def __init__(self, network: FakeNetwork, edge: Callable[[str], None] = no_edge) -> None:
        self.network = network
        self.edge = edge
        self.links: dict[str, FakeLink] = {}
        self.news = True
        self._fetching: dict[str, str] = {}

    def connect(self, node: str, address: HostAddress, capacity: Resources | None) -> None:
        self.edge("connect before")
        link = self.links.get(node)
        if link is None or link.key != address.key:
            if link is not None:
                self._close(link)
            link = self.links[node] = FakeLink(self, node, address.key)
            machine = link.machine
            if machine is not None:
                machine.listeners.append(link)
                link.try_again()
            self.news = True
        self.edge("connect after")

    def disconnect(self, node: str) -> None:
        self.edge("disconnect before")
        link = self.links.pop(node, None)
        if link is not None:
            self._close(link)
        self.edge("disconnect after")

    def _close(self, link: FakeLink) -> None:
        link.closed = True
        self.drop_fetches(link.node)
        machine = link.machine
        if machine is not None and link in machine.listeners:
            machine.listeners.remove(link)

    def close(self) -> None:
        for link in self.links.values():
            self._close(link)
        self.links.clear()

    def drain(self) -> Mapping[str, HostNews]:
        self.news = False
        return {node: link.drain() for node, link in self.links.items()}

    def fetching(self) -> frozenset[str]:
        return frozenset(self._fetching)

    def drop_fetches(self, node: str) -> None:
        self._fetching = {attempt: where for attempt, where in self._fetching.items() if where != node}

    def forget(self) -> None:
        for link in self.links.values():
            self.network.timeline.after(LATENCY, link.report)

    # ---- requests --------------------------------------------------------------------------------------------------

    def start(self, node: str, boot: str, attempts: Sequence[AttemptStart], files: Sequence[Upload]) -> None:
        self._send("start", node, lambda link, machine: machine.receive_start(link, boot, attempts))

    def cancel(self, node: str, attempts: Sequence[str], cause: str) -> None:
        self._send("cancel", node, lambda link, machine: machine.receive_cancel(link, attempts, cause))

    def revoke(self, node: str, attempts: Sequence[str]) -> None:
        self._send("revoke", node, lambda link, machine: machine.receive_revoke(attempts))

    def ack(self, node: str, attempts: Sequence[str]) -> None:
        self._send("ack", node, lambda link, machine: machine.receive_ack(attempts))

    def _send(self, verb: str, node: str, receive: Callable[[FakeLink, FakeMachine], None]) -> None:
        self.edge(f"{verb} before")
        link = self.links.get(node)
        machine = link.machine if link is not None else None
        if link is not None and machine is not None and link.view.connected:
            self._carry(verb, link, machine, receive)
        self.edge(f"{verb} after")

    def _carry(
        self, verb: str, link: FakeLink, machine: FakeMachine, receive: Callable[[FakeLink, FakeMachine], None]
    ) -> None:
        after = self.network.timeline.after

        def deliver() -> None:
            # A message that was sent arrives although its sender died, and even after the machine's reboot.
            if machine.reachable:
                receive(link, machine)

        fault = self.network.fault(verb)
        if fault in {"lost", "late"}:
            link.break_and_reconnect()
        if fault == "late":
            after(LATE_SECONDS, deliver)
        elif fault != "lost":
            after(LATENCY, deliver)
        if fault == "duplicate":
            after(DUPLICATE_SECONDS, deliver)
        if fault == "lost-reply":
            after(LATENCY, link.break_and_reconnect)

    def lease(self, node: str, seconds: float | None) -> None:
        self._send("lease", node, lambda link, machine: machine.receive_lease(seconds))

    def fetch(self, node: str, attempt: str, patterns: Sequence[str], name: str) -> None:
        def take(link: FakeLink) -> None:
            self.network.homes.add(attempt)

        self._fetch("fetch", node, attempt, take)

    def fetch_resume(self, node: str, attempt: str, patterns: Sequence[str]) -> None:
        def take(link: FakeLink) -> None:
            link.persisted[attempt] = (Upload("state", attempt, 1, 0o644, attempt),)

        self._fetch("resume", node, attempt, take)

    def _fetch(self, verb: str, node: str, attempt: str, take: Callable[[FakeLink], None]) -> None:
        self.edge(f"{verb} before")
        link = self.links.get(node)
        if link is not None and link.view.connected and attempt not in self._fetching:
            self._fetching[attempt] = node
            fault = self.network.fault(verb)
            found = link

            def arrive() -> None:
                machine = found.machine
                if found.closed or attempt not in self._fetching or machine is None:
                    return
                del self._fetching[attempt]
                held = machine.attempts.get(attempt)
                problem = "no such attempt" if held is None or held.execution is None else fault
                if not problem:
                    take(found)
                found.fetched[attempt] = problem
                self.news = True

            self.network.timeline.after(LATENCY, arrive)
        self.edge(f"{verb} after")

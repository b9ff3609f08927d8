"""Contract tests: what every implementation of a port must do. Inherit, and override the fixtures at the top.

Pytest collects the subclasses. The same classes run on the fakes and on the real things, so that the fakes stay true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import pytest

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.model import (
    AttemptStatus,
    HostAddress,
    HostView,
    InstanceSpec,
    InstanceStatus,
    JobSpec,
    Offer,
    Request,
    RunSpec,
)
from cloudsend_cli.core.naming import attempt_id
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.ports import Event, Hosts, Provider, Store
from cloudsend_cli.core.state import BuildRecord, Changes, RunState
from cloudsend_cli.errors import ConflictError, NotFoundError

RUN = "rtest1"


class WritableStore(Store, Protocol):
    """A store as those use it who submit runs."""

    def create_run(self, state: RunState) -> Any: ...

    def add_request(self, run: str, request: Request) -> Any: ...


def make_run(jobs: int = 3, run: str = RUN) -> RunState:
    """A planned run with that many jobs, each after the one before it."""
    specs = [
        JobSpec(f"j{i}", ("true", str(i)), f"true {i}", after=(f"j{i - 1}",) if i > 1 else ())
        for i in range(1, jobs + 1)
    ]
    spec = RunSpec("test", "/config.yml", tuple(specs))
    return plan_run(spec, [NodePlan("fake-0", "fake", (Offer("{}"),))], run, 1.0)


def contents(state: RunState) -> tuple[Any, ...]:
    """All that a store has to keep of a run."""
    return (state.run, state.jobs, state.nodes, state.builds, state.environments)


class StoreContract:
    """Override `store`: an empty one."""

    @pytest.fixture
    def store(self) -> WritableStore:
        raise NotImplementedError

    @pytest.fixture
    def stored(self, store: WritableStore) -> RunState:
        store.create_run(make_run())
        return store.load(RUN)

    def test_load_gives_what_was_created(self, stored: RunState) -> None:
        planned = make_run()
        assert contents(stored)[1:] == contents(planned)[1:]
        assert replace(stored.run, version=0) == planned.run

    def test_unknown_run_is_not_found(self, store: WritableStore) -> None:
        with pytest.raises(NotFoundError):
            store.load("rnone1")

    def test_run_is_created_once(self, store: WritableStore, stored: RunState) -> None:
        with pytest.raises(ConflictError):
            store.create_run(make_run(1))
        assert contents(store.load(RUN)) == contents(stored)

    def test_commit_writes_all_changes_and_raises_the_version(self, store: WritableStore, stored: RunState) -> None:
        changes = Changes(
            replace(stored.run, ended_at=5.5),
            {2: replace(stored.jobs[2], state="running", attempt=1, node="fake-0", reason="näher\n'")},
            {"fake-0": replace(stored.nodes["fake-0"], state="creating", price=0.5, generation=1)},
            {("fake-0", "e1"): BuildRecord("fake-0", "e1", 2, "failed", "b", "exit 1", 1)},
        )
        version = store.commit(RUN, stored.run.version, changes, [Event("kind", "subject", "text")])
        assert version > stored.run.version
        stored.apply(changes)
        stored.set_version(version)
        assert contents(store.load(RUN)) == contents(stored)

    def test_commit_at_an_old_version_writes_nothing(self, store: WritableStore, stored: RunState) -> None:
        first = Changes(jobs={1: replace(stored.jobs[1], reason="first")})
        store.commit(RUN, stored.run.version, first, ())
        before = contents(store.load(RUN))
        with pytest.raises(ConflictError):
            store.commit(RUN, stored.run.version, Changes(jobs={1: replace(stored.jobs[1], reason="second")}), ())
        assert contents(store.load(RUN)) == before

    def test_new_jobs_and_nodes_may_come(self, store: WritableStore, stored: RunState) -> None:
        job = replace(stored.jobs[1], number=9, spec=replace(stored.jobs[1].spec, name="new"))
        node = replace(stored.nodes["fake-0"], name="fake-1")
        store.commit(RUN, stored.run.version, Changes(jobs={9: job}, nodes={"fake-1": node}), ())
        loaded = store.load(RUN)
        assert loaded.jobs[9] == job
        assert loaded.nodes["fake-1"] == node

    def test_what_is_not_committed_is_gone(self, store: WritableStore, stored: RunState) -> None:
        before = contents(store.load(RUN))
        stored.apply(Changes(jobs={1: replace(stored.jobs[1], state="running", attempt=1, node="fake-0")}))
        assert contents(store.load(RUN)) == before

    def test_requests_wait_in_order_until_a_commit_carries_them_out(
        self, store: WritableStore, stored: RunState
    ) -> None:
        requests = [
            Request("a", "cancel", (1,), 1.0),
            Request("b", "cancel", None, 2.0),
            Request("c", "cancel", (2, 3)),
        ]
        for request in requests:
            store.add_request(RUN, request)
        assert list(store.list_requests(RUN)) == requests
        store.commit(RUN, stored.run.version, Changes(replace(stored.run, requests_done=("a", "c"))), ())
        assert list(store.list_requests(RUN)) == [requests[1]]

    def test_repeated_request_is_one_request(self, store: WritableStore, stored: RunState) -> None:
        request = Request("a", "cancel", (1,), 1.0)
        store.add_request(RUN, request)
        store.add_request(RUN, request)
        assert list(store.list_requests(RUN)) == [request]
        store.commit(RUN, stored.run.version, Changes(replace(stored.run, requests_done=("a",))), ())
        store.add_request(RUN, request)
        assert list(store.list_requests(RUN)) == []

    def test_runs_do_not_mix(self, store: WritableStore, stored: RunState) -> None:
        store.create_run(make_run(2, "rtest2"))
        store.add_request("rtest2", Request("a", "cancel"))
        assert len(store.load(RUN).jobs) == 3
        assert list(store.list_requests(RUN)) == []


class ProviderContract:
    """Override `provider`, and `wait` where time has to pass for a machine to come or go."""

    @pytest.fixture
    def provider(self) -> Provider:
        raise NotImplementedError

    @pytest.fixture
    def spec(self, provider: Provider) -> InstanceSpec:
        return InstanceSpec(provider.name)

    @pytest.fixture
    def wait(self) -> Callable[[], None]:
        """Let as much time pass as a machine needs to come or to go."""
        return lambda: None

    def test_good_spec_has_no_problems(self, provider: Provider, spec: InstanceSpec) -> None:
        assert provider.check(spec) == []

    def test_request_is_rendered_alike_each_time(self, provider: Provider, spec: InstanceSpec) -> None:
        assert provider.plan_machines([spec]) == provider.plan_machines([spec])

    def test_same_token_gives_the_same_machine(
        self, provider: Provider, spec: InstanceSpec, wait: Callable[[], None]
    ) -> None:
        request = provider.plan_machines([spec])[0].request
        ids = {provider.create_instance(RUN, "n-0", 1, "token-1", request) for _ in range(3)}
        wait()
        ids |= {provider.create_instance(RUN, "n-0", 1, "token-1", request)}
        assert len(ids) == 1
        assert [s.instance_id for s in provider.list_instances(RUN)] == list(ids)

    def test_machine_is_listed_with_its_node_generation_and_address(
        self, provider: Provider, spec: InstanceSpec, wait: Callable[[], None]
    ) -> None:
        instance_id = provider.create_instance(RUN, "n-0", 3, "token-3", provider.plan_machines([spec])[0].request)
        wait()
        (status,) = provider.list_instances(RUN)
        assert (status.instance_id, status.node, status.generation) == (instance_id, "n-0", 3)
        assert status.state == "running"
        assert status.address is not None and status.address.key

    def test_other_runs_are_not_listed(self, provider: Provider, spec: InstanceSpec, wait: Callable[[], None]) -> None:
        provider.create_instance("rother", "n-0", 1, "token-o", provider.plan_machines([spec])[0].request)
        wait()
        assert list(provider.list_instances(RUN)) == []

    def test_machine_given_back_ends(self, provider: Provider, spec: InstanceSpec, wait: Callable[[], None]) -> None:
        instance_id = provider.create_instance(RUN, "n-0", 1, "token-1", provider.plan_machines([spec])[0].request)
        wait()
        for _ in range(2):
            provider.terminate_instance(RUN, "n-0", instance_id)
            wait()
        assert all(s.state == "terminated" for s in provider.list_instances(RUN))

    def test_giving_back_what_never_was_is_fine(self, provider: Provider) -> None:
        provider.terminate_instance(RUN, "n-0", "no-such-machine")
        assert list(provider.list_instances(RUN)) == []

    def test_next_generation_is_another_machine(
        self, provider: Provider, spec: InstanceSpec, wait: Callable[[], None]
    ) -> None:
        request = provider.plan_machines([spec])[0].request
        first = provider.create_instance(RUN, "n-0", 1, "token-1", request)
        wait()
        provider.terminate_instance(RUN, "n-0", first)
        wait()
        second = provider.create_instance(RUN, "n-0", 2, "token-2", request)
        wait()
        living: Sequence[InstanceStatus] = [s for s in provider.list_instances(RUN) if s.state != "terminated"]
        assert second != first
        assert [(s.instance_id, s.generation) for s in living] == [(second, 2)]


class HostsContract:
    """Override `hosts`, `address`, `job`, `executions` and `wait`."""

    @pytest.fixture
    def hosts(self) -> Hosts:
        """Of the run RUN."""
        raise NotImplementedError

    @pytest.fixture
    def address(self) -> HostAddress:
        raise NotImplementedError

    @pytest.fixture
    def job(self) -> Callable[[str], JobSpec]:
        """A job that is `quick` (exits with 0), `bad` (exits with 3) or `long` (runs until it is ended)."""
        raise NotImplementedError

    @pytest.fixture
    def executions(self) -> Callable[[str], int]:
        """How often the attempt was truly executed."""
        raise NotImplementedError

    @pytest.fixture
    def wait(self) -> Callable[[], bool]:
        """Let a little time pass; False when it has been enough."""
        raise NotImplementedError

    @pytest.fixture
    def link(self, hosts: Hosts, address: HostAddress, wait: Callable[[], bool]) -> LinkUnderTest:
        link = LinkUnderTest(hosts, wait)
        hosts.connect("n-0", address, None)
        link.until(lambda: link.view is not None and link.view.connected and link.reports > 0)
        return link

    def test_connection_begins_with_a_report(self, link: LinkUnderTest) -> None:
        assert link.view is not None and link.view.boot
        assert link.last_report == frozenset()
        assert link.view.resources is not None and link.view.resources.cpus > 0

    @pytest.mark.parametrize(("kind", "code"), [("quick", 0), ("bad", 3)])
    def test_attempt_is_executed_and_its_end_reported(
        self,
        link: LinkUnderTest,
        job: Callable[[str], JobSpec],
        executions: Callable[[str], int],
        kind: str,
        code: int,
    ) -> None:
        link.start("1.1", job(kind))
        status = link.until_ended("1.1")
        assert (status.state, status.exit_code, status.cause) == ("exited", code, "")
        assert status.started is not None and status.ended is not None and status.ended >= status.started
        assert executions(link.id("1.1")) == 1

    def test_doubled_start_is_executed_once(
        self, link: LinkUnderTest, job: Callable[[str], JobSpec], executions: Callable[[str], int]
    ) -> None:
        for _ in range(3):
            link.start("1.1", job("quick"))
        link.until_ended("1.1")
        link.start("1.1", job("quick"))
        link.start("2.1", job("quick"))
        link.until_ended("2.1")
        assert executions(link.id("1.1")) == 1

    def test_start_for_another_boot_is_refused(
        self, link: LinkUnderTest, job: Callable[[str], JobSpec], executions: Callable[[str], int]
    ) -> None:
        link.start("1.1", job("quick"), boot="another-boot")
        status = link.until_ended("1.1")
        assert (status.state, status.cause) == ("refused", "wrong-boot")
        assert executions(link.id("1.1")) == 0

    def test_cancel_ends_what_runs(self, link: LinkUnderTest, job: Callable[[str], JobSpec]) -> None:
        link.start("1.1", job("long"))
        link.until(lambda: link.state("1.1") == "running")
        link.hosts.cancel("n-0", [link.id("1.1")], "cancelled")
        status = link.until_ended("1.1")
        assert (status.state, status.cause) == ("exited", "cancelled")

    def test_cancel_of_what_never_came_is_news_and_outlives_it(
        self, link: LinkUnderTest, job: Callable[[str], JobSpec], executions: Callable[[str], int]
    ) -> None:
        link.hosts.cancel("n-0", [link.id("1.1")], "cancelled")
        assert link.until_ended("1.1").state == "cancelled"
        link.attempts.clear()
        link.start("1.1", job("quick"))
        assert link.until_ended("1.1").state == "cancelled"
        assert executions(link.id("1.1")) == 0

    def test_what_waits_is_taken_back_and_never_starts(
        self, link: LinkUnderTest, job: Callable[[str], JobSpec], executions: Callable[[str], int]
    ) -> None:
        assert link.view is not None and link.view.resources is not None
        all_of_it = replace(link.view.resources, gpus=0, memory=0)
        link.start("1.1", replace(job("long"), resources=all_of_it))
        link.until(lambda: link.state("1.1") == "running")
        link.start("2.1", replace(job("quick"), resources=all_of_it))
        link.hosts.revoke("n-0", [link.id("1.1"), link.id("2.1")])
        assert link.until_ended("2.1").state == "cancelled"
        assert link.state("1.1") == "running"
        link.hosts.cancel("n-0", [link.id("1.1")], "cancelled")
        link.until_ended("1.1")
        assert (executions(link.id("1.1")), executions(link.id("2.1"))) == (1, 0)

    def test_end_is_reported_until_it_is_acknowledged(
        self, link: LinkUnderTest, job: Callable[[str], JobSpec]
    ) -> None:
        link.start("1.1", job("quick"))
        link.until_ended("1.1")
        link.report_again()
        assert link.last_report == {link.id("1.1")}
        assert link.state("1.1") == "exited"
        link.hosts.ack("n-0", [link.id("1.1")])
        link.until(lambda: link.report_again() == frozenset())

    def test_news_comes_once(self, link: LinkUnderTest, job: Callable[[str], JobSpec]) -> None:
        link.start("1.1", job("quick"))
        link.until_ended("1.1")
        link.attempts.clear()
        link.start("2.1", job("quick"))
        link.until_ended("2.1")
        assert link.id("1.1") not in link.attempts

    def test_job_goes_on_without_a_link(
        self, link: LinkUnderTest, job: Callable[[str], JobSpec], address: HostAddress
    ) -> None:
        link.start("1.1", job("long"))
        link.until(lambda: link.state("1.1") == "running")
        link.hosts.disconnect("n-0")
        link.attempts.clear()
        link.hosts.connect("n-0", address, None)
        link.until(lambda: link.state("1.1") == "running")
        link.hosts.cancel("n-0", [link.id("1.1")], "cancelled")
        link.until_ended("1.1")

    def test_repeated_connect_changes_nothing(self, link: LinkUnderTest, address: HostAddress) -> None:
        link.hosts.connect("n-0", address, None)
        link.pump()
        assert link.view is not None and link.view.connected

    def test_fetch_of_what_is_not_there_says_so(self, link: LinkUnderTest) -> None:
        attempt = attempt_id(RUN, 7, 1)
        link.hosts.fetch("n-0", attempt, ("out",), "j7")
        link.until(lambda: attempt in link.fetched)
        assert link.fetched[attempt]
        assert link.hosts.fetching() == frozenset()


class LinkUnderTest:
    """Drains a Hosts and remembers what came."""

    def __init__(self, hosts: Hosts, wait: Callable[[], bool]) -> None:
        self.hosts = hosts
        self.view: HostView | None = None
        self.reports = 0
        self.last_report: frozenset[str] = frozenset()
        self.attempts: dict[str, AttemptStatus] = {}
        self.fetched: dict[str, str] = {}
        self._wait = wait

    @staticmethod
    def id(attempt: str) -> str:
        return f"{RUN}.{attempt}"

    def pump(self) -> None:
        news = self.hosts.drain().get("n-0")
        if news is not None:
            self.view = news.view
            if news.view.reported is not None:
                self.reports += 1
                self.last_report = news.view.reported
            self.attempts.update(news.attempts)
            self.fetched.update(news.fetched)

    def until(self, condition: Callable[[], bool]) -> None:
        self.pump()
        while not condition():
            assert self._wait(), f"it never came; last: {self.view}, {self.attempts}"
            self.pump()

    def state(self, attempt: str) -> str:
        status = self.attempts.get(self.id(attempt))
        return status.state if status is not None else ""

    def until_ended(self, attempt: str) -> AttemptStatus:
        self.until(lambda: self.state(attempt) not in {"", "queued", "running"})
        return self.attempts[self.id(attempt)]

    def report_again(self) -> frozenset[str]:
        reports = self.reports
        self.hosts.forget()
        self.until(lambda: self.reports > reports)
        return self.last_report

    def start(self, attempt: str, spec: JobSpec, boot: str | None = None) -> None:
        found = self.view.boot if self.view is not None else ""
        self.hosts.start("n-0", boot or found, [AttemptStart(self.id(attempt), spec)], ())

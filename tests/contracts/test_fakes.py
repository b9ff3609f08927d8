"""The fakes keep the contracts that the real things keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloudsend_cli.core.actions import AttemptStart
from cloudsend_cli.core.model import HostAddress, InstanceSpec, JobSpec, Resources
from cloudsend_cli.core.ports import Hosts, Provider
from cloudsend_cli.errors import CapacityError, ProviderError, UnreachableError
from cloudsend_cli.testing.contract import RUN, HostsContract, ProviderContract, StoreContract, WritableStore
from cloudsend_cli.testing.fake_cloud import FakeProvider
from cloudsend_cli.testing.fake_host import FakeHosts, FakeNetwork
from cloudsend_cli.testing.fake_machine import Execution, FakeMachine, JobPlan
from cloudsend_cli.testing.memory_store import MemoryStore
from cloudsend_cli.testing.timeline import Timeline

PLANS = {"quick": JobPlan(1.0), "bad": JobPlan(1.0, exit_code=3), "long": JobPlan(1e6)}


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> WritableStore:
        return MemoryStore()


class TestFakeProvider(ProviderContract):
    @pytest.fixture
    def provider(self, timeline: Timeline) -> Provider:
        return FakeProvider(timeline)

    @pytest.fixture
    def wait(self, timeline: Timeline) -> Callable[[], None]:
        return lambda: timeline.advance_to(timeline.now + 100.0)

    def test_token_of_a_machine_that_ended_is_refused(self, timeline: Timeline) -> None:
        provider = FakeProvider(timeline)
        provider.create_instance(RUN, "n-0", 1, "t", "{}")
        provider.end(provider.instances["i-1"], "preempted")
        with pytest.raises(CapacityError):
            provider.create_instance(RUN, "n-0", 1, "t", "{}")

    def test_token_for_another_request_is_refused(self, timeline: Timeline) -> None:
        provider = FakeProvider(timeline)
        provider.create_instance(RUN, "n-0", 1, "t", "{}")
        with pytest.raises(ProviderError):
            provider.create_instance(RUN, "n-0", 1, "t", '{"changed": 1}')

    def test_lost_reply_leaves_a_machine(self, timeline: Timeline) -> None:
        provider = FakeProvider(timeline)
        provider.faults["create", 1] = "lost-reply"
        with pytest.raises(UnreachableError):
            provider.create_instance(RUN, "n-0", 1, "t", "{}")
        assert len(provider.living("n-0")) == 1

    def test_bill_counts_seconds(self, timeline: Timeline) -> None:
        provider = FakeProvider(timeline)
        provider.create_instance(RUN, "n-0", 1, "t", "{}")
        timeline.advance_to(10.0)
        provider.terminate_instance(RUN, "n-0", "i-1")
        timeline.advance_to(50.0)
        assert provider.bill() == 13.0

    def test_unknown_setting_is_a_problem(self, timeline: Timeline) -> None:
        spec = InstanceSpec("fake", settings=(("zoen", "a"), ("zone", "b")))
        assert FakeProvider(timeline).check(spec) == ["zoen: no such setting"]


class TestFakeHosts(HostsContract):
    @pytest.fixture
    def ledger(self) -> list[Execution]:
        return []

    @pytest.fixture
    def machine(self, timeline: Timeline, ledger: list[Execution]) -> FakeMachine:
        def plan(start: AttemptStart) -> JobPlan:
            return PLANS[start.spec.name]

        return FakeMachine(timeline, "m-0", Resources(2.0), plan, ledger)

    @pytest.fixture
    def network(self, timeline: Timeline, machine: FakeMachine) -> FakeNetwork:
        return FakeNetwork(timeline, {"m-0": machine})

    @pytest.fixture
    def hosts(self, network: FakeNetwork) -> Hosts:
        return FakeHosts(network)

    @pytest.fixture
    def address(self) -> HostAddress:
        return HostAddress("ssh", "m-0")

    @pytest.fixture
    def job(self) -> Callable[[str], JobSpec]:
        return lambda kind: JobSpec(kind, (kind,), kind)

    @pytest.fixture
    def executions(self, ledger: list[Execution]) -> Callable[[str], int]:
        return lambda attempt: sum(1 for e in ledger if e.attempt == attempt)

    @pytest.fixture
    def wait(self, timeline: Timeline) -> Callable[[], bool]:
        def wait() -> bool:
            timeline.advance_to(timeline.now + 0.05)
            return timeline.now < 1000.0

        return wait

    def test_queue_honours_resources_and_slots(self, timeline: Timeline, machine: FakeMachine) -> None:
        start = [
            AttemptStart(f"{RUN}.{i}.1", JobSpec("quick", ("q",), "q", resources=Resources(cpus), slots=slots))
            for i, (cpus, slots) in enumerate([(1.5, ("gpu0",)), (1.0, ()), (0.5, ("gpu0",)), (0.5, ())])
        ]
        machine.receive_start(FakeLinkStub(), machine.boot, start)
        assert list(machine.running) == [f"{RUN}.0.1", f"{RUN}.3.1"]
        timeline.advance_to(1.0)
        assert list(machine.running) == [f"{RUN}.1.1", f"{RUN}.2.1"]


class FakeLinkStub:
    def tell(self, attempt: str) -> None: ...
    def refuse(self, attempt: str, status: object) -> None: ...
    def break_off(self, reason: str) -> None: ...
    def try_again(self) -> None: ...

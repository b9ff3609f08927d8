"""The parts of a tick that whole runs do not single out."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from cloudsend_cli.core.model import HostAddress, Resources
from cloudsend_cli.core.state import Changes
from cloudsend_cli.engine.calls import DirectCalls, ThreadedCalls
from cloudsend_cli.engine.observe import observe
from cloudsend_cli.engine.session import Session
from cloudsend_cli.engine.tick import tick
from cloudsend_cli.errors import CapacityError, StateDirError
from cloudsend_cli.testing.fake_cloud import FakeProvider
from cloudsend_cli.testing.fake_host import FakeHosts, FakeNetwork
from cloudsend_cli.testing.fake_machine import FakeMachine, JobPlan
from cloudsend_cli.testing.memory_store import MemoryStore
from cloudsend_cli.testing.scenarios import RUN_ID, make_plan, three_jobs
from cloudsend_cli.testing.timeline import Timeline


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


@pytest.fixture
def session(timeline: Timeline) -> Session:
    store = MemoryStore()
    store.create_run(make_plan(*three_jobs())())
    machine = FakeMachine(timeline, "m-0", Resources(2.0), lambda start: JobPlan(), [])
    hosts = FakeHosts(FakeNetwork(timeline, {"m-0": machine}))
    provider = FakeProvider(timeline)
    return Session(RUN_ID, store, lambda name, run: provider, hosts, DirectCalls())


def test_words_of_a_replaced_machine_are_not_taken_for_those_of_its_successor(
    session: Session, timeline: Timeline
) -> None:
    """Seen: another maestro had replaced a machine; the old one's report proved its successor's jobs dead."""
    session.hosts.connect("fake-0", HostAddress("ssh", "m-0"), None)
    session.linked["fake-0"] = 1
    timeline.advance_to(1.0)
    state = session.store.load(RUN_ID)
    state.apply(Changes(nodes={"fake-0": replace(state.nodes["fake-0"], state="running", generation=1)}))
    assert observe(session, state, 1.0).hosts["fake-0"].connected
    state.apply(Changes(nodes={"fake-0": replace(state.nodes["fake-0"], generation=2)}))
    assert observe(session, state, 1.0).hosts == {}
    assert "fake-0" not in session.linked
    assert "fake-0" not in session.views


def test_tick_that_could_not_commit_forgets_what_it_drained(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: a full disk at the moment of a job's end, and the job ran for ever."""

    def fail(*args: object) -> int:
        raise StateDirError("no space is left")

    forgotten: list[str] = []
    monkeypatch.setattr(session.hosts, "forget", lambda: forgotten.append("all"))
    with monkeypatch.context() as context:
        context.setattr(session.store, "commit", fail)
        with pytest.raises(StateDirError):
            tick(session, 0.0)
    assert forgotten == ["all"]
    assert session.state is None
    assert session.requests_hinted
    assert tick(session, 0.0).changed


def test_calls_on_threads_become_news_and_run_once_at_a_time() -> None:
    woken = threading.Semaphore(0)
    hold = threading.Event()
    count = []

    def slow() -> None:
        count.append(1)
        hold.wait(10)

    def refuse() -> None:
        raise CapacityError("none")

    def buggy() -> None:
        raise ValueError("a bug")

    calls = ThreadedCalls(woken.release)
    calls.submit("slow", slow, slow=True)
    calls.submit("slow", slow, slow=True)
    assert calls.pending() == {"slow"}
    calls.submit("refused", refuse, slow=True)
    calls.submit("buggy", buggy, slow=True)
    woken.acquire()
    woken.acquire()
    assert calls.pending() == {"slow"}
    assert calls.errors() == {"refused": ("capacity", "none"), "buggy": ("error", "ValueError: a bug")}
    assert calls.errors() == {}
    assert calls.done() == frozenset()
    calls.submit("quick", lambda: "result", slow=False)
    assert (calls.done(), calls.results(), calls.results()) == ({"quick"}, {"quick": "result"}, {})
    hold.set()
    woken.acquire()
    assert (calls.pending(), calls.done(), count) == (frozenset(), {"slow", "quick"}, [1])
    assert calls.results() == {"slow": None}


def test_direct_calls_are_over_at_once() -> None:
    def refuse() -> None:
        raise CapacityError("none")

    calls = DirectCalls()
    calls.submit("good", lambda: None)
    calls.submit("bad", refuse)
    assert (calls.pending(), calls.done()) == (frozenset(), {"good"})
    assert calls.errors() == {"bad": ("capacity", "none")}
    assert calls.errors() == {}

"""Row 7: what an agent says is the word of one machine. It harms that machine's jobs at most, and nobody else's."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import string
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fuzzing import CAMPAIGN, FUZZ, fuzz
from hypothesis import given
from hypothesis import strategies as st
from liar import BOOT, RESOURCES, Answer, Liar, Request, frame, honest, reply
from real_stack import wait_for
from shown_jobs import read_jobs

from cloudsend_cli.agent.client import GREETING, REFUSAL, AgentChannel, ChannelClosed, Frame, ProtocolError
from cloudsend_cli.core.decide import decide
from cloudsend_cli.core.model import (
    UNBOUNDED,
    AttemptStatus,
    EnvironmentBuild,
    HostView,
    JobSpec,
    Observation,
    Offer,
    Output,
    Policy,
    Resources,
    RunSpec,
)
from cloudsend_cli.core.naming import run_id
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import BuildRecord, Changes, RunState
from cloudsend_cli.engine.asking import Ask, Conversation
from cloudsend_cli.engine.hearsay import weigh
from cloudsend_cli.engine.hostlink import HostLink
from cloudsend_cli.engine.hostpool import HostPool, RunFacts, RunHosts
from cloudsend_cli.engine.wire import parse_resources
from cloudsend_cli.store.directory import open_state_dir
from cloudsend_cli.store.sqlite import SqliteStore

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"
PRINTED = set(string.printable) - set("\t\r\x0b\x0c")


# ---- bytes ---------------------------------------------------------------------------------------------------------

STATUS = {"state": "exited", "started": 1.5, "ended": 2.5, "exit_code": 0, "stdout_size": 3, "stderr_size": 0}
TALK = [
    b"Welcome to h1\n",
    GREETING + b'{"protocol":1,"boot":"b","pid":7}\n',
    frame(re=1, ok=True, boot="b", pid=7, resources=RESOURCES),
    frame(re=2, ok=True, attempts={"rabcde.1.1": STATUS}, more=True),
    frame(re=2, ok=True, attempts={"rabcde.2.1": STATUS}, environments=["k"]),
    frame(ev="changes", items={"rabcde.1.1": STATUS, "rabcde.env-k.1": {"state": "running", "started": 3}}),
    frame(ev="heartbeat", time=1, free=RESOURCES, load=0.5, disk_free=1 << 40, inodes_free=9, running=1, queued=0),
    frame(b"bytes of a log\n", ev="log", attempt="rabcde.1.1", stream="stdout", offset=0),
    frame(b"piece", re=3, ok=True, offset=0, total=5),
    frame(re=4, ok=False, error={"code": "os", "message": "no"}),
]
SPLICES = [
    b"\n", b"{", b"[" * 2000, b'"', b"\0", b"\xff\xfe", b"-1", b"9" * 400, b"NaN", b"1e999", b"null", b"\\ud800",
    b'"more":true,', b'"size":9223372036854775808,', b'"size":1048576,', b'"re":0,', b'"re":-1,', GREETING, REFUSAL,
]  # fmt: skip


def mutate(rng: random.Random) -> bytes:
    """A talk with some frames dropped, doubled or swapped, and some bytes of the others changed."""
    greeting, frames = TALK[:2], [f for f in TALK[2:] for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2)))]
    if rng.random() < 0.2:
        rng.shuffle(frames)
    frames = greeting + frames
    for _ in range(rng.randrange(3)):
        if not frames:
            break
        place = rng.randrange(len(frames))
        data = bytearray(frames[place])
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = rng.choice(SPLICES)
            case 2:
                del data[at : at + rng.randrange(1, 30)]
            case _:
                data[at : at + rng.randrange(30)] = rng.choice(SPLICES)
        frames[place] = bytes(data)
    return b"".join(frames)


class Tape:
    """A stream that ends after some bytes, which come in pieces."""

    def __init__(self, data: bytes, rng: random.Random) -> None:
        self.data = data
        self.rng = rng

    def fileno(self) -> int:
        return -1

    def recv(self, size: int) -> bytes:
        cut = min(size, self.rng.randrange(1, 500))
        piece, self.data = self.data[:cut], self.data[cut:]
        return piece

    def send(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None: ...


@CAMPAIGN
def test_mutated_frames_are_frames_or_end_the_channel(summary_line: Callable[[str], None]) -> None:
    rng = random.Random(int(os.environ.get("CLOUDSEND_FUZZ_SEED", "7")))
    count, frames, refused = round(8000 * FUZZ), 0, 0
    for _ in range(count):
        channel = AgentChannel(Tape(mutate(rng), rng))
        for op in ("hello", "report", "read", "start"):
            channel.request(op)
        try:
            while True:
                got = channel.receive()
                frames += len(got)
                assert all(isinstance(f, Frame) and f.payload.__class__ is bytes for f in got)
        except ProtocolError as problem:
            refused += 1
            assert set(str(problem)) <= PRINTED and len(str(problem)) < 1000
        except ChannelClosed:
            pass
    assert frames > count and refused > count // 20
    summary_line(f"talks of agents, mutated: {count:,} ({frames:,} frames, {refused:,} talks refused)")


# ---- words ---------------------------------------------------------------------------------------------------------

EVIL, GOOD = "evil", "good"
ROUNDS = 5  # of questions for one log
numbers = (
    st.integers() | st.sampled_from([1 << 63, -(1 << 63), 10**400, -(10**400), 0, -1]) | st.floats() | st.booleans()
)
words = st.text(max_size=9) | st.sampled_from(["", ESCAPE, "\ud800", "\0", "x" * 5000, "cancelled", "upload-missing"])
values = st.recursive(st.none() | numbers | words, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
states = st.sampled_from(["queued", "running", "exited", "lost", "cancelled", "stale", "refused", "x"])
statuses = st.fixed_dictionaries(
    {"state": states | values},
    optional=dict.fromkeys(
        ("started", "ended", "exit_code", "signal", "cause", "missing", "maxrss", "utime", "stime", "stdout_size",
         "stderr_size"),
        values,
    ),
)  # fmt: skip
ids = st.sampled_from([
    "{run}.1.1", "{run}.2.1", "{run}.3.1", "{run}.1.2", "{run}.4.1", "{run}.5.1", "{run}.6.1", "{run}.4.2",
    "{run}.5.0", "{run}.04.1", "{run}.\u0664.1", "{run}.²\u200b.1", "{run}.4.1 ", "{run}.99999999999.1",
    "{run}.env-key.1", "{run}.env-../../key.1", "{run}.env-a/b.1", "{run}./../../outside",
    "{run}.4.1/../../../outside", "{run}", "",
    "{run}.-4.1", "zother.4.1", "zother.1.1", "{run}.4.\0", "{run}.\ud800.1", ESCAPE,
])  # fmt: skip
claims = st.dictionaries(ids, statuses | values, max_size=8)
resources = st.none() | st.dictionaries(st.sampled_from(["cpus", "memory", "gpus"]), values, max_size=3)


class Desk:
    """A run on two machines, three jobs on each; the evil one speaks over a real link, the good one is not heard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore.open(open_state_dir(folder / "state"))
        self.liar = Liar(EVIL)
        self.log: list[str] = []
        self.pool = HostPool(lambda address: self.liar, "owner", 1, self.log.append)
        self.beats = 0

    def hear(self, told: dict[str, Any], own: dict[str, Any] | None, *, in_report: bool) -> tuple[RunState, RunState]:
        """The run before, and as it is stored after the evil machine has spoken."""
        state = self.plan()
        before = self.store_new(state)
        hosts = RunHosts(
            state.run.id,
            self.pool,
            lambda: None,
            lambda: RunFacts({}, str(self.folder / "results"), dict),
            lambda: None,
            self.folder / "logs",
            resumes=self.folder / "resume",
            weigh=lambda node, attempt: weigh(state, node, attempt),
        )
        told = {name.replace("{run}", state.run.id): status for name, status in told.items()}
        self.liar.answer = answering(told if in_report else {}, own)
        try:
            hosts.connect(EVIL, self.liar.address, UNBOUNDED)
            self.beat(hosts)
            if not in_report:
                self.liar.say(frame(ev="changes", items=told))
                self.beat(hosts)
            news = hosts.drain()
        finally:
            hosts.close()
        seen = Observation(
            100.0, hosts={n: i.view for n, i in news.items()}, attempts={n: i.attempts for n, i in news.items()}
        )
        decision = decide(state, seen, Policy())
        assert {getattr(action, "node", EVIL) for action in decision.actions} <= {EVIL}
        self.store.commit(state.run.id, before.run.version, decision.changes)
        return before, self.store.load(state.run.id)

    def beat(self, hosts: RunHosts) -> None:
        """Until the link has taken all that was said before, and what it asked because of it is answered."""
        link = hosts.link_of(EVIL)
        assert link is not None
        self.beats += 1
        wait_for(lambda: self.was_heard(link))
        answered = threading.Event()

        def conversation() -> Conversation:
            for _ in range(ROUNDS):  # each comes after what is asked meanwhile
                yield [Ask("ping")]
            answered.set()

        link.converse(conversation, answered.set)
        assert answered.wait(30)

    def was_heard(self, link: HostLink) -> bool:
        if link.vitals.load != self.beats:
            self.liar.say(frame(ev="heartbeat", load=self.beats))
        return link.vitals.load == self.beats

    def plan(self) -> RunState:
        job = JobSpec("j", ("true",), "true", outputs=(Output("o"),), retries=1)
        specs = tuple(replace(job, name=f"j{i}") for i in range(1, 7))
        nodes = [NodePlan(n, "lab", (Offer("{}", Resources(4.0, 1 << 34)),)) for n in (EVIL, GOOD)]
        environment = EnvironmentBuild("key", "k", "true")
        spec = RunSpec("p", "/c.yml", specs, environments=(environment,))
        state = plan_run(spec, nodes, run_id(os.urandom(8)), 1.0)
        on = {i: EVIL if i <= 3 else GOOD for i in range(1, 7)}
        running = {
            i: replace(j, state="running", attempt=1, node=on[i], boot=BOOT, handed_at=2.0)
            for i, j in state.jobs.items()
        }
        up = {
            n: replace(r, state="running", generation=1, instance_id=f"i-{n}", token="t")
            for n, r in state.nodes.items()
        }
        builds = {(n, "key"): BuildRecord(n, "key", boot=BOOT) for n in (EVIL, GOOD)}
        state.apply(Changes(jobs=running, nodes=up, builds=builds))
        return state

    def store_new(self, state: RunState) -> RunState:
        state.set_version(self.store.create_run(state))
        return self.store.load(state.run.id)

    def close(self) -> None:
        self.pool.close()
        self.store.close()


def answering(told: dict[str, Any], own: dict[str, Any] | None) -> Answer:
    def answer(request: Request) -> bytes:
        if "id" not in request:
            return b""
        match request["op"]:
            case "hello":
                return reply(request, boot=BOOT, resources=own)
            case "report":
                return reply(request, attempts=told, environments=["key", ESCAPE, 7])
            case "read":
                return reply(request, b"forged"[: request["length"]], total=6)
        return honest(request)

    return answer


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    folder.chmod(0o700)
    made = Desk(folder)
    yield made
    made.close()


@fuzz(80)
@given(told=claims, own=resources, in_report=st.booleans())
def test_nothing_that_a_machine_says_touches_another_ones_jobs(
    desk: Desk, told: dict[str, Any], own: dict[str, Any] | None, in_report: bool
) -> None:
    before, after = desk.hear(told, own, in_report=in_report)
    for number in (4, 5, 6):
        assert after.jobs[number] == before.jobs[number]
    assert after.builds[GOOD, "key"] == before.builds[GOOD, "key"]
    assert after.nodes == before.nodes
    for view in read_jobs(desk.store, after.run.id).values():
        json.dumps(view.as_json(), allow_nan=False).encode()
        assert len(view.reason) < 40_000
    run = after.run.id
    logs = [p.relative_to(desk.folder / "logs").parts for p in (desk.folder / "logs").rglob("*") if p.is_file()]
    mine = {f"{run}.{n}.1" for n in (1, 2, 3)} | {f"{run}.env-key.1"}
    assert {parts[1].rpartition(".")[0].removeprefix(".") for parts in logs if parts[0] == run} <= mine
    assert sorted(p.name for p in desk.folder.iterdir()) in (["logs", "state"], ["state"])
    assert desk.log == [line for line in desk.log if line.startswith(("connected to ssh:evil", "no connection"))]


def test_a_machine_cannot_end_a_job_of_another_one(desk: Desk) -> None:
    """Seen: one host said of all attempts of the run that they had ended well, and the run was done."""
    told = {f"{{run}}.{n}.1": STATUS for n in range(1, 7)}
    for in_report in (False, True):
        _, after = desk.hear(told, RESOURCES, in_report=in_report)
        assert [after.jobs[n].state for n in range(1, 7)] == ["succeeded"] * 3 + ["running"] * 3


def test_no_log_of_a_machine_is_taken_for_that_of_another_one(desk: Desk) -> None:
    told = {f"{{run}}.{n}.1": {**STATUS, "stdout_size": 6} for n in range(1, 7)}
    _, after = desk.hear(told, RESOURCES, in_report=False)
    run = after.run.id
    found = {p.name: p.read_bytes() for p in (desk.folder / "logs" / run).glob("*.stdout")}
    assert found == {f"{run}.{n}.1.stdout": b"forged" for n in (1, 2, 3)}


ODD = (
    1 << 63,
    -(1 << 63) - 1,
    10**400,
    -(10**400),
    math.nan,
    math.inf,
    -math.inf,
    1e300,
    -1,
    True,
    "1",
    [1],
    {},
    None,
)
FIELDS = (
    "started", "ended", "exit_code", "signal", "cause", "missing", "maxrss", "utime", "stime", "stdout_size",
    "stderr_size",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_an_odd_value_in_any_field_is_stored_and_shown(desk: Desk, field: str) -> None:
    for some in itertools.zip_longest(*[iter(ODD)] * 3):
        told = {f"{{run}}.{n}.1": {**STATUS, "exit_code": 3, field: value} for n, value in enumerate(some, 1)}
        before, after = desk.hear(told, RESOURCES, in_report=False)
        assert after.jobs[4] == before.jobs[4]
        shown = read_jobs(desk.store, after.run.id)
        for number in (1, 2, 3):
            assert after.jobs[number].state in {"failed", "succeeded", "pending"}
            json.dumps(shown[number].as_json(), allow_nan=False)


def test_what_is_decided_of_a_job_needs_the_word_of_its_own_machine(desk: Desk) -> None:
    """Also where nothing was sifted before."""
    state = desk.plan()
    news = {f"{state.run.id}.{n}.1": AttemptStatus(word) for n, word in ((4, "exited"), (5, "lost"), (6, "refused"))}
    for told in (news, {name: AttemptStatus("cancelled", cause="cancelled") for name in news}):
        decision = decide(state, Observation(100.0, attempts={EVIL: told}), Policy())
        assert not decision.changes and not decision.actions


def test_parts_of_a_reply_that_nobody_asked_for_end_the_channel() -> None:
    for ident in (-1, 0, 2, 1 << 70):
        data = TALK[1] + frame(re=ident, ok=True, more=True, x=["y"])
        channel = AgentChannel(Tape(data, random.Random(1)))
        channel.request("hello")
        with pytest.raises(ProtocolError, match="never sent"):
            while True:
                channel.receive()


def test_a_machine_gets_no_more_jobs_than_was_declared_of_it() -> None:
    specs = tuple(JobSpec(f"j{i}", ("true",), "true") for i in range(40))
    nodes = [NodePlan(n, "lab", (Offer("{}", Resources(4.0, 1 << 34)),)) for n in (EVIL, GOOD)]
    state = plan_run(RunSpec("p", "/c.yml", specs), nodes, "rabcde", 1.0)
    state.apply(Changes(nodes={n: replace(r, state="running", instance_id=n) for n, r in state.nodes.items()}))
    for cpus in (1e9, 1e308, math.inf, math.nan, 10**400, -5, True, "8"):
        told = parse_resources({"cpus": cpus, "memory": 1 << 62, "gpus": 1 << 40})
        views = {n: HostView(True, BOOT, 0.0, told if n == EVIL else Resources(4.0)) for n in (EVIL, GOOD)}
        decision = decide(state, Observation(100.0, hosts=views), Policy(ahead=0, ahead_most=0))
        assert 0 < sum(j.node == EVIL for j in decision.changes.jobs.values()) <= 4, cpus

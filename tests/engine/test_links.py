"""Links to a real agent: they come back after every death, and nothing is told twice or lost."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from real_stack import find_processes, is_alive, wait_for

from cloudsend_cli.agent.client import Frame
from cloudsend_cli.core.model import UNBOUNDED, Resources, Upload
from cloudsend_cli.engine import transfer
from cloudsend_cli.engine.asking import Ask, Conversation, ask_now
from cloudsend_cli.hosts.local import LocalHost

from .engine_machine import Machine


def upload(path: Path, data: bytes, name: str = "in") -> Upload:
    path.write_bytes(data)
    return Upload(name, hashlib.sha256(data).hexdigest(), len(data), 0o644, str(path))


def test_a_link_connects_reports_and_tells_each_end_once(machine: Machine) -> None:
    view = machine.connect(Resources(1.0, 1 << 30, 0))
    assert view.resources == Resources(1.0, 1 << 30, 0)
    assert machine.reported == [frozenset()]
    machine.start(machine.job(1, "exit 3"), machine.job(2, "echo $TOKEN; exit 0", secrets=["TOKEN"]))
    assert (machine.ended(1).exit_code, machine.ended(2).exit_code) == (3, 0)
    assert machine.told.count((f"{machine.run}.1.1", "exited")) == 1
    machine.hosts.forget()
    machine.until(lambda: len(machine.reported) == 2)
    assert machine.reported[-1] == {f"{machine.run}.1.1", f"{machine.run}.2.1"}
    machine.hosts.ack("n", [f"{machine.run}.1.1"])
    machine.hosts.forget()
    machine.until(lambda: len(machine.reported) == 3)
    assert machine.reported[-1] == {f"{machine.run}.2.1"}
    assert (machine.home / "attempts" / f"{machine.run}.2.1" / "stdout").read_bytes() == b"s3cret\n"


def test_a_rented_machine_is_let_go_by_its_last_run_and_others_stay_linked(machine: Machine) -> None:
    other = Machine(machine.directory, run="r11111", pool=machine.pool)
    machine.connect(alias="i-1")
    other.connect(alias="i-1")
    machine.start(machine.job(1, "exit 0"))
    machine.ended(1)
    machine.hosts.disconnect("n")
    other.start(other.job(1, "exit 0"))
    other.ended(1)
    bridge = machine.bridge()
    other.hosts.disconnect("n")
    wait_for(lambda: not is_alive(bridge))
    bridges = []
    for _ in range(2):
        machine.view = None
        machine.connect()
        bridges.append(machine.bridge())
        machine.hosts.disconnect("n")
    assert bridges[0] == bridges[1]


@pytest.mark.parametrize("victim", ["agent", "bridge"])
def test_after_the_death_of_agent_or_bridge_the_link_is_back_and_jobs_went_on(
    machine: Machine, victim: str, tmp_path: Path
) -> None:
    machine.connect()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    machine.start(machine.job(1, f"read x < {gate}; echo done"))
    machine.running(1)
    pid = machine.agent() if victim == "agent" else machine.bridge()
    os.kill(pid, signal.SIGKILL)
    machine.until(lambda: any(not v.connected for v in machine.views))
    machine.until(lambda: machine.view is not None and machine.view.connected and len(machine.reported) >= 2)
    assert f"{machine.run}.1.1" in machine.reported[-1]
    gate.write_bytes(b"\n")
    assert machine.ended(1).exit_code == 0


def test_a_silent_agent_is_unknown_its_jobs_go_on_and_are_adopted(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.connect()
    gate, ledger = tmp_path / "gate", tmp_path / "ledger"
    os.mkfifo(gate)
    machine.start(machine.job(1, f"read x < {gate}; echo x >> {ledger}"))
    machine.running(1)
    agent = machine.agent()
    os.kill(agent, signal.SIGSTOP)
    monkeypatch.setattr(LocalHost, "patience", 0.2)
    machine.hosts.cancel("n", ["other.1.1"], "cancelled")  # wakes the link, which then waits with the new limit
    machine.until(lambda: machine.view is not None and not machine.view.connected)
    monkeypatch.setattr(LocalHost, "patience", 20.0)
    gate.write_bytes(b"\n")
    wait_for(ledger.exists)
    os.kill(agent, signal.SIGCONT)
    assert machine.ended(1).exit_code == 0
    assert ledger.read_text() == "x\n"


def test_each_run_hears_of_its_own_attempts_only(make_machine: Callable[..., Machine]) -> None:
    first = make_machine()
    second = make_machine(run="r11111", pool=first.pool)
    first.connect()
    second.connect()
    first.start(first.job(1, "exit 1"))
    second.start(second.job(1, "exit 2"))
    assert first.ended(1).exit_code == 1
    assert second.ended(1).exit_code == 2
    first.hosts.forget()
    first.until(lambda: any(first.reported[1:]))
    assert {a.split(".")[0] for r in first.reported for a in r} | {a.split(".")[0] for a in first.attempts} == {
        "r00000"
    }
    assert {a.split(".")[0] for a in second.attempts} == {"r11111"}


def test_the_largest_wish_for_a_machine_counts(make_machine: Callable[..., Machine]) -> None:
    first = make_machine()
    second = make_machine(run="r11111", pool=first.pool)
    assert first.connect(Resources(1.0, 1 << 30, 0)).resources == Resources(1.0, 1 << 30, 0)
    second.connect(Resources(3.0, 1 << 20, 1))
    grown = Resources(3.0, 1 << 30, 1)
    second.until(lambda: second.view is not None and second.view.resources == grown)
    first.until(lambda: first.view is not None and first.view.resources == grown)


def test_what_nobody_declares_is_what_the_machine_has(make_machine: Callable[..., Machine]) -> None:
    first = make_machine()
    found = first.connect().resources
    assert found is not None
    second = make_machine(run="r11111", pool=first.pool)
    second.connect(Resources(1.0, 1 << 30, 3))
    assert second.view is not None and second.view.resources == found, "another run may use all of it"
    first.hosts.disconnect("n")
    alone = make_machine(run="r22222")
    assert alone.connect(replace(UNBOUNDED, cpus=1.0)).resources == replace(found, cpus=1.0)
    alone.hosts.disconnect("n")
    again = make_machine(run="r33333")
    assert again.connect().resources == found, "a limit of another run is not kept"


def test_a_maestro_that_was_superseded_is_refused_by_the_agent(make_machine: Callable[..., Machine]) -> None:
    old = make_machine(epoch=3)
    old.connect()
    new = make_machine(epoch=4)
    new.connect()
    old.start(old.job(1, "true"))
    assert old.fenced.wait(30)
    assert not (old.home / "attempts" / f"{old.run}.1.1").exists()
    new.start(new.job(1, "exit 4"))
    assert new.ended(1).exit_code == 4


def test_one_failing_conversation_ends_nothing_else(machine: Machine) -> None:
    machine.connect()
    link = machine.hosts.link_of("n")
    assert link is not None
    dropped: list[str] = []

    def broken() -> Conversation:
        yield [Ask("report")]
        raise KeyError("a bug")

    def too_large() -> Conversation:
        yield [Ask("cancel", {"attempts": ["x" * 100] * 20_000, "cause": "cancelled"})]

    link.converse(broken, lambda: dropped.append("broken"))
    link.converse(too_large, lambda: dropped.append("too large"))
    machine.start(machine.job(1, "exit 7"))
    assert machine.ended(1).exit_code == 7
    assert sorted(dropped) == ["broken", "too large"]
    assert [v for v in machine.views if not v.connected and v.error != "not connected yet"] == []


def test_what_the_agent_tells_with_its_first_report_is_not_lost() -> None:
    import json
    import socket

    from cloudsend_cli.agent.client import AgentChannel

    class Stream:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.fileno, self.recv, self.send, self.close = sock.fileno, sock.recv, sock.send, sock.close

    near, far = socket.socketpair()
    near.setblocking(False)
    change = {"ev": "changes", "items": {"r.1.1": {"state": "exited"}}}
    far.sendall(b'cloudsend-agent-1 {}\n{"re":1,"ok":true}\n' + json.dumps(change).encode() + b"\n")
    with near, far:
        answer, others = ask_now(AgentChannel(Stream(near)), Ask("report"), lambda: False)
    assert (answer.ok, others) == (True, [Frame(change)])


def test_starts_that_were_refused_as_a_whole_are_judged_by_a_report(machine: Machine, tmp_path: Path) -> None:
    machine.connect()
    attempts = machine.home / "attempts"
    attempts.rename(tmp_path / "elsewhere")  # the agent fails with an error of its own
    machine.start(machine.job(1, "true"))
    machine.until(lambda: len(machine.reported) >= 2)
    assert machine.reported[-1] == frozenset()
    (tmp_path / "elsewhere").rename(attempts)
    machine.start(machine.job(1, "exit 5"))
    assert machine.ended(1).exit_code == 5


# ---- uploads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 256 * 1024, 256 * 1024 + 1, 7_000_000])
def test_files_of_every_size_arrive(machine: Machine, tmp_path: Path, size: int) -> None:
    machine.connect()
    data = os.urandom(size)
    file = upload(tmp_path / "data", data)
    machine.start(machine.job(1, "sha256sum in", uploads=[file]), files=[file])
    assert machine.ended(1).exit_code == 0
    log = machine.home / "attempts" / f"{machine.run}.1.1" / "stdout"
    assert log.read_text().split()[0] == hashlib.sha256(data).hexdigest()


def test_jobs_handed_out_while_their_file_is_sent_all_get_it(machine: Machine, tmp_path: Path) -> None:
    machine.connect()
    file = upload(tmp_path / "data", os.urandom(9_000_000))
    for number in range(1, 9):
        machine.start(machine.job(number, "test -s in", uploads=[file]), files=[file])
    assert [machine.ended(n).exit_code for n in range(1, 9)] == [0] * 8


def test_an_interrupted_upload_is_resumed(machine: Machine, tmp_path: Path) -> None:
    machine.connect()
    data = os.urandom(3_000_000)
    file = upload(tmp_path / "data", data)
    (machine.home / "files" / f".part-{file.sha256}").write_bytes(data[:1_000_000])
    machine.start(machine.job(1, "sha256sum -c - <<E\n" + file.sha256 + "  in\nE", uploads=[file]), files=[file])
    assert machine.ended(1).exit_code == 0


def test_what_an_earlier_try_left_wrong_is_sent_anew(machine: Machine, tmp_path: Path) -> None:
    machine.connect()
    file = upload(tmp_path / "data", os.urandom(3_000_000))
    (machine.home / "files" / f".part-{file.sha256}").write_bytes(b"wrong" * 1000)
    machine.start(machine.job(1, "sha256sum -c - <<E\n" + file.sha256 + "  in\nE", uploads=[file]), files=[file])
    assert machine.ended(1).exit_code == 0


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_file_that_changed_after_the_submit_is_refused_with_the_reason(
    machine: Machine, tmp_path: Path, size: int
) -> None:
    machine.connect()
    edited, longer = (upload(tmp_path / name, os.urandom(size), name) for name in ("edited", "longer"))
    gone, good = upload(tmp_path / "gone", os.urandom(size), "gone"), upload(tmp_path / "good", b"good", "good")
    (tmp_path / "edited").write_bytes(os.urandom(size))
    (tmp_path / "longer").write_bytes(os.urandom(size + 1))
    (tmp_path / "gone").unlink()
    starts = [machine.job(n, "true", uploads=[f]) for n, f in enumerate([edited, longer, gone, good], 1)]
    machine.start(*starts, files=[edited, longer, gone, good])
    assert machine.ended(4).exit_code == 0
    ends = [machine.ended(n) for n in (1, 2, 3)]
    assert [e.state for e in ends] == ["refused"] * 3
    assert ends[0].cause == "upload-changed: edited was edited after it was submitted; run the config again"
    assert ends[1].cause.startswith("upload-changed: longer")
    assert ends[2].cause == "upload-missing: gone: No such file or directory"


def test_a_file_that_a_job_wrote_into_is_sent_again_for_the_next(machine: Machine, tmp_path: Path) -> None:
    machine.connect()
    file = upload(tmp_path / "data", b"original")
    machine.start(machine.job(1, "chmod u+w in; echo spoilt > in", uploads=[file]), files=[file])
    machine.ended(1)
    machine.start(machine.job(2, "cat in", uploads=[file]), files=[file])
    assert machine.ended(2).cause == "upload-missing"
    machine.start(machine.job(3, "grep -q original in", uploads=[file]), files=[file])
    assert machine.ended(3).exit_code == 0


def test_many_small_files_cost_few_round_trips(tmp_path: Path) -> None:
    files = [upload(tmp_path / f"f{n}", b"%d" % n, f"f{n}") for n in range(1000)]
    conversation = transfer.send_files(files)
    asks, turns = next(conversation), 0
    with pytest.raises(StopIteration) as end:
        while True:
            turns += 1
            assert isinstance(asks, list)
            if asks[0].op == "missing":
                replies = [Frame(ok=True, missing=dict.fromkeys((f.sha256 for f in files), 0))]
            else:
                replies = [Frame(ok=True) for _ in asks]
            asks = conversation.send(replies)
    assert (end.value.value, turns) == ({}, 17)


def test_stopping_leaves_the_jobs_and_no_bridge(machine: Machine, tmp_path: Path) -> None:
    machine.connect()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    machine.start(machine.job(1, f"read x < {gate}"))
    machine.running(1)
    bridge = machine.bridge()
    machine.close()
    assert not is_alive(bridge)
    assert any(str(gate).encode() in c for c in find_processes(machine.directory).values())

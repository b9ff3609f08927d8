"""Logs of any bytes and any size, followed by offset."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from .conftest import Client, Host, sh, wait_for


def follow(client: Client, ident: str, stream: str = "stdout", offset: int = 0) -> bytes:
    assert client.call("follow", attempt=ident, stream=stream, offset=offset).ok
    client.until(lambda: (ident, stream) in client.log_ends)
    return bytes(client.logs.get((ident, stream), b""))


def test_any_bytes_arrive_as_they_were_written(agent: Client) -> None:
    agent.run(sh("a.1", r"printf 'nul\0bad\377\303(\033[31m\rend\n'"))
    assert follow(agent, "a.1") == b"nul\0bad\xff\xc3(\x1b[31m\rend\n"
    assert agent.stream("a.1") == b"nul\0bad\xff\xc3(\x1b[31m\rend\n"


def test_a_growing_log_is_followed_and_its_end_is_told(agent: Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    agent.start(sh("a.1", f"echo one; while [ ! -e {go} ]; do sleep 0.05; done; echo two; echo three >&2"))
    agent.running("a.1")
    agent.call("follow", attempt="a.1", stream="stdout", offset=0)
    agent.until(lambda: agent.logs.get(("a.1", "stdout")) == b"one\n")
    assert not agent.log_ends
    go.touch()
    agent.until(lambda: ("a.1", "stdout") in agent.log_ends)
    assert agent.logs["a.1", "stdout"] == b"one\ntwo\n"
    assert follow(agent, "a.1", "stderr") == b"three\n"


def test_following_goes_on_by_offset_over_reconnects_and_crashes(host: Host, tmp_path: Path) -> None:
    client = host.attach()
    client.start(sh("a.1", "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.002; done"))
    got = b""
    for turn in range(4):
        client.call("follow", attempt="a.1", stream="stdout", offset=len(got))
        client.until(lambda: len(client.logs.get(("a.1", "stdout"), b"")) > 20)  # noqa: B023
        got += client.logs["a.1", "stdout"]
        if turn % 2:
            host.crash(client)
        else:
            client.close()
        client = host.attach()
    got += follow(client, "a.1", offset=len(got))
    assert got == b"".join(b"line %d\n" % i for i in range(300))


def test_a_line_of_100_mb(agent: Client) -> None:
    status = agent.run(sh("a.1", "head -c 100000000 /dev/zero | tr '\\0' x"))
    assert status["stdout_size"] == 100_000_000
    assert agent.call("follow", attempt="a.1", stream="stdout", offset=99_000_000).ok
    agent.until(lambda: ("a.1", "stdout") in agent.log_ends)
    assert agent.logs["a.1", "stdout"] == b"x" * 1_000_000


def test_a_gigabyte_at_full_speed_neither_fills_nor_stalls_the_daemon(host: Host, agent: Client) -> None:
    """One client follows and never reads; another one works on."""
    deaf = host.attach(rcvbuf=4096)
    agent.start(sh("a.1", "head -c 1000000000 /dev/zero", cpus=1))
    agent.running("a.1")
    deaf.channel.request("follow", attempt="a.1", stream="stdout", offset=0)
    deaf.channel.flush()
    agent.call("follow", attempt="a.1", stream="stdout", offset=0)
    agent.until(lambda: len(agent.logs.get(("a.1", "stdout"), b"")) > 20_000_000)
    agent.call("unfollow", attempt="a.1", stream="stdout")
    assert agent.logs["a.1", "stdout"].count(0) == len(agent.logs["a.1", "stdout"])
    assert agent.run(sh("a.2", "true"))["exit_code"] == 0
    assert agent.wait("a.1")["stdout_size"] == 1_000_000_000
    peak = next(
        line for line in Path(f"/proc/{agent.about['pid']}/status").read_text().splitlines() if "VmHWM" in line
    )
    assert int(peak.split()[1]) < 80_000
    (host.home / "attempts/a.1/stdout").unlink()


def test_a_client_that_never_reads_its_news_is_let_go(host: Host, agent: Client) -> None:
    deaf = host.attach(rcvbuf=4096)
    deaf.process.send_signal(19)
    before = Path(f"/proc/{agent.about['pid']}/statm").read_text()
    for turn in range(30):
        idents = [f"j{turn}.{i}" for i in range(40)]
        agent.start(*({"id": ident, "argv": ["true"], "outputs": [{"pattern": "x" * 50}] * 20} for ident in idents))
        agent.wait(*idents)
        agent.call("ack", attempts=idents)
    deaf.process.send_signal(18)
    assert before
    assert agent.run(sh("last", "true"))["exit_code"] == 0


def test_a_log_that_its_job_truncates_is_noticed(agent: Client, host: Host, tmp_path: Path) -> None:
    go = tmp_path / "go"
    path = host.home / "attempts/a.1/stdout"
    agent.start(sh("a.1", f"echo long line; while [ ! -e {go} ]; do sleep 0.05; done; : > {path}; echo new"))
    agent.running("a.1")
    agent.call("follow", attempt="a.1", stream="stdout", offset=0)
    agent.until(lambda: agent.logs.get(("a.1", "stdout")) == b"long line\n")
    go.touch()
    agent.until(lambda: ("a.1", "stdout") in agent.log_ends)
    assert agent.logs["a.1", "stdout"] == b"long line\nnew\n"


def test_a_pipe_in_the_place_of_a_log_or_a_record_stops_nobody(agent: Client, host: Host, tmp_path: Path) -> None:
    """Seen: a job put a pipe where its log was. The agent opened it and waited; no job of the host was seen again."""
    go = tmp_path / "go"
    script = f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; echo more"
    agent.start(sh("a.1", script), sh("a.2", script))
    for ident in ("a.1", "a.2"):
        agent.running(ident)
    for path in ("a.1/stdout", "a.2/record", "a.2/spec.json"):
        (host.home / "attempts" / path).unlink()
        os.mkfifo(host.home / "attempts" / path)
    assert agent.call("read", attempt="a.1", stream="stdout", offset=0, length=100).error_code == "not-found"
    agent.call("follow", attempt="a.1", stream="stdout", offset=0)
    assert {ident: status["state"] for ident, status in agent.report().items()} == {"a.1": "running", "a.2": "running"}
    go.touch()
    agent.wait("a.1", "a.2")
    assert [agent.status[ident]["exit_code"] for ident in ("a.1", "a.2")] == [0, 0]


def test_heartbeats_come_and_news_is_quick(agent: Client) -> None:
    begun = time.monotonic()
    agent.run(sh("a.1", "true"))
    took = time.monotonic() - begun
    print(f"\nstart to end told: {1000 * took:.1f} ms")
    agent.until(lambda: [e for e in agent.events if e.event == "heartbeat"], 10)
    beat = next(e for e in agent.events if e.event == "heartbeat")
    assert set(beat) >= {"time", "free", "load", "disk_free"}
    assert select.select([agent.socket], [], [], 0)[0] == []


def test_the_log_of_a_waiting_attempt_can_be_asked_for_early(agent: Client) -> None:
    agent.start(sh("a.1", "sleep 0.2", cpus=4), sh("a.2", "echo late", cpus=4))
    agent.call("follow", attempt="a.2", stream="stdout", offset=0)
    wait_for(lambda: agent.step() is None and ("a.2", "stdout") in agent.log_ends)
    assert agent.logs["a.2", "stdout"] == b"late\n"

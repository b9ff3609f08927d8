"""The provider takes the machine back: what runs is told and ended as preempted, and nothing starts any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import PYTHON, Client, Host, sh, wait_for
from .test_crash import alive, has_strace, release, traced
from .test_rented import folder

__all__ = ["folder"]

AT = "2026-11-21T12:00:00Z"
NOTICE = f'{{"action":"terminate","time":"{AT}"}}'
OLD = sorted(Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python3"))
PYTHONS = [PYTHON, *map(str, OLD)]
# Tells that it runs, and of the TERM that ends it; not what the shell says of a `sleep` that was ended.
STEADY = "exec 2>/dev/null; trap 'echo TERM; exit 0' TERM; echo up; while :; do sleep 0.1; done"


@pytest.fixture
def rent(host: Host, folder: Path) -> Callable[..., Client]:
    env = {"CLOUDSEND_RENTED_DIR": str(folder), "CLOUDSEND_AGENT_BEAT": "1000", "CLOUDSEND_PREEMPT_HOOK": "3"}
    return lambda **options: host.attach(**{"resources": {"cpus": 2}, "env": env, **options})


def give_notice(folder: Path, text: str = NOTICE) -> None:
    (folder / "notice.new").write_text(text)
    (folder / "notice.new").rename(folder / "notice")


def notices(client: Client) -> list[Any]:
    return [event["rented"]["notice"] for event in client.events if event.event == "heartbeat"]


def up(client: Client, *idents: str) -> None:
    for ident in idents:
        client.until(lambda ident=ident: b"up\n" in client.stream(ident))


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.split("/")[-3])
def test_what_runs_is_ended_and_what_waits_never_starts(
    rent: Callable[..., Client], folder: Path, host: Host, python: str
) -> None:
    client = rent(python=python)
    hook = "echo saving in $PWD at $CLOUDSEND_PREEMPT_AT with $MINE; echo to out"
    client.start(
        sh("a.1", STEADY, on_preempt=hook, cwd="sub", env={"MINE": "this"}),
        sh("a.2", "echo up; exec sleep 600", grace=0.2),
        sh("a.3", "true"),
        sh("a.4", "true"),
    )
    up(client, "a.1", "a.2")
    give_notice(folder)
    client.wait("a.1", "a.2", "a.3", "a.4")
    assert notices(client) == [{"action": "terminate", "time": AT}]
    said = client.stream("a.1", "stderr").decode().splitlines()
    assert said == [f"saving in {host.home}/attempts/a.1/work/sub at {AT} with this", "to out"]
    assert client.stream("a.1") == b"up\nTERM\n"
    one, two, three, four = (client.status[f"a.{n}"] for n in (1, 2, 3, 4))
    assert (one["state"], one["cause"], one["exit_code"]) == ("exited", "preempted", 0)
    assert (two["state"], two["cause"], two["signal"]) == ("exited", "preempted", signal.SIGTERM)
    assert one["stderr_size"] == len(client.stream("a.1", "stderr"))
    for status in (three, four):
        assert (status["state"], status["cause"]) == ("cancelled", "preempted")
    assert not (host.home / "attempts/a.3/record").exists()
    assert host.jobs() == []


def test_new_starts_are_refused_until_it_is_withdrawn(rent: Callable[..., Client], folder: Path, host: Host) -> None:
    client = rent()
    client.run(sh("a.1", "true"))
    give_notice(folder)
    client.until(lambda: notices(client))
    assert client.start(sh("a.2", "true"), sh("a.1", "true")) == {"a.2": "preempted", "a.1": "duplicate"}
    assert not (host.home / "attempts/a.2").exists()
    assert client.call("cancel", attempts=["a.9"])["results"] == {"a.9": "tombstoned"}
    assert client.start(sh("a.9", "true")) == {"a.9": "cancelled"}
    (folder / "notice").unlink()
    client.until(lambda: notices(client)[-1] is None)
    assert client.run(sh("a.2", "exit 4"))["exit_code"] == 4


@pytest.mark.parametrize("text", ["", "{", "[]", "404 - Not Found", '{"a":"%s"}' % ("x" * 5000)])
def test_what_is_no_notice_ends_nothing(rent: Callable[..., Client], folder: Path, text: str) -> None:
    (folder / "notice").write_text(text)
    client = rent()
    assert client.about["rented"]["notice"] is None
    assert client.run(sh("a.1", "sleep 1.2; exit 5"))["exit_code"] == 5


@pytest.mark.parametrize("text", ["{}", '{"time":7}', '{"time":"a\\u0000b"}', '{"action":"stop"}'])
def test_a_notice_without_a_time_is_one(rent: Callable[..., Client], folder: Path, text: str) -> None:
    client = rent()
    client.start(sh("a.1", STEADY, on_preempt='echo "<$CLOUDSEND_PREEMPT_AT>"'))
    up(client, "a.1")
    give_notice(folder, text)
    assert client.wait("a.1")["cause"] == "preempted"
    assert client.stream("a.1", "stderr") == b"<>\n"


def test_a_hook_has_its_time_and_no_more(rent: Callable[..., Client], folder: Path, host: Host) -> None:
    client = rent()
    client.start(sh("a.1", STEADY, on_preempt="trap '' TERM; echo began; sleep 600 & sleep 600"))
    up(client, "a.1")
    give_notice(folder)
    assert client.wait("a.1")["cause"] == "preempted"
    assert client.stream("a.1", "stderr") == b"began\ncloudsend: on_preempt has not ended within 3 s\n"
    assert client.stream("a.1") == b"up\nTERM\n"
    wait_for(lambda: host.jobs() == [])


def test_a_hook_that_cannot_run_is_told_and_the_end_comes(rent: Callable[..., Client], folder: Path) -> None:
    client = rent()
    client.start(sh("a.1", f"rm -r ../gone; {STEADY}", cwd="gone/there", on_preempt="no-such-command"))
    up(client, "a.1")
    give_notice(folder)
    assert client.wait("a.1")["cause"] == "preempted"
    assert b"not found" in client.stream("a.1", "stderr")


def test_a_hook_that_ends_the_job_does_not_make_it_a_success(rent: Callable[..., Client], folder: Path) -> None:
    client = rent()
    wait = "echo up; until test -e stop; do sleep 0.02; done; echo saved; exit 0"
    client.start(sh("a.1", wait, on_preempt="touch stop; until grep -q saved ../stdout; do sleep 0.02; done"))
    up(client, "a.1")
    give_notice(folder)
    status = client.wait("a.1")
    assert (status["cause"], status["exit_code"]) == ("preempted", 0)
    assert client.stream("a.1") == b"up\nsaved\n"


@pytest.mark.parametrize(("code", "cause"), [(0, None), (3, "preempted")])
def test_what_had_ended_by_itself_is_preempted_only_where_it_ended_badly(
    rent: Callable[..., Client], folder: Path, tmp_path: Path, code: int, cause: str | None
) -> None:
    client, go, hook = rent(), tmp_path / "go", tmp_path / "hook"
    script = f"echo up; until test -e {go}; do sleep 0.05; done; exit {code}"
    client.start(sh("a.1", script, on_preempt=f"touch {hook}"))
    up(client, "a.1")
    job = client.running("a.1")
    runner = int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(runner, signal.SIGSTOP)
    go.touch()
    wait_for(lambda: not alive(job))
    give_notice(folder)
    wait_for(lambda: (client.step(0.01), pending(runner) & 1 << signal.SIGTERM - 1)[1])
    os.kill(runner, signal.SIGCONT)
    status = client.wait("a.1")
    assert (status["state"], status["exit_code"], status["cause"]) == ("exited", code, cause)
    assert not hook.exists()


def pending(pid: int) -> int:
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["ShdPnd"], 16) | int(lines["SigPnd"], 16)


def test_kill_9_of_the_agent_in_the_middle(rent: Callable[..., Client], folder: Path, host: Host) -> None:
    client = rent()
    gate = folder / "gate"
    hook = f"echo hook; until test -e {gate}; do sleep 0.05; done"
    client.start(*(sh(f"a.{n}", STEADY, on_preempt=hook) for n in range(2)), *(sh(f"q.{n}", "true") for n in range(3)))
    up(client, "a.0", "a.1")
    give_notice(folder)
    client.until(lambda: client.stream("a.1", "stderr"))
    host.crash(client)
    again = rent()
    assert again.about["rented"]["notice"]["time"] == AT
    assert again.start(sh("n.1", "true")) == {"n.1": "preempted"}
    gate.touch()
    for n in range(2):
        assert again.wait_for_report(f"a.{n}")["cause"] == "preempted"
        assert again.stream(f"a.{n}", "stderr") == b"hook\n"  # once
    assert {again.report()[f"q.{n}"]["cause"] for n in range(3)} == {"preempted"}


@pytest.mark.parametrize("withdrawn", [False, True])
def test_a_notice_that_came_while_the_agent_was_dead(
    rent: Callable[..., Client], folder: Path, host: Host, withdrawn: bool
) -> None:
    client = rent(resources={"cpus": 1})
    client.start(sh("a.1", STEADY, on_preempt="echo hook"), sh("a.2", "exit 6"))
    up(client, "a.1")
    host.crash(client)
    give_notice(folder)
    if withdrawn:
        (folder / "notice").unlink()
    again = rent()
    if withdrawn:
        again.call("cancel", attempts=["a.1"])
        assert again.wait_for_report("a.1")["cause"] == "cancelled"
        assert again.wait_for_report("a.2")["exit_code"] == 6
    else:
        assert again.wait_for_report("a.1")["cause"] == "preempted"
        assert again.stream("a.1", "stderr") == b"hook\n"
        assert again.wait_for_report("a.2")["cause"] == "preempted"


def test_a_long_queue_ends_before_the_machine_does(rent: Callable[..., Client], folder: Path) -> None:
    client = rent(resources={"cpus": 1})
    client.start(sh("a.0", STEADY))
    up(client, "a.0")
    many = [f"q.{n}" for n in range(12_000)]
    for at in range(0, len(many), 2000):
        client.start(*(sh(ident, "true") for ident in many[at : at + 2000]))
    give_notice(folder)
    client.wait("a.0", *many, deadline=60)
    assert {client.status[ident]["cause"] for ident in many} == {"preempted"}


@pytest.mark.skipif(not has_strace(), reason="strace is not there or not permitted")
def test_what_it_leaves_is_flushed(rent: Callable[..., Client], folder: Path, tmp_path: Path) -> None:
    client, log = rent(), tmp_path / "trace"
    client.start(sh("a.1", STEADY))
    up(client, "a.1")
    job = client.running("a.1")
    runner = int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1])
    tracer = traced(runner, "-e", "trace=sync", log=log)
    give_notice(folder)
    client.wait("a.1")
    wait_for(lambda: "sync(" in log.read_text())
    release(tracer)


# ---- the next attempt ----------------------------------------------------------------------------------------------


def test_an_attempt_that_resumes_is_told_where(host: Host, agent: Client) -> None:
    sha = agent.put(b"step 7\n")
    spec = sh(
        "a.1",
        'cat "$CLOUDSEND_RESUME_DIR/state"; echo $CLOUDSEND_RESUME_DIR',
        files=[{"path": "ckpt/x/state", "sha256": sha, "mode": 0o644}],
        resume_dir="ckpt/x",
    )
    assert agent.run(spec)["exit_code"] == 0
    assert agent.stream("a.1") == f"step 7\n{host.home}/attempts/a.1/work/ckpt/x\n".encode()
    assert agent.run(sh("a.2", 'ls -d "$CLOUDSEND_RESUME_DIR"', resume_dir="none/yet"))["exit_code"] == 0
    # A job that copies what it is given and goes on writing there finds it as an earlier one has left it.
    goes_on = 'cp -r "$CLOUDSEND_RESUME_DIR/." here && stat -c %a here/state && echo >> "$CLOUDSEND_RESUME_DIR/state"'
    assert agent.run({**spec, "id": "a.4", "argv": ["/bin/sh", "-c", goes_on]})["exit_code"] == 0
    assert agent.stream("a.4") == b"644\n"
    assert agent.run({**spec, "id": "a.5"})["exit_code"] == 0
    assert agent.stream("a.5").startswith(b"step 7\n/"), "the next one's copy is its own"
    assert agent.run(sh("a.3", 'test -z "${CLOUDSEND_RESUME_DIR+x}"'))["exit_code"] == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("resume_dir", text) for text in ("../x", "/x", "", 7)] + [("on_preempt", text) for text in ("", ["x"], "a\0b")],
)
def test_what_is_no_hook_and_no_directory_is_refused(agent: Client, field: str, value: Any) -> None:
    assert agent.start(sh("a.1", "true", **{field: value}))["a.1"].startswith("bad-spec: ")

"""Old attempts and uploads go; an id that was used once is never started again, whatever is killed when."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Client, Host, sh, wait_for
from .test_crash import CHANGING, client_errors, has_strace, only_child, points, release, traced
from .test_rebuild import inventory


def forget(client: Client, *idents: str, age: float = 0) -> dict[str, str]:
    reply = client.call("forget", attempts=list(idents), age=age)
    assert reply.ok, reply
    return dict(reply["results"])


def trash_is_empty(host: Host) -> bool:
    return not list((host.home / "trash").iterdir())


def test_a_forgotten_attempt_is_gone_but_its_id_is_used_for_ever(host: Host, agent: Client, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    spec = sh("a.1", f"echo x >> {ledger}; mkdir -p deep/er; ln -s /etc deep/link; chmod 0 deep/er; chmod 500 deep")
    agent.run(spec)
    agent.call("cancel", attempts=["a.1"])
    agent.call("ack", attempts=["a.1"])
    assert forget(agent, "a.1") == {"a.1": "forgotten"}
    assert not (host.home / "attempts/a.1").exists()
    assert inventory(agent) == {}
    assert agent.call("read", attempt="a.1", stream="stdout").error_code == "unknown"
    wait_for(lambda: trash_is_empty(host))
    assert Path("/etc/passwd").exists()
    for client in (agent, host.attach(owner="other")):
        assert client.start(spec) == {"a.1": "forgotten"}
        assert client.call("cancel", attempts=["a.1"])["results"] == {"a.1": "ended"}
        assert client.call("revoke", attempts=["a.1"])["results"] == {"a.1": "too-late"}
    assert forget(agent, "a.1") == {"a.1": "forgotten"}
    host.crash(agent)
    again = host.attach()
    assert again.start(spec) == {"a.1": "forgotten"}
    assert list((host.home / "attempts").iterdir()) == []
    assert ledger.read_text() == "x\n"


def test_what_is_still_needed_is_not_forgotten(host: Host) -> None:
    agent = host.attach(resources={"cpus": 1, "memory": 0, "gpus": 0})
    agent.run(sh("a.1", "true"))
    agent.run(sh("a.2", "true"))
    agent.start(sh("a.3", "sleep 300"), sh("a.4", "true"))
    agent.running("a.3")
    other = host.attach(owner="other")
    agent.call("ack", attempts=["a.2"])
    assert forget(agent, "a.1", "a.3", "a.4", "a.5") == {
        "a.1": "not-acknowledged",
        "a.3": "not-ended",
        "a.4": "not-ended",
        "a.5": "unknown",
    }
    assert forget(agent, "a.2", age=3600) == {"a.2": "too-young"}
    assert forget(other, "a.2") == {"a.2": "another-owner"}
    assert set(inventory(agent)) == {"a.1", "a.2", "a.3", "a.4"}
    assert agent.call("forget", attempts=["../x"]).error_code == "bad-request"
    assert agent.call("forget", attempts=["a.1"], age="old").error_code == "bad-request"
    assert agent.call("forget", attempts=["a.1"] * 1001).error_code == "bad-request"
    newer = host.attach(epoch=2)
    assert agent.call("forget", attempts=["a.2"]).error_code == "fenced"
    assert forget(newer, "a.2") == {"a.2": "forgotten"}


def test_a_line_that_was_cut_short_forgets_nobody(host: Host, agent: Client) -> None:
    """`a.1` is where the line of `a.12` was cut."""
    agent.run(sh("a.1", "exit 3"))
    agent.call("ack", attempts=["a.1"])
    wait_for(lambda: b"a a.1\n" in (host.home / "journal").read_bytes())
    host.crash(agent)
    (host.home / "forgotten").write_bytes(b"\na.0 .\na.1")
    again = host.attach()
    assert set(inventory(again)) == {"a.1"}
    assert again.start(sh("a.0", "true")) == {"a.0": "forgotten"}
    assert again.start(sh("a.1", "exit 3")) == {"a.1": "duplicate"}
    again.call("ack", attempts=["a.1"])
    assert forget(again, "a.1") == {"a.1": "forgotten"}
    host.crash(again)
    assert host.attach().start(sh("a.1", "exit 3")) == {"a.1": "forgotten"}


def test_kept_children_of_a_forgotten_attempt_do_not_bring_it_back(host: Host, agent: Client) -> None:
    agent.run(sh("a.1", "sleep 300 &", keep_children=True))
    agent.call("ack", attempts=["a.1"])
    assert forget(agent, "a.1") == {"a.1": "forgotten"}
    wait_for(lambda: len(host.jobs()) == 1)
    host.crash(agent)
    again = host.attach()
    assert again.report() == {}
    assert again.start(sh("a.1", "true")) == {"a.1": "forgotten"}


def test_a_tree_too_deep_for_a_path_is_removed(host: Host, agent: Client) -> None:
    script = (
        "i=0; while [ $i -lt 60 ]; do mkdir " + "d" * 200 + " && cd " + "d" * 200 + " && echo x > f; i=$((i+1)); done"
    )
    agent.run(sh("a.1", script))
    agent.call("ack", attempts=["a.1"])
    assert forget(agent, "a.1") == {"a.1": "forgotten"}
    wait_for(lambda: trash_is_empty(host))


def test_uploads_that_nothing_uses_for_long_are_dropped(host: Host) -> None:
    env = {"CLOUDSEND_KEEP_UPLOADS": "0.2"}
    agent = host.attach(env=env)
    used, unused = agent.put(b"used"), agent.put(b"unused")
    agent.call("put", b"half", sha256="0" * 64, size_total=9, offset=0)
    agent.run(sh("a.1", "cat in", files=[{"path": "in", "sha256": used}], private_files=True))
    agent.run(sh("a.2", "true"))
    agent.call("ack", attempts=["a.1", "a.2"])
    wait_for(lambda: b"a a.2\n" in (host.home / "journal").read_bytes())

    def stored() -> set[str]:
        return {path.name for path in (host.home / "files").iterdir()}

    assert stored() == {used, unused, ".part-" + "0" * 64}
    begun = time.monotonic()
    agent.until(lambda: time.monotonic() - begun > 0.3)
    assert forget(agent, "a.2") == {"a.2": "forgotten"}
    # A client of this daemon was told that they are here.
    assert agent.call("missing", files=[used, unused])["missing"] == {}
    host.crash(agent)
    again = host.attach(env=env)
    wait_for(lambda: stored() == {used})
    assert again.call("missing", files=[unused])["missing"] == {unused: 0}
    assert forget(again, "a.1") == {"a.1": "forgotten"}
    host.crash(again)
    host.attach(env=env)
    wait_for(lambda: stored() == set())


@pytest.mark.skipif(not has_strace(), reason="strace is not there or not permitted")
def test_kill_9_of_the_daemon_at_every_step_of_forgetting(
    host: Host, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    ledger, log = tmp_path / "ledger", tmp_path / "trace"
    steps_of = CHANGING + ",rename,renameat,rmdir,fsync,fdatasync"

    def make(client: Client, *idents: str) -> None:
        client.start(*(spec_of(ident) for ident in idents))
        client.wait(*idents)
        client.call("cancel", attempts=list(idents))
        client.call("ack", attempts=list(idents))
        wait_for(lambda: f"a {idents[-1]}\n".encode() in (host.home / "journal").read_bytes())

    def spec_of(ident: str) -> dict:  # type: ignore[type-arg]
        return sh(ident, f"echo {ident} >> {ledger}; mkdir d")

    client = host.attach()
    make(client, "first")
    only_child(client.about["pid"])
    tracer = traced(client.about["pid"], "-e", "trace=" + steps_of, log=log)
    assert forget(client, "first") == {"first": "forgotten"}
    wait_for(lambda: trash_is_empty(host))
    release(tracer)
    outcomes: dict[str, int] = {}
    steps = points(log)
    make(client, *(f"k.{n}" for n in range(len(steps))))
    for n, (name, number) in enumerate(steps):
        spec = spec_of(f"k.{n}")
        inject = f"inject={name}:signal=SIGKILL:when={number}"
        tracer = traced(client.about["pid"], "-e", f"trace={name}", "-e", inject, log=log)
        try:
            asked = client.channel.request("forget", attempts=[f"k.{n}"], age=0)
            client.until(lambda: tracer.poll() is not None or (asked in client.replies and trash_is_empty(host)))  # noqa: B023
            client.call("ping")
        except (OSError, client_errors()):
            pass
        else:
            release(tracer)
            continue
        wait_for(lambda: tracer.poll() is not None)  # noqa: B023
        assert tracer.stderr is not None
        tracer.stderr.close()
        client.close()
        client = host.attach()
        answer = client.start(spec)[spec["id"]]
        assert answer in ("forgotten", "duplicate", "cancelled"), answer
        outcomes[answer] = outcomes.get(answer, 0) + 1
        assert (answer == "forgotten") != (host.home / "attempts" / spec["id"]).exists()
        client.call("ack", attempts=[spec["id"]])
        assert forget(client, spec["id"]) == {spec["id"]: "forgotten"}
        wait_for(lambda: trash_is_empty(host))
        assert client.start(spec) == {spec["id"]: "forgotten"}
    print(f"\nkill -9 while forgetting: {outcomes}")
    record_testsuite_property("kill points of forgetting", sum(outcomes.values()))
    assert sum(outcomes.values()) >= 10
    assert len(set(ledger.read_text().split())) == len(ledger.read_text().split())


def test_what_a_killed_daemon_left_in_the_trash_goes_at_the_next_start(host: Host, agent: Client) -> None:
    os.kill(agent.about["pid"], signal.SIGKILL)
    shutil.copytree(host.home / "envs", host.home / "trash/0123/deep")
    host.attach()
    wait_for(lambda: trash_is_empty(host))
